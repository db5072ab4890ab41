"""Why commands wait: the split of every queue wait by cause, at O(1) for each command.

A lane keeps one running total of time for each cause that can block it (`LaneMeter`). What a whole queue's
`max_concurrency` blocks depends on all lanes and is kept once (`Contention`). A command takes a `Mark` of its
lane's totals when it becomes ready and another when it starts; the difference is its wait by cause. Marks are
shared by all commands that ask while nothing changes, so a million waiting commands share a few.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

import msgspec

from lane_obs.events import BLOCKS, WaitByCause

_NOISE = 1e-9
# A wait that has one cause only, by the cause's index; by far the most frequent.
_ONLY = (
    lambda seconds: WaitByCause(seconds),
    lambda seconds: WaitByCause(0.0, seconds),
    lambda seconds: WaitByCause(0.0, 0.0, seconds),
    lambda seconds: WaitByCause(0.0, 0.0, 0.0, seconds),
    lambda seconds: WaitByCause(rate_limit=seconds),
    lambda seconds: WaitByCause(partition=seconds),
)


Totals: TypeAlias = tuple[float, float, float, float, float, float]
"""Seconds by cause, in the order of `BLOCKS`."""


class Mark(msgspec.Struct, frozen=True, gc=False):
    """A lane's totals at `begin`, and the one cause that is growing since."""

    begin: float
    version: int
    cause: int
    totals: Totals


def between(first: Mark, since: float, last: Mark, until: float) -> WaitByCause:
    """Splits the time from `since` to `until` (seconds), read at two marks of one lane."""
    if first is last:
        return _ONLY[first.cause](until - since)
    slots0, priority0, pause0, scheduler0, rate0, keyed0 = first.totals
    slots1, priority1, pause1, scheduler1, rate1, keyed1 = last.totals
    parts = [
        slots1 - slots0, priority1 - priority0, pause1 - pause0, scheduler1 - scheduler0, rate1 - rate0,
        keyed1 - keyed0,
    ]  # fmt: skip
    parts[last.cause] += until - last.begin
    parts[first.cause] -= since - first.begin
    # Sums of floats taken in another order may miss zero by a few units of the last place.
    return WaitByCause(*[part if part > _NOISE else 0.0 for part in parts])


def part_between(cause: int, first: Mark, since: float, last: Mark, until: float) -> float:
    """What `between` gives for one cause, by its index in `CAUSES`."""
    seconds = last.totals[cause] - first.totals[cause]
    if last.cause == cause:
        seconds += until - last.begin
    if first.cause == cause:
        seconds -= since - first.begin
    return seconds if seconds > _NOISE else 0.0


class Mode(IntEnum):
    """How much of the queue-wide `max_concurrency` is left."""

    FREE = 0
    """Any lane may take a slot."""
    RESERVED = 1
    """Only lanes below their reservation may."""
    FULL = 2
    """None is left."""


class Contention:
    """Running totals of the queue-wide limit: time free, time full, and time by the priority that goes next."""

    __slots__ = ("_free", "_full", "_levels", "_since", "mode", "top", "version")

    def __init__(self, now: float) -> None:
        self.mode = Mode.FREE
        self.top: int | None = None
        self.version = 0
        self._since = now
        self._free = 0.0
        self._full = 0.0
        self._levels: dict[int, float] = {}

    def change(self, now: float, mode: Mode, top: int | None) -> None:
        """Sets what is left from `now` on, and the priority of the lane that waits next for a shared slot."""
        if mode is self.mode and top == self.top:
            return
        passed = now - self._since
        if self.mode is Mode.FREE:
            self._free += passed
        elif self.top is not None:
            self._levels[self.top] = self._levels.get(self.top, 0.0) + passed
        if self.mode is Mode.FULL:
            self._full += passed
        self._since = now
        self.mode = mode
        self.top = top
        self.version += 1

    def free_at(self, now: float) -> float:
        """Seconds in which a shared slot was free, up to `now`."""
        return self._free + (now - self._since if self.mode is Mode.FREE else 0.0)

    def full_at(self, now: float) -> float:
        """Seconds in which not even a reserved slot was free, up to `now`."""
        return self._full + (now - self._since if self.mode is Mode.FULL else 0.0)

    def level_at(self, now: float, priority: int) -> float:
        """Seconds in which no shared slot was free and a lane of this priority was next, up to `now`."""
        current = now - self._since if self.mode is not Mode.FREE and self.top == priority else 0.0
        return self._levels.get(priority, 0.0) + current

    @property
    def level_count(self) -> int:
        """Of how many priorities totals are kept."""
        return len(self._levels)

    def forget_levels(self, priorities: frozenset[int]) -> None:
        """Drops the totals of priorities that no lane has any more."""
        self._levels = {level: total for level, total in self._levels.items() if level in priorities}


