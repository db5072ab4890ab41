"""Delays: a command waits for its time, keeps its place, and is seen while it waits."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lane_obs import LaneConfig, MemorySink, QueueManager, State, VirtualClock
from tests.unit.runtime.support import Gate, noop, running


async def test_a_delayed_command_starts_exactly_when_its_delay_is_over(clock: VirtualClock) -> None:
    began = clock.now()
    async with running(clock) as manager:
        handle = await manager.submit("a", noop, delay=2.5)
        assert handle.state is State.DELAYED
        await clock.run(handle)
        assert handle.started_at == began + 2.5
        assert handle.wait_by_cause.delay == 2.5
        assert handle.wait_seconds == 2.5


@pytest.mark.parametrize("start", [1_000_538.234261907, 0.1, 7.3, 1_700_000_000.123456789])
@pytest.mark.parametrize("delay", [0.1, 0.2, 0.3, 0.7, 1.1, 2.3, 1e-9, 3.3e-7, 86_400.000001])
async def test_no_pair_of_start_and_delay_hangs_or_is_early(start: float, delay: float) -> None:
    clock = VirtualClock(start=start)
    manager = QueueManager({"a": LaneConfig(0, 1)}, clock=clock)
    await manager.start()
    handle = await manager.submit("a", noop, delay=delay)
    await clock.advance(delay + 1)
    assert handle.state is State.SUCCEEDED
    assert handle.started_at >= handle.submitted_at + delay
    await clock.run(manager.close())


async def test_a_delay_of_zero_is_none(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", noop, delay=0)
        assert handle.state is State.READY
        await clock.run(handle)
        assert handle.wait_seconds == 0.0


async def test_a_delay_may_be_a_timedelta(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", noop, delay=timedelta(minutes=1))
        await clock.run(handle)
        assert handle.wait_by_cause.delay == 60.0


async def test_delayed_commands_are_counted_and_explained(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", noop, delay=10)
        await clock.advance(4)
        stats = manager.stats().lanes["a"]
        assert (stats.delayed, stats.ready, stats.pending, stats.oldest_ready_age) == (1, 0, 1, None)
        told = manager.explain(handle.id)
        assert (told.state, told.cause, told.due_in_seconds) == (State.DELAYED, "delay", 6.0)
        assert told.wait_by_cause.delay == 4.0


async def test_a_delay_that_is_over_is_an_event(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, sinks=[sink]) as manager:
        handle = await manager.submit("a", noop, delay=10)
        await clock.run(handle)
        submitted, ready = sink.of("queue.command.submitted")[0], sink.of("queue.command.ready")[0]
        assert submitted.payload["delay_seconds"] == 10.0
        assert ready.at - submitted.at == 10.0


async def test_a_command_whose_delay_is_over_takes_its_old_place(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock) as manager:
        await manager.submit("a", gate, "blocker")
        await manager.submit("a", gate, "delayed", delay=5)
        for name in ("later 1", "later 2"):
            await manager.submit("a", gate, name)
        await clock.advance(6)
        for name in ("blocker", "delayed", "later 1", "later 2"):
            gate.open(name)
            await clock.advance(0)
        assert gate.started == ["blocker", "delayed", "later 1", "later 2"]
        assert clock.pending == 0


async def test_equal_delays_end_in_the_order_of_submit(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock, LaneConfig(0, 100)) as manager:
        for number in range(100):
            await manager.submit("a", gate, number, delay=5)
        await clock.advance(5)
        assert gate.started == list(range(100))


async def test_a_hundred_year_delay_can_be_cancelled(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", noop, delay=timedelta(days=36_500))
        await clock.advance(1)
        assert handle.cancel()
        await clock.advance(0)
        assert clock.pending == 0
