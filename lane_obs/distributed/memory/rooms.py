"""Who waits for room in which lane."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lane_obs.core.lane import Lane
    from lane_obs.distributed.memory.seat import Seat


class Rooms:
    """Members that found lanes full. Each is told once there is room, and then waits no more."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[Seat, None]] = {}

    def wait(self, lane: Lane, seat: Seat) -> None:
        """A member has found a lane full."""
        self._waiting.setdefault(lane.name, {})[seat] = None

    def leave(self, seat: Seat) -> None:
        """A member waits for nothing any more."""
        for seats in self._waiting.values():
            seats.pop(seat, None)

    def tell(self, lanes: Mapping[str, Lane]) -> None:
        """Tells those whose lanes have room; or are gone, as they learn when they submit again."""
        for name in list(self._waiting):
            lane = lanes.get(name)
            bound = None if lane is None else lane.config.max_pending
            if lane is None or bound is None or lane.pending < bound:
                for seat in self._waiting.pop(name):
                    seat.tell_room(name)
