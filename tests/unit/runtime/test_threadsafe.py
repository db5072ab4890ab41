"""Synchronous code submits from its own threads. Real time, no sleeping."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import sys
import threading
from typing import Any

import pytest

from lane_obs import (
    CommandCancelled,
    CommandTimeout,
    ConfigError,
    InvalidCommand,
    LaneConfig,
    MemorySink,
    NotStarted,
    QueueManager,
    ShutdownInProgress,
    State,
    UnknownLane,
    current,
)
from tests.unit.runtime.support import Gate, fail, noop

PATIENCE = 20.0
user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


def queue(**options: Any) -> QueueManager:
    return QueueManager({"a": LaneConfig(0, 2)}, drain_timeout=PATIENCE, **options)


async def test_another_thread_gets_the_result() -> None:
    async with queue() as manager:

        def work() -> Any:
            return manager.submit_threadsafe("a", noop, 42).result(PATIENCE)

        assert await asyncio.to_thread(work) == 42


async def test_another_thread_gets_the_commands_own_exception() -> None:
    error = LookupError("own")
    async with queue() as manager:

        def work() -> Any:
            return manager.submit_threadsafe("a", fail, error).exception(PATIENCE)

        assert await asyncio.to_thread(work) is error


async def test_options_go_with_it() -> None:
    async with queue() as manager:

        def work() -> Any:
            return manager.submit_threadsafe("a", asyncio.Event().wait, timeout=0.005).exception(PATIENCE)

        assert isinstance(await asyncio.to_thread(work), CommandTimeout)


@pytest.mark.parametrize(
    ("lane", "work", "options", "error"),
    [
        ("z", noop, {}, UnknownLane),
        ("a", 5, {}, InvalidCommand),
        ("a", noop, {"timeout": -1}, ConfigError),
        ("a", noop, {"timeot": 1}, ConfigError),
    ],
)
async def test_a_bad_submit_is_the_futures_exception(
    lane: str, work: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    async with queue() as manager:

        def submit() -> Any:
            return manager.submit_threadsafe(lane, work, **options).exception(PATIENCE)

        assert type(await asyncio.to_thread(submit)) is error
        assert manager.stats().submitted == 0


async def test_a_queue_that_is_not_started_refuses_at_once() -> None:
    manager = queue()
    with pytest.raises(NotStarted):
        manager.submit_threadsafe("a", noop)
    await manager.close()


@pytest.mark.parametrize("end", ["shutdown", "close"])
async def test_a_queue_that_was_shut_down_refuses_at_once(end: str) -> None:
    async with queue() as manager:
        await getattr(manager, end)()

        def work() -> None:
            manager.submit_threadsafe("a", noop).result(PATIENCE)

        with pytest.raises(ShutdownInProgress):
            await asyncio.to_thread(work)


@pytest.mark.both_loops
async def test_cancelling_the_future_leaves_the_command_alone() -> None:
    gate, sink = Gate(), MemorySink()
    async with queue(sinks=[sink]) as manager:
        future = await asyncio.to_thread(manager.submit_threadsafe, "a", gate, id="job")
        await sink.wait_for("queue.command.started")
        handle = manager.get("job")
        assert handle is not None
        assert future.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert handle.state is State.RUNNING
        gate.open(None, "value")
        assert await handle == "value"
        assert future.cancelled()


@pytest.mark.both_loops
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=["SystemExit", "KeyboardInterrupt"])
async def test_a_command_that_would_end_the_program_ends_only_itself(error: BaseException) -> None:
    async with queue() as manager:
        future = manager.submit_threadsafe("a", fail, error)
        while not future.done():
            await asyncio.sleep(0)
        assert future.exception() is error
        assert await (await manager.submit("a", noop, "still here")) == "still here"


async def test_exit_in_a_sync_command_ends_only_itself() -> None:
    async with queue() as manager:
        future = manager.submit_threadsafe("a", sys.exit, 3)
        assert isinstance(await asyncio.to_thread(future.exception, PATIENCE), SystemExit)
        assert manager.stats().lanes["a"].ended["failed"] == 1


async def test_a_future_nobody_looks_at_makes_no_noise() -> None:
    sink = MemorySink()
    async with queue(sinks=[sink]) as manager:  # the frame of these tests fails on anything never retrieved
        await asyncio.to_thread(manager.submit_threadsafe, "a", fail, ValueError("x"))
        await asyncio.to_thread(manager.submit_threadsafe, "z", noop)
        await sink.wait_for("queue.command.failed")
        rejected = await sink.wait_for("queue.command.rejected")
        assert rejected.payload["reason"] == "unknown_lane"


async def test_the_command_sees_the_context_of_the_thread_that_submits() -> None:
    async def work() -> tuple[str, str]:
        return user.get(), current().id

    async with queue() as manager:
        user.set("the loop")

        def submit() -> Any:
            user.set("the thread")
            return manager.submit_threadsafe("a", work, id="job").result(PATIENCE)

        assert await asyncio.to_thread(submit) == ("the thread", "job")


async def test_a_submit_waits_for_room_without_blocking_the_loop() -> None:
    gate = Gate()
    lanes = {"a": LaneConfig(0, 1, max_pending=1)}
    async with QueueManager(lanes, drain_timeout=PATIENCE) as manager:
        futures = [manager.submit_threadsafe("a", gate, number) for number in range(5)]
        while manager.stats().lanes["a"].waiting_submitters < 3:
            await asyncio.sleep(0)
        for number in range(5):
            while number not in gate.inside:
                await asyncio.sleep(0)
            gate.open(number, number)
        results = await asyncio.gather(*map(asyncio.wrap_future, futures))
        assert results == [0, 1, 2, 3, 4]


@pytest.mark.both_loops
async def test_cancelling_the_future_of_a_submit_that_waits_for_room_submits_nothing() -> None:
    gate = Gate()
    lanes = {"a": LaneConfig(0, 1, max_pending=1)}
    async with QueueManager(lanes, drain_timeout=PATIENCE) as manager:
        futures = [manager.submit_threadsafe("a", gate, number) for number in range(4)]
        while manager.stats().lanes["a"].waiting_submitters < 2:
            await asyncio.sleep(0)
        assert futures[2].cancel()
        for number in (0, 1, 3):
            while number not in gate.inside:
                await asyncio.sleep(0)
            gate.open(number, number)
        await manager.drain(PATIENCE)
        assert gate.started == [0, 1, 3]
        assert (manager.stats().submitted, manager.stats().lanes["a"].waiting_submitters) == (3, 0)


async def test_many_threads_at_once_lose_nothing() -> None:
    async with queue() as manager:
        start = threading.Barrier(8)

        def work(thread: int) -> list[int]:
            start.wait(PATIENCE)
            futures = [manager.submit_threadsafe("a", noop, thread * 1_000 + number) for number in range(250)]
            return [future.result(PATIENCE) for future in futures]

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            loop = asyncio.get_running_loop()
            results = await asyncio.gather(*(loop.run_in_executor(pool, work, thread) for thread in range(8)))
        assert results == [[thread * 1_000 + number for number in range(250)] for thread in range(8)]
        assert manager.stats().lanes["a"].ended["succeeded"] == 2_000


async def test_close_ends_the_waiting_of_other_threads() -> None:
    async with queue() as manager:
        futures = [manager.submit_threadsafe("a", asyncio.Event().wait) for _ in range(5)]
        while manager.stats().submitted < 5:
            await asyncio.sleep(0)
        await manager.close()
        errors = [await asyncio.to_thread(future.exception, PATIENCE) for future in futures]
        assert {type(error) for error in errors} == {CommandCancelled}
