"""An idle queue uses nothing: no callback, no timer, no task, no thread."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from lane_obs import EventEmitter, LaneConfig, MemorySink, QueueManager, RetryPolicy, VirtualClock
from lane_obs.clock import sleep
from tests.unit.runtime.support import Attempts, noop, outcome, running


def asyncio_only(test: Any) -> Any:
    """Runs on asyncio's own loop, whose lists of callbacks and timers can be looked at."""
    return pytest.mark.parametrize("loop_kind", ["asyncio"])(test)


@asyncio_only
async def test_an_idle_queue_has_no_callback_and_no_timer(loop_kind: str) -> None:
    loop: Any = asyncio.get_running_loop()
    async with QueueManager(sinks=[MemorySink(), EventEmitter()]) as manager:
        for lane in manager.lanes:
            await (await manager.submit(lane, noop, timeout=60, deadline=600))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not loop._ready
        assert not [timer for timer in loop._scheduled if not timer.cancelled()]
        assert asyncio.all_tasks() == {asyncio.current_task()}


@asyncio_only
async def test_an_idle_queue_takes_no_turn_of_the_loop(loop_kind: str) -> None:
    loop: Any = asyncio.get_running_loop()
    async with QueueManager({"a": LaneConfig(0, 1)}, sinks=[MemorySink()]) as manager:
        await (await manager.submit("a", noop))
        for _ in range(5):
            await asyncio.sleep(0)
        turns = 0
        run_once = loop._run_once

        def counted() -> None:
            nonlocal turns
            turns += 1
            run_once()

        loop._run_once = counted
        await asyncio.to_thread(threading.Event().wait, 0.05)
        del loop._run_once
        assert turns <= 3  # the thread's own end, not one wake-up of the queue


@pytest.mark.both_loops
async def test_no_timer_is_left_whatever_the_queue_did(clock: VirtualClock) -> None:
    policy = RetryPolicy.fixed(1, 5)
    async with running(clock, LaneConfig(0, 3, timeout=60, retry=policy)) as manager:
        await manager.submit("a", noop, deadline=500)
        await manager.submit("a", Attempts(clock, ValueError("x")), deadline=500)
        await manager.submit("a", sleep, clock, 100, timeout=1)
        await manager.submit("a", noop, delay=9, deadline=5)
        (await manager.submit("a", noop, delay=100, deadline=500)).cancel()
        running_one = await manager.submit("a", sleep, clock, 100, deadline=500)
        await clock.advance(30)
        running_one.cancel()
        await clock.run(outcome(running_one))
        await clock.run(manager.drain(1_000))
        await clock.advance(0)
        assert clock.pending == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_busy_queue_has_one_timer_however_many_commands_have_theirs(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 100)) as manager:
        gate = asyncio.Event()
        for number in range(300):
            await manager.submit("a", gate.wait, timeout=60 + number, deadline=900 - number)
        await clock.advance(1)
        assert clock.pending == 1
        gate.set()
        await clock.run(manager.drain())


async def test_an_idle_command_wakes_nobody_before_its_time(clock: VirtualClock) -> None:
    fired: list[float] = []
    call_at = clock.call_at

    def counted(when: float, callback: Any, *args: Any) -> Any:
        return call_at(when, lambda: (fired.append(clock.now()), callback(*args)))

    clock.call_at = counted  # type: ignore[method-assign]
    async with running(clock) as manager:
        began = clock.now()
        await manager.submit("a", noop, delay=3_600)
        await clock.advance(3_599)
        assert fired == []
        await clock.run(manager.drain())
        assert fired == [began + 3_600]


async def test_a_started_queue_without_work_makes_no_thread() -> None:
    before = threading.active_count()
    async with QueueManager() as manager:
        await (await manager.submit("query", noop))
        assert threading.active_count() == before
