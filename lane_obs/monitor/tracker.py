"""The states of one alert: ok, pending, firing, resolved, for each lane or for the queue.

The rules are those of Prometheus, so that both agree: what is active for `for_seconds` fires, what is not active is
over at once. While it fires, the level to be above is `clear`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from lane_obs import events
from lane_obs.alerts.expression import NONE
from lane_obs.monitor.alert import Alert, AlertState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lane_obs.alerts import AlertSpec
    from lane_obs.events import AlertEvent

_LANE_REMOVED: Final = "lane_removed"
_REASONS: Final = {"": "", _LANE_REMOVED: " Over, as the lane was removed."}
_NOISE: Final = 1e-6  # clocks count in binary fractions
_PENDING, _FIRING, _RESOLVED, _OK = AlertState.PENDING, AlertState.FIRING, AlertState.RESOLVED, AlertState.OK
EVENTS: Final[dict[AlertState, type[AlertEvent]]] = {
    _PENDING: events.AlertPending,
    _FIRING: events.AlertFiring,
    _RESOLVED: events.AlertResolved,
    _OK: events.AlertCleared,
}
"""What is told of a change into each state."""


@dataclasses.dataclass(slots=True)
class Live:
    """An alert that is not ok.

    Attributes:
        spec: what it is.
        lane: the lane; `None` for the queue.
        since: when it became active, in the clock's seconds.
        value: what was measured last.
        state: pending or firing; resolved or ok in its last moment.
        fired_at: when it began to fire.
        told_at: when its notifiers were told last that it fires; `None` when they know nothing of it.
        trace_id: of the command that tipped it.
        reason: why it is over, where it is not that less was measured.
    """

    spec: AlertSpec
    lane: str | None
    since: float
    value: float
    state: AlertState = _PENDING
    fired_at: float | None = None
    told_at: float | None = None
    trace_id: str | None = None
    reason: str = ""

    @property
    def threshold(self) -> float:
        """The level it is compared with now."""
        return self.spec.level if self.state is _PENDING else self.spec.clear

    def shown(self, queue: str, now: float, wall_offset: float, *, silenced: bool) -> Alert:
        """It as people see it."""
        spec, value, where = self.spec, self.spec.show(self.value), self.lane
        place = f"queue {queue!r}" if where is None else f"lane {where!r}"
        over = self.state in {_RESOLVED, _OK}
        return Alert(
            alert=spec.alert,
            rule=spec.rule,
            severity=str(spec.severity),
            state=self.state,
            queue=queue,
            lane=where,
            value=self.value,
            threshold=spec.level,
            since=self.since + wall_offset,
            fired_at=None if self.fired_at is None else self.fired_at + wall_offset,
            ended_at=now + wall_offset if over else None,
            summary=f"{spec.alert} in {place}: {value}",
            description=f"{spec.what[:1].upper()}{spec.what[1:]}: {value}; {spec.severity} above "
            f"{spec.show(spec.level)}.{_REASONS[self.reason]}",
            runbook=spec.runbook,
            silenced=silenced,
            trace_id=self.trace_id,
        )


class Tracker:
    """Follows one alert over all its lanes.

    Args:
        spec: the alert.
        lanes: names of the queue's lanes, in the order of the columns.

    Attributes:
        live: what is not ok, by place in the column.
    """

    def __init__(self, spec: AlertSpec, lanes: Sequence[str]) -> None:
        self.spec = spec
        self.live: dict[int, Live] = {}
        self._follow(lanes)

    def _follow(self, lanes: Sequence[str]) -> None:
        spec = self.spec
        self._names: Sequence[str | None] = [None] if spec.per == "queue" else lanes
        of_all = spec.per == "queue" or not (spec.lanes or spec.except_lanes)
        self._mine = None if of_all else {number for number, lane in enumerate(lanes) if spec.is_about(lane)}

    def relay(self, lanes: Sequence[str], moved: Mapping[int, int]) -> Iterator[Live]:
        """Follows other lanes from now on.

        Args:
            lanes: their names, in the order of the columns.
            moved: the new place of each that was there before, by its old one.

        Yields:
            Each alert of a lane that was removed: it is over.
        """
        self._follow(lanes)
        if self.spec.per == "queue":
            return
        before, self.live = self.live, {}
        for number, alert in before.items():
            if number in moved:
                self.live[moved[number]] = alert
            else:
                alert.reason = _LANE_REMOVED
                yield self._end(alert)

    @staticmethod
    def _end(alert: Live) -> Live:
        alert.state = _RESOLVED if alert.state is _FIRING else _OK
        return alert

    def look(self, columns: Sequence[Sequence[float]], now: float) -> Iterator[Live]:
        """Takes one look.

        Args:
            columns: the values of each of its signals.
            now: the clock's seconds.

        Yields:
            Each alert whose state has changed; those that are over are forgotten afterwards.
        """
        active = self._active(columns)
        for number in active:
            yield from self._keep(number, columns[0][number], now)
        for number in [number for number in self.live if number not in active]:
            alert, value = self.live.pop(number), columns[0][number]
            if value != NONE:
                alert.value = value
            yield self._end(alert)

    def _active(self, columns: Sequence[Sequence[float]]) -> dict[int, None]:
        """Places at which every signal is above the level, or the lower one that counts once it fires."""
        first, *others = columns
        clear, mine = self.spec.clear, self._mine
        if max(first, default=NONE) <= clear:  # nearly always, and many times as quick as to look at each
            return {}
        hot = [number for number, value in enumerate(first) if value > clear]
        if mine is not None:
            hot = [number for number in hot if number in mine]
        return {
            number: None
            for number in hot
            if first[number] > (least := self._least(number)) and all(other[number] > least for other in others)
        }

    def _least(self, number: int) -> float:
        known = self.live.get(number)
        return self.spec.clear if known is not None and known.state is _FIRING else self.spec.level

    def _keep(self, number: int, value: float, now: float) -> Iterator[Live]:
        """Notes that one is active."""
        alert = self.live.get(number)
        if alert is None:
            alert = self.live[number] = Live(self.spec, self._names[number], now, value)
            if self.spec.for_seconds:
                yield alert
        alert.value = value
        if alert.state is _PENDING and now - alert.since >= self.spec.for_seconds - _NOISE:
            alert.state, alert.fired_at = _FIRING, now
            yield alert
