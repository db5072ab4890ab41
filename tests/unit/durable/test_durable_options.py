"""Durable lanes with rate limits, boosts, partitions and deadlines: what holds over a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from lane_obs import (
    LaneConfig,
    Partitions,
    PriorityBoost,
    QueueManager,
    RateLimit,
    RetryPolicy,
    VirtualClock,
    command,
    current,
)
from lane_obs.clock import sleep
from lane_obs.storage import StoredDeadLetter
from tests.unit.durable.support import Kept, killed, restarted

if TYPE_CHECKING:
    from collections.abc import Iterator

began: list[tuple[float, Any]] = []
ended: list[Any] = []
clocks: list[VirtualClock] = []


@command("options.work")
async def work(name: str, seconds: float = 0.0, fails: int = 0) -> None:
    (of,) = clocks
    began.append((round(of.now() - 1_000_000, 3), name))
    await sleep(of, seconds)
    if current().attempt <= fails:
        raise ConnectionError(name)
    ended.append(name)


@pytest.fixture(autouse=True)
def nothing_ran(clock: VirtualClock) -> Iterator[None]:
    clocks.append(clock)
    yield
    for some in (began, ended, clocks):
        some.clear()


async def left(storage: Kept, clock: VirtualClock, lanes: Any, *submits: tuple[str, tuple[Any, ...], Any]) -> None:
    """Stores commands in lanes that are paused, and kills the queue."""
    manager = QueueManager(lanes, storage=storage, clock=clock)
    await manager.start()
    for name in lanes:
        manager.pause(name)
    for lane, args, options in submits:
        await manager.submit(lane, work, *args, **options)
    await killed(manager)
    assert began == []


def names() -> list[Any]:
    return [name for _, name in began]


async def test_costs_are_kept_and_a_rate_limit_starts_full(clock: VirtualClock) -> None:
    storage, lanes = Kept(), {"a": LaneConfig(0, 10, rate_limit=RateLimit.per_second(1, burst=5))}
    costs = {"three": 3.0, "two": 2.0, "four": 4.0, "one": 1.0}
    await left(storage, clock, lanes, *(("a", (name,), {"cost": cost}) for name, cost in costs.items()))
    assert [row.options.get("cost", 1.0) for row in storage.stored()] == [3.0, 2.0, 4.0, 1.0]
    start = round(clock.now() - 1_000_000, 3)
    manager, _ = await restarted(storage, clock, lanes)
    async with manager:
        await clock.run(manager.drain())
    assert [(round(at - start, 3), name) for at, name in began] == [(0, "three"), (0, "two"), (4, "four"), (5, "one")]


async def test_a_rate_limit_that_was_used_up_is_full_after_a_restart(clock: VirtualClock) -> None:
    storage, lanes = Kept(), {"a": LaneConfig(0, 10, rate_limit=RateLimit.sliding_window(2, 60))}
    manager = QueueManager(lanes, storage=storage, clock=clock)
    await manager.start()
    for number in range(4):
        await manager.submit("a", work, f"n{number}")
    await clock.advance(1)
    assert names() == ["n0", "n1"]
    await killed(manager)
    manager, _ = await restarted(storage, clock, lanes)
    async with manager:
        await clock.advance(0)
        assert names() == ["n0", "n1", "n2", "n3"]


async def test_order_holds_in_each_partition_and_one_runs_at_a_time(clock: VirtualClock) -> None:
    storage, lanes = Kept(), {"a": LaneConfig(0, 10, partitions=Partitions.per_key())}
    submits = [("a", (f"{key}{number}", 1.0), {"partition_key": key}) for number in range(3) for key in "xyz"]
    await left(storage, clock, lanes, *submits)
    start = round(clock.now() - 1_000_000, 3)
    manager, _ = await restarted(storage, clock, lanes)
    async with manager:
        await clock.run(manager.drain())
    assert [(round(at - start, 3), name) for at, name in began] == [
        (0, "x0"), (0, "y0"), (0, "z0"), (1, "x1"), (1, "y1"), (1, "z1"), (2, "x2"), (2, "y2"), (2, "z2"),
    ]  # fmt: skip


@pytest.mark.parametrize("fair", [False, True])
@pytest.mark.parametrize("delay", [0.0, 5.0])
async def test_one_that_backed_off_keeps_its_partition_over_a_restart(
    clock: VirtualClock, fair: bool, delay: float
) -> None:
    """Also from one that was submitted before it, and whose delay was over only afterwards."""
    storage, lanes = Kept(), {"a": LaneConfig(0, 10, partitions=Partitions.per_key(fair=fair))}
    manager = QueueManager(lanes, storage=storage, clock=clock)
    await manager.start()
    if delay:
        await manager.submit("a", work, "early", delay=delay, partition_key="k")
    again = RetryPolicy.fixed(1, 30.0, jitter="none")
    await manager.submit("a", work, "again", 0.0, 1, retry=again, partition_key="k", id="again")
    await manager.submit("a", work, "next", partition_key="k")
    await clock.advance(10)
    assert names() == ["again"]
    await killed(manager)
    manager, _ = await restarted(storage, clock, lanes)
    async with manager:
        stats = manager.stats().lanes["a"]
        assert (stats.backoff, stats.delayed, stats.ready) == (1, 0, 2 if delay else 1)
        await manager.submit("a", work, "other", partition_key="l")
        await manager.submit("a", work, "new", partition_key="k")
        await clock.advance(15)
        assert names() == ["again", "other"]
        explained = manager.explain("again")
        assert explained is not None
        assert explained.cause == "backoff"
        await clock.run(manager.drain())
    assert names() == ["again", "other", "again", *["early"] * bool(delay), "next", "new"]
    assert began[2][0] - began[0][0] == 30


async def test_one_that_is_cancelled_while_it_backs_off_lets_go_of_its_partition(clock: VirtualClock) -> None:
    storage, lanes = Kept(), {"a": LaneConfig(0, 10, partitions=Partitions.by_key(4))}
    manager = QueueManager(lanes, storage=storage, clock=clock)
    await manager.start()
    again = RetryPolicy.fixed(1, 30.0, jitter="none")
    await manager.submit("a", work, "again", 0.0, 1, retry=again, partition_key="k", id="again")
    await manager.submit("a", work, "next", partition_key="k")
    await clock.advance(1)
    await killed(manager)
    manager, _ = await restarted(storage, clock, lanes)
    async with manager:
        handle = manager.get("again")
        assert handle is not None
        handle.cancel()
        await clock.advance(0)
        assert names() == ["again", "next"]
        assert manager.stats().lanes["a"].partitions == 0


async def test_a_boost_goes_by_the_age_since_the_submit(clock: VirtualClock) -> None:
    lanes = {
        "low": LaneConfig(0, 1, priority=5, boost=PriorityBoost.standard(deadline=100)),
        "mid": LaneConfig(0, 1, priority=4),
    }
    for away, order in ((0, ["mid", "low"]), (60, ["low", "mid"])):
        storage = Kept()
        began.clear()
        await left(storage, clock, lanes, ("mid", ("mid",), {}), ("low", ("low",), {}))
        (row,) = [row for row in storage.stored() if row.lane == "low"]
        assert row.deadline == pytest.approx(row.submitted_at + 100)
        await clock.advance(away)
        manager, _ = await restarted(storage, clock, lanes, max_concurrency=1)
        async with manager:
            await clock.run(manager.drain())
        assert names() == order


async def test_the_deadline_of_a_boost_expires_a_command_while_the_process_is_away(clock: VirtualClock) -> None:
    lanes = {"low": LaneConfig(0, 1, priority=5, boost=PriorityBoost.standard(deadline=100))}
    storage = Kept()
    await left(storage, clock, lanes, ("low", ("low",), {}))
    await clock.advance(101)
    manager, _ = await restarted(storage, clock, lanes)
    async with manager:
        assert [letter.error_type for letter in manager.dead_letters.list()] == ["CommandExpired"]
    assert began == []


async def test_a_deadline_that_is_only_a_wish_does_not_keep_a_command_from_coming_back(clock: VirtualClock) -> None:
    storage, lanes = Kept(), {"a": LaneConfig(0, 1, on_expiry="run")}
    await left(storage, clock, lanes, ("a", ("late",), {"deadline": 10}))
    await clock.advance(60)
    manager, _ = await restarted(storage, clock, lanes)
    async with manager:
        await clock.run(manager.drain())
        assert manager.dead_letters.list() == []
    assert ended == ["late"]


async def test_a_requeued_letter_keeps_its_cost_and_partition(clock: VirtualClock) -> None:
    storage, lanes = Kept(), {"a": LaneConfig(0, 10, partitions=Partitions.per_key())}
    manager = QueueManager(lanes, storage=storage, clock=clock)
    await manager.start()
    await manager.submit("a", work, "dies", 0.0, 1, cost=7.0, partition_key="k", id="dies")
    await clock.run(manager.drain())
    await killed(manager)
    manager, _ = await restarted(storage, clock, lanes)
    async with manager:
        manager.pause("a")
        manager.dead_letters.requeue("dies")
        await clock.advance(0)
        (row,) = storage.stored()
        assert (row.options, row.attempt) == ({"cost": 7.0, "partition_key": "k"}, 0)
        assert manager.stats().lanes["a"].largest_partitions == {"k": 1}
        manager.resume("a")
        await clock.run(manager.drain())


# --- options of another version ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"colour": "red"}, "unknown option"),
        ({"retry": 5}, "give a table"),
        ({"retry": {"retry_on": ["nowhere:Nothing"]}}, "nowhere:Nothing"),
        ({"cost": "much"}, "cost"),
        ({"deadline": None}, "deadline"),
        ({"timeout": -1}, "timeout"),
        ({"partition_key": 5}, "partition_key"),
        ({"id": "other"}, "unknown option"),
    ],
)
async def test_options_that_are_not_allowed_here_cost_only_their_own_command(
    clock: VirtualClock, options: dict[str, Any], text: str
) -> None:
    storage, lanes = Kept(), {"a": LaneConfig(0, 1)}
    await left(storage, clock, lanes, *(("a", (f"n{number}",), {"timeout": None}) for number in range(3)))
    await storage.open()
    strange = storage.stored()[1]
    await storage.save_command(msgspec.structs.replace(strange, options=options))
    manager, _ = await restarted(storage, clock, lanes)
    async with manager:
        await clock.run(manager.drain())
        (letter,) = manager.dead_letters.list()
        assert (letter.id, letter.error_type) == (strange.id, "ConfigError")
        assert text in letter.error
        (stored,) = await storage.load_dead_letters()
        assert stored.options == options
    assert ended == ["n0", "n2"]


@pytest.mark.parametrize(
    "fields", [{"options": {"colour": "red"}}, {"options": {"retry": 5}}, {"reason": "eaten"}, {"failed_at": 1e300}]
)
async def test_a_letter_of_another_version_is_kept_and_shown(clock: VirtualClock, fields: dict[str, Any]) -> None:
    storage = Kept()
    await storage.open()
    letter = StoredDeadLetter(
        id="x", seq=1, lane="a", command_type="options.work", payload=b'["x"]', reason="failed", error_type="E",
        error="e",
    )  # fmt: skip
    await storage.save_dead_letter(msgspec.structs.replace(letter, **fields))
    manager, _ = await restarted(storage, clock, {"a": LaneConfig(0, 1)})
    async with manager:
        assert [(found.id, found.error) for found in manager.dead_letters.list()] == [("x", "e")]
        assert len(await storage.load_dead_letters()) == 1
