"""`PartitionedBroker`: what is its own, beside what all brokers do (test_partitioned_conforms.py)."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import BrokerUnavailable, MemorySink, Partitions, QueueManager, RateLimit, command
from lane_obs.clock import sleep
from lane_obs.config import LaneConfig
from lane_obs.distributed import Broker, LocalBroker, PartitionedBroker
from lane_obs.distributed.partitioned.route import number_of
from lane_obs.distributed.record import Answer, End, FactKind, Receipt, Result
from lane_obs.errors import ConfigError, UnknownLane
from lane_obs.testing.broker.trial import Ear, Trial, done, new
from tests.unit.distributed.known_parts import Breakable, OnTrial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.clock import VirtualClock

LANES = {"a": LaneConfig(1, 12)}


def ids_in(number: int, many: int, count: int = 3) -> list[str]:
    """Ids of commands that go to this partition."""
    return [name for name in (f"c{n}" for n in range(1000)) if number_of(name, count) == number][:many]


class Queue(Trial):
    """Members of three partitions."""

    def __init__(self, clock: VirtualClock, kind: type[LocalBroker] = LocalBroker) -> None:
        self.first = [kind(f"q{number}", lease=3.0, result_ttl=60.0, clock=clock) for number in range(3)]
        self.parts: list[Sequence[Any]] = []
        super().__init__(self._join, clock, lease=3.0, result_ttl=60.0)

    def _join(self, _queue: str) -> OnTrial:
        self.parts.append(self.first if not self.parts else [part.join() for part in self.first])
        return OnTrial(self.parts[-1], clock=self.clock)


class Slow(LocalBroker):
    """Forgets lanes when it is let."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.forgets = asyncio.Event()
        self.forgets.set()

    async def forget_lane(self, name: str, /) -> bool:
        await self.forgets.wait()
        return await super().forget_lane(name)


# --- what it is made of -----------------------------------------------------------------------------------------


def test_it_is_a_broker() -> None:
    broker = PartitionedBroker([LocalBroker(concurrency=5, max_body=10), LocalBroker(concurrency=7, max_result=20)])
    assert isinstance(broker, Broker)
    assert (broker.member, broker.concurrency, broker.max_body, broker.max_result) == ("", 5, 10, 20)
    assert broker.partitions == 2
    broker.concurrency = 9
    assert [part.concurrency for part in broker._parts] == [9, 9]
    assert not broker.health().ready
    assert broker.health().error == "the broker is not open"
    assert broker.leading_stats() is None


@pytest.mark.parametrize("parts", [[], "ab", None, 3, [object()], [LocalBroker], [LocalBroker(), "b"]])
def test_parts_are_checked(parts: Any) -> None:
    with pytest.raises(ConfigError, match="parts"):
        PartitionedBroker(parts)


def test_a_part_is_given_once() -> None:
    one = LocalBroker()
    with pytest.raises(ConfigError, match=r"parts\[1\].*give each partition a broker of its own"):
        PartitionedBroker([one, one])
    with pytest.raises(ConfigError, match="clock"):
        PartitionedBroker([one], clock=3)  # type: ignore[arg-type]


async def test_one_that_is_not_open_can_do_nothing(clock: VirtualClock) -> None:
    broker = PartitionedBroker([LocalBroker(clock=clock)], clock=clock)
    for asked in (broker.turn([], 1), broker.submit([new("c")]), broker.watch(["c"]), broker.stats(), broker.find("c")):
        with pytest.raises(BrokerUnavailable, match="not open"):
            await asked
    await broker.close()


async def test_a_part_that_cannot_be_opened_closes_the_others(clock: VirtualClock) -> None:
    parts = [LocalBroker(clock=clock), LocalBroker(clock=clock)]
    other = parts[1].join()
    await other.open({"b": LaneConfig(5, 9)}, 5, (), letters=1, work=True, listener=Ear())
    broker = PartitionedBroker(parts, clock=clock)
    with pytest.raises(ConfigError):
        await broker.open({"a": LaneConfig(2, 12)}, 8, (), letters=10, work=True, listener=Ear())
    assert [part.member for part in parts] == ["", ""]
    await other.close()


