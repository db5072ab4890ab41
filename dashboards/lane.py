"""The lane: why it waits, what it runs, how that ends, and which commands are behind the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards import policies
from dashboards.board import Row, render
from dashboards.links import LANE
from dashboards.panels import (
    COUNT,
    PER_SECOND,
    RATIO,
    SECONDS,
    Query,
    Words,
    fact,
    graph,
    heat_map,
    number,
    objective,
    quantiles,
    ranking,
    watch,
    watch_now,
)
from dashboards.promql import highest, pick, quantile, rate, total
from lane_obs.metrics import catalogue as c

if TYPE_CHECKING:
    from dashboards.levels import Levels

_TYPED = ('command_type!=""',)
_OPT_IN = "Only where the metrics are told to tell command types apart (command_types); else there is nothing to show."


def text(rules: Levels) -> str:
    """The dashboard as JSON, with the levels of these rules."""
    about = "One lane, or several: why commands wait, how the slots are used, how commands end and what they cost."
    rows = [_now(rules), _waiting(rules), _backlog(rules), _slots(rules), policies.row(), _outcomes(rules)]
    rows += [_run_time(), _dead_letters(rules), *_objectives(rules)]
    return render(LANE, "lane_obs / Lane", about, "10s", rows)


def _now(rules: Levels) -> Row:
    ready = total(c.DEPTH, "lane", where=('state="ready"',))
    panels = [
        watch_now(
            Words("Ready", "Commands that wait to start.", rules["ready_depth"]),
            "lane",
        ),
        number(Words("Running", "Commands that run."), Query(total(c.ACTIVE, "lane"), "{{lane}}"), unit=COUNT),
        watch_now(
            Words("Oldest ready", "Age of the command that has been ready longest.", rules["oldest_ready_age"]),
            "lane",
        ),
        number(
            Words("Time to clear", "How long the ready commands would take at the rate of now, if no more came."),
            Query(f"{ready} / ({rate(c.FINISHED, 'lane')} > 0)", "{{lane}}"),
            unit=SECONDS,
            none="nothing ends",
        ),
        fact(
            Words("Last end", "When a command of the lane last ended."),
            Query(f"{highest(c.LAST_FINISH, 'lane')} * 1000 > 0", "{{lane}}"),
            unit="dateTimeFromNow",
            none="never",
        ),
        fact(
            Words("Priority", "The priority in force; 0 goes first."),
            Query(f"max by (lane, priority) ({pick(c.INFO)})", "{{lane}}: {{priority}}"),
            named=True,
        ),
    ]
    return Row("Now", panels)


def _waiting(rules: Levels) -> Row:
    panels = [
        heat_map(
            Words(
                "Wait",
                "How long commands had been ready when they first started; delays and back-offs left out. Each point "
                "is a command: its trace says what it waited for.",
            ),
            Query(rate(c.QUEUE_WAIT, "le", suffix="_bucket"), exemplar=True),
        ),
        graph(
            Words("Wait quantiles", "Half, 95 % and 99 % of the commands waited at most so long."),
            *quantiles(c.QUEUE_WAIT, "lane", 0.5, 0.95, 0.99, exemplar=True),
            unit=SECONDS,
        ).span(12),
        graph(
            Words(
                "Wait by cause",
                "Time in which the lane had ready work and could not start it, as a share of all time: no free slot, a "
                "more important lane, a pause, a rate limit, or commands of the same partitions. 100 % is one instance "
                "blocked all the time.",
            ),
            Query(rate(c.BLOCKED, "lane", "cause"), "{{lane}} {{cause}}"),
            unit=RATIO,
            stacked=True,
        ),
        watch(
            Words("Wait p99", "99 % of the commands waited at most so long.", rules["wait_p99"]),
            "lane",
            exemplar=True,
        ),
        watch(
            Words("Passed over", "Share of time in which a more important lane went first.", rules["starvation"]),
            "lane",
        ),
    ]
    return Row("Waiting", panels)


def _backlog(rules: Levels) -> Row:
    panels = [
        graph(
            Words("Depth by state", "All that waits: ready, delayed, and backing off before another attempt."),
            Query(total(c.DEPTH, "lane", "state"), "{{lane}} {{state}}"),
            unit=COUNT,
            stacked=True,
        ),
        watch(
            Words("Ready commands", "Commands that wait to start.", rules["ready_depth"]),
            "lane",
        ),
        watch(
            Words("Oldest ready age", "Age of the command that has been ready longest.", rules["oldest_ready_age"]),
            "lane",
        ),
        watch(
            Words(
                "Stalled",
                "Age of the oldest ready command while nothing ends. Empty unless the lane stands still.",
                rules["stall"],
            ),
            "lane",
            none="Not stalled",
        ),
        graph(
            Words("Submits and ends", "Commands taken in and commands that ended, by the second."),
            Query(rate(c.SUBMITTED, "lane"), "{{lane}} submitted"),
            Query(rate(c.FINISHED, "lane"), "{{lane}} ended"),
            unit=PER_SECOND,
        ),
        graph(
            Words("Refused", "Submits that were refused, by the second: a full lane, or a shutdown."),
            Query(rate(c.REJECTED, "lane", "reason"), "{{lane}} {{reason}}"),
            unit=PER_SECOND,
        ),
    ]
    return Row("Backlog", panels)


def _slots(rules: Levels) -> Row:
    panels = [
        graph(
            Words("Slots", "Commands that run, the most that may, and the slots kept free for the lane."),
            Query(total(c.ACTIVE, "lane"), "{{lane}} running"),
            Query(total(c.LIMIT, "lane"), "{{lane}} limit"),
            Query(total(c.RESERVED, "lane"), "{{lane}} reserved"),
            unit=COUNT,
        ),
        watch(
            Words(
                "Slots in use",
                "Share of the lane's slots that are taken at the moment of the scrape.",
                rules["saturation"],
            ),
            "lane",
        ),
        graph(
            Words(
                "Slots in use, on average",
                "Run time of the attempts that ended, by the second, as a share of the limit. Long attempts count when "
                "they end: it may be above 100 % then.",
            ),
            Query(f"{rate(c.BUSY, 'lane')} / {total(c.LIMIT, 'lane')}", "{{lane}}"),
            unit=RATIO,
        ),
        watch(
            Words("Stuck", "Running commands that ignore their cancellation: their slots are gone.", rules["stuck"]),
            "lane",
        ),
        graph(
            Words("Oldest running", "How long the longest-running attempt has been running."),
            Query(highest(c.OLDEST_ACTIVE, "lane"), "{{lane}}"),
            unit=SECONDS,
        ),
    ]
    return Row("Slots", panels)


def _outcomes(rules: Levels) -> Row:
    panels = [
        graph(
            Words("Ends by outcome", "How commands ended for good, by the second."),
            Query(rate(c.FINISHED, "lane", "outcome"), "{{lane}} {{outcome}}"),
            unit=PER_SECOND,
            stacked=True,
        ),
        watch(
            Words(
                "Error ratio",
                "Failed, timed out or expired, of all that ended but cancelled ones.",
                rules["error_ratio"],
            ),
            "lane",
        ),
        graph(
            Words("Attempts by outcome", "How attempts ended, by the second. More attempts than ends: retries."),
            Query(rate(c.ATTEMPTS, "lane", "outcome"), "{{lane}} {{outcome}}"),
            unit=PER_SECOND,
            stacked=True,
        ),
        watch(
            Words("Time-outs", "Share of the attempts that ran into the lane's timeout.", rules["timeout_ratio"]),
            "lane",
        ),
        graph(
            Words("Retries by reason", "Attempts that failed and are followed by another, by the second."),
            Query(rate(c.RETRIES, "lane", "reason"), "{{lane}} {{reason}}"),
            unit=PER_SECOND,
            stacked=True,
        ),
        watch(
            Words("Retry ratio", "Share of the attempts that another one follows.", rules["retry_ratio"]),
            "lane",
        ),
    ]
    return Row("Outcomes", panels)


def _run_time() -> Row:
    by_type = quantile(0.95, c.DURATION, "command_type", where=_TYPED, window="range")
    spent = rate(c.DURATION, "command_type", where=_TYPED, suffix="_sum", window="range")
    panels = [
        heat_map(
            Words("Run time", "How long attempts ran. Each point is a command, with its trace."),
            Query(rate(c.DURATION, "le", suffix="_bucket"), exemplar=True),
        ),
        graph(
            Words("Run time quantiles", "Half, 95 % and 99 % of the attempts ran at most so long."),
            *quantiles(c.DURATION, "lane", 0.5, 0.95, 0.99, exemplar=True),
            unit=SECONDS,
        ).span(12),
        graph(
            Words("End to end quantiles", "From submit to the end, delays, waits and retries included."),
            *quantiles(c.END_TO_END, "lane", 0.5, 0.95, exemplar=True),
            unit=SECONDS,
        ),
        ranking(
            Words("Slowest command types", f"Run time p95 of each type of command over the time shown. {_OPT_IN}"),
            Query(f"topk(10, {by_type})", "{{command_type}}"),
            unit=SECONDS,
            none="Command types are not told apart",
        ),
        ranking(
            Words(
                "Command types by slots", f"How many slots each type of command takes, over the time shown. {_OPT_IN}"
            ),
            Query(f"topk(10, {spent})", "{{command_type}}"),
            unit=COUNT,
            none="Command types are not told apart",
        ),
    ]
    return Row("Run time", panels)


def _dead_letters(rules: Levels) -> Row:
    panels = [
        watch(
            Words("New dead letters", "Commands given up after their last attempt, or expired.", rules["dead_letters"]),
            "lane",
        ),
        graph(
            Words("Dead letters kept", "Dead letters that can be looked at and requeued."),
            Query(total(c.DEAD_LETTERS, "lane"), "{{lane}}"),
            unit=COUNT,
        ),
        graph(
            Words(
                "Dead letters that went",
                "Those that gave way to newer ones, and those that were requeued, by the second.",
            ),
            Query(rate(c.EVICTED, "lane"), "{{lane}} evicted"),
            Query(rate(c.REQUEUED, "lane"), "{{lane}} requeued"),
            unit=PER_SECOND,
        ),
    ]
    return Row("Dead letters", panels)


def _objectives(rules: Levels) -> list[Row]:
    """A row for the objectives, where there are any."""
    panels = [objective(watched).span(12) for watched in rules.objectives()]
    return [Row("Objectives", panels)] if panels else []
