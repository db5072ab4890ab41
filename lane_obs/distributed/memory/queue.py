"""What the members of a queue in memory share: who they are, whose leases are lost, and who is told of what."""

from __future__ import annotations

import contextvars
import math
from typing import TYPE_CHECKING

from lane_obs.core.gate import INSTANT
from lane_obs.core.timer import Timers
from lane_obs.distributed.memory.intake import Intake
from lane_obs.distributed.memory.life import Life
from lane_obs.distributed.memory.policies import check_policies, put_in_force
from lane_obs.distributed.memory.rooms import Rooms
from lane_obs.distributed.record import Fact, FactKind, Progress, Turn
from lane_obs.errors import WrongLoop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping, Sequence

    from lane_obs.clock import Clock, Timer
    from lane_obs.config import LaneConfig, RateLimit
    from lane_obs.distributed.memory.ledger import Ledger
    from lane_obs.distributed.memory.seat import Seat
    from lane_obs.distributed.record import End, NewCommand, Receipt

_LEASE = "lease"


class SharedQueue:
    """One queue in memory. Each call is one step: nothing else happens meanwhile.

    Args:
        clock: all its time.
        lease: for how many seconds a member that does not renew its lease keeps what it runs.
        result_ttl: for how many seconds results are kept.
        ledger: keeps commands and dead letters, where there is a storage.

    Attributes:
        seats: the open members whose leases hold, by id, in the order in which they came.
        joined: how many members there have been.
    """

    def __init__(self, clock: Clock, lease: float, result_ttl: float, ledger: Ledger) -> None:
        self.clock = clock
        self.lease = lease
        self.life = Life(clock, result_ttl, ledger)
        self.seats: dict[str, Seat] = {}
        self.joined = 0
        self._rate_limits: tuple[RateLimit, ...] = ()
        self._leases = Timers()
        self._rooms = Rooms()
        self._intake = Intake(self.life, self._rooms)
        self._leading: Seat | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._armed: Timer | None = None
        self._armed_at = math.inf

    # --- members ------------------------------------------------------------------------------------------------

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ties the queue to an event loop while it has members.

        Raises:
            WrongLoop: its members are on another one.
        """
        if self._loop is not loop and self.seats:
            raise WrongLoop("the members of a LocalBroker share one event loop; those of this one have another")
        self._loop = loop

    def join(
        self,
        seat: Seat,
        lanes: Mapping[str, LaneConfig],
        max_concurrency: int | None,
        rate_limits: Sequence[RateLimit],
        letters: int,
    ) -> None:
        """Takes in a member, and puts the policies in force that it gives; they are checked."""
        now = self.begin()
        if lanes:
            limits = tuple(rate_limits)
            changed = None if limits == self._rate_limits else limits
            self.life.letters.limit = letters
            self._put_in_force(lanes, max_concurrency, changed, now)
            self._rate_limits = limits
            self.life.evict(now)
        self.seats[seat.id] = seat
        self.finish(seat)

    def declare(self, seat: Seat, lanes: Mapping[str, LaneConfig]) -> None:
        """Puts the policies of lanes in force; see `Broker.declare`."""
        engine = self.life.engine
        check_policies(engine, lanes, engine.max_concurrency, self._rate_limits)
        now = self.begin()
        self._put_in_force(lanes, engine.max_concurrency, None, now)
        self.finish(seat)

    def _put_in_force(
        self, lanes: Mapping[str, LaneConfig], most: int | None, limits: Sequence[RateLimit] | None, now: float
    ) -> None:
        put_in_force(self.life.engine, lanes, most, limits, now)
        for stored in self.life.ledger.take(lanes):
            self.life.bring_back(stored, now)
        self.life.has_changed = True

    def forget_lane(self, seat: Seat, name: str) -> bool:
        """Forgets a lane; see `Broker.forget_lane`."""
        now, engine = self.begin(), self.life.engine
        home = engine.lanes.get(name)
        is_free = home is not None and not home.live
        if home is not None and is_free:
            engine.remove_lane(home, now)
            self.life.has_changed = True  # others may use what it had reserved
        self.finish(seat)
        return is_free

    def leave(self, seat: Seat) -> None:
        """Lets a member go; what it holds is ready again."""
        now = self.begin()
        for record in list(seat.held.values()):
            self.life.give_back(record, now)
        self._forget(seat)
        self._rooms.leave(seat)
        self.life.results.leave(seat)
        self.life.facts += seat.leave()
        self.finish(None)

    def _forget(self, seat: Seat) -> None:
        self.seats.pop(seat.id, None)
        seat.is_idle = False
        if seat.end is not None:
            self._leases.cancel(seat.end)
            seat.end = None

    def stop_beat(self, seat: Seat) -> None:
        """Renews a member's lease no more."""
        now = self.begin()
        if seat.end is None and seat.id in self.seats:
            seat.end = self._leases.set(seat.stop_beat(now, self.lease), _LEASE, seat)
        self.finish(None)

    def start_beat(self, seat: Seat) -> None:
        """Renews a member's lease again."""
        now = self.begin()
        if seat.end is not None:
            self._leases.cancel(seat.end)
            seat.end = None
        seat.since, seat.last_beat = now, None
        self.seats.setdefault(seat.id, seat)
        seat.tell_work()  # there may be some of which it was not told
        self.finish(seat)

    def _return(self, seat: Seat, now: float) -> None:
        """A member whose lease was lost asks again: it gets a new one."""
        self.seats[seat.id] = seat
        if seat.last_beat is None:
            return
        seat.last_beat = now
        seat.end = self._leases.set(now + self.lease, _LEASE, seat)

    def _lose(self, seat: Seat, now: float) -> None:
        seat.end = None
        self._forget(seat)
        lost = list(seat.held.values())
        for record in lost:
            self.life.lose(record, now)
        seat.lost += len(lost)
        if lost:
            seat.tell_lost([record.id for record in lost])

    def refuse(self, ids: Iterable[str]) -> None:
        """Takes new commands out that could not be stored; one that runs already is left to whoever runs it."""
        now = self.begin()
        for command_id in ids:
            record = self.life.live.get(command_id)
            if record is not None and record.holder is None:
                self.life.cancel(record, now)
        self.finish(None)

    def leader(self) -> Seat | None:
        """The member that tells what is about the whole queue; `None` when there is none."""
        live = (seat for seat in list(self.seats.values()) if seat.last_beat is None and not seat.looks)
        return next(live, None)

    # --- steps --------------------------------------------------------------------------------------------------

    def begin(self) -> float:
        """Begins a step: does what is due, and gives the time."""
        now = self.clock.now()
        for _, seat in self._leases.pop_due(now + INSTANT):
            self._lose(seat, now)
        self.life.pass_time(now)
        return now

    def finish(self, seat: Seat | None) -> None:
        """Ends a step: tells what came of it, to the member that asked for it or else to the leader."""
        life, leader = self.life, self.leader()
        if leader is not self._leading:
            for other in (self._leading, leader):
                if other is not None:
                    other.tell_state()
            self._leading = leader
        if life.facts and (teller := leader if seat is None or seat.looks else seat) is not None:
            teller.tell_facts(self.take_facts())
        life.ledger.flush()
        self._rooms.tell(life.engine.lanes)
        if life.has_changed:
            life.has_changed = False
            for idle in [other for other in self.seats.values() if other.is_idle]:
                idle.tell_work()
        self._arm()

    def take_facts(self) -> list[Fact]:
        """What somebody is still to be told."""
        facts, self.life.facts = self.life.facts, []
        return facts

    def _arm(self) -> None:
        """Has the clock call when the next thing is due."""
        life = self.life
        times = life.engine.timers.next_at(), life.deadlines.next_at(), self._leases.next_at()
        when = min(times) if self.seats else math.inf
        if when == self._armed_at:
            return
        if self._armed is not None:
            self._armed.cancel()
        self._armed, self._armed_at = None, when
        if when != math.inf:
            # In a context of its own, as the step may be that of a command.
            self._armed = contextvars.Context().run(self.clock.call_at, when, self._on_clock)

    def _on_clock(self) -> None:
        self._armed, self._armed_at = None, math.inf
        # Not at once: what else comes at the same instant is taken in before anyone is told.
        assert self._loop is not None
        self._loop.call_soon(self._on_time)

    def _on_time(self) -> None:
        self.begin()
        self.finish(None)

    # --- what members ask ---------------------------------------------------------------------------------------

    def submit(self, seat: Seat, commands: Sequence[NewCommand]) -> list[Receipt]:
        """Takes commands in; see `Broker.submit`."""
        lanes = [self.life.engine.lane(command.lane) for command in commands]
        now = self.begin()
        place = self._intake.place
        receipts = [place(seat, command, lane, now) for command, lane in zip(commands, lanes, strict=True)]
        self.finish(seat)
        return receipts

    def turn(self, seat: Seat, ends: Sequence[End], want: int, progress: Sequence[Progress]) -> Turn:
        """Takes ends and progress, and gives work; see `Broker.turn`."""
        now, life = self.begin(), self.life
        if seat.id not in self.seats:
            self._return(seat, now)
        for told in progress:
            if life.held(seat, told.id, told.token) is not None:
                life.results.tell(Progress(told.id, 0, told.data))
        stale = []
        for end in ends:
            record = life.held(seat, end.id, end.token)
            if record is None:
                stale.append(end.id)
            else:
                life.end(record, end, now)
        seat.stale += len(stale)
        life.pass_time(now)  # a back-off of no time is over
        claimed = life.claim(seat, want, now)
        is_short = len(claimed) < want
        seat.is_idle = is_short or (seat.is_idle and not want)
        # Nothing is left that anyone may start, or else others may start it.
        life.has_changed = not is_short and self._may_start()
        facts = self.take_facts()
        self.finish(seat)
        next_at = life.engine.timers.next_at()
        return Turn(stale, claimed, facts, None if next_at == math.inf else max(next_at - now, 0.0))

    def _may_start(self) -> bool:
        engine = self.life.engine
        return engine.schedule.next_lane() is not None or bool(engine.gates.ajar)

    def set_paused(self, seat: Seat, lane: str, *, paused: bool) -> bool:
        """Pauses or resumes a lane; see `Broker.set_paused`."""
        engine = self.life.engine
        home = engine.lane(lane)
        now = self.begin()
        changed = engine.set_paused(home, now, paused=paused)
        if changed:
            self.life.facts.append(Fact(FactKind.PAUSED if paused else FactKind.RESUMED, lane))
            self.life.has_changed = not paused
        self.finish(seat)
        return changed
