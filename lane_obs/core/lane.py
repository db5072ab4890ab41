"""One lane: its policies, its ready commands and its counts."""

from __future__ import annotations

import math
from heapq import nlargest
from typing import TYPE_CHECKING, Final, TypeAlias

from lane_obs.core.boosted import BoostedQueue
from lane_obs.core.fair import FairQueue
from lane_obs.core.partition import PartitionedQueue
from lane_obs.core.ready import ReadyQueue
from lane_obs.core.state import FINAL, PENDING, State
from lane_obs.core.wait import Access, Contention, LaneMeter, between, part_between
from lane_obs.events import BLOCKS

if TYPE_CHECKING:
    from collections.abc import Hashable

    from lane_obs.config import LaneConfig
    from lane_obs.core.gate import Gate
    from lane_obs.core.record import Record
    from lane_obs.core.timer import Entry
    from lane_obs.core.wait import Mark

Ready: TypeAlias = "ReadyQueue | BoostedQueue | PartitionedQueue"
_MOST_PARTITIONS: Final = 1_000
"""So many can be looked through at each scrape."""
_SHOWN_PARTITIONS: Final = 10

Turn: TypeAlias = tuple[int, int, int, "Lane"]
"""A lane's place among those that may start: (priority, last served, order of asking, lane)."""


class Lane:
    """State of one lane. `Schedule` keeps `served`, `turn` and the meter; `Engine` keeps the counts."""

    __slots__ = (
        "_blocked",
        "_rounds",
        "_waits_since",
        "_waits_with",
        "alarm",
        "boosted",
        "config",
        "counts",
        "gate",
        "gate_head",
        "gate_turn",
        "gates",
        "is_durable",
        "is_open",
        "is_plain",
        "is_quick",
        "is_usual",
        "max",
        "meter",
        "min",
        "most",
        "name",
        "parted",
        "paused",
        "priority",
        "ready",
        "running",
        "served",
        "throttled",
        "turn",
    )

    gate: Gate | None
    """The rate limit that holds its head back."""
    gate_head: Record | None
    """The command that it holds back."""
    gate_turn: Turn | None
    """Its place among those that wait there."""

    def __init__(self, name: str, config: LaneConfig, contention: Contention, now: float) -> None:
        self.name = name
        self.counts: dict[State, int] = dict.fromkeys(State, 0)
        self.ready: Ready = _order_of(config)
        # The same, in a lane with partitions, and in one that has none and boosts.
        self.parted = self.ready if isinstance(self.ready, PartitionedQueue) else None
        self.boosted = self.ready if isinstance(self.ready, BoostedQueue) else None
        self.running: dict[Record, None] = {}
        """Commands that run, in the order of their latest start."""
        self._blocked, self._waits_since = [0.0] * len(BLOCKS), 0.0
        self._waits_with: Mark | None = None
        self.is_durable = False
        """Whether its commands are kept in a storage. The queue sets it, and `is_open`; `set_quick` follows."""
        self.gates: tuple[Gate, ...] = ()
        """Its rate limits."""
        self.most = math.inf
        """What a command may cost: more is never there at once."""
        self.gate = self.gate_head = self.gate_turn = None
        self.paused = self.throttled = False
        """Throttled: whether a rate limit has held it back since it last had no ready work."""
        self.alarm: Entry | None = None
        """When the priority of its head rises by age."""
        self.served = self._rounds = 0
        self.is_open = True
        """Whether it takes commands. It does not while it is being removed."""
        self.turn: Turn | None = None
        self.apply(config)
        self.meter = LaneMeter(contention, now, self.priority, Access.RESERVED)

    def apply(self, config: LaneConfig) -> None:
        """Takes over other policies; the caller updates what follows from them."""
        self.config = config
        self.min: int = config.min_concurrency
        self.max: int = config.max_concurrency
        self.priority = config.priority
        """That of its head, where it boosts."""
        self.is_usual = config.partitions is None and (config.boost is None or config.boost.deadline is None)
        """Whether a command that says nothing of itself needs nothing from its lane."""
        self.is_plain = config.boost is None and config.partitions is None
        """Whether its order is that of submits, and its priority always the same."""
        self.set_quick()

    def set_quick(self) -> None:
        """Works out whether a command can enter it without more ado: after each change of what that depends on."""
        bound = self.config.max_pending
        self.is_quick = self.is_open and not self.is_durable and bound is None

    def assign(self, command_type: str, key: str | None) -> Hashable:
        """The partition of a new command; `None` for none.

        Raises:
            InvalidCommand: the user's own function failed, or gave something that is no partition.
        """
        partitions = self.config.partitions
        if partitions is None:
            return None
        self._rounds += 1
        return partitions.assign(command_type, key, self._rounds)

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
            for number, cause in enumerate(BLOCKS):
                self._blocked[number] += getattr(split, cause)

    def blocked(self, now: float) -> dict[str, float]:
        """Seconds in which the lane had ready work and could not start it, by cause."""
        blocked = dict(zip(BLOCKS, self._blocked, strict=True))
        first = self._waits_with
        if first is not None:
            split = between(first, self._waits_since, self.meter.peek(now), now)
            for cause in BLOCKS:
                blocked[cause] += getattr(split, cause)
        return blocked

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

    def oldest(self) -> Record | None:
        """The ready command that came first; `None` when none is ready.

        In a lane that has an order of its own it is the one that is ready for the longest time.
        """
        return self.ready.peek() if isinstance(self.ready, ReadyQueue) else self.ready.oldest()

    @property
    def held(self) -> int:
        """Ready commands that are behind others of their partitions."""
        return 0 if self.parted is None else self.parted.held

    @property
    def partitions(self) -> int | None:
        """Partitions with live commands; `None` in a lane without partitions."""
        return None if self.parted is None else len(self.parted.parts)

    def largest_partitions(self) -> dict[str, int]:
        """Ready commands of the partitions that have most of them. From any thread."""
        if self.parted is None or len(self.parted.parts) > _MOST_PARTITIONS:
            return {}
        depths = ((waiting, str(name)) for name, waiting, _running in self.parted.list_parts())
        return {name: waiting for waiting, name in nlargest(_SHOWN_PARTITIONS, depths)}

    def partition_ages(self, now: float) -> dict[str, float]:
        """How long the next command has been ready, of the partitions where that is longest. From any thread."""
        if self.parted is None or len(self.parted.parts) > _MOST_PARTITIONS:
            return {}
        ages = ((max(now - since, 0.0), str(name)) for name, since in self.parted.list_since())
        return {name: age for age, name in nlargest(_SHOWN_PARTITIONS, ages)}

    def is_held(self, record: Record) -> bool:
        """Whether a ready command is behind another of its partition."""
        return self.parted is not None and self.parted.is_held(record)

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


def _order_of(config: LaneConfig) -> Ready:
    """An empty order of ready commands, as a lane's policies say."""
    partitions = config.partitions
    # Commands of one lane age alike, so that age alone never changes their order.
    keeps_order = config.boost is None or config.boost.is_ageing
    heads = ReadyQueue(is_dated=partitions is None) if keeps_order else BoostedQueue()
    if partitions is None:
        return heads
    return PartitionedQueue(FairQueue() if partitions.fair else heads)
