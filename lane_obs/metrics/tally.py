"""Folds facts into plain numbers: what the events say about one queue, at a fraction of a microsecond each."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

from lane_obs import events
from lane_obs.core.fact import completed, started, submitted, told, traced
from lane_obs.core.histogram import QUICK_BOUNDS, Histogram
from lane_obs.core.wait import part_between
from lane_obs.metrics.catalogue import (
    NOTIFIED,
    OTHER_TYPE,
    OUTCOMES,
    REJECT_REASONS,
    RETRY_REASONS,
    UNKNOWN_LANE,
    UNKNOWN_REASONS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lane_obs.core.fact import Fact
    from lane_obs.events import LaneEvent, TraceIds

_UNSUCCESSFUL: Final[dict[type[LaneEvent], str]] = {
    events.CommandFailed: "error",
    events.CommandTimedOut: "timeout",
    events.CommandCancelled: "cancelled",
    events.CommandExpired: "expired",
}
_NOTIFIED_BY: Final = {events.AlertNotified: "sent", events.AlertNotificationDropped: "dropped"}
_ALERT_DEFAULTS: Final = ("", "warning", None)
_MOST_ALERTS: Final = 1_000
_SCHEDULER: Final = events.CAUSES.index("scheduler")


class LaneTally:
    """What the events say about one lane.

    Attributes:
        submitted, recovered, boosted, dead, evicted, requeued: commands and dead letters so far.
        completed: commands that succeeded; each ended one attempt with `ok`, too.
        unsuccessful, attempts: commands and attempts that ended otherwise, by outcome.
        retries: attempts that another one follows, by reason.
        unsuccessful_total, attempts_total, retries_total: the sums of these three.
        last_bad: the trace of the attempt that failed last; `None` when none has, or none is traced.
        last_end: when a command last ended, in the clock's seconds; `None` before the first.
        wait, end_to_end: see the catalogue.
        durations: run times of attempts by type of command; all under `None` when types are not told apart.
        duration: the run times under `None`.
    """

    __slots__ = (
        "attempts",
        "attempts_total",
        "boosted",
        "bounds",
        "completed",
        "dead",
        "duration",
        "durations",
        "end_to_end",
        "evicted",
        "last_bad",
        "last_end",
        "recovered",
        "requeued",
        "retries",
        "retries_total",
        "submitted",
        "unsuccessful",
        "unsuccessful_total",
        "wait",
    )  # fmt: skip

    submitted: int
    recovered: int
    boosted: int
    completed: int
    dead: int
    evicted: int
    requeued: int
    unsuccessful_total: int
    attempts_total: int
    retries_total: int
    unsuccessful: dict[str, int]
    attempts: dict[str, int]
    retries: dict[str, int]
    wait: Histogram
    duration: Histogram
    end_to_end: Histogram

    def __init__(self, bounds: Sequence[float], *, by_type: bool = False) -> None:
        self.submitted = self.completed = self.recovered = self.dead = self.evicted = self.requeued = 0
        self.boosted = 0
        self.unsuccessful_total = self.attempts_total = self.retries_total = 0
        self.last_end: float | None = None
        self.last_bad: TraceIds | None = None
        self.unsuccessful = dict.fromkeys(OUTCOMES[1:], 0)
        self.attempts = dict.fromkeys(OUTCOMES[1:], 0)
        self.retries = dict.fromkeys(RETRY_REASONS, 0)
        self.bounds = tuple(bounds)
        self.wait = Histogram(bounds)
        self.duration = Histogram(bounds)
        self.end_to_end = Histogram(bounds)
        self.durations: dict[str | None, Histogram] = {OTHER_TYPE if by_type else None: self.duration}


class Tally:
    """What the events say about one queue. It is changed on the queue's loop and may be read on any thread.

    Args:
        bounds: upper bounds of the histograms, by lane name.
        command_types: how many types of commands have run times of their own: the first that are seen. All others
            share one, so that no command ever moves from one to another. 0: types are not told apart.

    Attributes:
        lanes: what they say about each lane.
        dispatch: the scheduler's own lateness.
        rejected: submits refused, by lane and reason.
        alerts: the severities at which each alert fires, by its name and its lane, which is empty for the queue's.
        notified: notifications of alerts, by notifier and what became of them.
    """

    def __init__(self, bounds: Mapping[str, Sequence[float]], command_types: int = 0) -> None:
        self.lanes = {lane: LaneTally(own, by_type=command_types > 0) for lane, own in bounds.items()}
        self.dispatch = Histogram(QUICK_BOUNDS)
        self.rejected = {(lane, reason): 0 for lane in bounds for reason in REJECT_REASONS}
        self.rejected |= {(UNKNOWN_LANE, reason): 0 for reason in UNKNOWN_REASONS}
        self.alerts: dict[tuple[str, str], set[str]] = {}
        self.notified: dict[tuple[str, str], int] = {}
        self._types: set[str] = set()
        self._most_types = command_types
        self._others: dict[Any, Callable[[Fact], None]] = {
            events.CommandRejected: self._reject,
            events.DeadLetterEvicted: self._evict,
            events.DeadLetterRequeued: self._requeue,
            events.AlertFiring: self._alert,
            events.AlertResolved: self._alert,
            events.MonitorStarted: self._watch,
            events.AlertNotified: self._notify,
            events.AlertNotificationFailed: self._notify,
            events.AlertNotificationDropped: self._notify,
        }

    def fold(self, facts: Sequence[Fact], wall_offset: float) -> None:
        """Counts a batch.

        Args:
            facts: the batch.
            wall_offset: what makes Unix seconds of the clock's seconds.
        """
        lanes = self.lanes
        starts, ends, others = [], [], []
        for fact in facts:
            build = fact[0]
            if build is submitted:
                lanes[fact[2].home.name].submitted += 1
            elif build is started:
                starts.append(fact)
            elif build is completed:
                ends.append(fact)
            else:
                others.append(fact)
        self._start(starts, wall_offset)
        self._complete(ends, wall_offset)
        for fact in others:
            if fact[0] is told:
                self._tell(fact, wall_offset)
                continue
            # All that follow name their fields from the third on.
            other = (fact[3], fact[1], *fact[5:]) if fact[0] is traced else fact
            if (fold := self._others.get(other[0])) is not None:
                fold(other)

    # The loops of the two kinds of facts that every command has count in place what `_observe` counts for the
    # others: a call for each value would take as long as all the rest.

    def _start(self, facts: Sequence[Fact], wall_offset: float) -> None:
        lanes, dispatch = self.lanes, self.dispatch
        for _, at, command, attempt, trace, ready, since, start, waited in facts:
            if attempt != 1:  # the marks are those of the back-off that went before
                continue
            seconds = at - since
            if waited is not None:  # a delay, which does not count; or the wait for its partition, which does
                seconds += waited.partition
            wait = lanes[command.home.name].wait
            bucket = bisect_left(wait.bounds, seconds)
            wait.counts[bucket] += 1
            wait.total += seconds
            if trace is not None and trace.sampled:
                wait.exemplars[bucket] = (seconds, trace, at + wall_offset)
            if ready is not start:
                seconds = part_between(_SCHEDULER, ready, since, start, at)
            elif ready.cause != _SCHEDULER:
                seconds = 0.0
            dispatch.counts[bisect_left(dispatch.bounds, seconds)] += 1
            dispatch.total += seconds

    def _complete(self, facts: Sequence[Fact], wall_offset: float) -> None:
        lanes, by_type = self.lanes, self._most_types
        for _, at, command in facts:
            lane = lanes[command.home.name]
            lane.completed += 1
            seconds, whole, trace = at - command.started_at, at - command.submitted_at, command.trace
            duration, end_to_end = lane.duration, lane.end_to_end
            if by_type:
                duration = self._duration_of(lane, command)
            bounds = end_to_end.bounds
            bucket = bisect_left(bounds, seconds)
            duration.counts[bucket] += 1
            duration.total += seconds
            last = bisect_left(bounds, whole)
            end_to_end.counts[last] += 1
            end_to_end.total += whole
            lane.last_end = at
            if trace is not None and trace.sampled:
                duration.exemplars[bucket] = (seconds, trace, at + wall_offset)
                end_to_end.exemplars[last] = (whole, trace, at + wall_offset)

    def _tell(self, fact: Fact, wall_offset: float) -> None:
        at, command, kind, trace = fact[1], fact[2], fact[3], fact[5]
        lane = self.lanes[command.home.name]
        wall = at + wall_offset
        outcome = _UNSUCCESSFUL.get(kind)
        if outcome is not None or kind is events.CommandRetry:
            lane.last_bad = trace or lane.last_bad
        if outcome is not None:
            end_to_end, attempt_seconds = fact[8], fact[10]
            lane.unsuccessful[outcome] += 1
            lane.unsuccessful_total += 1
            lane.last_end = at if lane.last_end is None else max(lane.last_end, at)
            _observe(lane.end_to_end, end_to_end, trace, wall)
            if attempt_seconds is not None:
                lane.attempts[outcome] += 1
                lane.attempts_total += 1
                _observe(self._duration_of(lane, command), attempt_seconds, trace, wall)
        elif kind is events.CommandRetry:
            reason, run_seconds = fact[6], fact[8]
            lane.retries[reason] += 1
            lane.attempts[reason] += 1
            lane.retries_total += 1
            lane.attempts_total += 1
            _observe(self._duration_of(lane, command), run_seconds, trace, wall)
        elif kind is events.CommandDeadLettered:
            lane.dead += 1
        elif kind is events.CommandRecovered:
            lane.recovered += 1
        elif kind is events.CommandBoosted:
            lane.boosted += 1

    def _duration_of(self, lane: LaneTally, command: Any) -> Histogram:
        if not self._most_types:
            return lane.duration
        name, types = command.command_type, self._types
        if name not in types:
            if len(types) >= self._most_types or not name.isprintable() or not name:
                return lane.duration
            types.add(name)
        found = lane.durations.get(name)
        if found is None:
            found = lane.durations[name] = Histogram(lane.bounds)
        return found

    def _reject(self, fact: Fact) -> None:
        lane, reason = fact[2], fact[4]
        key = (lane if lane in self.lanes else UNKNOWN_LANE, reason)
        self.rejected[key] = self.rejected.get(key, 0) + 1

    def _evict(self, fact: Fact) -> None:
        if (lane := self.lanes.get(fact[3])) is not None:  # a letter may have been pushed by hand
            lane.evicted += 1

    def _requeue(self, fact: Fact) -> None:
        self.lanes[fact[3]].requeued += 1

    def _watch(self, fact: Fact) -> None:
        """Alerts begin at zero, so that their first firing is a change, unless that would be a series too many."""
        lane_alerts, queue_alerts = fact[2], fact[3]
        lanes = self.lanes if len(lane_alerts) * len(self.lanes) <= _MOST_ALERTS else ()
        for key in [(alert, "") for alert in queue_alerts] + [(alert, lane) for alert in lane_alerts for lane in lanes]:
            self.alerts.setdefault(key, set())
        self.notified |= {(name, outcome): 0 for name in fact[4] for outcome in NOTIFIED} | self.notified

    def _alert(self, fact: Fact) -> None:
        fields: list[Any] = [*fact[2:8], *_ALERT_DEFAULTS[len(fact) - 5 :]]
        rule, alert, severity, lane = fields[0], *fields[3:]
        severities = self.alerts.setdefault((alert or rule, lane or ""), set())
        (severities.add if fact[0] is events.AlertFiring else severities.discard)(severity)

    def _notify(self, fact: Fact) -> None:
        outcome = _NOTIFIED_BY[fact[0]] if fact[0] in _NOTIFIED_BY else "failed" if fact[7] else "retried"
        self.notified[fact[2], outcome] = self.notified.get((fact[2], outcome), 0) + fact[3]


def _observe(histogram: Histogram, seconds: float, trace: TraceIds | None, wall: float) -> None:
    if trace is not None and trace.sampled:
        histogram.observe_traced(seconds, trace, wall)
    else:
        histogram.observe(seconds)
