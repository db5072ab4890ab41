"""Whatever a command raises, its outcome is true and its slot comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lane_obs import CommandCancelled, CommandTimeout, LaneConfig, MemorySink, RetryPolicy, State, VirtualClock
from lane_obs.clock import sleep
from tests.unit.runtime.support import fail, noop, outcome, running


class OwnInterrupt(KeyboardInterrupt):
    pass


class OwnCancel(asyncio.CancelledError):
    pass


class RudeText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


RAISED = [
    ValueError("x"),
    SystemExit(3),
    KeyboardInterrupt(),
    OwnInterrupt("x"),
    GeneratorExit(),
    BaseException("bare"),
    BaseExceptionGroup("group", [KeyboardInterrupt(), ValueError("x")]),
    BaseExceptionGroup("group", [asyncio.CancelledError()]),
    ExceptionGroup("group", [ValueError("x")]),
    TimeoutError("own"),
    asyncio.InvalidStateError("x"),
    StopAsyncIteration(),
    RecursionError("deep"),
    MemoryError(),
    RudeText(),
    ValueError("lone surrogate \ud800"),
]


@pytest.mark.both_loops
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_it_is_the_commands_own_error_and_the_slot_comes_back(clock: VirtualClock, error: BaseException) -> None:
    sink = MemorySink()
    async with running(clock, sinks=[sink]) as manager:
        handle = await manager.submit("a", fail, error)
        after = await manager.submit("a", noop, "still here")
        assert await clock.run(outcome(handle)) is error
        assert await clock.run(after) == "still here"
        assert (handle.state, manager.stats().lanes["a"].running) == (State.FAILED, 0)
        assert manager.dead_letters.get(handle.id) is not None
        failed = await sink.wait_for("queue.command.failed")
        assert failed.payload["error_type"] == type(error).__name__


@pytest.mark.both_loops
@pytest.mark.parametrize("error", [asyncio.CancelledError(), OwnCancel("own")], ids=["CancelledError", "OwnCancel"])
async def test_a_command_that_cancels_itself_is_cancelled(clock: VirtualClock, error: BaseException) -> None:
    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(3, 1))) as manager:
        handle = await manager.submit("a", fail, error)
        after = await manager.submit("a", noop, 1)
        found = await clock.run(outcome(handle))
        assert type(found) is CommandCancelled
        assert found.__cause__ is error
        assert await clock.run(after) == 1
        assert (handle.state, handle.attempt) == (State.CANCELLED, 1)


@pytest.mark.both_loops
async def test_a_stop_iteration_becomes_the_runtime_error_python_makes_of_it(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", fail, StopIteration(5))
        found = await clock.run(outcome(handle))
        assert isinstance(found, RuntimeError)
        assert isinstance(found.__cause__, StopIteration)
        assert await clock.run(await manager.submit("a", noop, 1)) == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(5)], ids=repr)
async def test_in_a_thread_as_well(error: BaseException, clock: VirtualClock) -> None:
    def work() -> None:
        raise error

    async with running(clock) as manager:
        handle = await manager.submit("a", work)
        found = await outcome(handle)
        assert handle.state is State.FAILED
        assert found is error or found.__cause__ is error
        assert await (await manager.submit("a", noop, 1)) == 1


async def test_a_retry_policy_for_exceptions_does_not_retry_what_ends_programs(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(3, 1))) as manager:
        handles = [await manager.submit("a", fail, error) for error in (SystemExit(1), GeneratorExit())]
        await clock.run(manager.drain())
        assert [(handle.state, handle.attempt) for handle in handles] == [(State.FAILED, 1)] * 2


async def own_timeout_error() -> None:
    raise TimeoutError("the database, not us")


async def inner_timeout_runs_out() -> None:
    async with asyncio.timeout(0):
        await asyncio.Event().wait()


@pytest.mark.parametrize("work", [own_timeout_error, inner_timeout_runs_out])
async def test_a_commands_own_timeout_error_is_not_taken_for_ours(clock: VirtualClock, work: Any) -> None:
    async with running(clock) as manager:  # dramatiq#791
        handle = await manager.submit("a", work, timeout=60)
        found = await clock.run(outcome(handle))
        assert type(found) is TimeoutError
        assert (handle.state, type(manager.dead_letters.get(handle.id).exception)) == (State.FAILED, TimeoutError)


async def test_an_error_raised_while_timing_out_is_still_a_time_out_with_a_cause(clock: VirtualClock) -> None:
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("while cleaning up") from None

    async with running(clock) as manager:
        handle = await manager.submit("a", work, timeout=2)
        found = await clock.run(outcome(handle))
        assert type(found) is CommandTimeout
        assert isinstance(found.__cause__, ValueError)
        assert handle.state is State.TIMED_OUT


async def test_an_error_raised_while_being_cancelled_is_the_commands_error_and_is_not_retried(
    clock: VirtualClock,
) -> None:
    error = ValueError("while cleaning up")

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise error

    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(3, 1))) as manager:
        handle = await manager.submit("a", work)
        await clock.advance(0)
        handle.cancel()
        assert await clock.run(outcome(handle)) is error
        assert (handle.state, handle.attempt) == (State.FAILED, 1)


@pytest.mark.both_loops
async def test_a_task_cancelled_from_outside_in_the_middle_is_a_cancelled_command(clock: VirtualClock) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def work() -> None:
        tasks.append(asyncio.current_task())
        await sleep(clock, 100)

    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(3, 1))) as manager:
        handle = await manager.submit("a", work)
        after = await manager.submit("a", noop, 1)
        await clock.advance(1)
        tasks[0].cancel()
        assert type(await clock.run(outcome(handle))) is CommandCancelled
        assert await clock.run(after) == 1
        assert (handle.state, handle.run_seconds) == (State.CANCELLED, 1.0)


@pytest.mark.both_loops
async def test_a_task_cancelled_from_outside_before_its_first_step_is_a_cancelled_command(clock: VirtualClock) -> None:
    before = asyncio.all_tasks()
    async with running(clock) as manager:
        handle = await manager.submit("a", sleep, clock, 100)
        after = await manager.submit("a", noop, 1)
        while not (fresh := asyncio.all_tasks() - before):
            await asyncio.sleep(0)
        for task in fresh:
            task.cancel()
        assert type(await clock.run(outcome(handle))) is CommandCancelled
        assert await clock.run(after) == 1


@pytest.mark.both_loops
async def test_a_thousand_failures_of_every_kind_leave_every_slot_free(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 7)) as manager:
        errors = [*RAISED, asyncio.CancelledError()]
        for number in range(1_000):
            await manager.submit("a", fail, errors[number % len(errors)])
        await clock.run(manager.drain())
        stats = manager.stats().lanes["a"]
        assert (stats.running, stats.pending, sum(stats.ended.values())) == (0, 0, 1_000)
        await manager.submit_many("a", [(sleep, clock, 1)] * 7)
        await clock.advance(0)
        assert manager.stats().lanes["a"].running == 7
