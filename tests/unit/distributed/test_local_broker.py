"""`LocalBroker`: what is its own, beside what all brokers do (test_local_broker_conforms.py)."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs.config import LaneConfig, Partitions, PriorityBoost, RateLimit
from lane_obs.distributed import Broker, LocalBroker
from lane_obs.distributed.record import Answer, Receipt
from lane_obs.errors import BrokerRefused, BrokerUnavailable, ConfigError, StorageFull, WrongLoop
from lane_obs.storage import LocalStorage, MemoryStorage, Save
from lane_obs.testing.broker.trial import Trial, done, new

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lane_obs.clock import VirtualClock
    from lane_obs.storage import AnyStorage, Change

LANES = {"a": LaneConfig(1, 10)}


class Queue(Trial):
    """Members of one `LocalBroker`."""

    def __init__(self, clock: VirtualClock, storage: AnyStorage | None = None) -> None:
        self.first = LocalBroker("q", lease=3.0, result_ttl=60.0, clock=clock, storage=storage)
        super().__init__(lambda _: self.first.join(), clock, lease=3.0, result_ttl=60.0)


# --- settings and policies --------------------------------------------------------------------------------------


def test_it_is_a_broker() -> None:
    broker = LocalBroker("q", concurrency=7)
    assert isinstance(broker, Broker)
    assert (broker.member, broker.concurrency, broker.join().concurrency) == ("", 7, 7)
    assert broker.join(concurrency=2).concurrency == 2
    assert not broker.health().ready
    assert broker.leading_stats() is None


@pytest.mark.parametrize(
    "setting",
    [{"queue": ""}, {"lease": 0}, {"lease": "1"}, {"concurrency": 0}, {"result_ttl": -1}, {"max_body": 0},
     {"max_result": 1.5}, {"storage": object()}],
)  # fmt: skip
def test_settings_are_checked(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        LocalBroker(**setting)


async def test_policies_are_checked_together(clock: VirtualClock) -> None:
    queue = Queue(clock)
    await queue.member({"a": LaneConfig(2, 4), "b": LaneConfig(1, 4, partitions=Partitions.per_key())}, 4)
    for lanes, words in [
        ({"c": LaneConfig(2, 4)}, "give at least 5"),
        ({"a": LaneConfig(1, 4, boost=PriorityBoost.ageing(1.0))}, "fixed for the lane's life"),
        ({"b": LaneConfig(1, 4)}, "fixed for the lane's life"),
        ({"b": LaneConfig(1, 4, partitions=Partitions.per_key(fair=True))}, "fixed for the lane's life"),
    ]:
        with pytest.raises(ConfigError, match=words):
            await queue.member(lanes, 4)
        with pytest.raises(ConfigError, match=words):
            await queue.members[0].broker.declare(lanes)
    await queue.member({"b": LaneConfig(1, 4, partitions=Partitions.by_key(3))}, 4)  # decided where it is submitted
    assert len((await queue.members[0].broker.stats()).members) == 2
    await queue.close()


async def test_rate_limits_of_the_queue_are_replaced(clock: VirtualClock) -> None:
    queue = Queue(clock)
    shared = RateLimit.shared("s", RateLimit.per_second(0.001, burst=2))
    lanes = {"a": LaneConfig(1, 10, rate_limit=shared), "b": LaneConfig(1, 10)}
    one = await queue.member(lanes, None, [RateLimit.per_second(0.001, burst=1)])
    await one.put("a", "a1", "a2", "a3")
    await one.put("b", "b1", "b2")
    assert await one.claim_ids(9) == ["a1"]
    await queue.member(lanes, None, [RateLimit.per_second(0.001, burst=3)])
    assert sorted(await one.claim_ids(9)) == ["a2", "b1", "b2"]  # the lane's own limit is new, too
    other = RateLimit.shared("s", RateLimit.per_second(0.001, burst=5))
    await queue.member({"a": LaneConfig(1, 10, rate_limit=other), "b": LaneConfig(1, 10)}, None, ())
    assert await one.claim_ids(9) == ["a3"]
    await queue.close()


async def test_members_share_a_loop(clock: VirtualClock) -> None:
    queue = Queue(clock)
    await queue.member()
    caught: list[BaseException] = []

    def elsewhere() -> None:
        try:
            asyncio.run(queue.member())  # type: ignore[arg-type]
        except WrongLoop as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "share one event loop" in str(caught[0])
    await queue.close()


async def test_nothing_is_armed_while_nothing_is_due(clock: VirtualClock) -> None:
    queue = Queue(clock)
    member = await queue.member()
    await member.put("a", "c1")
    assert clock.pending == 0
    await member.put("a", "c2", delay=5.0)
    await member.put("a", "c3", deadline=9.0)
    assert clock.pending == 1
    await queue.close()
    assert clock.pending == 0
    await clock.advance(60)
    again = await queue.member()
    await clock.advance(0)
    assert [one.id for one in await again.claim(9)] == ["c1", "c2"]
    assert [fact.id for fact in again.ear.facts] == ["c3"]
    await queue.close()


async def test_a_back_off_of_no_time_is_over_at_once(clock: VirtualClock) -> None:
    queue = Queue(clock)
    member = await queue.member()
    await member.put("a", "c1")
    (claimed,) = await member.claim(1)
    assert [one.attempt for one in await member.claim(1, done(claimed, "backoff"))] == [2]
    await queue.close()


async def test_a_member_that_left_leaves_nothing(clock: VirtualClock) -> None:
    queue = Queue(clock)
    one, two = await queue.member({"a": LaneConfig(1, 1, max_pending=2)}), await queue.member({})
    await one.put("a", "c1", "c2")
    await two.broker.watch(["c1", "c2"])
    await two.broker.submit([new("c3")])
    two.broker.stop_beat()
    assert clock.pending == 1
    await two.close()
    assert clock.pending == 0
    assert not queue.first._shared.life.results._watchers
    assert not any(queue.first._shared._rooms._waiting.values())
    await queue.close()


async def test_what_a_member_did_not_tell_another_one_tells(clock: VirtualClock) -> None:
    queue = Queue(clock)
    one, two = await queue.member(), await queue.member()
    await one.put("a", "c1")
    await one.broker.cancel("c1")
    await one.close()
    await clock.advance(0)
    assert (one.ear.facts, [fact.id for fact in two.ear.facts]) == ([], ["c1"])
    await queue.close()


async def test_a_closed_member_answers_nothing(clock: VirtualClock) -> None:
    queue = Queue(clock)
    member = await queue.member()
    await queue.close()
    for asked in (member.broker.turn([], 1), member.broker.stats(), member.broker.letters(), member.broker.watch([])):
        with pytest.raises(BrokerUnavailable, match="not open"):
            await asked
    assert member.broker.health().error == "the broker is not open"


async def test_a_member_may_open_again(clock: VirtualClock) -> None:
    queue = Queue(clock)
    member = await queue.member()
    await member.put("a", "c1")
    before = member.broker.member
    for _ in range(2):
        await member.broker.open(LANES, None, (), letters=9, work=True, listener=member.ear)
    assert member.broker.member != before
    assert len((await member.broker.stats()).members) == 1
    assert await member.claim_ids(9) == ["c1"]
    await queue.close()


# --- with a storage ---------------------------------------------------------------------------------------------


async def test_a_storage_brings_commands_back(clock: VirtualClock) -> None:
    storage = MemoryStorage()
    parts = {
        **LANES,
        "b": LaneConfig(1, 10, partitions=Partitions.per_key(), rate_limit=RateLimit.per_second(1, burst=5)),
    }
    queue = Queue(clock, storage)
    member = await queue.member(parts)
    await member.submit(
        new("b1", "b", part="p"), new("b2", "b", part="p", cost=4.5), new("b3", "b", part="q", cost=0.5)
    )
    await member.submit(new("gone"), new("c1", key="k"), new("c2", delay=50.0), new("c3", deadline=40.0), new("c4"))
    claimed = {one.id: one for one in await member.claim(9)}
    assert sorted(claimed) == ["b1", "b3", "c1", "c3", "c4", "gone"]
    await member.claim(
        0, done(claimed["gone"]), done(claimed["c4"], "backoff", delay=30.0), done(claimed["b1"], "ready")
    )
    await member.broker.cancel("c1")
    await member.claim(0, done(claimed["c1"], "ready"))
    await queue.close()  # what runs is given back

    await clock.advance(10)
    queue = Queue(clock, storage)
    member = await queue.member(parts)
    depths = (await member.broker.stats()).lanes
    assert {name: (lane.ready, lane.delayed, lane.backoff) for name, lane in depths.items()} == {
        "a": (1, 1, 1), "b": (3, 0, 0),
    }  # fmt: skip
    again = await member.claim(9)
    found = [(one.id, one.body, one.attempt, one.deaths, round(one.age, 6)) for one in again]
    assert sorted(found) == [("b1", b"b1", 1, 0, 10.0), ("b3", b"b3", 2, 0, 10.0), ("c3", b"c3", 2, 0, 10.0)]
    assert next(one for one in again if one.id == "c3").deadline == pytest.approx(30.0)
    found_c2, found_c4 = await member.broker.find("c2"), await member.broker.find("c4")
    assert found_c2 is not None
    assert found_c4 is not None
    assert (found_c2.due, found_c4.due) == (pytest.approx(40.0), pytest.approx(20.0))
    assert await member.broker.find("c1") is None
    await member.put("a", "new")
    assert await member.claim_ids(9) == ["new"]
    assert await member.claim_ids(9, *(done(one) for one in again)) == []  # b2 costs 4.5 of the 3.5 that are left
    await clock.advance(1)
    assert await member.claim_ids(9) == ["b2"]
    await queue.close()


async def test_a_storage_brings_letters_back(clock: VirtualClock) -> None:
    storage = MemoryStorage()
    queue = Queue(clock, storage)
    member = await queue.member(letters=3)
    await member.put("a", "c1", "c2", "c3", "c4", "c5")
    await member.claim(0, *(done(one, "failed", letter=bytes(range(256))) for one in await member.claim(9)))
    before = await member.broker.letters()
    assert [one.id for one in before] == ["c3", "c4", "c5"]
    await member.broker.remove_letters(["c4"])
    assert await member.broker.requeue(["c5"]) == ["c5"]
    await queue.close()
    queue = Queue(clock, storage)
    member = await queue.member(letters=3)
    assert await member.broker.letters() == before[:1]
    assert [(one.id, one.attempt) for one in await member.claim(9)] == [("c5", 1)]
    assert await member.broker.requeue(["c3"]) == ["c3"]
    assert await member.claim_ids(9) == ["c3"]
    await queue.close()
    assert await MemoryStorage.load_dead_letters(await _opened(storage)) == []
    await storage.close()


async def _opened(storage: MemoryStorage) -> MemoryStorage:
    await storage.open()
    return storage


async def test_what_ran_when_the_process_died_has_lost_its_lease(clock: VirtualClock) -> None:
    storage = MemoryStorage()
    lanes = {**LANES, "once": LaneConfig(1, 9, on_crash="dead_letter"), "twice": LaneConfig(1, 9, max_crashes=2)}
    dead = Queue(clock, storage)
    member = await dead.member(lanes)
    await member.put("a", "a1", "a2")
    await member.put("once", "o1")
    await member.put("twice", "t1")
    assert len(await member.claim(9)) == 4
    for deaths in (1, 2):  # nothing is closed
        queue = Queue(clock, storage)
        member = await queue.member(lanes)
        again = await clock.run(member.claim_all(3 if deaths == 1 else 2))
        assert {(one.id, one.attempt, one.deaths) for one in again} >= {
            ("a1", deaths + 1, deaths),
            ("a2", deaths + 1, deaths),
        }
        kinds = {(str(fact.kind), fact.id) for fact in member.ear.facts}
        poisoned = ("poisoned", "o1" if deaths == 1 else "t1")
        assert kinds == {("returned", one.id) for one in again} | {poisoned}
    assert [(one.id, one.cause) for one in await member.broker.letters()] == [("o1", "poisoned"), ("t1", "poisoned")]
    await queue.close()
    await dead.close()


async def test_commands_of_lanes_that_nobody_names_wait(clock: VirtualClock) -> None:
    storage = MemoryStorage()
    queue = Queue(clock, storage)
    member = await queue.member({**LANES, "b": LaneConfig(1, 9)})
    await member.put("a", "a1")
    await member.put("b", "b1", "b2")
    await queue.close()
    queue = Queue(clock, storage)
    member = await queue.member(LANES)
    assert await member.claim_ids(9) == ["a1"]
    assert await member.broker.submit([new("b1")]) == [Receipt(Answer.DUPLICATE, "b1")]
    await member.broker.declare({"b": LaneConfig(1, 9)})
    assert await member.claim_ids(9) == ["b1", "b2"]
    await queue.close()


class Full(MemoryStorage):
    """A storage that takes no new commands while it is full."""

    full = False

    def apply(self, changes: Sequence[Change]) -> asyncio.Future[None]:
        if self.full and any(isinstance(change, Save) for change in changes):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(StorageFull("", "no room"))
            return future
        return super().apply(changes)


async def test_what_cannot_be_stored_is_refused(clock: VirtualClock) -> None:
    storage = Full()
    queue = Queue(clock, storage)
    member = await queue.member()
    await member.put("a", "c1")
    storage.full = True
    with pytest.raises(BrokerRefused, match="no room"):
        await member.broker.submit([new("c2"), new("c3")])
    claimed = await member.claim(9)
    assert [one.id for one in claimed] == ["c1"]
    await member.succeed(*claimed)
    storage.full = False
    await member.put("a", "c2")
    assert await member.claim_ids(9) == ["c2"]
    await queue.close()
    assert not member.broker.health().ready


async def test_a_folder_brings_commands_back(clock: VirtualClock, tmp_path: Path) -> None:
    for number in range(3):
        queue = Queue(clock, LocalStorage(tmp_path))
        member = await queue.member()
        assert await member.claim_ids(9) == [f"c{earlier}" for earlier in range(number)]
        await member.put("a", f"c{number}")
        await queue.close()
