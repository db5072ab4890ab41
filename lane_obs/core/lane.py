"""One lane: its policies, its ready commands and its counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from lane_obs.core.ready import ReadyQueue
from lane_obs.core.state import FINAL, PENDING, State
from lane_obs.core.wait import Access, Contention, LaneMeter

if TYPE_CHECKING:
    from lane_obs.config import LaneConfig

Turn: TypeAlias = tuple[int, int, int, "Lane"]
"""A lane's place among those that may start: (priority, last served, order of asking, lane)."""


class Lane:
    """State of one lane. `Schedule` keeps `served`, `turn` and the meter; `Engine` keeps the counts."""

    __slots__ = (
        "config",
        "counts",
        "max",
        "meter",
        "min",
        "name",
        "paused",
        "priority",
        "ready",
        "served",
        "turn",
    )

    def __init__(self, name: str, config: LaneConfig, contention: Contention, now: float) -> None:
        self.name = name
        self.counts = dict.fromkeys(State, 0)
        self.ready = ReadyQueue()
        self.paused = False
        self.served = 0
        self.turn: Turn | None = None
        self.apply(config)
        self.meter = LaneMeter(contention, now, self.priority, Access.RESERVED)

    def apply(self, config: LaneConfig) -> None:
        """Takes over other policies; the caller updates what follows from them."""
        self.config = config
        self.min = config.min_concurrency
        self.max = config.max_concurrency
        self.priority = config.priority

    @property
    def pending(self) -> int:
        """Commands that wait: ready, delayed and backing off."""
        return sum(self.counts[state] for state in PENDING)

    def ended(self) -> dict[str, int]:
        """Commands that ended in this lane, by final state."""
        return {str(state): count for state, count in self.counts.items() if state in FINAL}