# --- managers ---------------------------------------------------------------------------------------------------

_at_once: Counter[str] = Counter()
_most: Counter[str] = Counter()
_ran: dict[str, list[int]] = defaultdict(list)
_clock: list[Any] = []


@command("parted")
async def parted(customer: str, number: int) -> int:
    for place in ("all", customer):
        _at_once[place] += 1
        _most[place] = max(_most[place], _at_once[place])
    await sleep(_clock[0], 0.05)
    _ran[customer].append(number)
    for place in ("all", customer):
        _at_once[place] -= 1
    return number


async def test_two_managers_run_all_of_a_queue_in_partitions(clock: VirtualClock) -> None:
    for known in (_at_once, _most, _ran, _clock):
        known.clear()
    _clock.append(clock)
    lanes = {"api": LaneConfig(1, 7, partitions=Partitions.per_key())}
    first = [LocalBroker(f"q{number}", concurrency=4, clock=clock) for number in range(3)]
    brokers = [PartitionedBroker(first, clock=clock), PartitionedBroker([one.join() for one in first], clock=clock)]
    customers = [f"customer {n}" for n in range(20)]

    async def main() -> None:
        async with (
            QueueManager(lanes, broker=brokers[0], clock=clock) as one,
            QueueManager(lanes, broker=brokers[1], clock=clock) as two,
        ):
            handles = [
                await manager.submit("api", parted, customer, n, partition_key=customer)
                for n, manager in enumerate([one, two] * 5)
                for customer in customers
            ]
            assert [await handle for handle in handles] == [n for n in range(10) for _ in customers]
            stats = await one.cluster.stats()
            assert (stats.submitted, stats.ended["succeeded"]) == (200, 200)
            assert stats.lanes["api"].max_concurrency == 7

    await clock.run(main())
    assert _ran == {customer: list(range(10)) for customer in customers}
    assert _most["all"] == 7
    assert {_most[customer] for customer in customers} == {1}


async def test_what_costs_more_than_the_smallest_share_is_refused(clock: VirtualClock) -> None:
    lanes = {"api": LaneConfig(1, 6, rate_limit=RateLimit.per_second(10, burst=10))}
    broker = PartitionedBroker([LocalBroker(str(n), clock=clock) for n in range(3)], clock=clock)
    async with QueueManager(lanes, broker=broker, clock=clock, work=False) as manager:
        await manager.submit("api", parted, "x", 1, cost=3)
        with pytest.raises(ConfigError, match="give at most 3"):
            await manager.submit("api", parted, "x", 1, cost=3.5)


# --- turns ------------------------------------------------------------------------------------------------------


async def test_no_more_is_claimed_than_is_wanted_and_no_part_is_left_out(clock: VirtualClock) -> None:
    queue = Queue(clock)
    member = await queue.member(LANES)
    await member.put("a", *(f"c{n}" for n in range(60)))
    for want in (1, 2, 3, 5):
        assert len(await member.claim(want)) == want
    depths = [(await part.stats()).lanes["a"].running for part in queue.first]
    assert min(depths) >= 3  # of 4 that each may run
    await queue.close()


async def test_what_one_part_has_not_another_gives(clock: VirtualClock) -> None:
    queue = Queue(clock)
    member = await queue.member({"a": LaneConfig(1, 60)})
    await member.put("a", *ids_in(0, 1), *ids_in(2, 12))
    assert len(await member.claim(10)) == 10
    await queue.close()


async def test_an_idle_part_is_asked_when_it_has_work(clock: VirtualClock) -> None:
    """Only that one: the others have said that they have none."""
    queue = Queue(clock, Breakable)
    member, other = await queue.member(LANES), await queue.member(LANES, work=False)
    parts = queue.parts[0]
    await clock.advance(0)
    assert await member.claim(5) == []
    before = [part.turns for part in parts]
    await other.put("a", *ids_in(1, 1))
    await clock.advance(0)
    assert member.ear.work
    assert await member.claim_ids(5) == ids_in(1, 1)
    assert [part.turns - then for part, then in zip(parts, before, strict=True)] == [0, 1, 0]
    await queue.close()


