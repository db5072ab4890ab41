"""Everything that a rule can watch: what it is, how it is worked out, and what to say about it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from lane_obs.alerts.expression import Gauge, Leaf, Rate, Ratio, While
from lane_obs.alerts.histogram import Quantile
from lane_obs.core.histogram import QUICK_BOUNDS
from lane_obs.metrics import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs.alerts.expression import Expression, Per


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One thing that a rule can watch.

    Args:
        name: as rules name it.
        title: how the name of its alert goes on after `Lane` or `Queue`.
        what: what it is, as the start of a sentence.
        build: makes the expression; gets the window in seconds and the least rate a second.
        unit: `seconds`, `ratio`, or nothing for a count.
        pers: whether it is to be had by lane, for the queue, or both; the first is the default.
        window: seconds it looks back, by default; `None` when it does not.
        min_rate: more than this must happen each second before the measure says anything, by default; `None` when it
            needs nothing to happen.
        top: what it never rises above, with the bounds that its histogram has by default; `None` for no such limit.
        cause: what it means when it is high, and what to look at: for the runbook.
        remedy: what to do about it: for the runbook.
    """

    name: str
    title: str
    what: str
    build: Callable[[float, float], Expression]
    unit: str = ""
    pers: tuple[Per, ...] = ("lane", "queue")
    window: float | None = None
    min_rate: float | None = None
    top: float | None = None
    cause: str
    remedy: str


def _per_state(*states: str) -> Leaf:
    return Leaf(catalogue.DEPTH, (("state", states),))


def _ended(metric: catalogue.Metric, *outcomes: str) -> Leaf:
    return Leaf(metric, (("outcome", outcomes),))


_FINISHED: Final = Leaf(catalogue.FINISHED)
_ATTEMPTS: Final = Leaf(catalogue.ATTEMPTS)
JUDGED: Final = ("ok", "error", "timeout", "expired")
"""The outcomes that count. A cancelled command is neither a success nor a failure: nobody wants it any more."""
BAD: Final = ("error", "timeout", "expired")
"""Those that count as failures."""


def _share(part: Leaf, whole: Leaf) -> Callable[[float, float], Expression]:
    return lambda window, least: Ratio(Rate(part, window), Rate(whole, window), least)


