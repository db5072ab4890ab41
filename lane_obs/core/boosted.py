"""The commands of one lane that may start, the most important first: for lanes whose commands are boosted."""

from __future__ import annotations

import math
from collections import deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from lane_obs.core.state import State

if TYPE_CHECKING:
    from lane_obs.core.record import Record
    from lane_obs.core.timer import Entry

_READY = State.READY
_COMPACT_FLOOR = 64


class BoostedQueue:
    """Ready commands by effective priority (`level`), equals in the order of their sequence numbers.

    New commands nearly always have one level: they come in order and go into a deque. Those that come back, and those
    whose level has changed, go into a heap; the lower of the two heads is next. The place that a command had before
    stays behind and counts for nothing: where a command stands, its level is the command's own, and the command is
    ready and not taken out. All is built anew when more than half of the places count for nothing.

    Where all have one deadline, the levels of new commands change in their order as well: one timer does for them.

    A level changes inside only together with a call of `changed`. Commands are put in in the order of their `since`.
    """

    __slots__ = ("_fresh", "_ghosts", "_inside", "_pushes", "fresh_level", "last_rise", "raised", "rise")

    def __init__(self) -> None:
        self._inside: dict[Record, None] = {}
        """All commands inside, the one that is ready for the longest time first, and ghosts."""
        self._ghosts = 0
        """Commands inside that have ended."""
        self._fresh: deque[Record] = deque()
        self.fresh_level = 0
        # The third item settles ties: a command that ended here and was requeued stands inside twice.
        self.raised: list[tuple[int, int, int, Record]] = []
        self._pushes = 0
        self.rise: Entry | None = None
        """The timer for the first of the new ones whose level changes. Its owner sets it."""
        self.last_rise = 0.0
        """When that of the last of them does; infinity where one has no such time."""

    def add(self, record: Record, rises_at: float = math.inf) -> bool:
        """Puts in a command that has a higher number than all others so far; whether its level changes in turn.

        Args:
            record: the command.
            rises_at: when its level changes; infinity for never.
        """
        self._inside[record] = None
        fresh = self._fresh
        if not fresh:
            self.fresh_level = record.level
        elif record.level != self.fresh_level:
            self._push(record)
            return False
        elif rises_at < self.last_rise:
            fresh.append(record)
            return False
        fresh.append(record)
        self.last_rise = rises_at
        return True

    def put_back(self, record: Record) -> None:
        """Puts in a command that takes its old place among those of its level; its `since` must be set."""
        self._inside[record] = None
        self._push(record)

    def changed(self, record: Record) -> None:
        """Notes that the level of a command inside has just changed."""
        self._push(record)
        self._compact()

    def _push(self, record: Record) -> None:
        self._pushes += 1
        heappush(self.raised, (record.level, record.seq, self._pushes, record))

    def pop(self) -> Record:
        """Takes out the next command. There must be one; the caller starts it."""
        heap, fresh, inside = self.raised, self._fresh, self._inside
        # Nearly always nothing is boosted, and the first new command is next: seen here, it takes half the time. Its
        # level is that of all then, as another one would stand in the heap.
        record = None if heap or self._ghosts else fresh[0]
        if record is not None and record in inside:
            fresh.popleft()
        else:
            record = self.peek()
            assert record is not None
            if heap and heap[0][3] is record:
                heappop(heap)
            else:
                fresh.popleft()
        del inside[record]
        if len(fresh) + len(heap) > 2 * (len(inside) - self._ghosts):  # seldom, and asked here it saves the call
            self._compact()
        return record

    def forget(self, _record: Record) -> None:
        """Notes that one command inside has ended without starting."""
        self._ghosts += 1
        self._compact()

    def _compact(self) -> None:
        """Lets go of places that count for nothing, once they are more than half."""
        live = len(self._inside) - self._ghosts
        if len(self._fresh) + len(self.raised) <= 2 * live + _COMPACT_FLOOR:
            return
        self.rebuild()

    def rebuild(self) -> None:
        """Lets go of all places that count for nothing."""
        inside = [record for record in self._inside if record.state is _READY]
        self._inside = dict.fromkeys(inside)  # whole: another thread may be reading the old one
        self._ghosts = 0
        level, known = self.fresh_level, self._inside
        fresh = dict.fromkeys(record for record in self._fresh if record in known and record.level == level)
        self._fresh = deque(fresh)
        self.raised = [(record.level, record.seq, 0, record) for record in inside if record not in fresh]
        heapify(self.raised)

    def peek(self) -> Record | None:
        """The next command, left inside; `None` when there is none."""
        first, heap, inside, level = self.first_fresh(), self.raised, self._inside, self.fresh_level
        while heap:
            place = heap[0]
            record = place[3]
            if record.state is _READY and record.level == place[0] and record in inside:
                if first is None or place[0] < level or (place[0] == level and place[1] <= first.seq):
                    return record
                break
            self._let_go(heappop(heap)[3])
        return first

    def first_fresh(self) -> Record | None:
        """The first of the new ones whose level is as it was; `None` when there is none."""
        fresh, inside, level = self._fresh, self._inside, self.fresh_level
        while fresh:
            first = fresh[0]
            if first.state is _READY and first.level == level and first in inside:
                return first
            self._let_go(fresh.popleft())
        return None

    def _let_go(self, record: Record) -> None:
        if record.state is not _READY and record in self._inside:
            del self._inside[record]
            self._ghosts -= 1

    def head_level(self) -> int | None:
        """The level of the next command; `None` when there is none."""
        head = self.peek()
        return None if head is None else head.level

    def list_ready(self) -> list[Record]:
        """All commands inside."""
        return [record for record in self._inside if record.state is _READY]

    def oldest(self) -> Record | None:
        """The command that is ready for the longest time; `None` when there is none.

        It changes nothing and may be called from any thread.
        """
        while self._inside:
            try:
                first = next(iter(self._inside))
                if first.state is _READY:
                    return first
                copy = list(self._inside)  # in one step, so that it cannot change under our hands all the time
            except (RuntimeError, StopIteration):  # it did
                continue
            return next((record for record in copy if record.state is _READY), None)
        return None

    def oldest_since(self) -> float | None:
        """When that command became ready. From any thread."""
        oldest = self.oldest()
        return None if oldest is None else oldest.since

    def ahead_of(self, seq: int) -> int:
        """How many ready commands start before number `seq`, as levels are now. Reads all, one by one.

        Among levels the number of a command that is not inside has no place: then the numbers alone decide.
        """
        inside = [record for record in self._inside if record.state is _READY]
        level = next((record.level for record in inside if record.seq == seq), None)
        if level is None:
            return sum(record.seq < seq for record in inside)
        return sum((record.level, record.seq) < (level, seq) for record in inside)
