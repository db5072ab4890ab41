"""What was counted in lanes that are gone, so that the sums over a queue's life stay whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lane_obs.core.state import FINAL, State

if TYPE_CHECKING:
    from lane_obs.core.lane import Lane


class Removed:
    """Sums over the lanes that were removed.

    Attributes:
        lanes: how many there were.
        ended: commands that ended in them, by final state.
        blocked: seconds in which they had ready work and could not start it, by cause.
    """

    __slots__ = ("blocked", "ended", "lanes")

    def __init__(self) -> None:
        self.lanes = 0
        self.ended = {state: 0 for state in State if state in FINAL}
        self.blocked: dict[str, float] = {}

    def take(self, lane: Lane, now: float) -> None:
        """Adds what a lane that goes has counted."""
        self.lanes += 1
        for state in self.ended:
            self.ended[state] += lane.counts[state]
        # Replaced, not changed: another thread may read it.
        self.blocked = {cause: self.blocked.get(cause, 0.0) + seconds for cause, seconds in lane.blocked(now).items()}