async def test_who_asks_though_nobody_has_called_is_given_what_there_is(clock: VirtualClock) -> None:
    """The word that there is work may be on its way, or lost."""

    class Deaf(LocalBroker):
        async def open(self, *args: Any, **options: Any) -> None:
            await super().open(*args, **{**options, "listener": Ear()})

    queue = Queue(clock, Deaf)
    member, other = await queue.member(LANES), await queue.member(LANES, work=False)
    assert await member.claim(5) == []
    names = [name for part in range(3) for name in ids_in(part, 1)]
    await other.put("a", *names)
    await clock.advance(0)
    assert not member.ear.work
    assert sorted(await member.claim_ids(5)) == sorted(names)
    await queue.close()


async def test_who_steps_back_does_so_everywhere(clock: VirtualClock) -> None:
    queue = Queue(clock, Breakable)
    member = await queue.member(LANES)
    assert await member.claim(5) == []
    parts = queue.parts[0]
    before = [part.turns for part in parts]
    assert await member.claim(0) == []
    assert [part.turns - then for part, then in zip(parts, before, strict=True)] == [1, 1, 1]
    await queue.close()


async def test_what_is_cancelled_while_its_claim_is_on_its_way_is_told_of_after_it(clock: VirtualClock) -> None:
    queue = Queue(clock, Breakable)
    member = await queue.member(LANES)
    (first,), (second,) = ids_in(0, 1), ids_in(1, 1)
    await member.put("a", first, second)
    slow = queue.parts[0][1]
    slow.is_silent = True  # nobody has noticed that it does not answer
    slow.back.clear()
    turn = asyncio.ensure_future(member.claim_ids(3))
    while sum([(await part.stats()).lanes["a"].running for part in queue.first]) < 2:
        await asyncio.sleep(0)
    assert await member.broker.cancel(first) == "running"
    assert (member.ear.cancelled, turn.done()) == ([first], False)
    slow.mend()
    assert sorted(await turn) == sorted([first, second])
    await clock.advance(0)
    assert member.ear.cancelled == [first, first]
    await queue.close()


async def test_tokens_of_two_parts_are_two(clock: VirtualClock) -> None:
    queue = Queue(clock)
    member = await queue.member(LANES)
    await member.put("a", *ids_in(0, 2), *ids_in(1, 2), *ids_in(2, 2))
    claimed = await member.claim(6)
    assert len({one.token for one in claimed}) == 6
    turn = await member.turn(0, *(End(one.id, one.token + 3, "succeeded") for one in claimed[:2]))
    assert sorted(turn.stale) == sorted(one.id for one in claimed[:2])
    await member.succeed(*claimed)
    assert (await member.broker.stats()).ended["succeeded"] == 6
    await queue.close()


async def test_the_same_id_by_two_keys_is_two_commands(clock: VirtualClock) -> None:
    """It can live in two partitions at once, and both run: an id given twice is for one key."""
    queue = Queue(clock)
    member = await queue.member(LANES)
    keys = [ids_in(number, 1)[0] for number in range(2)]
    await member.submit(new("x", key=keys[0]))
    await member.submit(new("x", key=keys[1]))
    one, two = await member.claim(5)
    assert (one.id, two.id) == ("x", "x")
    assert one.token != two.token
    await member.succeed(one, two)
    await queue.close()


# --- a part that cannot be reached ------------------------------------------------------------------------------


async def test_a_lost_part_holds_nobody_up(clock: VirtualClock) -> None:
    queue = Queue(clock, Breakable)
    member = await queue.member(LANES)
    parts = queue.parts[0]
    await member.put("a", *ids_in(0, 3), *ids_in(1, 3))
    claimed = await member.claim(6)
    parts[0].cut()
    health = member.broker.health()
    assert (health.ready, health.error) == (False, "partition 0: it is cut off")
    assert member.ear.states[-1].error == "partition 0: it is cut off"
    turn = await member.turn(0, *map(done, claimed))  # those of partition 0 are on their way for a long time
    assert turn.stale == []
    assert (await parts[1].stats()).ended["succeeded"] == 3
    receipts = await member.broker.submit([new(ids_in(0, 4)[3]), new(ids_in(1, 4)[3])])
    assert receipts == [Receipt(Answer.UNAVAILABLE, ids_in(0, 4)[3]), Receipt(Answer.ACCEPTED, ids_in(1, 4)[3])]
    with pytest.raises(BrokerUnavailable, match="cut off"):
        await member.broker.submit([new(ids_in(0, 4)[3])])
    assert await member.claim_ids(5) == [ids_in(1, 4)[3]]
    parts[0].mend()
    await clock.advance(0.1)
    assert not parts[0]._seat.held
    assert (await member.broker.stats()).ended["succeeded"] == 6
    assert member.ear.states[-1].ready
    await queue.close()


