"""Folds facts into plain numbers: what the events say about one queue, at a fraction of a microsecond each."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

from lane_obs import events
from lane_obs.core.fact import completed, started, submitted, told, traced
from lane_obs.core.histogram import QUICK_BOUNDS, Histogram
from lane_obs.core.wait import part_between
from lane_obs.errors import LaneRemoved
from lane_obs.metrics.catalogue import BUCKETS, NOTIFIED, PASS_REASONS, REJECT_REASONS, UNKNOWN_LANE, UNKNOWN_REASONS
from lane_obs.metrics.lane_tally import LaneTally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from lane_obs.core.fact import Fact
    from lane_obs.events import LaneEvent, TraceIds

_UNSUCCESSFUL: Final[dict[type[LaneEvent], str]] = {
    events.CommandFailed: "error",
    events.CommandTimedOut: "timeout",
    events.CommandCancelled: "cancelled",
    events.CommandExpired: "expired",
}
_COUNTED: Final[dict[type[LaneEvent], str]] = {
    events.CommandDeadLettered: "dead",
    events.CommandRecovered: "recovered",
    events.CommandBoosted: "boosted",
    events.CommandLeaseLost: "leases_lost",
    events.CommandStale: "stale",
}
"""Events that are just counted, and where."""
_LANE_SETS: Final = frozenset({events.LaneAdded, events.LaneRemoved})
_NOTIFIED_BY: Final = {events.AlertNotified: "sent", events.AlertNotificationDropped: "dropped"}
_ALERT_DEFAULTS: Final = ("", "warning", None)
_MOST_ALERTS: Final = 1_000
_SCHEDULER: Final = events.CAUSES.index("scheduler")


class Tally:
    """What the events say about one queue. It is changed on the queue's loop and may be read on any thread.

    Args:
        bounds: upper bounds of the histograms, by the names of the lanes that there are.
        command_types: how many types of commands have run times of their own: the first that are seen. All others
            share one, so that no command ever moves from one to another. 0: types are not told apart.
        bounds_of: gives those of a lane that is added later.

    Attributes:
        lanes: what they say about each lane.
        removed: sums over the lanes that were removed, by the bounds of their histograms.
        dispatch: the scheduler's own lateness.
        rejected: submits refused, by lane and reason.
        alerts: the severities at which each alert fires, by its name and its lane, which is empty for the queue's.
        notified: notifications of alerts, by notifier and what became of them.
        passed_on: commands that were left to other processes, by reason.
    """

    def __init__(
        self,
        bounds: Mapping[str, Sequence[float]],
        command_types: int = 0,
        bounds_of: Callable[[str], Sequence[float]] = lambda _: BUCKETS,
    ) -> None:
        self.lanes: dict[str, LaneTally] = {}
        self.removed: dict[tuple[float, ...], LaneTally] = {}
        self.dispatch = Histogram(QUICK_BOUNDS)
        self.rejected = {(UNKNOWN_LANE, reason): 0 for reason in UNKNOWN_REASONS}
        self._bounds_of = bounds_of
        self._lane_alerts: dict[str, None] = {}
        self.alerts: dict[tuple[str, str], set[str]] = {}
        self.notified: dict[tuple[str, str], int] = {}
        self.passed_on = dict.fromkeys(PASS_REASONS, 0)
        self._types: set[str] = set()
        self._most_types = command_types
        for lane, own in bounds.items():
            self._add(lane, own)
        self._others: dict[Any, Callable[[Fact], None]] = {
            events.CommandRejected: self._reject,
            events.LaneAdded: self._add_lane,
            events.LaneRemoved: self._remove_lane,
            events.DeadLetterEvicted: self._evict,
            events.DeadLetterRequeued: self._requeue,
            events.CommandReturned: self._return,
            events.CommandPassedOn: self._pass_on,
            events.AlertFiring: self._alert,
            events.AlertResolved: self._alert,
            events.MonitorStarted: self._watch,
            events.AlertNotified: self._notify,
            events.AlertNotificationFailed: self._notify,
            events.AlertNotificationDropped: self._notify,
        }

    def _add(self, lane: str, bounds: Sequence[float]) -> None:
        self.lanes[lane] = LaneTally(bounds, by_type=self._most_types > 0)
        self.rejected |= {(lane, reason): 0 for reason in REJECT_REASONS}

    def _add_lane(self, fact: Fact) -> None:
        lane = fact[2]
        if lane not in self.lanes:  # it may have been there already when the counting began
            self._add(lane, self._bounds_of(lane))
            if self._alerts_begin:
                self._begin_alerts(self._lane_alerts, [lane])

    def _remove_lane(self, fact: Fact) -> None:
        lane = fact[2]
        gone = self.lanes.pop(lane)
        known = self.removed.get(gone.bounds)
        if known is None:
            known = self.removed[gone.bounds] = LaneTally(gone.bounds)
        known.add(gone)
        for reason in REJECT_REASONS:
            self.rejected.pop((lane, reason), None)
        for alert in self._lane_alerts:
            self.alerts.pop((alert, lane), None)

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
                if build in _LANE_SETS:  # what came before is about the lanes that there were
                    self._count(starts, ends, others, wall_offset)
                    starts, ends, others = [], [], []
        self._count(starts, ends, others, wall_offset)

    def _count(self, starts: list[Fact], ends: list[Fact], others: list[Fact], wall_offset: float) -> None:
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
            if waited is not None:  # a delay, which does not count; or a wait for its partition or the broker's
                seconds += waited.partition + waited.broker
            wait = lanes[command.home.name].wait
            bucket = bisect_left(wait.bounds, seconds)
            wait.counts[bucket] += 1
            wait.total += seconds
            if trace is not None and trace.sampled:
                wait.exemplars[bucket] = (seconds, trace, at + wall_offset)
            if ready is not start:
                seconds = part_between(_SCHEDULER, ready, since, start, at)
            else:
                seconds = at - since if ready.cause == _SCHEDULER else 0.0
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
        lane = self.lanes.get(command.home.name)
        if lane is None:  # a broker's word about a lane that only other members have
            return
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
        elif (counter := _COUNTED.get(kind)) is not None:
            setattr(lane, counter, getattr(lane, counter) + 1)

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
        key = (lane if lane in self.lanes and reason != LaneRemoved.reason else UNKNOWN_LANE, reason)
        self.rejected[key] = self.rejected.get(key, 0) + 1

    def _evict(self, fact: Fact) -> None:
        if (lane := self.lanes.get(fact[3])) is not None:  # a letter may have been pushed by hand
            lane.evicted += 1

    def _requeue(self, fact: Fact) -> None:
        self.lanes[fact[3]].requeued += 1

    def _return(self, fact: Fact) -> None:
        if (lane := self.lanes.get(fact[3])) is not None:  # a member may be told of a lane that it has not itself
            lane.returned += 1

    def _pass_on(self, fact: Fact) -> None:
        self.passed_on[fact[6]] += 1

    def _watch(self, fact: Fact) -> None:
        """Alerts begin at zero, so that their first firing is a change, unless that would be a series too many."""
        self._lane_alerts |= dict.fromkeys(fact[2])
        self._begin_alerts(fact[3], [""])
        if self._alerts_begin:
            self._begin_alerts(self._lane_alerts, self.lanes)
        self.notified |= {(name, outcome): 0 for name in fact[4] for outcome in NOTIFIED} | self.notified

    @property
    def _alerts_begin(self) -> bool:
        return len(self._lane_alerts) * len(self.lanes) <= _MOST_ALERTS

    def _begin_alerts(self, alerts: Iterable[str], lanes: Iterable[str]) -> None:
        for key in itertools.product(alerts, lanes):
            self.alerts.setdefault(key, set())

    def _alert(self, fact: Fact) -> None:
        fields: list[Any] = [*fact[2:8], *_ALERT_DEFAULTS[len(fact) - 5 :]]
        rule, alert, severity, lane = fields[0], *fields[3:]
        if lane is not None:
            if lane not in self.lanes:  # it was removed, and the alert with it
                return
            self._lane_alerts[alert or rule] = None
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
