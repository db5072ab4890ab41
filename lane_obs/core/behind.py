"""The ready commands that are behind another one of their partition."""

from __future__ import annotations

import contextlib
from heapq import heapify, heappop, heappush
from typing import Any, Final

import msgspec

from lane_obs.core.record import Record  # noqa: TC001 - msgspec reads the annotation
from lane_obs.core.state import State

_COMPACT_FLOOR: Final = 16
_READY = State.READY


class Behind(msgspec.Struct, eq=False):
    """Ready commands that are behind another one of their partition, in the order of their numbers.

    It is small, as there may be one for each of a million keys: a deque alone takes 700 bytes.
    """

    fresh: list[Any]
    """In the order of their numbers, from the index `first`; what came before is gone."""
    first: int = 0
    returned: list[tuple[int, int, Record]] = []
    """A heap. The middle item settles ties: a command that ended here and was requeued stands inside twice."""
    gone: int = 0
    """How many of those inside have ended."""

    def __len__(self) -> int:
        return len(self.fresh) - self.first + len(self.returned) - self.gone

    def put_back(self, record: Record) -> None:
        """Puts in a command with any number."""
        heappush(self.returned, (record.seq, id(record), record))

    def pop(self) -> Record | None:
        """Takes out the first one that is ready; `None` when there is none."""
        record: Record
        while True:
            fresh, first = self.fresh, self.first
            is_empty = first == len(fresh)
            if self.returned and (is_empty or self.returned[0][0] < fresh[first].seq):
                record = heappop(self.returned)[2]
            elif is_empty:
                return None
            else:
                record, fresh[first] = fresh[first], None
                self.first = first + 1
                if first > _COMPACT_FLOOR and first * 2 > len(fresh):
                    del fresh[: first + 1]
                    self.first = 0
            if record.state is _READY:
                return record
            self.gone -= 1

    def peek(self) -> Record | None:
        """The first one that is ready, left inside; `None` when there is none. From any thread."""
        fresh = self.fresh
        first: Record | None = None
        with contextlib.suppress(IndexError):  # the queue's thread takes some out meanwhile
            for index in range(self.first, len(fresh)):
                first = fresh[index]
                if first is not None and first.state is _READY:
                    break
                first = None
        ready = [record for _, _, record in list(self.returned) if record.state is _READY]
        return min(ready if first is None else [*ready, first], key=_number, default=None)

    def forget(self) -> None:
        """Notes that one of those inside has ended."""
        self.gone += 1
        if self.gone > _COMPACT_FLOOR and self.gone > len(self):
            self.fresh = [record for record in self.fresh[self.first :] if record.state is _READY]
            self.first = 0
            self.returned = [item for item in self.returned if item[2].state is _READY]
            heapify(self.returned)
            self.gone = 0


def _number(record: Record) -> int:
    return record.seq
