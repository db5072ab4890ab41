"""Fair turns among partitions: deficit round robin.

Source: M. Shreedhar and G. Varghese, "Efficient Fair Queuing Using Deficit Round-Robin", IEEE/ACM Transactions on
Networking 4(3), 1996. In each round a partition that waits is given one quantum; it starts a command when what it has
been given covers the cost, and keeps the rest, which is less than its next command costs (their lemma 1). So partitions
that wait from the same time on differ by less than the largest cost and a quantum.

Their work is O(1) a choice only for a quantum as large as the largest cost, which makes turns long. Here the quantum
is 1, and a partition is entered in the round in which its command is paid for; rounds in which none is are skipped. For
that its place within a round is not the same each time, so that over any stretch of time two partitions may differ by
twice the largest cost and quantum, where theorem 1 has twice the largest cost and one quantum.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from math import ceil
from typing import TYPE_CHECKING, Final

import msgspec

from lane_obs.core.ready import ReadyQueue
from lane_obs.core.record import Record  # noqa: TC001 - msgspec reads the annotation
from lane_obs.core.state import State

if TYPE_CHECKING:
    from collections.abc import Hashable

_LEAST_COST: Final = 0.001
"""What a command that costs less counts as: else one partition's free commands could go on for ever."""
_COMPACT_FLOOR = 64
_READY = State.READY


class _Share(msgspec.Struct, eq=False):
    """What one partition has been given and not spent; the quantum is 1."""

    head: Record | None
    """Its command that is lined up."""
    round: int
    due: int = 0
    """The round in which the head is paid for."""
    left: float = 0.0
    """The deficit, as it was in the round `round`."""


class FairQueue:
    """Heads of partitions, by deficit round robin; those within one round come in the order in which they were entered.

    A partition has one head at most: another one takes its place. All commands without a partition share one turn, in
    the order of their numbers. A choice is O(1) where no command costs more than 1, and else O(log n) where n is how
    many different rounds lie ahead: the largest cost at most.
    """

    __slots__ = ("_loose", "_round", "_rounds", "_shares", "_stale", "_turns")

    def __init__(self) -> None:
        self._shares: dict[Hashable, _Share] = {}
        self._round = 0
        self._turns: dict[int, deque[_Share]] = {}
        """Shares by the round that they are due in. Those that have got another turn since stay inside for a while."""
        self._rounds: list[int] = []
        """A heap of its keys."""
        self._stale = 0
        self._loose = ReadyQueue()
        """Commands without a partition."""

    def add(self, record: Record) -> None:
        """Lines up a command that has a higher number than all others so far."""
        self.put_back(record)

    def put_back(self, record: Record) -> None:
        """Lines up a command with any number."""
        part = record.part
        if part is None:
            self._loose.put_back(record)
        share = self._shares.get(part)
        if share is None:
            share = self._shares[part] = _Share(None, self._round)
        elif share.head is None:
            share.round = self._round  # nothing was lined up meanwhile: it was given nothing
        elif share.head.seq < record.seq:
            return
        else:
            self._withdraw(share)
        self._enter(share, record)

    def _enter(self, share: _Share, record: Record) -> None:
        cost, due = record.cost, self._round
        share.head = record
        if cost == 1.0 and not share.left:  # nearly always
            due += 1
        else:
            wanted = (cost if cost > _LEAST_COST else _LEAST_COST) - share.left
            due += ceil(wanted) if wanted > 0 else 0
        share.due = due
        turns = self._turns.get(due)
        if turns is None:
            turns = self._turns[due] = deque()
            heappush(self._rounds, due)
        turns.append(share)

    def _withdraw(self, share: _Share) -> None:
        """Takes the turn from a share; it keeps what it was given."""
        share.left += self._round - share.round
        share.round = self._round
        share.head = None
        self._stale += 1
        if self._stale > _COMPACT_FLOOR and self._stale > len(self._shares):
            self._compact()

    def _compact(self) -> None:
        kept = {due: deque(dict.fromkeys(s for s in turns if _is_due(s, due))) for due, turns in self._turns.items()}
        self._turns = {due: turns for due, turns in kept.items() if turns}
        self._rounds = list(self._turns)
        heapify(self._rounds)
        self._stale = 0

    def _first(self) -> _Share | None:
        while self._rounds:
            due = self._rounds[0]
            turns = self._turns[due]
            while turns:
                if _is_due(turns[0], due):
                    return turns[0]
                turns.popleft()
                self._stale -= 1
            del self._turns[heappop(self._rounds)]
        return None

    def peek(self) -> Record | None:
        """The next command, left inside; `None` when there is none."""
        share = self._first()
        return None if share is None else share.head

    def pop(self) -> Record:
        """Takes out the next command, at its partition's cost. There must be one; the caller starts it."""
        due = self._rounds[0]
        turns = self._turns[due]
        if not turns or turns[0].due != due or turns[0].head is None:  # seldom, and asked here it saves two calls
            self._first()
            due = self._rounds[0]
            turns = self._turns[due]
        share = turns.popleft()
        record, cost = share.head, _LEAST_COST
        assert record is not None
        if record.cost > cost:
            cost = record.cost
        left = share.left + due - share.round - cost
        share.left = left if left > 0 else 0.0  # sums of floats: it may be off by a hair
        share.round = self._round = due
        share.head = None
        if record.part is None:
            self._loose.pop()
            self._next_loose(share)
        return record

    def forget(self, record: Record) -> None:
        """Notes that a command inside has ended without starting."""
        share = self._shares[record.part]
        if share.head is record:
            self._withdraw(share)
        if record.part is None:
            self._loose.forget(record)
            if share.head is None:
                self._next_loose(share)

    def _next_loose(self, share: _Share) -> None:
        record = self._loose.peek()
        if record is None:
            self.leave(None)
        else:
            self._enter(share, record)

    def leave(self, part: Hashable) -> None:
        """Notes that a partition has nothing more, lined up or behind that: it loses what it was given."""
        self._shares.pop(part, None)  # one that only backed off was never lined up
        if not self._shares:  # a dict that was large gives its memory back only so
            self._shares.clear()


def _is_due(share: _Share, due: int) -> bool:
    return share.due == due and share.head is not None
