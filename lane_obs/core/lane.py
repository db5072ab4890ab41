"""One lane: its policies, its ready commands and its counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from lane_obs.core.ready import ReadyQueue
from lane_obs.core.state import FINAL, PENDING, State
from lane_obs.core.wait import Access, Contention, LaneMeter, between, part_between

if TYPE_CHECKING:
    from lane_obs.config import LaneConfig
    from lane_obs.core.record import Record
    from lane_obs.core.wait import Mark

Turn: TypeAlias = tuple[int, int, int, "Lane"]
"""A lane's place among those that may start: (priority, last served, order of asking, lane)."""


class Lane:
    """State of one lane. `Schedule` keeps `served`, `turn` and the meter; `Engine` keeps the counts."""

    __slots__ = (
        "_blocked",
        "_waits_since",
        "_waits_with",
        "config",
        "counts",
        "is_durable",
        "is_open",
        "max",
        "meter",
        "min",
        "name",
        "paused",
        "priority",
        "ready",
        "running",
        "served",
        "turn",
    )

    def __init__(self, name: str, config: LaneConfig, contention: Contention, now: float) -> None:
        self.name = name
        self.counts: dict[State, int] = dict.fromkeys(State, 0)
        self.ready = ReadyQueue()
        self.running: dict[Record, None] = {}
        """Commands that run, in the order of their latest start."""
        self._blocked = [0.0, 0.0, 0.0, 0.0]
        self._waits_since = 0.0
        self._waits_with: Mark | None = None
        self.paused = False
        self.is_durable = False
        """Whether its commands are kept in a storage. The queue sets it."""
        self.is_open = True
        """Whether it takes commands. It does not while it is being removed."""
        self.served = 0
        self.turn: Turn | None = None
        self.apply(config)
        self.meter = LaneMeter(contention, now, self.priority, Access.RESERVED)

    def apply(self, config: LaneConfig) -> None:
        """Takes over other policies; the caller updates what follows from them."""
        self.config = config
        self.min: int = config.min_concurrency
        self.max: int = config.max_concurrency
        self.priority = config.priority

    def begin_waiting(self, mark: Mark, now: float) -> None:
        """Notes that the lane has ready work from now on; `mark` is its meter's."""
        self._waits_since = now  # first: another thread may read the two
        self._waits_with = mark

    def end_waiting(self, mark: Mark, now: float) -> None:
        """Notes that the lane has no ready work any more."""
        first, self._waits_with = self._waits_with, None
        if first is mark:
            self._blocked[mark.cause] += now - self._waits_since
        elif first is not None:
            split = between(first, self._waits_since, mark, now)
            for cause, part in enumerate((split.slots, split.priority, split.pause, split.scheduler)):
                self._blocked[cause] += part

    def blocked(self, now: float) -> dict[str, float]:
        """Seconds in which the lane had ready work and could not start it, by cause."""
        slots, priority, pause, scheduler = self._blocked
        first = self._waits_with
        if first is not None:
            split = between(first, self._waits_since, self.meter.peek(now), now)
            slots, priority, pause, scheduler = (
                slots + split.slots, priority + split.priority, pause + split.pause, scheduler + split.scheduler,
            )  # fmt: skip
        return {"slots": slots, "priority": priority, "pause": pause, "scheduler": scheduler}

    def blocked_by(self, cause: int, now: float) -> float:
        """What `blocked` gives for one cause, by its index in `CAUSES`, and quicker."""
        seconds, first = self._blocked[cause], self._waits_with
        if first is None:
            return seconds
        return seconds + part_between(cause, first, self._waits_since, self.meter.peek(now), now)

    def oldest_started(self) -> float | None:
        """When the command that runs for the longest time started; `None` when none runs. From any thread."""
        while self.running:
            try:
                return next(iter(self.running)).started_at
            except (RuntimeError, StopIteration):  # it changed under our hands
                continue
        return None

    @property
    def pending(self) -> int:
        """Commands that wait: ready, delayed and backing off."""
        return sum(self.counts[state] for state in PENDING)

    @property
    def live(self) -> int:
        """Commands that have not ended."""
        return self.pending + self.counts[State.RUNNING]

    def ended(self) -> dict[str, int]:
        """Commands that ended in this lane, by final state."""
        return {str(state): count for state, count in self.counts.items() if state in FINAL}
