"""Rate limits at work: which lanes wait for a token, and which of them goes next. O(log lanes) a token.

A lane takes a token only when its turn has come: with work and a slot in hand. When there is none, it leaves the
schedule and waits at the limiter, which lets the most important of those that wait go on when the token is due.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from lane_obs.core import timer
from lane_obs.core.limit import make_limiter
from lane_obs.core.state import State
from lane_obs.core.wait import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lane_obs.config import RateLimit
    from lane_obs.core.lane import Lane, Turn
    from lane_obs.core.limit import Limiter
    from lane_obs.core.schedule import Schedule
    from lane_obs.core.timer import Entry, Timers

INSTANT: Final = 0.5e-9
"""Times that differ by less, in seconds, are one: due times are sums of floats."""

_READY, _RUNNING = State.READY, State.RUNNING
_COMPACT_FLOOR = 64


class Gate:
    """One limiter, and the lanes whose head it holds back.

    Args:
        limit: what it allows.
        limiter: the limiter.
    """

    __slots__ = ("_reserving", "limit", "limiter", "timer", "users", "waiting")

    def __init__(self, limit: RateLimit, limiter: Limiter) -> None:
        self.limit = limit
        self.limiter = limiter
        self.users = 0
        """How many lanes have it."""
        self.timer: Entry | None = None
        self.waiting: list[Turn] = []
        """A heap; a lane that waits here no more stays inside for a while."""
        self._reserving: dict[Lane, None] = {}
        """Lanes that wait here and have slots of their own."""

    def enter(self, lane: Lane, turn: Turn, most: int) -> None:
        """Lines a lane up; `most` lanes may wait here."""
        lane.gate, lane.gate_turn, lane.gate_head = self, turn, lane.ready.peek()
        waiting = self.waiting
        heappush(waiting, turn)
        if len(waiting) > 2 * most + _COMPACT_FLOOR:
            waiting[:] = [kept for kept in waiting if kept[3].gate_turn is kept]
            heapify(waiting)
        if lane.min:
            self._reserving[lane] = None

    def leave(self, lane: Lane) -> None:
        """Notes that a lane waits here no more."""
        lane.gate = lane.gate_turn = lane.gate_head = None
        self._reserving.pop(lane, None)

    def first(self) -> Lane | None:
        """The most important lane that waits; `None` when none does."""
        waiting = self.waiting
        while waiting:
            turn = waiting[0]
            if turn[3].gate_turn is turn:
                return turn[3]
            heappop(waiting)
        return None

    def first_below_reservation(self) -> Lane | None:
        """The most important of those that have a slot of their own free. They are no more than the queue has slots."""
        turns = [lane.gate_turn for lane in self._reserving if lane.counts[_RUNNING] < lane.min and lane.gate_turn]
        return min(turns)[3] if turns else None

    def due(self, lane: Lane, now: float) -> float:
        """When there is a token for the lane's head. One that costs more than there ever is, waits for a full one."""
        head = lane.ready.peek()
        return now if head is None else self.limiter.due(min(head.cost, self.limiter.most), now)


