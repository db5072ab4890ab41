"""Faults that others reported in public, and that are not ours: lost work, cancellation, retries.

More of them, on memory, order, context and clocks, in `test_known_bugs_later.py`.
"""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import (
    CommandCancelled,
    CommandTimeout,
    DrainTimeout,
    EventEmitter,
    LaneConfig,
    MemorySink,
    QueueManager,
    QueueMonitor,
    RetryPolicy,
    ShutdownInProgress,
    State,
    VirtualClock,
    current,
)
from lane_obs.clock import sleep
from tests.unit.runtime.support import Attempts, Gate, fail, noop, outcome, running, stubborn

if TYPE_CHECKING:
    from collections.abc import Coroutine


def spawn(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.ensure_future(work)


# --- lost work at shutdown -----------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_work_in_flight_when_the_shutdown_begins_is_run_or_refused_never_absent(clock: VirtualClock) -> None:
    """celery#4354: a job already taken in when shutdown began was neither run nor given back."""
    for moment in range(20):
        ran: list[int] = []

        async def work(number: int, ran: list[int] = ran) -> None:
            ran.append(number)

        async with running(clock, LaneConfig(0, 1, max_pending=2)) as manager:
            tasks = [spawn(manager.submit("a", work, number)) for number in range(20)]
            for _ in range(moment):
                await asyncio.sleep(0)
            await manager.shutdown()
            await clock.run(manager.drain())
            results = await asyncio.gather(*tasks, return_exceptions=True)
            taken = [number for number, result in enumerate(results) if not isinstance(result, BaseException)]
            assert ran == taken
            assert all(results[number].state is State.SUCCEEDED for number in taken)
            assert {type(results[number]) for number in range(20) if number not in taken} <= {ShutdownInProgress}


async def test_a_command_that_ends_during_the_drain_ran_once_and_has_succeeded(clock: VirtualClock) -> None:
    """celery#3802: what ended during a warm shutdown was not acknowledged, and ran again."""
    sink, work = MemorySink(), []
    async with running(clock, sinks=[sink]) as manager:
        handle = await manager.submit("a", Attempts(clock, "ok", seconds=1))
        await clock.advance(0.2)
        await manager.shutdown()
        await clock.run(manager.drain())
        work.append(handle.state)
    assert work == [State.SUCCEEDED]
    assert len(sink.of("queue.command.started")) == len(sink.of("queue.command.completed")) == 1


async def test_at_the_end_of_a_drain_each_command_is_judged_by_its_own_outcome(clock: VirtualClock) -> None:
    """jesque#138: a job that ended well during an immediate shutdown was put back on the queue."""
    for _ in range(50):
        async with running(clock, LaneConfig(0, 3)) as manager:
            handles = [await manager.submit("a", sleep, clock, seconds) for seconds in (0.9, 1.0, 1.1)]
            await manager.shutdown()
            left = await clock.run(outcome(manager.drain(1)))
            assert isinstance(left, DrainTimeout)
            counted = left.report.total_left
            await clock.run(manager.close())
            states = [handle.state for handle in handles]
            assert (states[0], states[2]) == (State.SUCCEEDED, State.CANCELLED)
            assert states[1] in {State.SUCCEEDED, State.CANCELLED}
            assert counted >= states.count(State.CANCELLED)
            ended = manager.stats().lanes["a"].ended
            assert (ended["succeeded"], ended["cancelled"]) == (
                states.count(State.SUCCEEDED),
                states.count(State.CANCELLED),
            )


async def test_all_lanes_stop_at_one_moment_and_share_one_limit(clock: VirtualClock) -> None:
    """oban#856: queues were stopped one after another, each with its own grace period."""
    began = clock.now()
    lanes = {name: LaneConfig(0, 1) for name in "abcdef"}
    async with running(clock, lanes) as manager:
        for name in lanes:
            await manager.submit(name, sleep, clock, 100)
        await manager.shutdown()
        for name in lanes:
            with pytest.raises(ShutdownInProgress):
                await manager.submit(name, noop)
        with pytest.raises(DrainTimeout):
            await clock.run(manager.drain(3))
        assert clock.now() - began == 3.0


async def test_a_stop_during_the_start_is_not_forgotten(clock: VirtualClock) -> None:
    """procrastinate#1563: stop() called while the worker started was erased by the start."""
    for order in (("start", "shutdown"), ("shutdown", "start"), ("start", "close"), ("close", "start")):
        manager = QueueManager({"a": LaneConfig(0, 1)}, clock=clock)
        await clock.run(asyncio.gather(*(outcome(getattr(manager, name)()) for name in order)))
        assert manager.is_shutting_down()
        assert isinstance(await outcome(manager.submit("a", noop)), ShutdownInProgress)
        await clock.run(manager.close())


# --- cancellation and time-outs ------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_whoever_is_cancelled_in_the_tick_of_the_end_is_cancelled(clock: VirtualClock) -> None:
    """cpython#86296: wait_for ate a cancellation that came in the tick in which the inner future ended."""
    gate, ended = Gate(), []

    async def wait(handle: Any) -> None:
        await handle
        ended.append("went on")  # pragma: no cover

    async with running(clock, LaneConfig(0, 2)) as manager:
        for number in range(1_000):
            handle = await manager.submit("a", gate, number)
            waiters = [spawn(wait(handle)), spawn(manager.drain()), spawn(manager.drain(60))]
            await clock.advance(0)
            gate.open(number)
            while not handle.done():
                await asyncio.sleep(0)
            for waiter in waiters:
                waiter.cancel()
            await asyncio.wait(waiters)
            assert all(waiter.cancelled() for waiter in waiters)
        assert ended == []
        assert clock.pending == 0


@pytest.mark.both_loops
async def test_a_wait_on_something_done_does_not_eat_a_pending_cancel(clock: VirtualClock) -> None:
    """cpython#107547: with the awaited future already done, wait_for swallowed the cancel and ran on."""

    async def work(done: Any) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await done
        await sleep(clock, 0)
        return "ran on"

    async with running(clock) as manager:
        done = await manager.submit("a", noop)
        await clock.run(done)
        task = spawn(work(done))
        await asyncio.wait([task])
        assert task.cancelled()
        command = await manager.submit("a", work, done)
        assert type(await clock.run(outcome(command))) is CommandCancelled


async def test_a_command_that_ignores_its_timeout_is_seen_and_the_caller_not_lied_to(clock: VirtualClock) -> None:
    """river#1291, Engram#1496: a handler that ignores its cancel signal keeps its slot, with no error and all green."""
    sink = MemorySink()
    async with running(clock, LaneConfig(0, 2), sinks=[sink], stuck_after=1) as manager:
        deaf = [await manager.submit("a", stubborn, clock, 50, timeout=2) for _ in range(2)]
        third = await manager.submit("a", noop)
        await clock.advance(10)
        assert (manager.stats().lanes["a"].stuck, third.state) == (2, State.READY)
        assert len(sink.of("queue.command.stuck")) == 2
        await clock.run(manager.drain())
        assert {type(await outcome(handle)) for handle in deaf} == {CommandTimeout}
        assert third.state is State.SUCCEEDED


async def test_tasks_of_the_library_are_not_collected(clock: VirtualClock) -> None:
    """cpython#91887, litellm#5559: the loop has weak references only, so fire-and-forget tasks vanish half way."""
    sink, gate = MemorySink(), Gate()
    async with running(clock, LaneConfig(0, 99), sinks=[sink, EventEmitter()]) as manager:
        monitor = QueueMonitor(manager)
        await monitor.start()
        futures = [manager.submit_threadsafe("a", gate, number) for number in range(50)]
        closing = []
        for _ in range(5):
            await clock.advance(11)
            gc.collect()
        for number in range(50):
            gate.open(number, number)
        await clock.advance(0)
        assert [future.result(0) for future in futures] == list(range(50))
        other = QueueManager({"a": LaneConfig(0, 1)}, clock=clock)
        await other.start()
        await other.submit("a", stubborn, clock, 3)
        await clock.advance(0)
        closing.append(spawn(other.close()))
        await asyncio.sleep(0)
        closing[0].cancel()
        del other
        gc.collect()
        await clock.advance(20)
        await asyncio.wait(closing)
        await monitor.stop()


# --- retries and poison --------------------------------------------------------------------------------------------


async def test_three_thousand_failures_in_a_row_do_not_end_the_retries(clock: VirtualClock) -> None:
    """redis-py PR 4320, procrastinate#1462: the cap was applied to a product that had overflowed before."""
    work = Attempts(clock, *[OSError("down")] * 2_999, "up again")
    policy = RetryPolicy(10**6, initial_delay=0.5, max_delay=30, multiplier=3.5, jitter="none")
    async with running(clock, LaneConfig(0, 1, retry=policy)) as manager:
        assert await clock.run(await manager.submit("a", work)) == "up again"
        assert set(work.gaps[5:]) == {30.0}


async def test_an_attempt_is_counted_before_its_first_step(clock: VirtualClock) -> None:
    """taskiq-aio-pika#35, celery#1628: what dies with its attempt was never counted, and came back for ever."""
    seen: list[int] = []

    async def poison() -> None:
        seen.append(current().attempt)
        raise SystemExit(9)

    policy = RetryPolicy.fixed(2, 1, retry_on=(BaseException,))
    async with running(clock, LaneConfig(0, 1, retry=policy)) as manager:
        handle = await manager.submit("a", poison)
        others = await manager.submit_many("a", [noop] * 10)
        await clock.run(manager.drain())
        assert seen == [1, 2, 3]
        letter = manager.dead_letters.get(handle.id)
        assert letter is not None
        assert letter.attempts == 3
        assert {other.state for other in others} == {State.SUCCEEDED}


async def test_dead_letters_that_make_way_are_counted_and_told(clock: VirtualClock) -> None:
    """sidekiq#6827, curie#531: a capped store of dead jobs dropped the oldest in silence."""
    sink = MemorySink()
    async with running(clock, LaneConfig(0, 5), dead_letters=5, sinks=[sink]) as manager:
        await manager.submit_many("a", [(fail, ValueError("x"))] * 15)
        await clock.run(manager.drain())
        assert (manager.stats().dead_letters, manager.stats().dead_letters_evicted) == (5, 10)
    assert len(sink.of("queue.dead_letter.evicted")) == 10