async def test_what_comes_too_late_is_given_back(clock: VirtualClock) -> None:
    """The turn has given its slots to others by then."""
    queue = Queue(clock, Breakable)
    member = await queue.member(LANES)
    parts = queue.parts[0]
    await member.put("a", *ids_in(0, 2), *ids_in(1, 2))
    parts[0].back.clear()
    parts[0].is_silent = True
    asked = asyncio.ensure_future(member.turn(4))
    await clock.advance(0.1)
    assert not asked.done()
    parts[0].cut()
    await clock.advance(0)
    assert sorted(one.id for one in (await asked).claimed) == sorted(ids_in(1, 2))
    hints = member.ear.work
    parts[0].mend()
    await clock.advance(0.1)
    assert member.ear.work > hints
    assert not parts[0]._seat.held
    claimed = await member.claim(2)
    assert sorted((one.id, one.attempt) for one in claimed) == sorted((name, 1) for name in ids_in(0, 2))
    await queue.close()


async def test_a_part_that_denies_its_work_is_asked_again(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    queue = Queue(clock, Breakable)
    member = await queue.member(LANES)
    parts = queue.parts[0]
    await member.put("a", *ids_in(0, 2), *ids_in(1, 2))
    claimed = await member.claim(4)
    parts[1].denies = True
    assert (await member.turn(0, *map(done, claimed))).stale == []
    assert member.broker.health().error == "partition 1: it takes nothing now"
    await clock.advance(1)
    parts[1].denies = False
    await clock.advance(10)
    assert member.broker.health().ready
    assert (await member.broker.stats()).ended["succeeded"] == 4
    assert caplog.messages == ["partition 1 denies its work; it is asked again: it takes nothing now"]
    await queue.close()


async def test_ends_that_never_reach_their_part_are_told_of(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    queue = Queue(clock, Breakable)
    member = await queue.member(LANES)
    await member.put("a", *ids_in(0, 2), *ids_in(1, 2))
    claimed = await member.claim(4)
    queue.parts[0][0].denies = True
    await member.turn(0, *map(done, claimed))
    await clock.run(member.close())
    assert caplog.messages[-1] == "2 ends did not reach partition 0, which has them run again"
    assert clock.pending == 0


async def test_who_waits_is_told_what_a_lost_part_did_meanwhile(clock: VirtualClock) -> None:
    queue = Queue(clock, Breakable)
    member, other = await queue.member(LANES, work=False), await queue.member(LANES)
    near, far, late = ids_in(0, 1)[0], ids_in(1, 1)[0], ids_in(1, 2)[1]
    await member.put("a", near, far, late)
    part = queue.parts[0][1]
    assert await member.broker.watch([near, far]) == []
    part.cut()
    with pytest.raises(BrokerUnavailable):
        await member.broker.watch([late])
    assert await member.broker.watch(["nobody"]) == []  # partition 1 may know
    seat = part._seat
    seat._listener, heard = Ear(), seat._listener  # what it tells is lost
    await other.succeed(*await other.claim(3))
    await clock.advance(1)
    seat._listener = heard
    part.mend()
    await clock.advance(1)
    told = {result.id: result.state for result in member.ear.results}
    assert told == {near: "succeeded", far: "succeeded", "nobody": "unknown"}
    await queue.close()


async def test_who_waits_is_told_of_what_a_part_that_denies_its_work_has(clock: VirtualClock) -> None:
    """Its link works all the time, or is back before it takes anything."""
    queue = Queue(clock, Breakable)
    member, other = await queue.member(LANES, work=False), await queue.member(LANES)
    near, far, late = ids_in(0, 1)[0], *ids_in(1, 2)
    await member.put("a", near, far, late)
    part = queue.parts[0][1]
    assert await member.broker.watch([far]) == []
    part.denies = True
    assert await member.broker.watch([near, late, "nobody"]) == []
    part.cut()
    part.mend()  # what it tells from now on is lost
    part._seat._listener, heard = Ear(), part._seat._listener
    await other.succeed(*await other.claim(3))
    await clock.advance(1)
    part._seat._listener = heard
    part.denies = False
    await clock.advance(30)
    told = {result.id: result.state for result in member.ear.results}
    assert told == {near: "succeeded", far: "succeeded", late: "succeeded", "nobody": "unknown"}
    await queue.close()


class Pondering(LocalBroker):
    """Takes its time to answer who asks for results first."""

    asked = 0

    async def watch(self, ids: Sequence[str]) -> list[Result]:
        self.asked += 1
        if self.asked == 1:
            await sleep(self._shared.clock, 0.1)
        return await super().watch(ids)


async def test_who_asks_is_answered_though_a_part_tells_of_a_change_meanwhile(clock: VirtualClock) -> None:
    """Such as that it leads: nothing is lost, and nothing is asked twice."""
    queue = Queue(clock, Pondering)
    member = await queue.member(LANES)
    await member.put("a", "c1")
    await member.succeed(*await member.claim(1))
    asking = asyncio.ensure_future(member.broker.watch(["c1", "nobody"]))
    await clock.advance(0.05)
    for part in queue.first:
        part._seat._listener.on_state(part.health())
    await clock.advance(1)
    assert {result.id: result.state for result in await asking} == {"c1": "succeeded", "nobody": "unknown"}
    assert member.ear.results == []
    await queue.close()


# --- lanes and letters ------------------------------------------------------------------------------------------


async def test_lanes_are_paused_and_forgotten_everywhere(clock: VirtualClock) -> None:
    queue = Queue(clock)
    member = await queue.member({"a": LaneConfig(1, 12), "b": LaneConfig(1, 5)})
    assert await member.broker.set_paused("a", paused=True)
    assert not await member.broker.set_paused("a", paused=True)
    assert (await member.broker.stats()).lanes["a"].paused
    assert [(await part.stats()).lanes["a"].paused for part in queue.first] == [True] * 3
    await clock.advance(0)
    assert [(fact.kind, fact.lane) for fact in member.ear.facts] == [(FactKind.PAUSED, "a")]
    with pytest.raises(UnknownLane):
        await member.broker.set_paused("nowhere", paused=True)
    await member.put("b", *ids_in(2, 1))
    assert not await member.broker.forget_lane("b")
    assert not await member.broker.forget_lane("nowhere")
    await member.succeed(*await member.claim(1))
    assert await member.broker.forget_lane("b")
    with pytest.raises(UnknownLane):
        await member.broker.submit([new("x", "b")])
    await member.broker.declare({"b": LaneConfig(0, 3), "c": LaneConfig(2, 4)})
    assert {name: lane.max_concurrency for name, lane in (await member.broker.stats()).lanes.items()} == {
        "a": 12, "b": 3, "c": 4,
    }  # fmt: skip
    await member.put("c", "x")
    await queue.close()


async def test_a_lane_that_two_forget_at_the_same_time_is_gone(clock: VirtualClock) -> None:
    queue = Queue(clock, Slow)
    lanes = {**LANES, "b": LaneConfig(0, 3)}
    one, other = await queue.member(lanes), await queue.member(lanes)
    last = queue.parts[0][2]
    last.forgets.clear()  # the other one comes before it there
    both = asyncio.gather(one.broker.forget_lane("b"), other.broker.forget_lane("b"))
    while "b" in (await last.stats()).lanes:
        await asyncio.sleep(0)
    last.forgets.set()
    assert await both == [True, True]
    assert set((await one.broker.stats()).lanes) == {"a"}
    await one.broker.declare({"c": LaneConfig(0, 3)})
    assert set((await one.broker.stats()).lanes) == {"a", "c"}
    assert await one.broker.forget_lane("b") is False
    await queue.close()


async def test_a_lane_that_cannot_be_divided_is_refused_when_it_is_added(clock: VirtualClock) -> None:
    parts = [LocalBroker(f"p{number}", clock=clock) for number in range(3)]
    async with QueueManager(LANES, broker=PartitionedBroker(parts, clock=clock), clock=clock) as manager:
        with pytest.raises(ConfigError, match=r"lanes\.tiny\.max_concurrency.*at least 3"):
            manager.add_lane("tiny", LaneConfig(0, 1))
        assert "tiny" not in manager.lanes


async def test_an_unknown_lane_keeps_nothing_anywhere(clock: VirtualClock) -> None:
    queue = Queue(clock)
    member, other = await queue.member(LANES), await queue.member({"b": LaneConfig(1, 3)})
    with pytest.raises(UnknownLane):
        await member.broker.submit([*(new(f"c{n}") for n in range(9)), new("x", "nowhere")])
    assert (await member.broker.stats()).submitted == 0
    await member.put("b", "one that another member has named")
    await other.put("a", "another")
    await queue.close()


async def test_letters_come_in_the_order_of_their_ends_over_all_parts(clock: VirtualClock) -> None:
    queue = Queue(clock)
    member = await queue.member({"a": LaneConfig(1, 360), "b": LaneConfig(1, 360)}, letters=900)
    names = [f"c{n}" for n in range(120)]
    await member.put("a", *names[::2])
    await member.put("b", *names[1::2])
    claimed = {one.id: one for one in await member.claim(120)}
    for name in names:
        await clock.advance(0.001)
        await member.claim(0, done(claimed[name], "failed", letter=b""))
    for lane, wanted in [(None, names), ("a", names[::2])]:
        for limit in (1, 7, 100, 500):
            found: list[str] = []
            while page := await member.broker.letters(lane=lane, limit=limit, after=found[-1] if found else None):
                assert len(page) <= limit
                found += [letter.id for letter in page]
            assert found == wanted, (lane, limit)
    assert await member.broker.letters(after="gone") == []
    assert await member.broker.requeue([names[3], "gone", names[1], names[3]]) == [names[3], names[1]]
    assert await member.broker.remove_letters(names[:3]) == 2
    assert await member.broker.remove_letters() == 116
    await queue.close()


# --- who leads --------------------------------------------------------------------------------------------------


async def test_the_whole_queue_is_exported_once_also_where_others_lead_some_of_it(clock: VirtualClock) -> None:
    queue = Queue(clock)
    one = await queue.member(LANES)
    await one.put("a", *(f"c{n}" for n in range(30)))
    two = await queue.member(LANES)
    stats = one.broker.leading_stats()
    assert stats is not None
    assert stats.lanes["a"].ready == 30
    assert two.broker.leading_stats() is None
    seats = queue.first[2]._shared.seats  # partition 2 is led by another member from now on
    mine = queue.first[2].member
    seats[mine] = seats.pop(mine)
    queue.first[2]._shared.finish(None)
    await clock.advance(0.1)
    assert not queue.first[2].health().leads
    seen = one.broker.leading_stats()
    assert seen is not None
    assert seen.lanes["a"].ready == 30
    assert len(seen.members) == 2
    await two.succeed(*await two.claim(12))
    await clock.advance(6)
    seen = one.broker.leading_stats()
    assert seen is not None
    assert (seen.lanes["a"].ready, seen.ended["succeeded"]) == (18, 12)
    await one.close()
    await clock.advance(0.1)
    assert two.broker.leading_stats() is not None
    await queue.close()
    assert clock.pending == 0


def test_a_command_event_names_the_member(clock: VirtualClock) -> None:
    """The member's name is that in partition 0."""
    sink = MemorySink()
    broker = PartitionedBroker([LocalBroker(str(n), clock=clock) for n in range(2)], clock=clock)

    async def main() -> str:
        async with QueueManager({"a": LaneConfig(1, 4)}, broker=broker, clock=clock, sinks=[sink]):
            return broker.member

    assert asyncio.run(clock.run(main())).count(":") == 2
