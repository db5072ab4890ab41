"""Whose turn it is: lanes by priority, equals in turn, within limits and reservations. O(log lanes) a choice.

A lane may start a command when it is not paused, has ready work, runs fewer than its `max`, and the queue-wide
limit leaves it a slot. With `max_concurrency`, each lane holds the larger of what it runs and what it reserves;
a lane below its reservation takes one of its own slots, any other lane takes one that nobody holds.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from lane_obs.core.state import State
from lane_obs.core.wait import Access, Contention, Mode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lane_obs.core.lane import Lane, Turn

_READY = State.READY
_RUNNING = State.RUNNING
# Bound once: looking a member up on its enum class is dear on Python 3.11, and these run for every command.
_PAUSED, _AT_MAX, _RESERVED, _SHARED = Access.PAUSED, Access.AT_MAX, Access.RESERVED, Access.SHARED
_LIMITED, _KEYED = Access.LIMITED, Access.KEYED
_COMPACT_FLOOR = 64


class Schedule:
    """Chooses the lane that starts next.

    Args:
        max_concurrency: queue-wide bound on running commands; `None` for none.
        contention: the totals to keep of it.
    """

    __slots__ = (
        "_asked",
        "_held",
        "_reserved",
        "_running",
        "_served",
        "_shared",
        "contention",
        "lanes",
        "limit",
    )

    def __init__(self, max_concurrency: int | None, contention: Contention) -> None:
        self.limit = max_concurrency
        self.contention = contention
        self.lanes = 0
        """How many lanes there are."""
        self._running = 0
        self._held = 0
        self._served = 0
        self._asked = 0
        # Turns of lanes that may start: without competing, and by competing for a shared slot.
        self._reserved: list[Turn] = []
        self._shared: list[Turn] = []

    def add(self, lane: Lane, now: float) -> None:
        """Takes in a lane that runs nothing."""
        self.lanes += 1
        self._held += lane.min
        self.update(lane, now)

    def remove(self, lane: Lane) -> None:
        """Lets a lane go that runs nothing; `settle` afterwards."""
        self.lanes -= 1
        self._held -= lane.min
        lane.turn = None
        self._compact(self._reserved)
        self._compact(self._shared)

    def ask(self, lane: Lane) -> None:
        """Lines the lane up if it may start and is not lined up yet."""
        if lane.turn is not None or not lane.counts[_READY]:
            return
        access = lane.meter.access
        if access is _RESERVED:
            heap = self._reserved
        elif access is _SHARED:
            heap = self._shared
        else:
            return
        if len(self._reserved) + len(self._shared) == 1:
            lone = self._reserved or self._shared
            if lone[0][3].turn is lone[0]:
                lone[0] = self._new_turn(lone[0][3])
        heappush(heap, self._new_turn(lane))
        self._compact(heap)

    def _compact(self, heap: list[Turn]) -> None:
        # A lane has one turn at most, so a heap longer than the lanes holds turns that were given up.
        if len(heap) > 2 * self.lanes + _COMPACT_FLOOR:
            heap[:] = [turn for turn in heap if turn[3].turn is turn]
            heapify(heap)

    def _new_turn(self, lane: Lane) -> Turn:
        self._asked += 1
        turn = lane.turn = (lane.priority, lane.served, self._asked, lane)
        return turn

    def next_lane(self) -> Lane | None:
        """The lane whose head starts next; `None` when none may."""
        limit = self.limit
        if limit is None:
            turn = self._head(self._reserved)
            return None if turn is None else turn[3]
        reserved = self._head(self._reserved) if self._running < limit else None
        shared = self._head(self._shared) if self._held < limit else None
        turn = reserved if shared is None or (reserved is not None and reserved < shared) else shared
        return None if turn is None else turn[3]

    @staticmethod
    def _head(heap: list[Turn]) -> Turn | None:
        while heap:
            turn = heap[0]
            lane = turn[3]
            if lane.turn is turn:
                if lane.counts[_READY]:
                    return turn
                lane.turn = None
            heappop(heap)
        return None

    def started(self, lane: Lane, now: float) -> None:
        """Notes that the lane, the one `next_lane` gave, started a command (already counted as running)."""
        running = lane.counts[_RUNNING]
        self._running += 1
        if running > lane.min:
            self._held += 1
        self._served = lane.served = self._served + 1
        if running >= lane.max or running == lane.min:
            lane.turn = None
            self.update(lane, now)
        elif lane.counts[_READY]:
            # What blocks the lane is as before: it gives its turn, at the head of its heap, for a later one. A lane
            # that is alone there keeps it; `ask` makes up for that when another one comes.
            # `next_lane` has just taken the stale turns off the head, so the lane's own is there.
            if len(self._reserved) + len(self._shared) > 1:
                heap = self._shared if lane.meter.access is _SHARED else self._reserved
                heapreplace(heap, self._new_turn(lane))
        else:
            lane.turn = None

    def ended(self, lane: Lane, now: float) -> None:
        """Notes that a command of the lane gave its slot back (no longer counted as running)."""
        running = lane.counts[_RUNNING]
        self._running -= 1
        if running >= lane.min:
            self._held -= 1
        if running + 1 >= lane.max or running + 1 == lane.min:
            self.update(lane, now)

    def update(self, lane: Lane, now: float) -> None:
        """Looks anew at what blocks the lane, and lines it up or out."""
        access = self._access(lane)
        meter = lane.meter
        if access is not meter.access:
            meter.change(now, lane.priority, access)
            lane.turn = None
        self.ask(lane)

    def relevel(self, lane: Lane, priority: int, now: float) -> None:
        """Gives the lane another priority, and lines it up by that."""
        lane.priority = priority
        lane.meter.change(now, priority, self._access(lane))
        lane.turn = None
        self.ask(lane)

    def reline(self, lane: Lane, lanes: Iterable[Lane], now: float) -> None:
        """Lines a lane up anew after its limits or priority changed; `lanes` are all of the queue's."""
        self._held = sum(max(other.counts[_RUNNING], other.min) for other in lanes)
        lane.meter.change(now, lane.priority, self._access(lane))
        lane.turn = None
        self.ask(lane)
        self.settle(now)

    def _access(self, lane: Lane) -> Access:
        if lane.paused:
            return _PAUSED
        running = lane.counts[_RUNNING]
        if running >= lane.max:
            return _AT_MAX
        if lane.gate is not None:
            return _LIMITED
        if lane.parted is not None and 0 < lane.counts[_READY] <= lane.parted.held:
            return _KEYED
        return _RESERVED if self.limit is None or running < lane.min else _SHARED

    def settle(self, now: float) -> None:
        """Brings the totals of the queue-wide limit up to date; call it after each change of what may start."""
        limit = self.limit
        if limit is None:
            return
        if self._held < limit:
            self.contention.change(now, Mode.FREE, None)
            return
        head = self._head(self._shared)
        mode = Mode.FULL if self._running >= limit else Mode.RESERVED
        self.contention.change(now, mode, head[0] if head is not None else None)
