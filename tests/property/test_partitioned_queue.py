"""Partitions in a real queue: order and exclusion by key whatever happens, turns, waits by cause, and nothing kept."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import (
    CAUSES,
    InvalidCommand,
    LaneConfig,
    MemorySink,
    Partitions,
    PriorityBoost,
    QueueManager,
    RateLimit,
    RetryPolicy,
    State,
    VirtualClock,
)
from lane_obs.clock import sleep
from lane_obs.core.partition import PartitionedQueue
from lane_obs.runtime.handle import CommandHandle
from tests.conftest import run_clean
from tests.property.bench import Bench
from tests.property.scenario import Scenario, some_scenario
from tests.unit.runtime.support import Attempts, Gate, noop, outcome, running

if TYPE_CHECKING:
    from collections.abc import Callable

PER_KEY = LaneConfig(0, 8, partitions=Partitions.per_key())


async def play(scenario: Scenario) -> None:
    assert await Bench(scenario).run()


@pytest.mark.parametrize(
    "chances",
    [
        {"partitions": 1.0, "boost": 0.0, "rate_limit": 0.0},
        {"partitions": 1.0, "boost": 0.7, "rate_limit": 0.0},
        {"partitions": 1.0, "boost": 0.0, "rate_limit": 0.6},
        {"partitions": 0.8, "boost": 0.5, "rate_limit": 0.5},
    ],
)
def test_whatever_is_done_to_a_queue_its_partitions_hold(chances: dict[str, float]) -> None:
    """`PlainQueue` says at each start whether it was the right one, and at each end what the command waited for."""
    for seed in range(60):
        run_clean(play, scenario=some_scenario(random.Random(seed), 50, chances))


# --- order and exclusion ----------------------------------------------------------------------------------------


async def busy(rng: random.Random, lane: LaneConfig) -> int:
    """Many commands of few keys: random lengths, retries, cancels, delays, deadlines, requeues. Gives the starts."""
    clock = VirtualClock()
    inside: dict[str, int] = {}
    starts: dict[str, list[tuple[int, int]]] = defaultdict(list)
    unfinished: set[int] = set()

    async def work(number: int, key: str, seconds: float, failures: int) -> None:
        assert key not in inside, f"{number} runs beside {inside[key]}"
        attempt = sum(one == number for one, _ in starts[key]) + 1
        held_by = {one for one in unfinished if one in {first for first, _ in starts[key]} and one != number}
        assert not held_by, f"{number} passed {held_by}, which will be tried again"
        inside[key] = number
        starts[key].append((number, attempt))
        unfinished.add(number)
        try:
            await sleep(clock, seconds)
            if attempt <= failures:
                raise OSError
        finally:
            del inside[key]

    async def finish(handle: CommandHandle[Any], number: int) -> None:
        await outcome(handle)
        unfinished.discard(number)

    ordered: dict[str, list[int]] = defaultdict(list)
    async with QueueManager({"a": lane}, clock=clock, seed=rng.randrange(1000)) as manager:
        handles, waiters = [], []
        for number in range(80):
            key, options = rng.choice("xyz"), {}
            if rng.random() < 0.2:
                options["delay"] = rng.choice([0.5, 2.0])
            else:
                ordered[key].append(number)
            if rng.random() < 0.2:
                options["deadline"] = rng.choice([1.0, 20.0])
            failures = rng.choice([0, 0, 0, 1, 2, 3])
            arguments = number, key, rng.choice([0.0, 0.3, 1.7]), failures
            handle = await manager.submit("a", work, *arguments, partition_key=key, **options)
            handles.append(handle)
            waiters.append(asyncio.ensure_future(finish(handle, number)))
            if rng.random() < 0.2:
                rng.choice(handles).cancel()
            await clock.advance(rng.choice([0.0, 0.0, 0.4]))
        await clock.run(manager.drain())
        await asyncio.gather(*waiters)
        for key, numbers in ordered.items():  # those of one key without a delay start in the order of their submits
            first = [number for number, attempt in starts[key] if attempt == 1 and number in numbers]
            assert first == sorted(first)
        for letter in manager.dead_letters.list():  # they come back to their key
            manager.dead_letters.requeue(letter.id)
        starts.clear()
        await clock.run(manager.drain())
        assert manager.stats().lanes["a"].partitions == 0
    return len(handles)


@pytest.mark.parametrize("fair", [False, True])
@pytest.mark.parametrize("slots", [1, 2, 8])
def test_commands_of_a_key_run_one_at_a_time_in_order_and_a_retry_blocks_its_key(slots: int, fair: bool) -> None:
    lane = LaneConfig(
        0, slots, partitions=Partitions.per_key(fair=fair), retry=RetryPolicy.fixed(2, 0.7, jitter="none")
    )
    for seed in range(15):
        assert run_clean(busy, rng=random.Random(seed), lane=lane) == 80


async def test_a_requeued_dead_letter_keeps_its_key(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock, PER_KEY) as manager:
        broken = await manager.submit("a", Attempts(clock, OSError(), "done"), partition_key="x")
        await clock.run(outcome(broken))
        await manager.submit("a", gate, "other", partition_key="x")
        await clock.advance(0)
        again = manager.dead_letters.requeue(broken.id)
        await clock.advance(5)
        assert (again.state, manager.explain(again.id).cause) == (State.READY, "partition")
        gate.open("other")
        assert await clock.run(again) == "done"
        assert again.wait_by_cause.partition == pytest.approx(5)


async def test_keys_of_one_hash_wait_for_each_other_and_others_do_not(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock, LaneConfig(0, 64, partitions=Partitions.by_key(4))) as manager:
        for number in range(40):
            await manager.submit("a", gate, number, partition_key=f"key{number}")
        await manager.submit("a", gate, "keyless")
        await manager.submit("a", gate, "keyless too")
        await clock.advance(0)
        assert len(gate.inside) == 4 + 2
        while gate.inside:
            gate.open(gate.inside[0])
            await clock.advance(0)
        assert len(gate.started) == 42


# --- fair turns -------------------------------------------------------------------------------------------------


async def waits_of_the_light(fair: bool, keys: int, limit: RateLimit | None = None) -> float:
    """The longest wait of light keys, a command every now and then, beside one that has a thousand waiting."""
    clock, rng = VirtualClock(), random.Random(7)
    lane = LaneConfig(0, 8 if limit else 1, partitions=Partitions.per_key(fair=fair), rate_limit=limit)
    handles = []
    seconds = 0.0 if limit else 1.0
    async with QueueManager({"a": lane}, clock=clock) as manager:
        for _ in range(1000):
            await manager.submit("a", sleep, clock, seconds, partition_key="heavy")
        for _ in range(30):
            await clock.advance(2 * (keys + 1) + rng.random())  # they ask for less than their share
            for key in range(keys):
                handles.append(await manager.submit("a", sleep, clock, seconds, partition_key=f"light{key}"))
        await clock.run(manager.drain())
    return max(handle.started_at - handle.submitted_at for handle in handles)


@pytest.mark.parametrize("limit", [None, RateLimit.per_second(1, burst=1)])
@pytest.mark.parametrize("keys", [1, 3])
def test_a_light_key_waits_for_a_turn_of_each_other_and_not_for_all_that_a_heavy_one_has(
    keys: int, limit: RateLimit | None
) -> None:
    """By slots as by tokens: a second for each other key, and for the command that runs."""
    assert run_clean(waits_of_the_light, fair=True, keys=keys, limit=limit) <= keys + 2
    assert run_clean(waits_of_the_light, fair=False, keys=keys, limit=limit) > 800


async def test_a_turn_is_worth_its_cost(clock: VirtualClock) -> None:
    begun: list[str] = []

    async def work(key: str) -> None:
        begun.append(key)
        await sleep(clock, 1)

    lane = LaneConfig(0, 1, partitions=Partitions.per_key(fair=True))
    async with running(clock, lane) as manager:
        manager.pause("a")
        await manager.submit_many("a", [(work, "dear")] * 10, partition_key="dear", cost=4)
        await manager.submit_many("a", [(work, "cheap")] * 40, partition_key="cheap")
        manager.resume("a")
        await clock.advance(24.5)
        assert 18 <= begun.count("cheap") <= 22
        assert 4 <= begun.count("dear") <= 6
        await clock.run(manager.drain())


# --- nothing is kept --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fair", "batches"), [(False, 50), (True, 10)])
async def test_a_hundred_thousand_keys_leave_nothing(fair: bool, batches: int) -> None:
    """Counted, not weighed: no partition, no command, no timer, no place in any order."""
    lane = LaneConfig(
        0,
        50,
        partitions=Partitions.per_key(fair=fair),
        retry=RetryPolicy.fixed(1, 0.0),
        rate_limit=RateLimit.per_second(1e9),
    )
    failed: set[int] = set()

    async def work(number: int) -> None:
        if number % 1000 == 0 and number not in failed:
            failed.add(number)
            raise OSError

    async with QueueManager({"a": lane}) as manager:
        home = manager._engine.lane("a")
        ready = home.ready
        assert isinstance(ready, PartitionedQueue)
        most = 0
        for batch in range(batches):
            handles = [
                manager.submit_nowait("a", work, number, partition_key=f"key{number}")
                for number in range(batch * 1000, batch * 1000 + 1000)
            ]
            handles += [
                manager.submit_nowait("a", noop, partition_key=f"other{batch}-{number}", deadline=60.0)
                for number in range(1000)
            ]
            for handle in handles[1500:1600]:
                handle.cancel()
            most = max(most, len(ready.parts))
            await manager.drain()
            del handles, handle
        assert most >= 1900
        assert (len(ready.parts), ready.held, len(ready._inside), len(ready._displaced)) == (0, 0, 0, 0)
        assert (ready.take_lined_up(), ready.take_held_back()) == ([], [])
        assert (list(manager._dispatcher.directory), len(manager._engine.timers)) == ([], 0)
        assert manager.stats().lanes["a"].largest_partitions == manager.stats().lanes["a"].partition_ages == {}
        gc.collect()
        assert sum(type(thing) is CommandHandle for thing in gc.get_objects()) <= 64  # a few ghosts in the order


# --- with limits and boosts -------------------------------------------------------------------------------------


async def test_a_boost_orders_partitions_and_never_what_is_inside_one(clock: VirtualClock) -> None:
    begun: list[str] = []

    async def work(name: str) -> None:
        begun.append(name)

    lane = LaneConfig(0, 1, priority=5, partitions=Partitions.per_key(), boost=PriorityBoost.standard())
    async with running(clock, lane) as manager:
        manager.pause("a")
        for name, key, deadline in (
            ("x1", "x", None), ("x2", "x", 10.0), ("y1", "y", None), ("z1", "z", 12.0), ("none", None, 100.0),
        ):  # fmt: skip
            await manager.submit("a", work, name, partition_key=key, deadline=deadline)
        await clock.advance(8)
        manager.resume("a")
        await clock.run(manager.drain())
    assert begun == ["z1", "x1", "x2", "y1", "none"]


async def test_a_limit_holds_the_next_partition_and_not_one_that_is_held(clock: VirtualClock) -> None:
    lane = LaneConfig(0, 8, partitions=Partitions.per_key(), rate_limit=RateLimit.per_second(1, burst=1))
    async with running(clock, lane) as manager:
        first = await manager.submit("a", sleep, clock, 10, partition_key="x")
        behind = await manager.submit("a", noop, partition_key="x")
        other = await manager.submit("a", noop, partition_key="y")
        await clock.advance(0.5)
        assert [manager.explain(handle.id).cause for handle in (behind, other)] == ["partition", "rate_limit"]
        await clock.run(manager.drain())
        assert [round(handle.started_at - first.started_at, 6) for handle in (behind, other)] == [10, 1]
        assert behind.wait_by_cause.partition == pytest.approx(10)
        assert other.wait_by_cause.rate_limit == pytest.approx(1)


# --- why it waits -----------------------------------------------------------------------------------------------


async def held_and(clock: VirtualClock, then: Callable[[QueueManager, CommandHandle[Any]], Any]) -> dict[str, float]:
    """A command that is held for 2 s behind one of its key, in a lane that is full; then something happens."""
    gate = Gate()
    async with running(clock, LaneConfig(0, 2, partitions=Partitions.per_key())) as manager:
        await manager.submit("a", gate, "ahead", partition_key="x")
        await manager.submit("a", gate, "elsewhere", partition_key="y")
        handle = await manager.submit("a", noop, partition_key="x", deadline=50)
        await manager.submit("a", noop, partition_key="z")
        await clock.advance(2)
        assert manager.explain(handle.id).cause == "partition"
        assert manager.explain(handle.id).wait_by_cause.partition == pytest.approx(2)
        then(manager, handle)
        await clock.advance(100)
        for name in gate.inside:
            gate.open(name)
        await clock.run(manager.drain())
        assert handle.done()
        return {cause: seconds for cause, seconds in handle.wait_by_cause.as_dict().items() if seconds}


async def test_what_a_held_command_waits_is_partition_to_its_end(clock: VirtualClock) -> None:
    assert await held_and(clock, lambda _, handle: handle.cancel()) == pytest.approx({"partition": 2})
    assert await held_and(clock, lambda _manager, _handle: None) == pytest.approx({"partition": 50})
    # Also while its lane is paused.
    assert await held_and(clock, lambda manager, _: manager.pause("a") or manager.resume("a")) == {"partition": 50}


async def test_one_that_loses_its_place_keeps_what_it_waited_for_before(clock: VirtualClock) -> None:
    """It was lined up, and waited for a slot; then one of its key came back that was submitted before it."""
    gate = Gate()
    async with running(clock, LaneConfig(0, 1, partitions=Partitions.per_key())) as manager:
        await manager.submit("a", gate, "slot")
        await clock.advance(0)
        early = await manager.submit("a", gate, "early", partition_key="x", delay=3)
        late = await manager.submit("a", gate, "late", partition_key="x")
        await clock.advance(5)
        assert manager.explain(late.id).cause == "partition"
        gate.open("slot")
        await clock.advance(4)
        gate.open("early")
        await clock.advance(0)
        gate.open("late")
        await clock.run(manager.drain())
        assert early.wait_by_cause.as_dict() == pytest.approx(_only(delay=3, slots=2))
        assert late.wait_by_cause.as_dict() == pytest.approx(_only(slots=3, partition=6))


def _only(**seconds: float) -> dict[str, float]:
    return dict.fromkeys(CAUSES, 0.0) | seconds


# --- the oldest -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fair", [False, True])
async def test_the_oldest_is_dropped_also_where_all_are_held(clock: VirtualClock, fair: bool) -> None:
    gate = Gate()
    lane = LaneConfig(0, 4, partitions=Partitions.per_key(fair=fair), max_pending=2, overflow="drop_oldest")
    async with running(clock, lane) as manager:
        await manager.submit("a", gate, "runs", partition_key="x")
        await clock.advance(0)
        held = [await manager.submit("a", noop, number, partition_key="x") for number in range(5)]
        assert [handle.state for handle in held] == [State.FAILED] * 3 + [State.READY] * 2
        gate.open("runs")
        await clock.run(manager.drain())
        assert [handle.state for handle in held] == [State.FAILED] * 3 + [State.SUCCEEDED] * 2


async def test_a_trace_leads_to_the_oldest_also_where_all_are_held(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock, PER_KEY) as manager:
        await manager.submit("a", gate, "runs", partition_key="x")
        await clock.advance(0)
        oldest = await manager.submit("a", noop, partition_key="x")
        await manager.submit("a", noop, partition_key="x")
        oldest.trace = ("0" * 31 + "1", "0" * 15 + "2")
        assert manager.columns.trace_behind("a", running=False) == oldest.trace
        gate.open("runs")
        await clock.run(manager.drain())


# --- functions of the user's ------------------------------------------------------------------------------------


def _raises(_type: str, _key: str | None) -> int:
    raise RuntimeError("no idea")


@pytest.mark.parametrize(
    ("function", "count", "message"),
    [
        (_raises, None, "RuntimeError: no idea"),
        (_raises, 4, "RuntimeError: no idea"),
        (lambda _type, _key: [], None, "unhashable"),
        (lambda _type, _key: 4, 4, "not a whole number from 0 to 3"),
        (lambda _type, _key: -1, 4, "not a whole number from 0 to 3"),
        (lambda _type, _key: True, 4, "not a whole number from 0 to 3"),
        (lambda _type, _key: "1", 4, "not a whole number from 0 to 3"),
        (lambda _key: 1, 4, "TypeError"),
    ],
)
async def test_a_function_that_fails_or_gives_rubbish_refuses_the_submit(
    clock: VirtualClock, function: Any, count: int | None, message: str
) -> None:
    sink = MemorySink()
    lane = LaneConfig(0, 1, partitions=Partitions.custom(function, count), max_pending=3)
    async with running(clock, lane, sinks=[sink]) as manager:
        before = manager.stats()
        with pytest.raises(InvalidCommand, match=message):
            await manager.submit("a", noop, partition_key="x")
        with pytest.raises(InvalidCommand, match=message):
            manager.submit_nowait("a", noop)
        with pytest.raises(InvalidCommand, match=message):
            await manager.submit_many("a", [noop, noop])
        coroutine = noop("once")
        with pytest.raises(InvalidCommand, match=message):
            await manager.submit("a", coroutine)  # it is closed: Python warns of nothing
        with pytest.raises(InvalidCommand, match=message):
            manager.submit_nowait("a", noop())
        assert manager.stats() == before
        assert sink.of("queue.command.submitted") == []
        assert list(manager._dispatcher.directory) == []


async def test_a_function_is_asked_once_with_type_and_key(clock: VirtualClock) -> None:
    asked: list[tuple[str, str | None]] = []

    def choose(command_type: str, key: str | None) -> str | None:
        asked.append((command_type, key))
        return None if key is None else key[:1]

    gate = Gate()
    async with running(clock, LaneConfig(0, 8, partitions=Partitions.custom(choose))) as manager:
        for number, key in enumerate(("ab", "ac", "b", None, None)):
            await manager.submit("a", gate, number, partition_key=key)
        await clock.advance(0)
        assert gate.inside == [0, 2, 3, 4]
        gate.open(0)
        await clock.advance(0)
        assert gate.inside == [2, 3, 4, 1]
        for number in gate.inside:
            gate.open(number)
        await clock.run(manager.drain())
    assert asked == [(asked[0][0], key) for key in ("ab", "ac", "b", None, None)]
