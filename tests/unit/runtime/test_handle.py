"""What a handle tells, and what a running command sees of itself."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import CommandContext, DuplicateId, LaneConfig, QueueManager, RetryPolicy, State, VirtualClock, current
from lane_obs.clock import sleep
from tests.unit.runtime.support import Attempts, Gate, noop, running

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_a_handle_tells_the_times_of_its_command(clock: VirtualClock) -> None:
    began = clock.now()
    async with running(clock) as manager:
        await manager.submit("a", sleep, clock, 2)
        handle = await manager.submit("a", sleep, clock, 5)
        assert handle.end_to_end_seconds is None
        assert math.isnan(handle.started_at)
        assert math.isnan(handle.finished_at)
        await clock.advance(1)
        assert (handle.state, handle.wait_seconds, handle.run_seconds) == (State.READY, 1.0, 0.0)
        await clock.run(handle)
        assert (handle.submitted_at, handle.started_at, handle.finished_at) == (began, began + 2, began + 7)
        assert (handle.wait_seconds, handle.run_seconds, handle.end_to_end_seconds) == (2.0, 5.0, 7.0)
        assert handle.wait_by_cause.as_dict() | {"slots": 0.0} == dict.fromkeys(handle.wait_by_cause.as_dict(), 0.0)


async def test_run_seconds_add_up_over_attempts(clock: VirtualClock) -> None:
    work = Attempts(clock, ValueError("x"), ValueError("x"), "ok", seconds=1.5)
    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(2, 10, jitter="none"))) as manager:
        handle = await manager.submit("a", work, delay=4)
        assert await clock.run(handle) == "ok"
        assert handle.run_seconds == pytest.approx(4.5)
        assert handle.wait_seconds == pytest.approx(24)
        assert handle.wait_by_cause.backoff == pytest.approx(20)
        assert handle.wait_by_cause.delay == pytest.approx(4)
        assert handle.end_to_end_seconds == pytest.approx(28.5)
        assert handle.attempt == 3


async def test_the_wait_is_split_by_cause(clock: VirtualClock) -> None:
    async with running(clock, {"high": LaneConfig(0, 1), "low": LaneConfig(0, 1, priority=1)}) as manager:
        manager.pause("low")
        handle = await manager.submit("low", noop)
        await clock.advance(3)
        manager.resume("low")
        await clock.run(handle)
        assert handle.wait_by_cause.pause == pytest.approx(3)
        assert handle.wait_by_cause.total == handle.wait_seconds


async def test_ids_are_unique_and_found_as_long_as_the_command_lives(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handles = [await manager.submit("a", sleep, clock, 1) for _ in range(50)]
        assert len({handle.id for handle in handles}) == 50
        assert all(manager.get(handle.id) is handle for handle in handles)
        await clock.run(manager.drain())
        assert all(manager.get(handle.id) is None for handle in handles)


async def test_two_queues_never_share_an_id(clock: VirtualClock) -> None:
    async with running(clock) as one, running(clock) as two:
        first, second = await one.submit("a", noop), await two.submit("a", noop)
        assert first.id != second.id
        assert (one.get(second.id), two.get(first.id)) == (None, None)


async def test_only_the_exact_id_finds_a_command(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", sleep, clock, 1)
        prefix, _, number = handle.id.rpartition("-")
        for wrong in (f"{prefix}-0{number}", f"{prefix}-{number} ", f"{prefix}-\u0661", number, prefix, ""):
            assert manager.get(wrong) is None, wrong


async def test_an_id_that_the_queue_would_give_itself_is_refused(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        first = await manager.submit("a", sleep, clock, 1)
        prefix, _, number = first.id.rpartition("-")
        with pytest.raises(DuplicateId):
            await manager.submit("a", noop, id=f"{prefix}-{int(number) + 2}")
        handles = [first, *[await manager.submit("a", noop) for _ in range(3)]]
        assert [manager.get(handle.id) for handle in handles] == handles


async def test_a_handle_shows_what_it_is(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", noop, id="job-7")
        assert repr(handle) == "<CommandHandle job-7 lane='a' state=ready attempt=0>"
        assert (handle.id, handle.lane, handle.command_type) == ("job-7", "a", "noop")
        assert await clock.run(handle) is None


# --- current() -----------------------------------------------------------------------------------------------------


async def seen() -> tuple[Any, ...]:
    context = current()
    return context.id, context.lane, context.command_type, context.attempt


async def test_a_command_sees_itself(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", seen)
        assert await clock.run(handle) == (handle.id, "a", "seen", 1)


async def test_tasks_that_a_command_starts_see_it_too(clock: VirtualClock) -> None:
    async def parent() -> list[tuple[Any, ...]]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(seen()) for _ in range(3)]
        return [task.result() for task in tasks]

    async with running(clock) as manager:
        handle = await manager.submit("a", parent)
        assert {found[0] for found in await clock.run(handle)} == {handle.id}


async def test_commands_that_run_at_once_do_not_mix_up(clock: VirtualClock) -> None:
    async def slow(seconds: float) -> tuple[str, str]:
        before = current().id
        await sleep(clock, seconds)
        return before, current().id

    async with running(clock, LaneConfig(0, 10)) as manager:
        handles = [await manager.submit("a", slow, 1 + number % 3) for number in range(10)]
        for handle in handles:
            assert await clock.run(handle) == (handle.id, handle.id)


async def test_a_command_submitted_by_a_command_sees_itself_not_its_parent(clock: VirtualClock) -> None:
    async def parent(manager: QueueManager) -> tuple[str, str]:
        child = await manager.submit("b", seen)
        return child.id, (await child)[0]

    async with running(clock, {"a": LaneConfig(0, 1), "b": LaneConfig(0, 1)}) as manager:
        handle = await manager.submit("a", parent, manager)
        child_id, child_saw = await clock.run(handle)
        assert child_saw == child_id != handle.id


async def test_outside_a_command_there_is_no_context(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        await clock.run(await manager.submit("a", seen))
        with pytest.raises(LookupError, match="no command runs here"):
            current()
        assert manager.stats().lanes["a"].ended["succeeded"] == 1


async def test_a_command_counts_its_attempts(clock: VirtualClock) -> None:
    attempts: list[int] = []

    async def work() -> None:
        attempts.append(current().attempt)
        if len(attempts) < 3:
            raise ValueError

    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(5, 1))) as manager:
        await clock.run(await manager.submit("a", work))
        assert attempts == [1, 2, 3]


async def test_a_command_sees_how_much_of_its_deadline_is_left(clock: VirtualClock) -> None:
    async def left(inside: list[Any]) -> None:
        inside.append(current().deadline_left)
        await sleep(clock, 1)
        inside.append(current().deadline_left)

    with_one: list[Any] = []
    without: list[Any] = []
    async with running(clock) as manager:
        await manager.submit("a", sleep, clock, 3)
        await manager.submit("a", left, with_one, deadline=10)
        await manager.submit("a", left, without)
        await clock.run(manager.drain())
    assert with_one == [7.0, 6.0]
    assert without == [None, None]


async def stop_by_cancel(clock: VirtualClock, handle: Any) -> None:
    handle.cancel()


async def stop_by_waiting(clock: VirtualClock, handle: Any) -> None:
    await clock.advance(5)


@pytest.mark.parametrize(
    ("options", "stop"), [({}, stop_by_cancel), ({"timeout": 5}, stop_by_waiting), ({"deadline": 5}, stop_by_waiting)]
)
async def test_a_command_sees_that_it_was_told_to_stop(
    clock: VirtualClock, options: dict[str, float], stop: Callable[..., Any]
) -> None:
    saw: list[bool] = []

    async def work() -> None:
        saw.append(current().cancel_requested)
        try:
            await asyncio.Event().wait()
        finally:
            saw.append(current().cancel_requested)

    async with running(clock) as manager:
        handle = await manager.submit("a", work, **options)
        await clock.advance(0)
        await stop(clock, handle)
        await clock.run(manager.drain())
    assert saw == [False, True]


async def test_a_fresh_attempt_was_not_told_to_stop(clock: VirtualClock) -> None:
    saw: list[bool] = []

    async def work() -> None:
        saw.append(current().cancel_requested)
        await sleep(clock, 10 if len(saw) == 1 else 0)

    async with running(clock, LaneConfig(0, 1, timeout=5, retry=RetryPolicy.fixed(1, 1))) as manager:
        handle = await manager.submit("a", work)
        await clock.run(handle)
    assert saw == [False, False]
    assert handle.state is State.SUCCEEDED


async def test_the_context_outlives_the_command_for_its_left_over_tasks(clock: VirtualClock) -> None:
    gate, kept = Gate(), []

    async def child() -> tuple[str, int]:
        context = current()
        await gate("child")
        assert isinstance(context, CommandContext)
        return context.id, current().attempt

    async def parent() -> None:
        kept.append(asyncio.ensure_future(child()))

    async with running(clock) as manager:
        handle = await manager.submit("a", parent)
        await clock.run(handle)
        await clock.advance(0)
        gate.open("child")
        assert await clock.run(kept[0]) == (handle.id, 1)
