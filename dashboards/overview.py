"""The overview: all lanes beside each other, what fires, and whether the telemetry itself is well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards import cluster
from dashboards.board import Row, render
from dashboards.links import OVERVIEW
from dashboards.panels import (
    COUNT,
    PER_SECOND,
    SECONDS,
    Query,
    Words,
    graph,
    number,
    sheet,
    states,
    watch,
    watch_now,
)
from dashboards.promql import (
    ALERT,
    alert_states,
    highest,
    increase,
    pick,
    quantile,
    rate,
    reached,
    total,
)
from lane_obs.metrics import catalogue as c

if TYPE_CHECKING:
    from dashboards.levels import Levels

_READY = ('state="ready"',)


def text(rules: Levels) -> str:
    """The dashboard as JSON, with the levels of these rules."""
    about = (
        "All lanes of the chosen queues: load, errors and durations, what waits, what fires, what telemetry was lost."
    )
    rows = [_now(rules), _lanes(), _alerts(), _load(rules), _backlog(rules), _trouble(rules), cluster.whole(rules)]
    rows += [_telemetry(rules)]
    return render(OVERVIEW, "lane_obs / Overview", about, "30s", rows)


def _now(rules: Levels) -> Row:
    firing = f'count (ALERTS{{alertstate="firing", {ALERT}}}) or vector(0)'
    panels = [
        number(
            Words("Submitted", "Commands taken in, by the second, all lanes together."),
            Query(rate(c.SUBMITTED), "submitted"),
            unit=PER_SECOND,
        ),
        number(
            Words("Ended", "Commands that ended, however they did, by the second, all lanes together."),
            Query(rate(c.FINISHED), "ended"),
            unit=PER_SECOND,
        ),
        watch_now(
            Words("Worst error ratio", "The lane with the largest share of bad ends.", rules["error_ratio"]),
            none="nothing ended",
        ),
        watch_now(
            Words("Worst ready age", "The lane whose oldest ready command waits longest.", rules["oldest_ready_age"]),
        ),
        watch_now(
            Words("Worst wait p99", "The lane with the longest waits.", rules["wait_p99"]),
            none="nothing started",
        ),
        number(
            Words(
                "Alerts firing",
                "Alerts of the monitor inside the program, and those of Prometheus where the rules are loaded.",
            ),
            Query(f"sum ({alert_states()} > bool 0)", "monitor"),
            Query(firing, "Prometheus"),
        ),
    ]
    return Row("Now", panels)


def _lanes() -> Row:
    columns = {
        "ready": (total(c.DEPTH, "lane", where=_READY), COUNT),
        "oldest ready": (highest(c.OLDEST_READY, "lane"), SECONDS),
        "running": (total(c.ACTIVE, "lane"), COUNT),
        "limit": (total(c.LIMIT, "lane"), COUNT),
        "submitted": (rate(c.SUBMITTED, "lane", window="range"), PER_SECOND),
        "ended": (rate(c.FINISHED, "lane", window="range"), PER_SECOND),
        "wait p95": (quantile(0.95, c.QUEUE_WAIT, "lane", window="range"), SECONDS),
        "run time p95": (quantile(0.95, c.DURATION, "lane", window="range"), SECONDS),
        "dead letters": (total(c.DEAD_LETTERS, "lane"), COUNT),
    }
    words = Words(
        "Lanes",
        "One row for each lane: depths and limits of now, rates and quantiles over the time shown. The lane's name "
        "leads to its dashboard. Priority 0 goes first.",
    )
    return Row("Lanes", [sheet(words, "lane", f"max by (lane, priority) ({pick(c.INFO)})", columns)])


def _alerts() -> Row:
    critical, warning = (
        f'ALERTS{{alertstate="firing", severity="{severity}", {ALERT}}}' for severity in ("critical", "warning")
    )
    panels = [
        states(
            Words(
                "Alerts of the monitor",
                "When which alert of the monitor inside the program fired, and how badly. Empty while all is well.",
            ),
            Query(f"max by (alert, lane) ({alert_states()}) > 0", "{{alert}} {{lane}}"),
            none="All is well, or no monitor runs",
        ),
        states(
            Words(
                "Alerts of Prometheus",
                "When which alert of Prometheus fired, and how badly. Empty while all is well, and where the rules of "
                "lane-obs-alerts.yml are not loaded.",
            ),
            Query(f"max by (alertname, lane) ({critical} * 2 or {warning})", "{{alertname}} {{lane}}"),
            none="All is well, or no rules are loaded",
        ),
    ]
    return Row("Alerts", panels)


def _load(rules: Levels) -> Row:
    panels = [
        graph(
            Words("Submits by lane", "Commands taken in, by the second. Dead letters that were requeued count again."),
            Query(rate(c.SUBMITTED, "lane"), "{{lane}}"),
            unit=PER_SECOND,
        ),
        graph(
            Words(
                "Ends by lane",
                "Commands that ended, by the second, however they did. Below the submits: work piles up.",
            ),
            Query(rate(c.FINISHED, "lane"), "{{lane}}"),
            unit=PER_SECOND,
        ),
        watch(
            Words(
                "Error ratio by lane",
                "Failed, timed out or expired, of all that ended but cancelled ones.",
                rules["error_ratio"],
            ),
            "lane",
        ),
        graph(
            Words("Wait p95 by lane", "How long 95 % of the commands had been ready at most when they first started."),
            Query(quantile(0.95, c.QUEUE_WAIT, "lane"), "{{lane}}", exemplar=True),
            unit=SECONDS,
        ),
        graph(
            Words("Run time p95 by lane", "How long 95 % of the attempts ran at most."),
            Query(quantile(0.95, c.DURATION, "lane"), "{{lane}}", exemplar=True),
            unit=SECONDS,
        ),
        graph(
            Words(
                "End to end p95 by lane", "From submit to the end of 95 % of the commands, delays and retries included."
            ),
            Query(quantile(0.95, c.END_TO_END, "lane"), "{{lane}}", exemplar=True),
            unit=SECONDS,
        ),
    ]
    return Row("Rate, errors, duration", panels)


def _backlog(rules: Levels) -> Row:
    panels = [
        watch(
            Words(
                "Ready by lane",
                "Commands that wait to start, without delayed and backing-off ones.",
                rules["ready_depth"],
            ),
            "lane",
        ),
        graph(
            Words("Waiting by state", "All that waits: ready, delayed, and backing off before another attempt."),
            Query(total(c.DEPTH, "lane", "state"), "{{lane}} {{state}}"),
            unit=COUNT,
            stacked=True,
        ),
        watch(
            Words(
                "Oldest ready by lane",
                "Age of the command that has been ready longest. Depth may look harmless while this grows.",
                rules["oldest_ready_age"],
            ),
            "lane",
        ),
        watch(
            Words("Waiting in the whole queue", "All that waits in all lanes, of each instance.", rules["pending"]),
            "queue",
            "instance",
        ),
        watch(
            Words("Running in the whole queue", "All that runs in all lanes, of each instance.", rules["active"]),
            "queue",
            "instance",
        ),
        graph(
            Words("Running by lane", "Commands that run."),
            Query(total(c.ACTIVE, "lane"), "{{lane}}"),
            unit=COUNT,
        ),
    ]
    return Row("Backlog", panels)


def _trouble(rules: Levels) -> Row:
    panels = [
        watch(
            Words(
                "New dead letters by lane",
                "Commands given up after their last attempt, or expired.",
                rules["dead_letters"],
            ),
            "lane",
        ),
        graph(
            Words("Dead letters kept", "Dead letters that can be looked at and requeued."),
            Query(total(c.DEAD_LETTERS, "lane"), "{{lane}}"),
            unit=COUNT,
            stacked=True,
        ),
        graph(
            Words(
                "Refused submits", "Submits that were refused, by the second: a full lane, a shutdown, an unknown lane."
            ),
            Query(rate(c.REJECTED, "lane", "reason"), "{{lane}} {{reason}}"),
            unit=PER_SECOND,
        ),
    ]
    return Row("Trouble", panels)


def _telemetry(rules: Levels) -> Row:
    panels = [
        watch(
            Words(
                "Events lost", "Events that sinks lost: logs, spans or metrics are missing.", rules["telemetry_drops"]
            ),
            "queue",
            "instance",
        ),
        graph(
            Words("Sink lag p99", "From the oldest event of a batch until the sink was done with it."),
            Query(quantile(0.99, c.SINK_LAG, "sink"), "{{sink}}"),
            unit=SECONDS,
        ),
        graph(
            Words("Sink failures", "Batches at which a sink failed, by the second."),
            Query(rate(c.SINK_ERRORS, "sink"), "{{sink}}"),
            unit=PER_SECOND,
        ),
        number(
            Words("Sinks cut off", "Sinks that kept failing and get no more events until the program starts anew."),
            Query(total(c.SINK_DISABLED), "cut off"),
        ),
        number(
            Words("Notifications", "Notifications of alerts in the time shown, by what became of them."),
            Query(increase(c.NOTIFICATIONS, "outcome"), "{{outcome}}"),
            none="no notifier",
        ),
        number(
            Words("Scraped", "Instances that Prometheus reaches, and those it does not."),
            Query(f"sum ({reached()})", "up"),
            Query(f"sum (1 - ({reached()}))", "down"),
        ),
    ]
    return Row("Telemetry", panels)