MEASURES: Final = {
    measure.name: measure
    for measure in (
        Measure(
            name="ready_depth",
            title="ReadyDepthHigh",
            what="ready commands that wait to start",
            build=lambda _window, _least: Gauge(_per_state("ready")),
            cause="More is submitted than the lane can run, or its commands have become slower.",
            remedy="Compare the rate of submits with the rate of ends, and the run times with those of yesterday. "
            "Raise max_concurrency if what the commands call can take more; else slow the submitters down with "
            "max_pending.",
        ),
        Measure(
            name="pending",
            title="PendingHigh",
            what="commands that wait: ready, delayed and backing off",
            build=lambda _window, _least: Gauge(_per_state("ready", "delayed", "backoff")),
            pers=("queue", "lane"),
            cause="Work piles up; delayed and backing-off commands are part of it.",
            remedy="Look at the depth by state first: much in `backoff` means failing commands, much in `ready` too "
            "little concurrency, much in `delayed` may be as intended.",
        ),
        Measure(
            name="active",
            title="ActiveHigh",
            what="commands that run",
            build=lambda _window, _least: Gauge(Leaf(catalogue.ACTIVE)),
            pers=("queue", "lane"),
            cause="More runs at once than was expected.",
            remedy="Look at the run times: slow commands hold their slots longer. Bound it with max_concurrency.",
        ),
        Measure(
            name="saturation",
            title="Saturated",
            what="share of the lane's slots in use",
            build=lambda _window, _least: Ratio(Gauge(Leaf(catalogue.ACTIVE)), Gauge(Leaf(catalogue.LIMIT))),
            unit="ratio",
            pers=("lane",),
            cause="The lane has no slot left to take a burst with.",
            remedy="Raise max_concurrency or make commands shorter; check that none of them is stuck.",
        ),
        Measure(
            name="oldest_ready_age",
            title="OldestReadyAgeHigh",
            what="age of the command that has been ready for the longest time",
            build=lambda _window, _least: Gauge(Leaf(catalogue.OLDEST_READY, fold="max")),
            unit="seconds",
            cause="Ready work is not started: no slot, a more important lane, or a pause. Delays and back-offs do "
            "not count.",
            remedy="Ask `manager.explain(id)` or the panel of waits by cause what blocks the lane, and relieve that: "
            "more slots, a reservation (min_concurrency), or the end of the pause.",
        ),
        Measure(
            name="wait_p99",
            title="WaitP99High",
            what="99th percentile of the wait before the first start",
            build=lambda window, _least: Quantile(Leaf(catalogue.QUEUE_WAIT), 0.99, window),
            unit="seconds",
            window=300.0,
            top=catalogue.BUCKETS[-1],
            cause="Commands that did start had waited long.",
            remedy="Split the wait by cause on the lane's dashboard: slots ask for concurrency, priority for a "
            "reservation.",
        ),
        Measure(
            name="error_ratio",
            title="ErrorRatioHigh",
            what="share of ended commands that failed, timed out or expired, cancelled ones left out",
            build=_share(_ended(catalogue.FINISHED, *BAD), _ended(catalogue.FINISHED, *JUDGED)),
            unit="ratio",
            window=300.0,
            min_rate=0.02,
            cause="Commands end badly for good: retries, if there are any, did not help.",
            remedy="Read the log lines of `queue.command.failed` for the lane, or follow an exemplar into its trace; "
            "the dead letters keep the errors.",
        ),
        Measure(
            name="timeout_ratio",
            title="TimeoutRatioHigh",
            what="share of attempts that timed out",
            build=_share(_ended(catalogue.ATTEMPTS, "timeout"), _ATTEMPTS),
            unit="ratio",
            window=300.0,
            min_rate=0.02,
            cause="What the commands call has become slower than the lane's timeout, or hangs.",
            remedy="Compare run times with the timeout. If the callee is slow, fewer at once may help it more than a "
            "longer timeout.",
        ),
        Measure(
            name="retry_ratio",
            title="RetryStorm",
            what="share of attempts that failed and are tried again",
            build=_share(Leaf(catalogue.RETRIES), _ATTEMPTS),
            unit="ratio",
            window=300.0,
            min_rate=0.02,
            cause="Most of what runs are repetitions: retries keep a callee down that has fallen.",
            remedy="Find out what fails; pause the lane while it is down; lengthen the back-off or lower the number "
            "of attempts.",
        ),
        Measure(
            name="dead_letters",
            title="DeadLettersGrowing",
            what="commands that became dead letters in the window",
            build=lambda window, _least: Rate(Leaf(catalogue.DEAD_LETTERED), window, in_all=True),
            window=600.0,
            cause="Commands were given up: after their last attempt, at their deadline, or in a full lane for newer "
            "ones.",
            remedy="Look at the dead letters' errors, mend the cause, and requeue them.",
        ),
        Measure(
            name="starvation",
            title="Starved",
            what="share of the time in which ready work was passed over for a more important lane",
            build=lambda window, _least: Rate(Leaf(catalogue.BLOCKED, (("cause", ("priority",)),)), window),
            unit="ratio",
            pers=("lane",),
            window=300.0,
            cause="More important lanes take every slot there is.",
            remedy="Reserve slots for the lane with min_concurrency, raise the queue's max_concurrency, or bound the "
            "important lanes.",
        ),
        Measure(
            name="stall",
            title="Stalled",
            what="age of the longest-ready command while no command of the lane ended in the window",
            build=lambda window, _least: While(
                Gauge(Leaf(catalogue.OLDEST_READY, fold="max")), Rate(_FINISHED, window, in_all=True)
            ),
            unit="seconds",
            window=300.0,
            cause="There is work and nothing finishes: all slots hang, the lane is paused, or the loop is blocked.",
            remedy="Look at the age of the longest-running attempt and at stuck commands; give the lane a timeout; "
            "resume it if it is paused.",
        ),
        Measure(
            name="stuck",
            title="CommandsStuck",
            what="running commands that ignore their cancellation",
            build=lambda _window, _least: Gauge(Leaf(catalogue.STUCK)),
            cause="A command swallows its cancellation, or a thread cannot be stopped: its slot is gone.",
            remedy="The event `queue.command.stuck` names the command; let its code pass CancelledError on. Only a "
            "restart frees the slot.",
        ),
        Measure(
            name="loop_lag",
            title="EventLoopLag",
            what="99th percentile of the event loop's lag",
            build=lambda window, _least: Quantile(Leaf(catalogue.LOOP_LAG), 0.99, window),
            unit="seconds",
            pers=("queue",),
            window=300.0,
            top=QUICK_BOUNDS[-1],
            cause="Something computes or blocks on the event loop: every lane of this process is late.",
            remedy="The event `queue.loop.blocked` has the command and its stack; run that work in a thread (a plain "
            "function) or a process.",
        ),
        Measure(
            name="telemetry_drops",
            title="TelemetryDropping",
            what="events that sinks lost in the window",
            build=lambda window, _least: Rate(Leaf(catalogue.SINK_DROPPED), window, in_all=True),
            pers=("queue",),
            window=300.0,
            cause="A sink fails or cannot keep up: logs, spans or metrics are missing.",
            remedy="`lane_sink_dropped_total` names the sink and the reason: a receiver that is away, a full buffer, "
            "or a sink that was cut off.",
        ),
        Measure(
            name="storage_failed",
            title="StorageFailed",
            what="storages that cannot commit",
            build=lambda _window, _least: Gauge(Leaf(catalogue.STORAGE_FAILED)),
            pers=("queue",),
            cause="The disk is full, read-only or gone, or the file is damaged: durable submits fail.",
            remedy="The event `queue.storage.failed` has the path and the cause. The queue goes on by itself once the "
            "disk works again; a damaged file needs `lane-obs repair`.",
        ),
        Measure(
            name="broker_down",
            title="BrokerDown",
            what="links to a broker that are lost",
            build=lambda _window, _least: Gauge(Leaf(catalogue.BROKER_DOWN)),
            pers=("queue",),
            cause="The process cannot reach its broker: it starts nothing, and submits fail.",
            remedy="The event `queue.broker.down` says why. Where all processes say it, look at the server or its "
            "failover, else at the network of this one. The queue goes on by itself.",
        ),
        Measure(
            name="returned",
            title="CommandsReturned",
            what="commands that became ready again in the window, as their lease was lost",
            build=lambda window, _least: Rate(Leaf(catalogue.RETURNED), window, in_all=True),
            pers=("queue", "lane"),
            window=600.0,
            cause="A process died or hung for longer than its lease; what it ran may have run twice.",
            remedy="The event `queue.command.returned` names the process and the commands. Look whether it was killed "
            "for its memory, stopped, or cut off; one command that kills each process becomes a dead letter.",
        ),
        Measure(
            name="cluster_oldest_ready_age",
            title="ClusterOldestReadyAgeHigh",
            what="age of the command that has been ready at the broker for the longest time",
            build=lambda _window, _least: Gauge(Leaf(catalogue.CLUSTER_OLDEST, fold="max")),
            unit="seconds",
            pers=("queue", "lane"),
            cause="No process takes it: all slots are in use, the lane is full, paused or held back, or it has no "
            "worker.",
            remedy="Compare what runs with the slots of all workers and with the lane's limit. Start more workers, "
            "or raise max_concurrency, or resume the lane.",
        ),
        Measure(
            name="unserved",
            title="NoWorker",
            what="commands that are ready at the broker while no process runs any",
            build=lambda _window, _least: While(
                Gauge(Leaf(catalogue.CLUSTER_DEPTH, (("state", ("ready",)),))),
                Gauge(Leaf(catalogue.CLUSTER_MEMBERS, (("role", ("worker",)),))),
            ),
            pers=("queue",),
            cause="All workers are gone, or were never started.",
            remedy="Start workers (`lane-obs worker module:app`); look why those that there were have ended.",
        ),
    )
}
"""What rules can watch, by name."""
