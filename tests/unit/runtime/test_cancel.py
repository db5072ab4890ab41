"""Cancelling commands: waiting or running, and those that do not listen."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from lane_obs import CommandCancelled, LaneConfig, MemorySink, RetryPolicy, State, VirtualClock
from lane_obs.clock import sleep
from tests.unit.runtime.support import Attempts, Gate, noop, outcome, running, stubborn


async def test_a_ready_command_is_cancelled_at_once_and_never_runs(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock) as manager:
        await manager.submit("a", gate, "runs")
        handle = await manager.submit("a", gate, "waits")
        await clock.advance(0)
        assert handle.cancel() is True
        assert (handle.state, handle.done()) == (State.CANCELLED, True)
        gate.open("runs")
        await clock.run(manager.drain())
        assert gate.started == ["runs"]
        assert (handle.attempt, handle.run_seconds) == (0, 0.0)


async def test_a_delayed_and_a_backing_off_command_are_cancelled_at_once(clock: VirtualClock) -> None:
    work = Attempts(clock, ValueError("x"))
    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(3, 50, jitter="none"))) as manager:
        backing_off = await manager.submit("a", work)
        delayed = await manager.submit("a", noop, delay=50)
        await clock.advance(1)
        assert (backing_off.state, delayed.state) == (State.BACKOFF, State.DELAYED)
        assert manager.cancel(backing_off.id)
        assert manager.cancel(delayed.id)
        await clock.advance(0)
        assert clock.pending == 0
        await clock.run(manager.drain())
        assert (backing_off.state, delayed.state) == (State.CANCELLED, State.CANCELLED)
        assert len(work.starts) == 1


async def test_a_running_command_gets_its_cancellation(clock: VirtualClock) -> None:
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("yes")
            await sleep(clock, 1)

    async with running(clock) as manager:
        handle = await manager.submit("a", work)
        await clock.advance(2)
        assert handle.cancel()
        assert handle.state is State.RUNNING  # until it has ended
        error = await clock.run(outcome(handle))
        assert type(error) is CommandCancelled
        assert cleaned == ["yes"]
        assert handle.run_seconds == 3.0


async def test_an_ended_command_cannot_be_cancelled(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", noop, 1)
        await clock.run(handle)
        assert handle.cancel() is False
        assert manager.cancel(handle.id) is False
        assert handle.state is State.SUCCEEDED


async def test_a_command_that_returns_in_spite_of_its_cancellation_has_succeeded(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", stubborn, clock, 10, "late")
        await clock.advance(1)
        handle.cancel()
        assert await clock.run(handle) == "late"
        assert handle.state is State.SUCCEEDED


async def test_a_cancelled_command_is_not_retried_and_is_no_dead_letter(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(3, 1))) as manager:
        handle = await manager.submit("a", sleep, clock, 10)
        await clock.advance(1)
        handle.cancel()
        await clock.run(manager.drain())
        assert (handle.attempt, len(manager.dead_letters)) == (1, 0)


async def test_a_command_may_cancel_itself_through_its_handle(clock: VirtualClock) -> None:
    handles: list[Any] = []

    async def work() -> str:
        await sleep(clock, 1)
        handles[0].cancel()
        await sleep(clock, 1)
        return "not reached"

    async with running(clock) as manager:
        handles.append(await manager.submit("a", work))
        assert type(await clock.run(outcome(handles[0]))) is CommandCancelled


async def test_a_command_may_cancel_itself_in_its_first_step(clock: VirtualClock) -> None:
    handles: list[Any] = []

    async def work() -> str:
        handles[0].cancel()
        await asyncio.sleep(0)
        return "not reached"

    async with running(clock) as manager:
        handles.append(await manager.submit("a", work))
        assert type(await clock.run(outcome(handles[0]))) is CommandCancelled
        assert await clock.run(await manager.submit("a", noop, 1)) == 1


async def test_a_command_that_ignores_its_cancellation_keeps_its_slot_and_is_reported(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, sinks=[sink], stuck_after=5) as manager:
        handle = await manager.submit("a", stubborn, clock, 100)
        waiting = await manager.submit("a", noop)
        await clock.advance(1)
        handle.cancel()
        await clock.advance(4.9)
        assert sink.of("queue.command.stuck") == []
        await clock.advance(0.2)
        (stuck,) = sink.of("queue.command.stuck")
        assert (stuck.payload["command_id"], stuck.payload["after_seconds"]) == (handle.id, 5.0)
        stats = manager.stats().lanes["a"]
        assert (stats.stuck, stats.running, stats.ready) == (1, 1, 1)
        assert waiting.state is State.READY
        await clock.run(waiting)
        assert manager.stats().lanes["a"].stuck == 0
        assert len(sink.of("queue.command.stuck")) == 1


async def test_asking_again_does_not_put_off_the_report_of_a_stuck_command(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, sinks=[sink], stuck_after=5) as manager:
        handle = await manager.submit("a", stubborn, clock, 100)
        await clock.advance(0)
        for _ in range(10):
            handle.cancel()
            await clock.advance(1)
        assert manager.stats().lanes["a"].stuck == 1
        assert len(sink.of("queue.command.stuck")) == 1
        await clock.run(manager.drain())


async def test_a_command_that_listens_in_time_is_never_called_stuck(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, sinks=[sink], stuck_after=5) as manager:
        handle = await manager.submit("a", sleep, clock, 100)
        await clock.advance(1)
        handle.cancel()
        await clock.advance(100)
        assert sink.of("queue.command.stuck") == []
        assert manager.stats().lanes["a"].stuck == 0


async def test_statistics_still_answer_after_a_stuck_command_was_given_up(clock: VirtualClock) -> None:
    async with running(clock, stuck_after=1, close_timeout=3) as manager:
        handle = await manager.submit("a", stubborn, clock, 50)
        await clock.advance(0)
        handle.cancel()
        await clock.advance(2)
        await clock.run(manager.close())
        assert manager.stats().lanes["a"].stuck == 0
        assert handle.state is State.CANCELLED
        await clock.advance(60)  # the task that was left behind comes to its end
        assert manager.stats().lanes["a"].ended["cancelled"] == 1


@pytest.mark.both_loops
async def test_a_cancel_in_the_tick_of_completion_loses_nothing(clock: VirtualClock) -> None:
    gate = Gate()  # cpython#86296: wait_for ate such a cancellation
    async with running(clock, LaneConfig(0, 3)) as manager:
        for number in range(1_000):
            handle = await manager.submit("a", gate, number)
            waiter = asyncio.ensure_future(outcome(handle))
            await clock.advance(0)
            steps = [lambda: gate.open(number, number), handle.cancel, lambda: waiter.cancel()]  # noqa: B023
            for step in steps[number % 3 :] + steps[: number % 3]:
                if not (handle.done() and step is steps[0]):
                    step()
            await asyncio.wait([waiter])
            await clock.advance(0)
            assert handle.done()
            assert handle.state in {State.SUCCEEDED, State.CANCELLED}
            if handle.state is State.SUCCEEDED:
                assert handle.result() == number
        stats = manager.stats().lanes["a"]
        assert (stats.running, stats.stuck, sum(stats.ended.values())) == (0, 0, 1_000)
        assert clock.pending == 0


@pytest.mark.both_loops
async def test_a_cancel_before_the_first_step_ends_the_command(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, sinks=[sink]) as manager:
        for _ in range(100):
            handle = await manager.submit("a", sleep, clock, 100)
            while handle.state is State.READY:
                await asyncio.sleep(0)
            handle.cancel()
            assert type(await clock.run(outcome(handle))) is CommandCancelled
        assert manager.stats().lanes["a"].running == 0


@pytest.mark.both_loops
async def test_commands_held_by_nothing_but_themselves_are_not_collected(clock: VirtualClock) -> None:
    turns: list[int] = []  # cpython#91887: the loop has weak references only

    async def work(number: int) -> int:
        for _ in range(3):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            weakest = asyncio.get_running_loop().call_soon(future.set_result, None)
            del weakest
            await future
            gc.collect(0)
        loop_less = asyncio.get_running_loop().create_future()
        loop_less.cycle = loop_less  # type: ignore[attr-defined]
        clock.call_at(clock.now() + 1, loop_less.set_result, None)
        await loop_less
        turns.append(number)
        return number

    async with running(clock, LaneConfig(0, 50)) as manager:
        for number in range(200):
            await manager.submit("a", work, number)
        gc.collect()
        await clock.advance(0.5)
        gc.collect()
        await clock.run(manager.drain())
        assert sorted(turns) == list(range(200))
