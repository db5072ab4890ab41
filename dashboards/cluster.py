"""The rows about a queue that many processes share: the whole of it, and the link of each process to its broker.

One process at a time exports what is about the whole queue: of several values of one series the highest is shown, as
two may overlap where another process takes that over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.board import Row
from dashboards.panels import COUNT, PER_SECOND, SECONDS, Query, Words, fact, graph, quantiles, watch
from dashboards.promql import fastest, highest, pick, process, rate
from lane_obs.metrics import catalogue as c
from lane_obs.metrics.supervised import WORKER_RESTARTS, WORKER_SCRAPE_FAILURES, WORKER_UP

if TYPE_CHECKING:
    from dashboards.levels import Levels

_NONE = "No broker"


def whole(rules: Levels) -> Row:
    """Of the overview: the whole queue."""
    panels = [
        watch(
            Words(
                "Oldest ready at the broker",
                "Age of the command that has been ready at the broker longest, of all lanes.",
                rules["cluster_oldest_ready_age"],
            ),
            "queue",
            none=_NONE,
        ),
        graph(
            Words("Oldest ready at the broker by lane", "Age of each lane's longest-ready command."),
            Query(highest(c.CLUSTER_OLDEST, "lane"), "{{lane}}"),
            unit=SECONDS,
            none=_NONE,
        ),
        graph(
            Words("Waiting at the broker", "All that waits: ready, delayed, and backing off before another attempt."),
            Query(highest(c.CLUSTER_DEPTH, "lane", "state"), "{{lane}} {{state}}"),
            unit=COUNT,
            stacked=True,
            none=_NONE,
        ),
        graph(
            Words("Running in all processes", "Commands that run, and the most that may, by lane."),
            Query(highest(c.CLUSTER_ACTIVE, "lane"), "{{lane}}"),
            Query(highest(c.CLUSTER_LIMIT, "lane"), "{{lane}} limit"),
            unit=COUNT,
            none=_NONE,
        ),
        graph(
            Words("Slots of all workers", "Commands that all workers would run at once, and those that run."),
            Query(highest(c.CLUSTER_SLOTS, "queue"), "{{queue}} slots"),
            Query(f"sum by (queue) ({highest(c.CLUSTER_ACTIVE, 'queue', 'lane')})", "{{queue}} running"),
            unit=COUNT,
            none=_NONE,
        ),
        graph(
            Words("Members", "Processes that use the broker: workers, and those that only submit."),
            Query(highest(c.CLUSTER_MEMBERS, "queue", "role"), "{{queue}} {{role}}"),
            unit=COUNT,
            none=_NONE,
        ),
        watch(
            Words(
                "Ready without a worker",
                "Commands that are ready while no process runs any. Empty while there is a worker.",
                rules["unserved"],
            ),
            "queue",
            none="There are workers, or no broker",
        ),
        graph(
            Words("Taken in and ended", "Commands that the broker took in, and that ended, by the second."),
            Query(fastest(c.CLUSTER_SUBMITTED, "queue"), "{{queue}} taken in"),
            Query(fastest(c.CLUSTER_ENDED, "queue", "state"), "{{queue}} {{state}}"),
            unit=PER_SECOND,
            none=_NONE,
        ),
        graph(
            Words("Paused lanes", "1 while a lane is paused for all processes."),
            Query(highest(c.CLUSTER_PAUSED, "lane"), "{{lane}}"),
            unit=COUNT,
            none=_NONE,
        ),
        watch(
            Words(
                "Commands returned",
                "Commands that became ready again, as whoever ran them lost the lease: they may run twice.",
                rules["returned"],
            ),
            "queue",
            "instance",
            none=_NONE,
        ),
        graph(
            Words("Leases lost", "Leases lost that made a command ready again, by the second."),
            Query(fastest(c.CLUSTER_RETURNED, "queue"), "{{queue}}"),
            unit=PER_SECOND,
            none=_NONE,
        ),
        graph(
            Words(
                "Dead letters at the broker", "Dead letters kept; and those that gave way to newer ones, by the second."
            ),
            Query(highest(c.CLUSTER_LETTERS, "lane"), "{{lane}}"),
            Query(fastest(c.CLUSTER_EVICTED, "queue"), "{{queue}} gave way"),
            unit=COUNT,
            none=_NONE,
        ),
    ]
    return Row("Shared queue", panels)


def link(rules: Levels) -> Row:
    """Of the dashboard of a process: its link to the broker."""
    turns = rate(c.BROKER_TURN, "instance", suffix="_count")
    panels = [
        watch(
            Words("Broker down", "1 while the link to the broker is lost.", rules["broker_down"]),
            "instance",
            none=_NONE,
        ),
        graph(
            Words("Links lost", "How often the link to the broker was lost, by the second."),
            Query(rate(c.BROKER_FAILURES, "instance"), "{{instance}}"),
            unit=PER_SECOND,
            none=_NONE,
        ),
        graph(
            Words("Exchange with the broker", "How long an exchange of ends for new work takes: half, and 99 %."),
            *quantiles(c.BROKER_TURN, "instance", 0.5, 0.99),
            unit=SECONDS,
            none=_NONE,
        ),
        graph(
            Words("Attempts in an exchange", "Attempts that ended for each exchange with the broker, on average."),
            Query(f"{rate(c.ATTEMPTS, 'instance')} / ({turns} > 0)", "{{instance}}"),
            unit=COUNT,
            none=_NONE,
        ),
        graph(
            Words(
                "Lost leases of a process",
                "Leases that the process lost on what it ran, and ends that were refused since, by the second.",
            ),
            Query(rate(c.LEASES_LOST, "instance"), "{{instance}} lost"),
            Query(rate(c.STALE, "instance"), "{{instance}} refused"),
            unit=PER_SECOND,
            none=_NONE,
        ),
        graph(
            Words("Returned by lane", "Commands that became ready again, by the second, as their lease was lost."),
            Query(rate(c.RETURNED, "lane"), "{{lane}}"),
            unit=PER_SECOND,
            none=_NONE,
        ),
        graph(
            Words(
                "Passed on",
                "Claimed commands that the process left to others, by what it does not know of them, by the second: "
                "old workers in a rolling upgrade, or commands that no worker knows.",
            ),
            Query(rate(c.PASSED_ON, "instance", "reason"), "{{instance}} {{reason}}"),
            unit=PER_SECOND,
            none=_NONE,
        ),
        fact(
            Words("Worker", "The process's id at the broker; log lines and spans have it as the worker."),
            Query(f"max by (instance, worker) ({pick(c.WORKER_INFO)})", "{{worker}}"),
            named=True,
            none=_NONE,
        ),
        fact(
            Words("Leads", "1 for the process that exports what is about the whole queue."),
            Query(highest(c.BROKER_LEADS, "instance"), "{{instance}}"),
            unit=COUNT,
            none=_NONE,
        ),
    ]
    return Row("Broker", panels)


def supervised() -> Row:
    """Of the dashboard of a process: those that `lane-obs worker` keeps running."""
    none = "No lane-obs worker"
    panels = [
        graph(
            Words("Processes up", "1 for each process of a worker that has its queue started, else 0."),
            Query(process(WORKER_UP.name), "{{instance}} {{process}}"),
            unit=COUNT,
            none=none,
        ),
        graph(
            Words("Processes replaced", "Processes that died or were rolled and got a successor, by the second."),
            Query(process(WORKER_RESTARTS.name, "rate"), "{{instance}} {{process}} {{reason}}"),
            unit=PER_SECOND,
            none=none,
        ),
        graph(
            Words(
                "Processes without an answer",
                "Scrapes to which a process gave no answer, by the second: its gauges are missing in those.",
            ),
            Query(process(WORKER_SCRAPE_FAILURES.name, "rate"), "{{instance}} {{process}}"),
            unit=PER_SECOND,
            none=none,
        ),
    ]
    return Row("Worker", panels)
