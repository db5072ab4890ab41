"""Synchronous commands run in threads. Real time, real threads, no sleeping."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import (
    CommandCancelled,
    CommandTimeout,
    LaneConfig,
    MemorySink,
    QueueManager,
    RetryPolicy,
    State,
    current,
)
from tests.unit.runtime.support import noop, outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE = 20.0
user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


class ThreadGate:
    """Sync work that says when it started and waits until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.let_go = threading.Event()
        self.threads: set[threading.Thread] = set()

    def __call__(self, value: Any = None) -> Any:
        self.threads.add(threading.current_thread())
        self.entered.release()
        assert self.let_go.wait(PATIENCE)
        return value

    async def wait_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=PATIENCE)


@contextlib.asynccontextmanager
async def threaded(lane: LaneConfig | None = None, **options: Any) -> AsyncIterator[tuple[QueueManager, ThreadGate]]:
    """A queue in real time, and a gate that is open again before the queue is closed."""
    gate = ThreadGate()
    manager = QueueManager({"a": lane or LaneConfig(0, 1)}, **options)
    await manager.start()
    try:
        yield manager, gate
    finally:
        gate.let_go.set()
        await manager.close()


def lane_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lane-obs")]


async def test_a_sync_function_runs_in_a_thread_and_gives_its_value() -> None:
    async with threaded() as (manager, _):
        name = await (await manager.submit("a", lambda: threading.current_thread().name))
        assert name == "lane-obs-command"
        assert await (await manager.submit("a", divmod, 7, 2)) == (3, 1)


async def test_its_exception_is_the_very_object_it_raised() -> None:
    error = LookupError("own")

    def work() -> None:
        raise error

    async with threaded() as (manager, _):
        handle = await manager.submit("a", work)
        assert await outcome(handle) is error
        assert await outcome(handle) is error
        assert handle.state is State.FAILED


async def test_the_loop_stays_free_while_a_thread_works() -> None:
    async with threaded(LaneConfig(0, 2)) as (manager, gate):
        handle = await manager.submit("a", gate, "value")
        await gate.wait_entered()
        for number in range(50):
            assert await (await manager.submit("a", noop, number)) == number
        assert handle.state is State.RUNNING
        gate.let_go.set()
        assert await handle == "value"


async def test_as_many_run_at_once_as_the_lane_has_slots() -> None:
    async with threaded(LaneConfig(0, 3)) as (manager, gate):
        handles = await manager.submit_many("a", [(gate, number) for number in range(5)])
        for _ in range(3):
            await gate.wait_entered()
        assert not gate.entered.acquire(blocking=False)
        assert manager.stats().lanes["a"].running == 3
        gate.let_go.set()
        assert [await handle for handle in handles] == [0, 1, 2, 3, 4]


async def test_a_thread_is_used_again() -> None:
    async with threaded() as (manager, _):
        for _ in range(100):
            await (await manager.submit("a", threading.get_ident))
        assert len(lane_threads()) <= 3


async def test_a_cancelled_one_keeps_its_slot_until_the_thread_ends() -> None:
    sink = MemorySink()
    async with threaded(stuck_after=0.01, sinks=[sink]) as (manager, gate):
        handle = await manager.submit("a", gate, "value")
        after = await manager.submit("a", noop)
        await gate.wait_entered()
        handle.cancel()
        await sink.wait_for("queue.command.stuck")
        assert (handle.state, after.state) == (State.RUNNING, State.READY)
        assert manager.stats().lanes["a"].stuck == 1
        gate.let_go.set()
        assert await handle == "value"  # it ended normally: it has succeeded
        await after
        assert manager.stats().lanes["a"].stuck == 0


async def test_one_that_sees_its_cancellation_can_end_itself() -> None:
    entered = threading.Event()

    def work() -> str:
        context = current()
        entered.set()
        while not context.cancel_requested:
            pass
        return f"stopped {context.lane} {context.attempt}"

    async with threaded() as (manager, _):
        handle = await manager.submit("a", work)
        await asyncio.to_thread(entered.wait, PATIENCE)
        handle.cancel()
        assert await handle == "stopped a 1"


async def test_one_that_times_out_is_late_whatever_it_returns() -> None:
    sink = MemorySink()
    async with threaded(stuck_after=0.005, sinks=[sink]) as (manager, gate):
        handle = await manager.submit("a", gate, "value", timeout=0.005)
        await sink.wait_for("queue.command.stuck")
        gate.let_go.set()
        assert type(await outcome(handle)) is CommandTimeout
        assert handle.state is State.TIMED_OUT


async def test_a_retried_one_runs_again_in_a_thread() -> None:
    seen: list[int] = []

    def work() -> int:
        seen.append(current().attempt)
        if len(seen) < 3:
            raise ValueError
        return len(seen)

    async with threaded(LaneConfig(0, 1, retry=RetryPolicy.fixed(5, 0.001))) as (manager, _):
        assert await (await manager.submit("a", work)) == 3
        assert seen == [1, 2, 3]


async def test_it_sees_its_submitters_context_and_changes_a_copy() -> None:
    def work() -> tuple[str, str]:
        before = user.get()
        user.set("inside")
        return before, current().id

    async with threaded() as (manager, _):
        user.set("alice")
        handle = await manager.submit("a", work)
        user.set("bob")
        assert await handle == ("alice", handle.id)
        assert await (await manager.submit("a", user.get)) == "bob"
        assert user.get() == "bob"


async def test_a_result_to_await_is_awaited_in_the_loop() -> None:
    async def inner() -> threading.Thread:
        return threading.current_thread()

    async with threaded() as (manager, _):
        assert await (await manager.submit("a", lambda: inner())) is threading.current_thread()


async def test_a_cancel_during_the_thread_reaches_the_awaitable_it_returns() -> None:
    async with threaded() as (manager, gate):

        async def for_ever() -> None:
            await asyncio.Event().wait()

        handle = await manager.submit("a", lambda: (gate(), for_ever())[1])
        await gate.wait_entered()
        handle.cancel()
        gate.let_go.set()
        assert type(await outcome(handle)) is CommandCancelled
        assert handle.state is State.CANCELLED


async def test_close_gives_up_a_thread_that_never_ends() -> None:
    sink = MemorySink()
    async with threaded(close_timeout=0.05, sinks=[sink]) as (manager, gate):
        handle = await manager.submit("a", gate)
        await gate.wait_entered()
        await manager.close()
        assert handle.state is State.CANCELLED
        assert type(await outcome(handle)) is CommandCancelled
        assert sink.events[-1].payload == {"cancelled": 0, "abandoned": 1}
        assert manager.stats().total_active == 0
        gate.let_go.set()
        for thread in gate.threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in gate.threads)


@pytest.mark.both_loops
async def test_after_close_no_thread_is_left() -> None:
    for _ in range(60):
        async with threaded(LaneConfig(0, 4)) as (manager, _):
            handles = await manager.submit_many("a", [threading.get_ident] * 8)
            for handle in handles:
                await handle
        assert lane_threads() == []


async def test_threads_are_daemons_so_that_a_stuck_one_does_not_keep_the_process_alive() -> None:
    async with threaded() as (manager, gate):
        await manager.submit("a", gate)
        await gate.wait_entered()
        assert all(thread.daemon for thread in lane_threads())  # cpython#111358
        gate.let_go.set()
        await manager.drain(PATIENCE)
