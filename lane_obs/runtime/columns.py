"""Reads one number of every lane at once, a list comprehension each: what watches ten thousand lanes needs it quick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lane_obs.core.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lane_obs.config import LaneConfig
    from lane_obs.core.lane import Lane
    from lane_obs.events import TraceIds
    from lane_obs.runtime.dispatcher import Dispatcher

_READY, _DELAYED, _BACKOFF, _RUNNING = State.READY, State.DELAYED, State.BACKOFF, State.RUNNING


def _oldest_ready(lanes: Sequence[Lane], now: float) -> list[float]:
    ages = [0.0] * len(lanes)
    for number, lane in enumerate(lanes):
        if lane.counts[_READY] and (since := lane.ready.oldest_since()) is not None:
            ages[number] = now - since
    return ages


def _oldest_active(lanes: Sequence[Lane], now: float) -> list[float]:
    started = (lane.oldest_started() for lane in lanes)
    return [0.0 if at is None else now - at for at in started]


_COLUMNS: Final[dict[str, Callable[[Sequence[Lane], float], list[Any]]]] = {
    "ready": lambda lanes, _now: [lane.counts[_READY] for lane in lanes],
    "delayed": lambda lanes, _now: [lane.counts[_DELAYED] for lane in lanes],
    "backoff": lambda lanes, _now: [lane.counts[_BACKOFF] for lane in lanes],
    "running": lambda lanes, _now: [lane.counts[_RUNNING] for lane in lanes],
    "oldest_ready_age": _oldest_ready,
    "oldest_active_age": _oldest_active,
    "blocked_slots": lambda lanes, now: [lane.blocked_by(0, now) for lane in lanes],
    "blocked_priority": lambda lanes, now: [lane.blocked_by(1, now) for lane in lanes],
    "blocked_pause": lambda lanes, now: [lane.blocked_by(2, now) for lane in lanes],
    "blocked_rate_limit": lambda lanes, now: [lane.blocked_by(4, now) for lane in lanes],
    "blocked_partition": lambda lanes, now: [lane.blocked_by(5, now) for lane in lanes],
}


_POLICIES: Final = frozenset({"min_concurrency", "max_concurrency"})


class Columns:
    """One number of every lane, in the order of `lanes`.

    Args:
        dispatcher: of the queue.
        policy: gives a lane's policies.

    Attributes:
        lanes: the lanes that there were at the last `refresh`.
    """

    def __init__(self, dispatcher: Dispatcher, policy: Callable[[Lane], LaneConfig]) -> None:
        self._dispatcher = dispatcher
        self._policy = policy
        self.lanes: tuple[Lane, ...] = ()
        self.refresh()

    def refresh(self) -> bool:
        """Looks which lanes there are; tells whether they are others than before."""
        before, self.lanes = self.lanes, tuple(self._dispatcher.engine.lanes.values())
        return self.lanes != before

    def read(self, name: str) -> list[Any]:
        """The column of a name: a field of `LaneStats`, or `blocked_` and a cause."""
        if name == "stuck":
            stuck = self._dispatcher.stops.stuck_by_lane()
            return [stuck.get(lane.name, 0) for lane in self.lanes]
        if name in _POLICIES:
            return [getattr(self._policy(lane), name) for lane in self.lanes]
        return _COLUMNS[name](self.lanes, self._dispatcher.clock.now())

    def read_removed(self, name: str) -> list[float]:
        """The same of the lanes that were removed, added up, for what goes on counting: `blocked_` and a cause."""
        blocked = self._dispatcher.engine.removed.blocked
        return [blocked[cause]] if (cause := name.removeprefix("blocked_")) in blocked else []

    def trace_behind(self, lane: str, *, running: bool) -> TraceIds | None:
        """The trace of the command that a lane has had ready, or running, for the longest time."""
        home = self._dispatcher.engine.lanes.get(lane)
        if home is None:  # it was removed while the monitor looked
            return None
        record: Any = next(iter(home.running), None) if running else home.oldest()
        return None if record is None else record.trace
