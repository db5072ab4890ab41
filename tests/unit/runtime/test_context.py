"""Context variables: commands see their submitter's, and nothing leaks anywhere else (cpython#140947)."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import LaneConfig, LaneEvent, QueueManager, RetryPolicy, VirtualClock
from lane_obs.clock import sleep
from tests.unit.runtime.support import running

if TYPE_CHECKING:
    from collections.abc import Sequence

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


async def read(clock: VirtualClock, seconds: float = 0.0) -> str:
    await sleep(clock, seconds)
    return user.get()


async def bind(name: str, error: BaseException | None = None) -> str:
    before = user.get()
    user.set(name)
    if error is not None:
        raise error
    return before


@pytest.mark.both_loops
async def test_a_command_sees_the_context_of_its_submit(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handles = []
        for name in ("alice", "bob"):
            user.set(name)
            handles.append(await manager.submit("a", read, clock, 1.0))
        user.set("carol")
        assert [await clock.run(handle) for handle in handles] == ["alice", "bob"]


@pytest.mark.both_loops
async def test_what_a_command_binds_reaches_neither_the_next_one_nor_the_submitter(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        user.set("submitter")
        first = await manager.submit("a", bind, "first")
        second = await manager.submit("a", bind, "second", ValueError("x"))
        third = await manager.submit("a", read, clock)
        await clock.run(manager.drain())
        assert first.result() == "submitter"
        assert isinstance(second.exception(), ValueError)
        assert third.result() == "submitter"
        assert user.get() == "submitter"


async def test_what_an_attempt_binds_does_not_reach_the_next_attempt(clock: VirtualClock) -> None:
    seen: list[str] = []

    async def work() -> None:
        seen.append(user.get())
        user.set(f"attempt {len(seen)}")
        if len(seen) < 3:
            raise ValueError

    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(5, 1))) as manager:
        user.set("submitter")
        await clock.run(await manager.submit("a", work))
    assert seen == ["submitter"] * 3


@pytest.mark.parametrize("end", ["cancel", "timeout", "deadline"])
async def test_what_a_stopped_command_bound_is_gone(clock: VirtualClock, end: str) -> None:
    async def work() -> None:
        user.set("inside")
        await asyncio.Event().wait()

    async with running(clock) as manager:
        handle = await manager.submit("a", work, **({} if end == "cancel" else {end: 2}))
        after = await manager.submit("a", read, clock)
        await clock.advance(1)
        if end == "cancel":
            handle.cancel()
        assert await clock.run(after) == "nobody"
        assert user.get() == "nobody"


@pytest.mark.both_loops
async def test_a_queue_started_inside_a_request_does_not_keep_its_context(clock: VirtualClock) -> None:
    manager = QueueManager({"a": LaneConfig(0, 1, retry=RetryPolicy.fixed(1, 1))}, clock=clock)

    async def request() -> None:
        user.set("the first request")
        await manager.start()
        failed = await manager.submit("a", bind, "x", ValueError("x"))  # starts the timers of retries
        await asyncio.wait([asyncio.ensure_future(read(clock))])
        assert not failed.done()

    await clock.run(asyncio.create_task(request(), context=contextvars.copy_context()))

    async def other() -> str:
        return await (await manager.submit("a", read, clock, 0.5))

    in_clean_context = asyncio.create_task(other(), context=contextvars.Context())
    assert await clock.run(in_clean_context) == "nobody"
    await clock.run(manager.close())


async def test_sinks_and_their_timers_see_no_submitters_context(clock: VirtualClock) -> None:
    seen: set[str] = set()

    class Reader:
        def handle(self, events: Sequence[LaneEvent]) -> None:
            seen.add(user.get())

        def close(self) -> None:
            seen.add(user.get())

    async def submit_all(manager: QueueManager) -> None:
        user.set("alice")
        await manager.start()
        await manager.submit("a", read, clock, 3.0, timeout=1)
        await manager.submit("a", bind, "inside", delay=2)
        await manager.drain()

    manager = QueueManager({"a": LaneConfig(0, 1)}, clock=clock, sinks=[Reader()])
    await clock.run(submit_all(manager))
    await clock.run(manager.close())
    assert seen == {"nobody"}


async def test_a_waiting_submitters_own_context_is_the_one_that_counts(clock: VirtualClock) -> None:
    async def submit_as(name: str, manager: QueueManager) -> Any:
        user.set(name)
        return await manager.submit("a", read, clock, 1.0)

    async with running(clock, LaneConfig(0, 1, max_pending=1)) as manager:
        tasks = [asyncio.ensure_future(submit_as(name, manager)) for name in ("a", "b", "c", "d")]
        handles = await clock.run(asyncio.gather(*tasks))
        await clock.run(manager.drain())
        assert [handle.result() for handle in handles] == ["a", "b", "c", "d"]


async def test_a_requeued_command_runs_in_the_context_of_its_requeue_or_submit_never_a_strangers(
    clock: VirtualClock,
) -> None:
    seen: list[str] = []

    async def work() -> None:
        seen.append(user.get())
        user.set("inside")
        raise ValueError

    async with running(clock) as manager:
        user.set("submitter")
        handle = await manager.submit("a", work)
        await clock.run(manager.drain())
        manager.dead_letters.requeue(handle.id)
        await clock.run(manager.drain())
    assert seen == ["submitter", "submitter"]
