"""A queue of a broker on trial: members that remember what they are told, and waits that end."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from lane_obs.clock import sleep
from lane_obs.config import LaneConfig
from lane_obs.distributed.port import Broker
from lane_obs.distributed.record import (
    Answer,
    Claimed,
    End,
    Fact,
    FactKind,
    NewCommand,
    Progress,
    Receipt,
    Result,
    Turn,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from lane_obs.clock import Clock
    from lane_obs.config import RateLimit
    from lane_obs.distributed.view import BrokerHealth

STEP: Final = 0.01
"""Seconds between two looks at something that is waited for."""
MOMENT: Final = 0.15
"""Seconds in which nothing must happen, where nothing is to happen."""
_PATIENCE: Final = 10.0


class BrokerOnTrial(Broker, Protocol):
    """A broker whose hold on life a test can take away."""

    def stop_beat(self) -> None:
        """Renews the member's lease no more, as if its process were stopped."""

    def start_beat(self) -> None:
        """Renews it again."""


class Ear:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.work = 0
        self.claimed: list[Claimed] = []
        self.results: list[Result] = []
        self.progress: list[Progress] = []
        self.cancelled: list[str] = []
        self.room: list[str] = []
        self.lost: list[str] = []
        self.facts: list[Fact] = []
        self.states: list[BrokerHealth] = []

    def on_claimed(self, claimed: Sequence[Claimed]) -> None:
        """Remembers, until the member takes them up."""
        self.claimed += claimed
        self.work += 1

    def on_work(self) -> None:
        """Counts."""
        self.work += 1

    def on_results(self, results: Sequence[Result]) -> None:
        """Remembers."""
        self.results += results

    def on_progress(self, progress: Progress) -> None:
        """Remembers."""
        self.progress.append(progress)

    def on_cancel(self, ids: Sequence[str]) -> None:
        """Remembers."""
        self.cancelled += ids

    def on_room(self, lane: str) -> None:
        """Remembers."""
        self.room.append(lane)

    def on_lost(self, ids: Sequence[str]) -> None:
        """Remembers."""
        self.lost += ids

    def on_facts(self, facts: Sequence[Fact]) -> None:
        """Remembers."""
        self.facts += facts

    def on_state(self, health: BrokerHealth) -> None:
        """Remembers."""
        self.states.append(health)


class TrialMember:
    """One open member, and what it was told.

    Args:
        trial: whose member it is.
        broker: the broker itself.
        ear: its listener.
    """

    def __init__(self, trial: Trial, broker: BrokerOnTrial, ear: Ear) -> None:
        self.trial = trial
        self.broker = broker
        self.ear = ear
        self.id = broker.member
        self.room = 0
        """How many commands it asked for and did not get."""

    async def submit(self, *commands: NewCommand) -> None:
        """Submits commands that must all be accepted."""
        receipts = await self.broker.submit(commands)
        equal(receipts, [Receipt(Answer.ACCEPTED, command.id) for command in commands], "receipts")

    async def put(self, lane: str, *ids: str, **fields: Any) -> None:
        """Submits commands with these ids, whose bodies are their ids."""
        await self.submit(*(new(name, lane, **fields) for name in ids))

    async def turn(self, want: int, *ends: End, progress: Sequence[Progress] = ()) -> Turn:
        """One exchange; what it tells of facts is remembered with the others.

        What the member was given unasked comes first, and counts as wanted.
        """
        asked = max(want - len(self.ear.claimed), 0)
        turn = await self.broker.turn(ends, asked, progress)
        self.ear.facts += turn.facts
        most = max(asked, self.room)  # some of it may be what the member was given before
        assert len(turn.claimed) <= most, f"{len(turn.claimed)} commands were claimed where {most} were wanted"
        claimed = [*self.ear.claimed, *turn.claimed]
        self.ear.claimed = claimed[want:]
        if asked:
            self.room = asked - len(turn.claimed)
        return msgspec.structs.replace(turn, claimed=claimed[:want])

    async def claim(self, want: int, *ends: End) -> list[Claimed]:
        """What one exchange gives; none of its ends may be stale."""
        turn = await self.turn(want, *ends)
        equal(turn.stale, [], "stale ends")
        return turn.claimed

    async def claim_ids(self, want: int, *ends: End) -> list[str]:
        """The ids of what one exchange gives."""
        return [claimed.id for claimed in await self.claim(want, *ends)]

    async def claim_all(self, count: int, *, each: int | None = None) -> list[Claimed]:
        """Claims until there are so many, `each` at a time."""
        got: list[Claimed] = []

        async def enough() -> bool:
            got.extend(await self.claim(min(each or count, count - len(got))))
            return len(got) >= count

        await self.trial.until(enough, f"{count} commands can be claimed")
        return got

    async def claim_one(self) -> Claimed:
        """Claims one, waiting for it."""
        return (await self.claim_all(1))[0]

    async def succeed(self, *claimed: Claimed) -> None:
        """Ends commands in success, claiming none."""
        await self.claim(0, *(done(one) for one in claimed))

    async def close(self) -> None:
        """Closes the broker."""
        await self.broker.close()


