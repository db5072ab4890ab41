"""Due times of commands: one heap for delays, back-offs, time-outs and deadlines, with lazy deletion."""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Entry: TypeAlias = list[Any]
"""`[when, order, kind, record]`; the record is `None` once the timer is cancelled."""

DUE: Final = "due"
"""A delay or back-off is over."""
TIMEOUT: Final = "timeout"
"""The running attempt has used up its time."""
DEADLINE: Final = "deadline"
"""The command's whole time is used up."""
STUCK: Final = "stuck"
"""An attempt that was cancelled still runs."""
BOOST: Final = "boost"
"""A waiting command's priority rises."""
GATE: Final = "gate"
"""A rate limit lets the next command through. About a `Gate`, not a command."""
RISE: Final = "rise"
"""The first rise of new commands, which come in order where all have one deadline. About a `Lane`, not a command."""
AGE: Final = "age"
"""The priority of a lane's head rises. About a `Lane`, not a command."""

OF_ENGINE: Final = frozenset({BOOST, RISE, GATE, AGE})
"""Those that the engine itself sees to."""

_RECORD = 3
_COMPACT_FLOOR = 256


class Timers:
    """Timers by due time; equal times come out in the order they were set. All times are clock seconds."""

    __slots__ = ("_cancelled", "_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._order = 0
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def set(self, when: float, kind: str, record: object) -> Entry:
        """Adds a timer and returns the entry that cancels it."""
        self._order += 1
        entry = [when, self._order, kind, record]
        heappush(self._heap, entry)
        return entry

    def cancel(self, entry: Entry) -> None:
        """Makes sure the timer never comes due; the heap is rebuilt once half of it is cancelled."""
        if entry[_RECORD] is None:
            return
        entry[_RECORD] = None
        self._cancelled += 1
        if self._cancelled > _COMPACT_FLOOR and self._cancelled * 2 > len(self._heap):
            self._heap = [kept for kept in self._heap if kept[_RECORD] is not None]
            heapify(self._heap)
            self._cancelled = 0

    def forget(self, record: Any) -> None:
        """Cancels the timer that a command's state has set, where there is one."""
        if record.timer is not None:
            self.cancel(record.timer)
            record.timer = None

    def next_at(self) -> float:
        """When the next timer is due; infinity when there is none."""
        heap = self._heap
        while heap and heap[0][_RECORD] is None:
            heappop(heap)
            self._cancelled -= 1
        return heap[0][0] if heap else math.inf

    def pop_due(self, now: float) -> Iterator[tuple[str, Any]]:
        """Takes out each timer due at `now`, as (kind, record); timers set meanwhile are seen as well."""
        while self.next_at() <= now:
            entry = heappop(self._heap)
            record = entry[_RECORD]
            entry[_RECORD] = None
            yield entry[2], record
