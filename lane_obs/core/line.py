"""A partition with more than one command."""

from __future__ import annotations

import contextlib
from collections import deque
from heapq import heapify, heappop, heappush
from typing import Any, Final

import msgspec

from lane_obs.core.record import Record  # noqa: TC001 - msgspec reads the annotation
from lane_obs.core.state import State

LONG: Final = 64
"""From so many on, what is taken out of a list in front takes longer than out of a deque."""
_COMPACT_FLOOR: Final = 16
_READY = State.READY


class Line(msgspec.Struct, eq=False):
    """The command that has a partition, and the ready ones behind it in the order of their numbers.

    It is small, as there may be one for each of a million keys: a deque alone takes 700 bytes.
    """

    head: Record
    """It is lined up, runs, or backs off."""
    fresh: list[Any] | deque[Any]
    """Those behind that came in order; a deque once they are many."""
    returned: list[tuple[int, int, Record]] = []
    """A heap. The middle item settles ties: a command that ended here and was requeued stands inside twice."""
    gone: int = 0
    """How many of those behind have ended."""

    def __len__(self) -> int:
        """How many are behind."""
        return len(self.fresh) + len(self.returned) - self.gone

    def lengthen(self) -> None:
        """Has those that came in order in a deque, now that they are `LONG`."""
        self.fresh = deque(self.fresh)

    def put_back(self, record: Record) -> None:
        """Puts a command with any number behind the head."""
        heappush(self.returned, (record.seq, id(record), record))

    def pop(self) -> Record | None:
        """Takes out the first one behind that is ready; `None` when there is none."""
        record: Record
        fresh, returned = self.fresh, self.returned
        while fresh or returned:
            if returned and (not fresh or returned[0][0] < fresh[0].seq):
                record = heappop(returned)[2]
            else:
                record = fresh[0]
                del fresh[0]
            if record.state is _READY:
                return record
            self.gone -= 1
        return None

    def peek(self) -> Record | None:
        """The first one behind that is ready, left there; `None` when there is none. From any thread."""
        first: Record | None = None
        fresh = self.fresh
        with contextlib.suppress(IndexError):  # the queue's thread takes some out meanwhile
            for index in range(len(fresh)):
                first = fresh[index]
                if first is not None and first.state is _READY:
                    break
                first = None
        ready = [record for _, _, record in list(self.returned) if record.state is _READY]
        return min(ready if first is None else [*ready, first], key=_number, default=None)

    def forget(self) -> None:
        """Notes that one of those behind has ended."""
        self.gone += 1
        if self.gone > _COMPACT_FLOOR and self.gone > len(self):
            fresh = [record for record in self.fresh if record.state is _READY]
            self.fresh = fresh if len(fresh) < LONG else deque(fresh)
            self.returned = [item for item in self.returned if item[2].state is _READY]
            heapify(self.returned)
            self.gone = 0


def _number(record: Record) -> int:
    return record.seq