class Access(IntEnum):
    """What stands between a lane's head and a slot, as far as the lane itself can tell."""

    PAUSED = 0
    """The lane is paused."""
    AT_MAX = 1
    """The lane runs `max_concurrency` commands."""
    RESERVED = 2
    """The lane is below its reservation, or the queue has no limit: it need not compete."""
    SHARED = 3
    """The lane competes for a shared slot of the queue."""
    LIMITED = 4
    """A rate limit holds the lane's head back."""
    KEYED = 5
    """All its ready commands are behind others of their partitions."""


_SLOTS, _PRIORITY, _PAUSE, _SCHEDULER, _RATE, _PARTITION = range(len(BLOCKS))
_PAUSED, _AT_MAX, _RESERVED, _SHARED = Access.PAUSED, Access.AT_MAX, Access.RESERVED, Access.SHARED
_LIMITED, _KEYED = Access.LIMITED, Access.KEYED
_FREE, _FULL = Mode.FREE, Mode.FULL


class LaneMeter:
    """Running totals of one lane. They run whether work waits or not: only differences are read."""

    __slots__ = (
        "_contention",
        "_free0",
        "_full0",
        "_level0",
        "_mark",
        "_priority",
        "_since",
        "_totals",
        "access",
    )

    def __init__(self, contention: Contention, now: float, priority: int, access: Access) -> None:
        self._contention = contention
        self._totals: Totals = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        self._mark: Mark | None = None
        self._free0 = self._full0 = self._level0 = 0.0
        """The queue's totals when it began to be blocked as it is, as far as they matter to that."""
        self._begin(now, priority, access)

    def change(self, now: float, priority: int, access: Access) -> None:
        """Sets what blocks the lane from `now` on."""
        self._totals = self._read(now)
        self._mark = None
        self._begin(now, priority, access)

    def _begin(self, now: float, priority: int, access: Access) -> None:
        self._since = now
        self._priority = priority
        self.access = access
        if access is _RESERVED:  # what each needs of the queue's totals, and no more: lanes change at every command
            self._full0 = self._contention.full_at(now)
        elif access is _SHARED:
            self._free0 = self._contention.free_at(now)
            self._level0 = self._contention.level_at(now, priority)

    def mark(self, now: float) -> Mark:
        """The totals at `now`, shared with whoever asked since the last change."""
        mark = self._mark
        if mark is None or mark.version != self._contention.version:
            mark = self._mark = Mark(now, self._contention.version, self.cause, self._read(now))
        return mark

    def peek(self, now: float) -> Mark:
        """The same without keeping it: for other threads, which must change nothing."""
        return Mark(now, self._contention.version, self.cause, self._read(now))

    @property
    def cause(self) -> int:
        """Index in `CAUSES` of what blocks the lane now."""
        access, contention = self.access, self._contention
        if access is _PAUSED:
            return _PAUSE
        if access is _AT_MAX:
            return _SLOTS
        if access is _RESERVED:
            return _SLOTS if contention.mode is _FULL else _SCHEDULER
        if access is _LIMITED:
            return _RATE
        if access is _KEYED:
            return _PARTITION
        if contention.mode is _FREE:
            return _SCHEDULER
        return _SLOTS if contention.top == self._priority else _PRIORITY

    def _read(self, now: float) -> Totals:
        slots, priority, pause, scheduler, rate, keyed = self._totals
        passed = now - self._since
        access, contention = self.access, self._contention
        if access is _PAUSED:
            return slots, priority, pause + passed, scheduler, rate, keyed
        if access is _AT_MAX:
            return slots + passed, priority, pause, scheduler, rate, keyed
        if access is _RESERVED:
            full = contention.full_at(now) - self._full0
            return slots + full, priority, pause, scheduler + passed - full, rate, keyed
        if access is _LIMITED:
            return slots, priority, pause, scheduler, rate + passed, keyed
        if access is _KEYED:
            return slots, priority, pause, scheduler, rate, keyed + passed
        free = contention.free_at(now) - self._free0
        level = contention.level_at(now, self._priority) - self._level0
        return slots + level, priority + passed - free - level, pause, scheduler + free, rate, keyed
