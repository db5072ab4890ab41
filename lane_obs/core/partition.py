"""The ready commands of a lane with partitions: one command of each partition is lined up or runs, at most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lane_obs.core.fair import FairQueue
from lane_obs.core.line import LONG, Line
from lane_obs.core.state import State

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from lane_obs.core.record import Record

_READY, _RUNNING = State.READY, State.RUNNING


class Heads(Protocol):
    """An order of the commands that are lined up."""

    def add(self, record: Record, /) -> object:
        """Puts in a command that has a higher number than all others so far."""

    def put_back(self, record: Record, /) -> object:
        """Puts in a command with any number."""

    def pop(self) -> Record:
        """Takes out the next command."""

    def peek(self) -> Record | None:
        """The next command, left inside."""

    def forget(self, record: Record, /) -> object:
        """Notes that a command inside has ended without starting."""


class PartitionedQueue:
    """Ready commands, of which one a partition is lined up, and only while none of that partition runs or backs off.

    The commands of a partition run in the order of their numbers. A command that has started keeps its partition until
    it ends: while it backs off, and when it is ready again, none of its partition passes it. Until it has started,
    one with a lower number that becomes ready later (its delay is over) takes its place. A command without a
    partition is always lined up. A partition takes memory while it has a command that is ready, runs or backs off.

    Args:
        order: of the commands that are lined up; empty.

    Attributes:
        held: ready commands inside that are not lined up.
        parts: partitions with a command that is ready, runs or backs off, by id; `list_parts` says what is in them.
    """

    __slots__ = (
        "_changed", "_displaced", "_fair", "_held_back", "_inside", "_lined_up", "_order", "_take_in", "held", "parts",
        "pop",
    )  # fmt: skip

    def __init__(self, order: Heads) -> None:
        self._order = order
        self._take_in = order.add
        self._fair = order if isinstance(order, FairQueue) else None
        self._changed = getattr(order, "changed", None)
        # One that has a partition for itself stands for it: it takes no more memory then.
        self.parts: dict[Hashable, Record | Line] = {}
        self._inside: dict[Record, float] = {}
        """All ready commands, and since when they are ready, longest first. Those that have started are there too until
        they end or back off: so a start is that of the order, without another call."""
        self._displaced: set[Record] = set()
        """Held commands that the order still has inside: one with a lower number took their place."""
        self._lined_up: list[Record] = []
        self._held_back: list[Record] = []
        self.held = 0
        self.pop = order.pop
        """Takes out the next command. One must be lined up; the caller starts it."""

    def add(self, record: Record) -> bool:
        """Puts in a command that has a higher number than all others so far; whether it is held."""
        self._inside[record] = record.since
        key = record.part
        if key is not None:
            part = self.parts.get(key)
            if part is not None:
                self.held += 1
                if isinstance(part, Line):
                    fresh = part.fresh
                    fresh.append(record)
                    if len(fresh) == LONG:
                        part.lengthen()
                else:
                    self.parts[key] = Line(part, [record])
                return True
            self.parts[key] = record
        self._take_in(record)
        return False

    def put_back(self, record: Record) -> None:
        """Puts in a command that takes its old place; its `since` must be set."""
        self._inside[record] = record.since
        key = record.part
        if key is not None:
            part = self.parts.get(key)
            if part is None:
                self.parts[key] = record
            elif _head_of(part) is not record and not self._gets_in(record, part):
                return
        self._order.put_back(record)

    def _gets_in(self, record: Record, part: Record | Line) -> bool:
        """Puts a command behind the head of its partition, or that one behind it."""
        head = _head_of(part)
        if head.state is not _READY or head.attempt or head.seq < record.seq:
            self._hold(record, part)
            return False
        self._displace(head, part, record)
        return True

    def _hold(self, record: Record, part: Record | Line) -> Line:
        self.held += 1
        if not isinstance(part, Line):
            part = self.parts[record.part] = Line(part, [])
        part.put_back(record)
        return part

    def _displace(self, head: Record, part: Record | Line, by: Record) -> None:
        """Gives a partition to another one, and puts its head behind that."""
        self._hold(head, part).head = by
        if self._fair is None:
            self._displaced.add(head)
            self.pop = self._pop_one
        else:  # it keeps one head a partition
            self._fair.forget(head)
        self._held_back.append(head)

    def claim(self, record: Record) -> None:
        """Gives a partition to a command that backs off and is not inside, unless another one runs or backs off."""
        key = record.part
        if key is None:
            return
        part = self.parts.get(key)
        if part is None:
            self.parts[key] = record
        elif (head := _head_of(part)).state is _READY and not head.attempt:
            self._displace(head, part, record)

    def _pop_one(self) -> Record:
        """The same as `pop`, where commands have lost their place in the order."""
        record = self._order.pop()
        while record in self._displaced:
            self._displaced.discard(record)
            record = self._order.pop()
        if not self._displaced:
            self.pop = self._order.pop
        return record

    def peek(self) -> Record | None:
        """The next command, left inside; `None` when none is lined up."""
        record = self._order.peek()
        while record is not None and record in self._displaced:
            self._displaced.discard(self._order.pop())
            record = self._order.peek()
        return record

    def forget(self, record: Record) -> None:
        """Notes that a command inside has ended without starting."""
        del self._inside[record]
        part = None if record.part is None else self.parts[record.part]
        if part is None:
            self._order.forget(record)
        elif _head_of(part) is record:
            self._order.forget(record)
            if not isinstance(part, Line):
                self._give_up(record.part)
            elif (moved := self._move_up(part)) is not None:
                self._lined_up.append(moved)
        else:
            assert isinstance(part, Line)
            part.forget()
            self.held -= 1
            if record in self._displaced:
                self._displaced.discard(record)
                self._order.forget(record)

    def back_off(self, record: Record) -> None:
        """Notes that a command that has started backs off. It keeps its partition."""
        del self._inside[record]

    def ended(self, record: Record) -> Record | None:
        """Notes that a command has ended while it was not ready; the one that has got its partition and is lined up."""
        self._inside.pop(record, None)
        key, parts = record.part, self.parts
        part = parts.get(key)
        if part is record:
            if self._fair is None and len(parts) > 1:  # what `_give_up` does, in half the time
                del parts[key]
            else:
                self._give_up(key)
            return None
        if not isinstance(part, Line) or part.head is not record:
            return None
        return self._move_up(part)

    def _move_up(self, part: Line) -> Record | None:
        """Gives a partition to the next of its commands; without one, it is gone."""
        fresh = part.fresh
        record: Record | None
        if not part.returned and fresh and fresh[0].state is _READY:  # nearly always: as `pop` does
            record = fresh[0]
            del fresh[0]
        elif (record := part.pop()) is None:
            self._give_up(part.head.part)
            return None
        part.head = record
        if not fresh and not part.returned:
            self.parts[record.part] = record
        self.held -= 1
        if self._displaced and record in self._displaced:
            self._displaced.discard(record)
        else:
            self._order.put_back(record)
        return record

    def _give_up(self, key: Hashable) -> None:
        del self.parts[key]
        if self._fair is not None:
            self._fair.leave(key)
        if not self.parts:  # a dict that was large gives its memory back only so
            self.parts.clear()
            if not self._inside:
                self._inside.clear()

    def changed(self, record: Record) -> None:
        """Notes that the level of a command inside has changed. It matters only for one that is lined up."""
        if not self.is_held(record) or record in self._displaced:
            assert self._changed is not None
            self._changed(record)

    def is_held(self, record: Record) -> bool:
        """Whether a ready command is not lined up, as another one of its partition is ahead of it."""
        return isinstance(part := self.parts.get(record.part), Line) and part.head is not record

    def take_lined_up(self) -> list[Record]:
        """The commands that became lined up since last asked, as one ahead of them was forgotten."""
        if not self._lined_up:
            return []
        taken, self._lined_up = self._lined_up, []
        return taken

    def take_held_back(self) -> list[Record]:
        """The commands that were lined up and are not any more, since last asked: another one took their place."""
        if not self._held_back:
            return []
        taken, self._held_back = self._held_back, []
        return taken

    def list_ready(self) -> list[Record]:
        """All ready commands inside."""
        return [record for record in list(self._inside) if record.state is _READY]

    def oldest(self) -> Record | None:
        """The command that is ready for the longest time, lined up or held; `None` when none is. From any thread."""
        while self._inside:
            try:
                return next((record for record in self._inside if record.state is _READY), None)
            except RuntimeError:  # it changed under our hands
                continue
        return None

    def oldest_since(self) -> float | None:
        """When the command that is ready for the longest time became so; `None` when none is. From any thread."""
        while (record := self.oldest()) is not None:
            since = self._inside.get(record)
            if since is not None:
                return since
        return None

    def ahead_of(self, seq: int) -> int:
        """How many ready commands, lined up or held, have a number below `seq`. Reads them all."""
        return sum(record.seq < seq for record in self._inside if record.state is _READY)

    def list_parts(self) -> Iterator[tuple[Hashable, int, bool]]:
        """Each partition, with how many of its commands are ready, and whether one runs. From any thread."""
        for key, part in list(self.parts.items()):
            state = _head_of(part).state
            yield key, (state is _READY) + (len(part) if isinstance(part, Line) else 0), state is _RUNNING

    def list_since(self) -> Iterator[tuple[Hashable, float]]:
        """Each partition with a ready command, and since when the next of them is so. From any thread."""
        for key, part in list(self.parts.items()):
            record = _head_of(part)
            if record.state is not _READY and isinstance(part, Line):
                record = part.peek() or record
            since = self._inside.get(record)
            if since is not None and record.state is _READY:
                yield key, since


def _head_of(part: Record | Line) -> Record:
    return part.head if isinstance(part, Line) else part
