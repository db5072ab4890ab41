"""Faults of the reference's later versions that concern lanes and attempts: none of them is ours.

Each test is named after the fault it shows to be absent.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lane_obs import (
    CommandCancelled,
    CommandExpired,
    CommandQueue,
    CommandTimeout,
    ConfigError,
    DeadLetterQueue,
    EventEmitter,
    LaneConfig,
    LaneObsError,
    MemorySink,
    QueueManager,
    RetryPolicy,
    State,
    VirtualClock,
)
from lane_obs.clock import sleep
from tests.unit.runtime.support import Attempts, Gate, fail, noop, outcome, running

EXACT = RetryPolicy.fixed(2, 10, jitter="none")


# --- scheduler -----------------------------------------------------------------------------------------------------


async def test_one_start_for_each_poll_of_ten_milliseconds(clock: VirtualClock) -> None:
    """It polls and starts one command in each round; ours starts all that may run, at the moment they may."""
    began = clock.now()
    async with running(clock, LaneConfig(0, 10)) as manager:
        handles = await manager.submit_many("a", [noop] * 1_000)
        await clock.run(manager.drain())
        assert clock.now() == began
        assert {handle.started_at for handle in handles} == {began}


async def test_a_minimum_that_reserves_nothing(clock: VirtualClock) -> None:
    """Its min concurrency is stored and shown but never used."""
    lanes = {"busy": LaneConfig(0, 9), "reserved": LaneConfig(2, 9, priority=9)}
    async with running(clock, lanes, max_concurrency=4) as manager:
        await manager.submit_many("busy", [(sleep, clock, 1)] * 20)
        await manager.submit_many("reserved", [(sleep, clock, 1)] * 20)
        await clock.advance(0)
        assert {name: lane.running for name, lane in manager.stats().lanes.items()} == {"busy": 2, "reserved": 2}


def test_a_minimum_above_the_maximum() -> None:
    """It takes min > max, and a max of zero on which a submit hangs for ever."""
    with pytest.raises(ConfigError, match="min_concurrency: 5"):
        LaneConfig(5, 4)
    with pytest.raises(ConfigError, match="max_concurrency: 0"):
        LaneConfig(0, 0)


async def test_one_of_two_equal_lanes_is_drained_before_the_other(clock: VirtualClock) -> None:
    """Ties fall to the order of a hash map: 60 of one lane, then 60 of the other."""
    gate = Gate()
    async with running(clock, {"a": LaneConfig(0, 1), "b": LaneConfig(0, 1)}, max_concurrency=1) as manager:
        for name in "ab":
            await manager.submit_many(name, [(gate, f"{name}{number}") for number in range(60)])
        await clock.advance(0)
        while gate.inside:
            gate.open(gate.inside[0])
            await clock.advance(0)
    assert "".join(name[0] for name in gate.started) == "ab" * 60


async def test_a_low_lane_starves(clock: VirtualClock) -> None:
    """288 runs of the high lane to 0 of the low one; with a reservation the low lane goes on."""
    done = {"high": 0, "low": 0}

    async def loop(manager: QueueManager, lane: str, until: float) -> None:
        while clock.now() < until:
            await (await manager.submit(lane, sleep, clock, 0.01))
            done[lane] += 1

    lanes = {"high": LaneConfig(0, 4, priority=0), "low": LaneConfig(1, 4, priority=5)}
    async with running(clock, lanes, max_concurrency=4) as manager:
        loops = [loop(manager, lane, clock.now() + 3) for lane in done for _ in range(4)]
        await clock.run(asyncio.gather(*loops))
    assert done["low"] >= 290


async def test_every_start_call_adds_a_scheduler(clock: VirtualClock) -> None:
    """Its start is not idempotent: each call adds a loop that dispatches."""
    async with running(clock) as manager:
        for _ in range(100):
            await manager.start()
        tasks = asyncio.all_tasks()
        await manager.submit_many("a", [(sleep, clock, 1)] * 3)
        await clock.advance(0)
        assert len(asyncio.all_tasks() - tasks) == manager.stats().total_active == 1
        await clock.run(manager.drain())


async def test_pending_work_without_a_bound(clock: VirtualClock) -> None:
    """It has no capacity limit and no back-pressure."""
    async with running(clock, LaneConfig(0, 1, max_pending=10, overflow="reject")) as manager:
        results = [await outcome(manager.submit("a", sleep, clock, 1)) for _ in range(50)]
        assert sum(isinstance(result, LaneObsError) for result in results) == 39
        assert manager.stats().lanes["a"].pending <= 10


async def test_no_id_so_that_nothing_can_be_looked_up_or_cancelled(clock: VirtualClock) -> None:
    """Submit gives a receiver only; neither pending nor running commands can be cancelled."""
    async with running(clock) as manager:
        runs, waits = [await manager.submit("a", sleep, clock, 100) for _ in range(2)]
        await clock.advance(1)
        assert manager.get(waits.id) is waits
        assert manager.cancel(waits.id)
        assert manager.cancel(runs.id)
        assert {type(await clock.run(outcome(handle))) for handle in (runs, waits)} == {CommandCancelled}


async def test_no_way_to_pause_a_lane(clock: VirtualClock) -> None:
    """Its lanes cannot be paused or changed while they work."""
    async with running(clock) as manager:
        manager.pause("a")
        handle = await manager.submit("a", noop)
        await clock.advance(5)
        assert (handle.state, manager.set_lane("a", max_concurrency=3).max_concurrency) == (State.READY, 3)
        manager.resume("a")
        await clock.run(handle)


@pytest.mark.parametrize("priority", [256, -1, 10**20])
async def test_a_priority_that_wraps_to_the_highest(clock: VirtualClock, priority: int) -> None:
    """Priority 256 becomes 0 there, which is the highest."""
    gate = Gate()
    lanes = {"odd": LaneConfig(0, 1, priority=priority), "zero": LaneConfig(0, 1, priority=0)}
    async with running(clock, lanes, max_concurrency=1) as manager:
        for name in lanes:
            await manager.submit(name, gate, name)
        await clock.advance(0)
        assert gate.started == ["odd" if priority < 0 else "zero"]


# --- attempts ------------------------------------------------------------------------------------------------------


async def test_time_in_the_queue_without_a_limit(clock: VirtualClock) -> None:
    """Only the run is limited there, and only by whole seconds for a whole lane."""
    async with running(clock) as manager:
        await manager.submit("a", sleep, clock, 100)
        late = await manager.submit("a", noop, deadline=0.25)
        short = await manager.submit("a", sleep, clock, 100, timeout=0.125)
        assert type(await clock.run(outcome(late))) is CommandExpired
        assert type(await clock.run(outcome(short))) is CommandTimeout
        assert (late.end_to_end_seconds, short.run_seconds) == (0.25, 0.125)


async def test_a_panic_takes_the_slot_with_it(clock: VirtualClock) -> None:
    """A panic leaks the slot for ever: a lane of one is dead, with no event, no dead letter, and drain times out."""
    sink = MemorySink()
    async with running(clock, sinks=[sink]) as manager:
        handle = await manager.submit("a", fail, SystemExit("panic"))
        assert await clock.run(await manager.submit("a", noop, "alive")) == "alive"
        assert (await clock.run(manager.drain(1))).total_left == 0
        assert handle.id in manager.dead_letters
        assert sink.of("queue.command.failed")


async def test_a_waiting_retry_that_no_statistic_shows(clock: VirtualClock) -> None:
    """A retry lives in a sleeping task there: not pending, not active."""
    async with running(clock, LaneConfig(0, 1, retry=EXACT)) as manager:
        await manager.submit("a", Attempts(clock, ValueError("x")))
        await clock.advance(5)
        assert (manager.stats().lanes["a"].backoff, manager.stats().total_pending) == (1, 1)


async def test_a_drain_that_does_not_see_waiting_retries(clock: VirtualClock) -> None:
    """Drain returned after two microseconds with three retries outstanding."""
    async with running(clock, LaneConfig(0, 3, retry=EXACT)) as manager:
        handles = await manager.submit_many("a", [Attempts(clock, ValueError("x"), "ok") for _ in range(3)])
        await clock.advance(1)
        report = await clock.run(manager.drain())
        assert (report.seconds, report.ended["succeeded"]) == (9.0, 3)
        assert all(handle.done() for handle in handles)


async def test_retries_in_step_of_whatever_type(clock: VirtualClock) -> None:
    """No jitter and no filter by type: a herd comes back at one moment, and bugs are retried too."""
    policy = RetryPolicy.fixed(1, 10, give_up_on=(TypeError,))
    works = [Attempts(clock, OSError("x")) for _ in range(50)]
    async with running(clock, LaneConfig(0, 99, retry=policy), seed=1) as manager:
        await manager.submit_many("a", works)
        bug = await manager.submit("a", fail, TypeError("bug"))
        await clock.run(manager.drain())
        assert len({work.gaps[0] for work in works}) > 40
        assert bug.attempt == 1


async def test_a_retry_that_goes_to_the_back_of_its_lane(clock: VirtualClock) -> None:
    """There a retry queues up behind everything submitted meanwhile."""
    work = Attempts(clock, ValueError("x"), "ok")
    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(1, 1, jitter="none"))) as manager:
        first = await manager.submit("a", work)
        rest = await manager.submit_many("a", [(sleep, clock, 2)] * 3)
        await clock.run(first)
        assert [handle.done() for handle in rest] == [True, False, False]


async def test_an_attempt_that_timed_out_shows_as_a_plain_retry(clock: VirtualClock) -> None:
    """Only the last time-out is told as one, and the retry event has no error."""
    sink = MemorySink()
    async with running(clock, LaneConfig(0, 1, timeout=1, retry=EXACT), sinks=[sink]) as manager:
        await manager.submit("a", sleep, clock, 5)
        await clock.run(manager.drain())
        assert [event.payload["reason"] for event in sink.of("queue.command.retry")] == ["timeout"] * 2
        assert {event.payload["error_type"] for event in sink.of("queue.command.retry")} == {"CommandTimeout"}


async def test_dead_letters_without_their_work(clock: VirtualClock) -> None:
    """Its letters hold no payload, so nothing can be run again; a size of zero keeps one; evictions are silent."""
    letters = DeadLetterQueue(1)
    with pytest.raises(ConfigError):
        DeadLetterQueue(0)
    async with running(clock, dead_letters=letters) as manager:
        for work in (Attempts(clock, ValueError("x")), Attempts(clock, ValueError("x"), "second try")):
            handle = await manager.submit("a", work)
            await clock.run(outcome(handle))
        assert (len(letters), letters.evicted) == (1, 1)
        assert await clock.run(letters.requeue(handle.id)) == "second try"


def test_a_sample_that_does_not_match_the_signature() -> None:
    """The README builds `CommandQueue::with_dlq(emitter, dlq)`; the real one took a size."""
    letters = DeadLetterQueue(10)
    assert CommandQueue.with_dlq(EventEmitter(100), letters).dead_letters is letters
    assert CommandQueue.with_dlq(EventEmitter(100), 10).dead_letters.max_size == 10


@pytest.mark.parametrize("value", [1234567890123456789, 2**70, [], {}, None, object()])
async def test_values_that_come_back_as_something_else(clock: VirtualClock, value: Any) -> None:
    """Results are JSON echoes there: long integers come back as floats, and no Python code can run at all."""
    async with running(clock) as manager:
        assert await clock.run(await manager.submit("a", noop, value)) is value
