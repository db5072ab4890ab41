"""Close, and the end of `async with`: nothing is left, whatever happened before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lane_obs import CommandCancelled, DrainTimeout, LaneConfig, MemorySink, QueueManager, State, VirtualClock
from lane_obs.clock import sleep
from tests.unit.runtime.support import noop, outcome, running, stubborn

TWO = {"a": LaneConfig(0, 1), "b": LaneConfig(0, 1)}


async def test_close_cancels_what_waits_and_what_runs(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, TWO, sinks=[sink]) as manager:
        handles = [await manager.submit("a", sleep, clock, 100) for _ in range(3)]
        handles.append(await manager.submit("b", noop, delay=100))
        await clock.advance(1)
        await clock.run(manager.close())
        assert [handle.state for handle in handles] == [State.CANCELLED] * 4
        assert {type(await outcome(handle)) for handle in handles} == {CommandCancelled}
        assert sink.keys()[-1] == "queue.closed"
        assert sink.events[-1].payload == {"cancelled": 4, "abandoned": 0}
        assert (clock.pending, manager.stats().total_active) == (0, 0)


async def test_a_second_close_waits_for_the_first(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, sinks=[sink], close_timeout=10) as manager:
        handle = await manager.submit("a", stubborn, clock, 6)
        await clock.advance(0)
        first = asyncio.ensure_future(manager.close())
        second = asyncio.ensure_future(manager.close())
        await clock.advance(1)
        assert not first.done()
        assert not second.done()
        await clock.run(second)
        assert handle.done()
        await clock.run(first)
        await manager.close()
        assert sink.keys().count("queue.closed") == 1


async def test_a_cancelled_close_does_not_leave_the_queue_half_closed(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, sinks=[sink], close_timeout=10) as manager:
        handle = await manager.submit("a", stubborn, clock, 6)
        await clock.advance(0)
        first = asyncio.ensure_future(manager.close())
        await clock.advance(1)
        first.cancel()
        await asyncio.wait([first])
        await clock.run(manager.close())
        assert handle.done()
        assert sink.keys()[-1] == "queue.closed"
        assert clock.pending == 0


async def test_close_gives_up_what_never_listens(clock: VirtualClock) -> None:
    sink = MemorySink()
    began = clock.now()
    async with running(clock, TWO, sinks=[sink], close_timeout=3) as manager:
        deaf = await manager.submit("a", stubborn, clock, 1_000, "never seen")
        good = await manager.submit("b", sleep, clock, 1_000)
        await clock.advance(0)
        await clock.run(manager.close())
        assert clock.now() - began == pytest.approx(3)
        assert (deaf.state, good.state) == (State.CANCELLED, State.CANCELLED)
        assert sink.events[-1].payload == {"cancelled": 1, "abandoned": 1}
        await clock.advance(1_000)  # the task left behind ends; nobody is told
        assert type(await outcome(deaf)) is CommandCancelled
        assert manager.stats().lanes["a"].ended == {**manager.stats().lanes["a"].ended, "cancelled": 1, "succeeded": 0}


async def test_a_command_that_needs_some_time_to_clean_up_has_it(clock: VirtualClock) -> None:
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await sleep(clock, 2)
            cleaned.append("yes")

    async with running(clock, close_timeout=60) as manager:
        await manager.submit("a", work)
        await clock.advance(0)
        await clock.run(manager.close())
        assert cleaned == ["yes"]


async def test_close_without_a_start_cancels_what_was_submitted(clock: VirtualClock) -> None:
    manager = QueueManager(TWO, clock=clock)
    handles = [await manager.submit("a", noop), await manager.submit("a", noop, delay=5, deadline=9)]
    await manager.close()
    assert [handle.state for handle in handles] == [State.CANCELLED] * 2
    assert clock.pending == 0


async def test_a_command_may_close_its_own_queue(clock: VirtualClock) -> None:
    async def work(manager: QueueManager) -> None:
        await manager.close()

    async with running(clock) as manager:
        handle = await manager.submit("a", work, manager)
        assert type(await clock.run(outcome(handle))) is CommandCancelled
        await clock.run(manager.close())
        assert manager.stats().total_active == 0


async def test_steering_a_closed_queue_schedules_nothing(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", noop)
        await clock.run(manager.close())
        manager.pause("a")
        manager.resume("a")
        manager.set_lane("a", max_concurrency=3)
        assert handle.cancel() is False
        assert (await manager.drain()).total_left == 0
        await clock.advance(0)
        assert clock.pending == 0


async def test_after_close_the_loop_has_nothing_to_do() -> None:
    async with asyncio.timeout(20):
        manager = QueueManager({"a": LaneConfig(0, 2, timeout=60)}, sinks=[MemorySink()])
        await manager.start()
        handles = await manager.submit_many("a", [asyncio.Event().wait] * 5, deadline=90)
        await asyncio.sleep(0)
        await manager.close()
        assert all(handle.done() for handle in handles)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- async with ----------------------------------------------------------------------------------------------------


async def test_the_end_of_the_block_drains_and_closes(clock: VirtualClock) -> None:
    sink = MemorySink()

    async def block() -> list[Any]:
        async with QueueManager(TWO, clock=clock, sinks=[sink]) as manager:
            return await manager.submit_many("a", [(sleep, clock, 1)] * 5)

    handles = await clock.run(block())
    assert [handle.state for handle in handles] == [State.SUCCEEDED] * 5
    lifecycle = [event.key for event in sink.events if not event.key.startswith("queue.command")]
    assert lifecycle == ["queue.started", "queue.shutdown.started", "queue.shutdown.complete", "queue.closed"]


async def test_a_block_that_raises_is_drained_and_closed_as_well(clock: VirtualClock) -> None:
    handles: list[Any] = []

    async def block() -> None:
        async with QueueManager(TWO, clock=clock) as manager:
            handles.extend(await manager.submit_many("a", [(sleep, clock, 1)] * 5))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await clock.run(block())
    assert [handle.state for handle in handles] == [State.SUCCEEDED] * 5
    assert clock.pending == 0


@pytest.mark.parametrize("error", [None, KeyError("mine")], ids=["no error", "error"])
async def test_work_that_is_left_when_the_drains_time_is_over_is_cancelled_and_told(
    clock: VirtualClock, error: Exception | None
) -> None:
    handles: list[Any] = []

    async def block() -> None:
        async with QueueManager(TWO, clock=clock, drain_timeout=5) as manager:
            handles.append(await manager.submit("a", sleep, clock, 100))
            if error:
                raise error

    with pytest.raises(KeyError if error else DrainTimeout) as caught:
        await clock.run(block())
    assert handles[0].state is State.CANCELLED
    if error is None:
        assert caught.value.report.left == {"a": {"running": 1}}
    assert clock.pending == 0


async def test_a_block_whose_task_is_cancelled_while_it_drains_still_closes(clock: VirtualClock) -> None:
    handles: list[Any] = []

    async def block() -> None:
        async with QueueManager(TWO, clock=clock) as manager:
            handles.append(await manager.submit("a", sleep, clock, 100))

    task = asyncio.ensure_future(block())
    await clock.advance(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await clock.run(task)
    assert handles[0].state is State.CANCELLED
    assert clock.pending == 0


async def test_a_block_may_close_the_queue_itself(clock: VirtualClock) -> None:
    async def block() -> None:
        async with QueueManager(TWO, clock=clock) as manager:
            await manager.submit("a", sleep, clock, 100)
            await manager.close()
            assert await manager.stop() is None

    await clock.run(block())
    assert clock.pending == 0
