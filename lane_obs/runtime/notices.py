"""Tells the bus what the engine does by itself: boosts, and rate limits that begin and end to hold lanes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lane_obs import events

if TYPE_CHECKING:
    from lane_obs.core.lane import Lane
    from lane_obs.runtime.dispatcher import Dispatcher


class Notices:
    """Listens to the engine of one dispatcher.

    Args:
        owner: the dispatcher.
    """

    def __init__(self, owner: Dispatcher) -> None:
        self._owner = owner
        engine = owner.engine
        engine.gates.on_throttled = self._throttled
        engine.gates.on_unthrottled = self._unthrottled
        engine.order.on_boosted = self._boosted

    def _boosted(self, record: Any, now: float) -> None:
        self._owner.emit(events.CommandBoosted, record, now, record.home.config.priority, record.level)

    def _throttled(self, lane: Lane, seconds: float, _now: float) -> None:
        self._owner.bus.emit(events.LaneThrottled, lane.name, lane.pending, seconds)

    def _unthrottled(self, lane: Lane, _now: float) -> None:
        self._owner.bus.emit(events.LaneUnthrottled, lane.name, lane.pending)
