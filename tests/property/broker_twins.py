"""Twins: two brokers are asked the same at the same times, and must answer the same.

Three things are left out, as nothing says which way they go: which of equal lanes is first that never had a turn; which
of two things is first that are due in the same microsecond; what of all that is due one sees before a turn has seen to
it. How many commands are `ahead` in a lane with partitions is not compared: two brokers count them in different ways.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from lane_obs.config import RateLimit
from lane_obs.distributed.record import NewCommand
from lane_obs.testing.broker.trial import Ear, done
from tests.property.twin_lanes import SHARED, change_lane, make_lanes
from tests.property.twin_look import differences, numbers, plain

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from lane_obs.distributed.port import Broker
    from lane_obs.distributed.record import Claimed, End, Fact
    from tests.property.twin_time import HandClock

LEASE: Final = 7200.0
_FAR: Final = 50.0
_STATES: Final = ("succeeded", "succeeded", "failed", "timed_out", "cancelled", "backoff", "backoff", "ready", "ready")
_SPANS: Final = (0.0, 0.0, 0.005, 0.01, 0.02, 0.05)


class Side(NamedTuple):
    """A member of one of the two queues."""

    broker: Any
    ear: Ear


class Twin:
    """A member of both queues, and what it holds: of the two claims, that of the first."""

    def __init__(self, sides: tuple[Side, Side]) -> None:
        self.sides = sides
        self.held: list[tuple[Claimed, Claimed]] = []


class Twins:
    """One walk of two queues.

    Args:
        clock: that of both.
        rng: decides everything.
        make: makes a member of each queue.
    """

    def __init__(self, clock: HandClock, rng: random.Random, make: Callable[[], tuple[Broker, Broker]]) -> None:
        self.clock = clock
        self.rng = rng
        self._make = make
        self.lanes = make_lanes(rng)
        self.most = rng.choice((None, 3, 5, 8))
        if self.most is not None:
            self.most = max(self.most, 1 + sum(lane.min_concurrency for lane in self.lanes.values()))
        self.limits: Sequence[RateLimit] = rng.choice(((), (), (RateLimit.per_second(100, burst=5),), SHARED[:1]))
        self.letters = rng.choice((6, 1000))
        self.members: list[Twin] = []
        self.gone: list[Twin] = []
        self._known: list[dict[str, int]] = [{}, {}]
        self._number = self._joined = self._little = 0
        self._lately: list[NewCommand] = []
        self._moments: set[int] = set()
        self.log: list[str] = []
        """What was done so far."""
        self.told = 60
        """How much of it a failure tells."""

    async def run(self, steps: int) -> None:
        """Takes so many steps, comparing after each."""
        rng = self.rng
        for _ in range(3):
            await self._join()
        await self._serve_each(self.members[0])
        doings = (
            *[self._submit] * 4, *[self._turn] * 7, self._cancel, self._pause, self._leave, self._letters,
            self._declare, self._again, self._stale, self._lose,
        )  # fmt: skip
        for _ in range(steps):
            doing = rng.choice(doings)
            await doing(rng.choice(self.members))
            if rng.random() < 0.5:
                await self._pass_time()
            await self._settle()
            await self._compare()

    async def _serve_each(self, twin: Twin) -> None:
        """Starts a command of each lane: which of equal lanes goes first that never had a turn, nothing says."""
        for lane in self.lanes:
            await self._ask(twin, "submit", [NewCommand(f"first-{lane}", lane, b"", cost=0.0)])
            await self._turn_of(twin, 1)
            await self._turn_of(twin, 0, [(done(one), done(two)) for one, two in twin.held])
            twin.held.clear()

    def _note(self, *what: object) -> None:
        self.log.append(f"{self.clock.micros % 1_000_000_000_000 / 1e6:.6f} " + " ".join(map(str, what)))

    # --- both at once -------------------------------------------------------------------------------------------

    async def _ask(self, twin: Twin, name: str, /, *args: Any, **fields: Any) -> Any:
        """Asks both; the answers must be the same."""
        self._note(self._index(twin), name, args, fields or "")
        answers = [await getattr(side.broker, name)(*args, **fields) for side in twin.sides]
        self._same(answers, f"{name}{args}{fields}")
        return answers[0]

    def _same(self, answers: Sequence[Any], what: str) -> None:
        one, other = (plain(answer, known) for answer, known in zip(answers, self._known, strict=True))
        if found := differences(one, other, what):
            raise AssertionError("\n".join([*self.log[-self.told :], f"lanes: {self.lanes}", *found]))

    def _index(self, twin: Twin) -> int:
        return self._known[0][twin.sides[0].broker.member]

    async def _join(self) -> None:
        sides = []
        for number, broker in enumerate(self._make()):
            ear = Ear()
            broker.pushes = False
            await broker.open(self.lanes, self.most, self.limits, letters=self.letters, work=True, listener=ear)
            self._known[number][broker.member] = self._joined
            sides.append(Side(broker, ear))
        self._joined += 1
        self._note("join", self.most, self.limits, self.letters)
        self.members.append(Twin((sides[0], sides[1])))

    async def _turn_of(self, twin: Twin, want: int, ends: Sequence[tuple[End, End]] = ()) -> None:
        self._note(self._index(twin), "turn", want, [one for one, _ in ends])
        turns = [
            await side.broker.turn([pair[number] for pair in ends], want) for number, side in enumerate(twin.sides)
        ]
        for side, turn in zip(twin.sides, turns, strict=True):
            side.ear.facts += turn.facts
        self._same([turn.stale for turn in turns], "stale")
        self._note("->", [(one.id, one.lane) for one in turns[0].claimed])
        self._same([[msgspec.structs.replace(one, token=0) for one in turn.claimed] for turn in turns], "claimed")
        twin.held += zip(turns[0].claimed, turns[1].claimed, strict=True)
        for turn in turns:
            if turn.next_due is not None:
                self._moments.add(math.ceil(self.clock.micros + turn.next_due * 1e6 - 0.01) + 1)

    # --- what members do ----------------------------------------------------------------------------------------

    async def _submit(self, twin: Twin) -> None:
        commands = [self._new() for _ in range(self.rng.choice((1, 1, 1, 3, 5)))]
        self._lately = [*self._lately, *commands][-20:]
        await self._ask(twin, "submit", commands)

    def _new(self) -> NewCommand:
        rng, lane = self.rng, self.rng.choice(list(self.lanes))
        self._number += 1
        delay, deadline = self._span(*_SPANS, _FAR), rng.choice((None, self._span(0.004, 0.02, 0.04, 0.1, _FAR)))
        if delay and rng.random() < 0.1:
            deadline = delay
        boost = self.lanes[lane].boost
        for span in (delay, deadline):
            if span:
                self._moments.add(self.clock.micros + round(span * 1e6))
        whole = deadline or (boost.deadline if boost else None)
        if boost is not None and whole:
            self._moments |= {self.clock.micros + round(whole * (1 - share) * 1e6) for share, _ in boost.steps}
        if boost is not None and boost.every:
            self._moments |= {self.clock.micros + round(boost.every * times * 1e6) for times in (1, 2, 3)}
        return NewCommand(
            f"c{self._number:05}",
            lane,
            b"%d" % self._number,
            delay=delay,
            deadline=deadline,
            cost=rng.choice((0.0, 1.0, 1.0, 1.5)),
            key=rng.choice((None, None, None, "k1", "k2")),
            part=rng.choice((None, "p", "q", "r")) if self.lanes[lane].partitions is not None else None,
        )

    def _span(self, *some: float) -> float:
        """One of these spans and a little more, so that no two things are due at once: then either may be the first."""
        self._little += 1
        span = self.rng.choice(some)
        return span and span + self._little % 900 / 1e6

    async def _turn(self, twin: Twin) -> None:
        rng, held = self.rng, twin.held
        rng.shuffle(held)
        ends = [self._end(held.pop()) for _ in range(min(len(held), rng.randrange(4)))]
        await self._turn_of(twin, rng.randrange(5), ends)

    def _end(self, pair: tuple[Claimed, Claimed]) -> tuple[End, End]:
        rng, state = self.rng, self.rng.choice(_STATES)
        fields: dict[str, Any] = {"cost": rng.choice((None, None, 0.0, 0.5, 3.0))}
        if state in {"backoff", "ready"}:
            fields["delay"] = self._span(*_SPANS, _FAR)
            self._moments.add(self.clock.micros + round(fields["delay"] * 1e6))
        elif state != "succeeded" and rng.random() < 0.5:
            fields["letter"] = b"letter"
        fields["result"] = b"result" if state == "succeeded" else b""
        return done(pair[0], state, **fields), done(pair[1], state, **fields)

    async def _cancel(self, twin: Twin) -> None:
        await self._ask(twin, "cancel", self._some_id())

    def _some_id(self) -> str:
        return f"c{self.rng.randrange(max(self._number - 30, 0), self._number + 1):05}"

    async def _pause(self, twin: Twin) -> None:
        await self._ask(twin, "set_paused", self.rng.choice(list(self.lanes)), paused=self.rng.random() < 0.3)

    async def _leave(self, twin: Twin) -> None:
        if self.rng.random() < 0.3:
            await self._part_from(twin)
            await self._join()

    async def _part_from(self, twin: Twin) -> None:
        self._note(self._index(twin), "closes", [(one.id, one.lane) for one, _ in twin.held])
        for side in twin.sides:
            await side.broker.close()
        self.members.remove(twin)
        self.gone.append(twin)

    async def _letters(self, twin: Twin) -> None:
        ids = [one.id for one in await self._ask(twin, "letters")]
        some = self.rng.sample(ids, min(len(ids), 2))
        if some and self.rng.random() < 0.7:
            await self._ask(twin, "requeue", some)
        elif some:
            await self._ask(twin, "remove_letters", some)

    async def _declare(self, twin: Twin) -> None:
        """A lane gets other policies; its boost and whether it has partitions are for its life."""
        name = self.rng.choice([name for name in self.lanes if name != "holder"])
        changed = change_lane(self.rng, self.lanes[name], keeps_reserved=self.most is not None)
        self.lanes[name] = changed
        await self._ask(twin, "declare", {name: changed})

    async def _again(self, twin: Twin) -> None:
        """The same ids once more, by the same member or another one."""
        if self._lately:
            await self._ask(twin, "submit", [self.rng.choice(self._lately)])

    async def _stale(self, twin: Twin) -> None:
        """Ends of what a member does not hold."""
        other = self.rng.choice(self.members)
        if other is not twin and other.held:
            one, two = self.rng.choice(other.held)
            await self._turn_of(twin, self.rng.randrange(2), [(done(one), done(two))])

    async def _lose(self, twin: Twin) -> None:
        """The lease of a member is lost."""
        if self.rng.random() > 0.3:
            return
        self._note(self._index(twin), "is lost", [(one.id, one.lane) for one, _ in twin.held])
        twin.sides[0].broker.stop_beat()
        others = [other for other in self.members if other is not twin]
        for share in (0.6, 0.5):
            await self._pass_until(self.clock.micros + round(share * LEASE * 1e6))
            for other in others:
                await other.sides[1].broker.beat()
            await self._turn_of(others[0], 0)  # the other queue looks when it is asked
        held, twin.held = twin.held, []
        await self._turn_of(twin, 0, [(done(one), done(two)) for one, two in held])
        await self._part_from(twin)
        await self._join()

    # --- what must hold -----------------------------------------------------------------------------------------

    async def _pass_time(self) -> None:
        clock, rng = self.clock, self.rng
        self._moments = {moment for moment in self._moments if moment > clock.micros}
        near = sorted(moment for moment in self._moments if moment < clock.micros + 200_000)
        if near and rng.random() < 0.7:
            end = near[min(int(rng.expovariate(1.0)), len(near) - 1)]
        elif self._moments and rng.random() < 0.03:
            end = max(self._moments)
        else:
            end = clock.micros + 100 * rng.randrange(1, 300) + 37
        await self._pass_until(end)

    async def _pass_until(self, end: int) -> None:
        for moment in sorted(self._moments):
            if self.clock.micros < moment < end:
                self.clock.set(moment)
                await self._settle()
        self.clock.set(end)

    async def _settle(self) -> None:
        """Somebody looks: what is due is done at both."""
        await self._turn_of(self.rng.choice(self.members), 0)

    async def _compare(self) -> None:
        twin = self.rng.choice(self.members)
        stats = [await side.broker.stats() for side in twin.sides]
        self._same([numbers(one) for one in stats], "stats")
        self._same([await side.broker.letters(limit=1000) for side in twin.sides], "letters")
        for _ in range(3):
            some = self._some_id()
            found = [await side.broker.find(some) for side in twin.sides]
            if found[0] is not None and self.lanes[found[0].lane].partitions is not None:
                found = [one and msgspec.structs.replace(one, ahead=0) for one in found]
            self._same(found, f"find {some}")
        self._same([self._facts(number) for number in range(2)], "facts")

    def _facts(self, number: int) -> list[Fact]:
        facts = []
        for twin in [*self.members, *self.gone]:
            ear = twin.sides[number].ear
            facts += ear.facts
            ear.facts.clear()
        self.gone = self.gone[-2:]
        return sorted(facts, key=lambda fact: (fact.kind, fact.lane, fact.id))
