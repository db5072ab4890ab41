"""The commands of one lane that may start, first submitted first."""

from __future__ import annotations

import contextlib
from collections import deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, TypeVar

from lane_obs.core.state import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs.core.record import Record

T = TypeVar("T")

_COMPACT_FLOOR = 64
_READY = State.READY


class ReadyQueue:
    """Ready commands in the order of their sequence numbers, whatever way they came in.

    New commands come in order and go into a deque. Those that come back (a delay is over, a retry is due) take
    their old place: they go into a heap, and the lower number of the two heads is next. A command that ends while
    it waits stays inside until its turn or until half of what is inside has ended.

    Args:
        is_dated: whether `oldest_since` is asked for; `False` where the owner knows it.
    """

    __slots__ = ("_fresh", "_ghosts", "_is_dated", "_returned", "_returned_by_age", "_returns", "add")

    def __init__(self, *, is_dated: bool = True) -> None:
        self._is_dated = is_dated
        self._fresh: deque[Record] = deque()
        # The middle item settles ties: a command that ended here and was requeued stands inside twice.
        self._returned: list[tuple[int, int, Record]] = []
        self._returns = 0
        self._returned_by_age: deque[tuple[float, Record]] = deque()
        self._ghosts = 0
        self.add = self._fresh.append
        """Puts in a command that has a higher number than all others so far."""

    def put_back(self, record: Record) -> None:
        """Puts in a command that takes its old place; its `since` must be set."""
        fresh = self._fresh
        if (
            not fresh or fresh[-1].seq < record.seq
        ):  # as if it were new: it has been ready for the shortest time as well
            fresh.append(record)
            return
        self._returns += 1
        heappush(self._returned, (record.seq, self._returns, record))
        if self._is_dated:
            self._returned_by_age.append((record.since, record))
            self._trim_ages()

    def _trim_ages(self) -> None:
        """Lets go of commands that are not ready any more, but for a few in the middle."""
        by_age = self._returned_by_age
        while by_age and not _still_ready(by_age[0]):
            by_age.popleft()
        if len(by_age) > 2 * len(self._returned) + _COMPACT_FLOOR:
            self._returned_by_age = deque(item for item in by_age if _still_ready(item))

    def pop(self) -> Record:
        """Takes out the next command. There must be one; the caller starts it."""
        returned, fresh = self._returned, self._fresh
        while True:
            if returned and (not fresh or returned[0][0] < fresh[0].seq):
                record = heappop(returned)[2]
                if self._is_dated:
                    self._trim_ages()
            else:
                record = fresh.popleft()
            if record.state is _READY:
                return record
            self._ghosts -= 1

    def _returned_is_next(self) -> bool:
        returned = self._returned
        return bool(returned) and (not self._fresh or returned[0][0] < self._fresh[0].seq)

    def forget(self, _record: Record) -> None:
        """Notes that a command inside has ended without starting."""
        self._ghosts += 1
        self._trim_ages()
        if self._ghosts > _COMPACT_FLOOR and self._ghosts * 2 > len(self._fresh) + len(self._returned):
            kept = [record for record in self._fresh if record.state is _READY]
            self._fresh.clear()  # in place: `add` is bound to this very deque
            self._fresh.extend(kept)
            self._returned = [item for item in self._returned if item[2].state is _READY]
            heapify(self._returned)
            self._ghosts = 0

    def peek(self) -> Record | None:
        """The next command, left inside; `None` when there is none."""
        if not self._returned and self._fresh:  # nearly always
            head = self._fresh[0]
            if head.state is _READY:
                return head
        self._skip_ghosts()
        if self._returned_is_next():
            return self._returned[0][2]
        return self._fresh[0] if self._fresh else None

    def _skip_ghosts(self) -> None:
        fresh, returned = self._fresh, self._returned
        while fresh and fresh[0].state is not _READY:
            fresh.popleft()
            self._ghosts -= 1
        while returned and returned[0][2].state is not _READY:
            heappop(returned)
            self._ghosts -= 1

    def oldest_since(self) -> float | None:
        """When the command that is ready for the longest time became so; `None` when there is none.

        It changes nothing and may be called from any thread.
        """
        with contextlib.suppress(IndexError):  # nearly always the first one, and none that came back
            head = self._fresh[0]
            if head.state is _READY and not self._returned_by_age:
                return head.since
        fresh = _first(self._fresh, lambda record: record.state is _READY)
        returned = _first(self._returned_by_age, _still_ready)
        heads = [] if fresh is None else [fresh.since]
        if returned is not None:
            heads.append(returned[0])
        return min(heads, default=None)

    def ahead_of(self, seq: int) -> int:
        """How many ready commands start before number `seq`. Reads those ahead, one by one."""
        count = sum(1 for number, _, record in self._returned if number < seq and record.state is _READY)
        for record in self._fresh:
            if record.seq >= seq:
                break
            count += record.state is _READY
        return count


def _still_ready(item: tuple[float, Record]) -> bool:
    since, record = item
    return record.state is _READY and record.since == since


def _first(items: deque[T], wanted: Callable[[T], bool]) -> T | None:
    """The first that is wanted; by index, as another thread may change the deque meanwhile."""
    number = 0
    with contextlib.suppress(IndexError):
        while not wanted(item := items[number]):
            number += 1
        return item
    return None