class Trial:
    """One fresh queue.

    Args:
        make: makes a member of the queue of the name that is given.
        clock: all time of the checks.
        lease: that of the members.
        result_ttl: that of the members.
    """

    def __init__(self, make: Callable[[str], BrokerOnTrial], clock: Clock, *, lease: float, result_ttl: float) -> None:
        self._make = make
        self.clock = clock
        self.lease = lease
        self.result_ttl = result_ttl
        self.queue = f"trial-{uuid.uuid4().hex[:12]}"
        self.members: list[TrialMember] = []

    async def member(
        self,
        lanes: Mapping[str, LaneConfig] | None = None,
        max_concurrency: int | None = None,
        rate_limits: Sequence[RateLimit] = (),
        *,
        letters: int = 100,
        work: bool = True,
    ) -> TrialMember:
        """Opens one more member; with one lane, `a`, that 10 commands may run in, unless others are given."""
        broker, ear = self._make(self.queue), Ear()
        given = {"a": LaneConfig(1, 10)} if lanes is None else lanes
        await broker.open(given, max_concurrency, rate_limits, letters=letters, work=work, listener=ear)
        member = TrialMember(self, broker, ear)
        self.members.append(member)
        return member

    async def pass_time(self, seconds: float = MOMENT) -> None:
        """Lets time pass."""
        await sleep(self.clock, seconds)

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Waits until a condition holds, which may be asked for with an `async` function.

        Raises:
            AssertionError: it does not come to hold.
        """
        over = self.clock.now() + _PATIENCE + 5 * self.lease
        while True:
            holds = condition()
            if hasattr(holds, "__await__"):
                holds = await holds
            if holds:
                return
            assert self.clock.now() < over, f"waited in vain until {what}"
            await sleep(self.clock, STEP)

    def facts(self, kind: FactKind) -> list[Fact]:
        """What all members together were told of this kind."""
        return [fact for member in self.members for fact in member.ear.facts if fact.kind == kind]

    async def fact(self, kind: FactKind, *ids: str) -> list[Fact]:
        """Waits for facts about these commands; then there must be no others of their kind."""
        await self.until(lambda: len(self.facts(kind)) >= len(ids), f"a member is told that {ids} are {kind}")
        found = self.facts(kind)
        equal(sorted(fact.id for fact in found), sorted(ids), f"commands that are {kind}, by the facts")
        return found

    async def state(self, member: TrialMember, command_id: str, wanted: str) -> None:
        """Waits until a command is in a state."""

        async def is_so() -> bool:
            found = await member.broker.find(command_id)
            return found is not None and found.state == wanted

        await self.until(is_so, f"{command_id} is {wanted}")

    async def close(self) -> None:
        """Closes all members."""
        for member in self.members:
            await member.close()


def new(command_id: str, lane: str = "a", **fields: Any) -> NewCommand:
    """A command whose body is its id."""
    return NewCommand(command_id, lane, command_id.encode(), **fields)


def done(claimed: Claimed, state: str = "succeeded", **fields: Any) -> End:
    """The end of what was claimed."""
    return End(claimed.id, claimed.token, state, **fields)


async def refused(asked: Awaitable[object], kind: type[Exception], what: str) -> None:
    """Asserts that something is refused with this exception, or one of its subclasses.

    Raises:
        AssertionError: it is not.
    """
    try:
        found = await asked
    except kind:
        return
    raise AssertionError(f"{what} gives {found!r} in place of {kind.__name__}")


def equal(found: object, wanted: object, what: str) -> None:
    """Asserts that two things are equal."""
    assert found == wanted, f"{what}: {found!r} in place of {wanted!r}"
