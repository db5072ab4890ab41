"""Rate limits at work: which lanes wait for a token, and which of them goes next. O(log lanes) a token.

A lane takes a token only when its turn has come: with work and a slot in hand. When there is none, it leaves the
schedule and waits at the limiter, which lets the most important of those that wait go on when the token is due.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from lane_obs.core import timer

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs.config import RateLimit
    from lane_obs.core.lane import Lane, Turn
    from lane_obs.core.limit import Limiter
    from lane_obs.core.schedule import Schedule
    from lane_obs.core.timer import Entry, Timers

INSTANT: Final = 0.5e-9
"""Times that differ by less, in seconds, are one: due times are sums of floats."""


class Gate:
    """One limiter, and the lanes whose head it holds back.

    Args:
        limit: what it allows.
        limiter: the limiter.
    """

    __slots__ = ("limit", "limiter", "timer", "users", "waiting")

    def __init__(self, limit: RateLimit, limiter: Limiter) -> None:
        self.limit = limit
        self.limiter = limiter
        self.users = 0
        """How many lanes have it."""
        self.timer: Entry | None = None
        self.waiting: list[Turn] = []
        """A heap; a lane that waits here no more stays inside until it comes to the top."""

    def first(self) -> Lane | None:
        """The most important lane that waits; `None` when none does."""
        waiting = self.waiting
        while waiting:
            turn = waiting[0]
            if turn[3].gate_turn is turn:
                return turn[3]
            heappop(waiting)
        return None

    def due(self, lane: Lane, now: float) -> float:
        """When there is a token for the lane's head."""
        head = lane.ready.peek()
        return now if head is None else self.limiter.due(min(head.cost, self.limiter.most), now)


class Gates:
    """All rate limits of a queue.

    Args:
        schedule: lines lanes up.
        timers: wake the queue when a token is due.
        on_throttled: called with a lane that is held back, for the first time since it had no ready work.
    """

    __slots__ = ("_ajar", "_asked", "_on_throttled", "_schedule", "_timers")

    def __init__(self, schedule: Schedule, timers: Timers, on_throttled: Callable[[Lane, float, float], None]) -> None:
        self._schedule = schedule
        self._timers = timers
        self._on_throttled = on_throttled
        self._asked = 0
        self._ajar: dict[Gate, None] = {}
        """Those that have let a lane go on, and wait to see whether it takes its token before they let another."""

    def admit(self, lane: Lane, now: float) -> bool:
        """Takes the tokens of a lane's head, whose turn it is; or has the lane wait, and gives False."""
        gate = lane.gates[0]
        if not gate.waiting and not self._ajar and len(lane.gates) == 1:  # nearly always: no lane waits there
            head = lane.ready.peek()
            if head is not None and gate.limiter.try_take(head.cost, now):
                return True
        return self._admit(lane, now)

    def _admit(self, lane: Lane, now: float) -> bool:
        latest, due = None, now
        for gate in lane.gates:
            when = gate.due(lane, now)
            if when <= now + INSTANT and self._is_behind(lane, gate):
                self._hold(lane, gate, now)
                return False
            if when > due + INSTANT:
                latest, due = gate, when
        if latest is not None:
            self._hold(lane, latest, now)
            return False
        head = lane.ready.peek()
        assert head is not None
        for gate in lane.gates:
            gate.limiter.take(min(head.cost, gate.limiter.most), now)
            self._look_at(gate, now)
        return True

    @staticmethod
    def _is_behind(lane: Lane, gate: Gate) -> bool:
        """Whether a more important lane waits there already: what it waits for must not be taken from it bit by bit."""
        first = gate.first()
        return first is not None and gate.waiting[0][:2] < (lane.priority, lane.served)

    def _hold(self, lane: Lane, gate: Gate, now: float) -> None:
        lane.gate, lane.gate_head = gate, lane.ready.peek()
        self._schedule.update(lane, now)
        self._asked += 1
        lane.gate_turn = (lane.priority, lane.served, self._asked, lane)
        heappush(gate.waiting, lane.gate_turn)
        for other in lane.gates:  # one that it was let through is free for the next
            self._look_at(other, now)
        if not lane.throttled:
            lane.throttled = True
            self._on_throttled(lane, gate.due(lane, now) - now, now)

    def _look_at(self, gate: Gate, now: float) -> None:
        """Lets the next lane go on if there is a token for it; else sets the timer for that."""
        if gate.timer is not None:
            self._timers.cancel(gate.timer)
            gate.timer = None
        self._ajar.pop(gate, None)
        while (lane := gate.first()) is not None:
            when = gate.due(lane, now)
            if when > now + INSTANT:
                gate.timer = self._timers.set(when, timer.GATE, gate)
                return
            self.release(lane, now)
            if lane.turn is not None:  # it will try
                self._ajar[gate] = None
                return

    def recheck(self, lane: Lane, now: float) -> None:
        """Has a lane that waits try anew if its head is another one now."""
        if lane.gate is not None and lane.ready.peek() is not lane.gate_head:
            self.release(lane, now)

    def release(self, lane: Lane, now: float) -> None:
        """Has a lane that waits try anew."""
        lane.gate = lane.gate_turn = lane.gate_head = None
        self._schedule.update(lane, now)

    def open(self, gate: Gate, now: float) -> None:
        """The timer of a gate is due."""
        gate.timer = None
        self._look_at(gate, now)

    def open_more(self, now: float) -> bool:
        """Lets more lanes go on where those before them have their token in sight, but no slot; whether any did."""
        gates = list(self._ajar)
        for gate in gates:
            self._look_at(gate, now)
        return any(gate in self._ajar for gate in gates)

    def settle(self, lane: Lane, taken: float, true_cost: float, taken_at: float, now: float) -> None:
        """Corrects what a command of a lane took."""
        for gate in lane.gates:
            most = gate.limiter.most
            gate.limiter.settle(min(taken, most), true_cost, taken_at, now)
            self._look_at(gate, now)
