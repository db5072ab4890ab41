"""Event loops of every kind: uvloop, asyncio's own, in debug mode, with task factories of their users."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lane_obs import CommandCancelled, LaneConfig, MemorySink, QueueManager, RetryPolicy, State, VirtualClock
from lane_obs.clock import sleep
from tests.unit.runtime.support import Attempts, fail, noop, outcome, running


async def a_bit_of_everything(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 2, retry=RetryPolicy.fixed(1, 1))) as manager:
        good = await manager.submit("a", Attempts(clock, ValueError("x"), "ok"))
        slow = await manager.submit("a", sleep, clock, 9, timeout=1, retry=RetryPolicy.none())
        bad = await manager.submit("a", fail, KeyError("x"), retry=RetryPolicy.none())
        cancelled = await manager.submit("a", sleep, clock, 9)
        await clock.advance(1)
        cancelled.cancel()
        assert await clock.run(good) == "ok"
        assert [type(await clock.run(outcome(handle))).__name__ for handle in (slow, bad, cancelled)] == [
            "CommandTimeout",
            "KeyError",
            "CommandCancelled",
        ]
        await clock.run(manager.drain())
        assert manager.stats().total_active == 0


@pytest.mark.both_loops
async def test_a_command_runs_in_virtual_time(clock: VirtualClock) -> None:
    sink = MemorySink()

    async def work(seconds: float) -> float:
        await sleep(clock, seconds)
        return seconds

    async with QueueManager({"a": LaneConfig(0, 1)}, clock=clock, sinks=[sink], seed=1) as manager:
        first = await manager.submit("a", work, 3.0)
        second = await manager.submit("a", work, 2.0)
        assert await clock.run(second) == 2.0
        assert await first == 3.0
        assert second.wait_by_cause.slots == pytest.approx(3.0)
        assert second.end_to_end_seconds == pytest.approx(5.0)
    assert sink.keys()[-1] == "queue.closed"


@pytest.mark.both_loops
async def test_a_command_runs_in_real_time(loop_kind: str) -> None:
    policy = RetryPolicy.fixed(2, 0.001)
    async with QueueManager({"a": LaneConfig(0, 2, retry=policy, timeout=0.002)}, drain_timeout=20) as manager:
        stuck = await manager.submit("a", asyncio.Event().wait)
        later = await manager.submit("a", noop, loop_kind, delay=0.003)
        assert await later == loop_kind
        assert type(await outcome(stuck)).__name__ == "CommandTimeout"
        assert (stuck.attempt, later.wait_seconds >= 0.003, stuck.run_seconds >= 0.006) == (3, True, True)


@pytest.mark.both_loops
async def test_debug_mode_has_nothing_to_complain_of(clock: VirtualClock) -> None:
    asyncio.get_running_loop().set_debug(True)
    await a_bit_of_everything(clock)
    assert clock.pending == 0


def own_factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    options.setdefault("name", "made by the user")
    return asyncio.Task(work, loop=loop, **options)


FACTORIES = [own_factory, *([asyncio.eager_task_factory] if hasattr(asyncio, "eager_task_factory") else [])]


@pytest.mark.both_loops
@pytest.mark.parametrize("factory", FACTORIES)
async def test_the_users_task_factory_makes_the_tasks(clock: VirtualClock, factory: Any) -> None:
    made: list[asyncio.Task[Any]] = []

    def counted(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        given = {name: value for name, value in options.items() if value is not None}  # uvloop gives all it knows
        made.append(factory(loop, work, **given))
        return made[-1]

    asyncio.get_running_loop().set_task_factory(counted)
    await a_bit_of_everything(clock)
    assert len(made) >= 5
    assert all(task.done() for task in made)


@pytest.mark.both_loops
async def test_a_task_that_cannot_be_made_fails_its_command_and_not_the_queue(clock: VirtualClock) -> None:
    error = RuntimeError("no more tasks")
    refuse: list[bool] = []

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        if refuse and refuse.pop():
            work.close()
            raise error
        given = {name: value for name, value in options.items() if value is not None}
        return asyncio.Task(work, loop=loop, **given)

    asyncio.get_running_loop().set_task_factory(factory)
    async with running(clock) as manager:
        refuse.append(True)
        first, second = manager.submit_nowait("a", noop), manager.submit_nowait("a", noop, 2)
        while not second.done():
            await asyncio.sleep(0)
        assert first.state is State.FAILED
        assert first.exception() is error
        assert second.result() == 2


@pytest.mark.both_loops
async def test_a_command_that_never_waits_ends_and_frees_its_slot(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 2)) as manager:
        handles = await manager.submit_many("a", [(noop, number) for number in range(2_000)])
        await clock.run(manager.drain())
        assert [handle.result() for handle in handles] == list(range(2_000))


@pytest.mark.both_loops
async def test_commands_that_submit_and_cancel_each_other_come_to_an_end(clock: VirtualClock) -> None:
    async def parent(manager: QueueManager, depth: int) -> int:
        if depth == 0:
            await asyncio.Event().wait()
        child = await manager.submit(f"level {depth - 1}", parent, manager, depth - 1)
        if depth == 1:
            await asyncio.sleep(0)
            child.cancel()
            return int(isinstance(await outcome(child), CommandCancelled))
        return 1 + await child

    lanes = {f"level {depth}": LaneConfig(0, 1, priority=depth) for depth in range(6)}
    async with running(clock, lanes) as manager:
        top = await manager.submit("level 5", parent, manager, 5)
        assert await clock.run(top) == 5
        assert top.state is State.SUCCEEDED


@pytest.mark.both_loops
async def test_other_work_of_the_loop_gets_its_turn_while_a_backlog_of_instant_commands_runs(
    clock: VirtualClock,
) -> None:
    turns = 0

    async def neighbour() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with running(clock, LaneConfig(0, 1)) as manager:
        other = asyncio.ensure_future(neighbour())
        handles = [manager.submit_nowait("a", noop) for _ in range(5_000)]
        await handles[-1]
        other.cancel()
        await asyncio.wait([other])
        assert turns >= 10