class Gates:
    """All rate limits of a queue.

    Args:
        schedule: lines lanes up.
        timers: wake the queue when a token is due.

    Attributes:
        on_throttled: called with a lane that is held back, for the first time since it had no ready work, with the
            seconds that it has to wait, and the time.
        on_unthrottled: called with a lane that was held back and has no ready work any more, and the time.
    """

    __slots__ = ("_asked", "_of_all", "_schedule", "_shared", "_timers", "ajar", "on_throttled", "on_unthrottled")

    def __init__(self, schedule: Schedule, timers: Timers) -> None:
        self._schedule = schedule
        self._timers = timers
        self.on_throttled: Callable[[Lane, float, float], None] = lambda _lane, _seconds, _now: None
        self.on_unthrottled: Callable[[Lane, float], None] = lambda _lane, _now: None
        self._of_all: tuple[Gate, ...] = ()
        self._shared: dict[RateLimit, Gate] = {}
        self._asked = 0
        self.ajar: dict[Gate, None] = {}
        """Those that have let a lane go on, and wait to see whether it takes its token before they let another."""

    # --- which lane has which -----------------------------------------------------------------------------------

    def for_all(self, limits: Sequence[RateLimit], now: float) -> None:
        """Sets the rate limits that all lanes have, in place of those before; while no lane has any."""
        self._let_go(self._of_all)
        self._of_all = tuple(self._gate_of(limit, now, []) for limit in limits)

    def attach(self, lane: Lane, now: float) -> None:
        """Gives a lane the rate limits that its policies say, in place of those it has; the same ones are kept."""
        of_all = {gate.limit.name for gate in self._of_all} - {None}  # shared with the queue: it has those already
        limits = (limit for limit in lane.config.rate_limits if limit.name not in of_all)
        had = [gate for gate in lane.gates[len(self._of_all) :] if gate.limit.name is None]
        gates = self._of_all + tuple(self._gate_of(limit, now, had) for limit in limits)
        self.detach(lane)
        lane.gates = gates
        lane.most = min((gate.limiter.most for gate in gates), default=math.inf)

    def detach(self, lane: Lane) -> None:
        """Takes a lane's rate limits away; those that no lane shares any more are forgotten."""
        self._let_go(lane.gates[len(self._of_all) :])
        lane.gates = ()

    def _let_go(self, gates: Sequence[Gate]) -> None:
        for gate in gates:
            gate.users -= 1
            if not gate.users:
                self.ajar.pop(gate, None)
                if gate.limit.name is not None:
                    del self._shared[gate.limit]

    def _gate_of(self, limit: RateLimit, now: float, had: list[Gate]) -> Gate:
        """The gate for a limit: that of those who share it, one that the lane has had for it, or a new one."""
        if limit.name is not None:
            gate = self._shared.get(limit)
        elif (gate := next((old for old in had if old.limit == limit), None)) is not None:
            had.remove(gate)  # the same limit twice is two
        if gate is None:
            gate = Gate(limit, make_limiter(limit, now))
            if limit.name is not None:
                self._shared[limit] = gate
        gate.users += 1
        return gate

    @property
    def shared(self) -> list[RateLimit]:
        """The rate limits that have a name, each once."""
        return [gate.limit for gate in self._shared.values()]

    # --- which lane goes on -------------------------------------------------------------------------------------

    def admit(self, lane: Lane, now: float) -> bool:
        """Takes the tokens of a lane's head, whose turn it is; or has the lane wait, and gives False."""
        head = lane.ready.peek()
        assert head is not None
        if not head.cost:
            return True
        gate = lane.gates[0]
        # Nearly always nobody waits there, and it lets through: seen here, it takes half the time.
        is_lone = not gate.waiting and gate.timer is None and not self.ajar and len(lane.gates) == 1
        if is_lone and gate.limiter.try_take(head.cost, now):
            return True
        latest, due = None, now
        for gate in lane.gates:
            when = gate.due(lane, now)
            if when <= now + INSTANT and self._is_behind(lane, gate, now):
                self._hold(lane, gate, now)
                return False
            if when > due + INSTANT:
                latest, due = gate, when
        if latest is not None:
            self._hold(lane, latest, now)
            return False
        for gate in lane.gates:
            gate.limiter.take(head.cost, now)
            self._look_at(gate, now)
        return True

    @staticmethod
    def _is_behind(lane: Lane, gate: Gate, now: float) -> bool:
        """Whether a more important lane saves up there: what it waits for must not be taken from it bit by bit.

        One whose token is there has no slot: it takes it only with both.
        """
        first = gate.first()
        if first is None or gate.waiting[0][:2] >= (lane.priority, lane.served):
            return False
        return gate.due(first, now) > now + INSTANT

    def _hold(self, lane: Lane, gate: Gate, now: float) -> None:
        self._asked += 1
        gate.enter(lane, (lane.priority, lane.served, self._asked, lane), self._schedule.lanes)
        self._schedule.update(lane, now)
        for other in lane.gates:  # one that it was let through is free for the next
            self._look_at(other, now)
        if not lane.throttled:
            lane.throttled = True
            self.on_throttled(lane, self.due(lane, now) - now, now)

    def end_throttling(self, lane: Lane, now: float) -> None:
        """A lane that was held back has no ready work any more."""
        lane.throttled = False
        self.on_unthrottled(lane, now)

    def due(self, lane: Lane, now: float) -> float:
        """When a lane that waits may go on at the earliest: not before the first of those that wait with it."""
        gate = lane.gate
        first = None if gate is None else gate.first()
        return now if gate is None or first is None else max(gate.due(first, now), gate.due(lane, now))

    def _look_at(self, gate: Gate, now: float) -> None:
        """Lets the next lane go on if there is a token for it; else sets the timer for that."""
        self.ajar.pop(gate, None)
        while (lane := gate.first()) is not None:
            when = gate.due(lane, now)
            if when > now + INSTANT:
                self._set_timer(gate, when)
                return
            self._release(lane, now)
            if lane.turn is not None:  # it will try
                self.ajar[gate] = None
                break
        self._set_timer(gate, None)

    def _set_timer(self, gate: Gate, when: float | None) -> None:
        if gate.timer is not None:
            if gate.timer[0] == when:
                return
            self._timers.cancel(gate.timer)
        gate.timer = None if when is None else self._timers.set(when, timer.GATE, gate)

    def _release(self, lane: Lane, now: float) -> None:
        assert lane.gate is not None
        lane.gate.leave(lane)
        self._schedule.update(lane, now)

    def recheck(self, lane: Lane, now: float) -> None:
        """Has a lane that waits try anew if its head is another one now; one that has none left gives way."""
        if not lane.counts[_READY] or (lane.gate is not None and lane.ready.peek() is not lane.gate_head):
            self.leave(lane, now)

    def leave(self, lane: Lane, now: float) -> None:
        """Has a lane that waits, if it does, try anew; those behind it need not wait for it meanwhile."""
        gates = [gate for gate in lane.gates if gate is lane.gate or gate in self.ajar]  # it may have been let on there
        if lane.gate is not None:
            self._release(lane, now)
        for gate in gates:
            self._look_at(gate, now)

    def open(self, gate: Gate, now: float) -> None:
        """The timer of a gate is due."""
        gate.timer = None
        self._look_at(gate, now)

    def open_more(self, now: float) -> bool:
        """Lets more lanes go on where those before them have their token in sight, but no slot; whether any did.

        Only such lanes as may have a slot: else thousands would go on, and come back at the first token taken.
        """
        if (mode := self._schedule.contention.mode) is Mode.FULL or not self.ajar:
            return False
        if mode is Mode.RESERVED:
            return any(self._let_one_in(gate, now) for gate in list(self.ajar))
        for gate in list(self.ajar):
            self._look_at(gate, now)
        return bool(self.ajar)

    def _let_one_in(self, gate: Gate, now: float) -> bool:
        """Lets a lane go on that is below its reservation; whether there was one."""
        lane = gate.first_below_reservation()
        if lane is None:
            return False
        when = gate.due(lane, now)
        if when > now + INSTANT:
            self._set_timer(gate, when)
            return False
        self._release(lane, now)
        return True

    def settle(self, lane: Lane, taken: float, true_cost: float, taken_at: float, now: float) -> None:
        """Corrects what a command of a lane took."""
        for gate in lane.gates:
            gate.limiter.settle(taken, true_cost, taken_at, now)
            self._look_at(gate, now)
