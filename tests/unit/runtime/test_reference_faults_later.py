"""Faults of the reference's later versions that concern shutdown, events and the monitor: none of them is ours.

Each test is named after the fault it shows to be absent.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.resources
import weakref

import pytest

from lane_obs import (
    CommandTimeout,
    ConfigError,
    DrainTimeout,
    EventEmitter,
    LaneConfig,
    MemorySink,
    MonitorConfig,
    NotStarted,
    QueueManager,
    QueueMonitor,
    State,
    VirtualClock,
)
from lane_obs.clock import sleep
from tests.unit.runtime.support import noop, running

# --- shutdown ------------------------------------------------------------------------------------------------------


async def test_a_shutdown_whose_end_is_never_told(clock: VirtualClock) -> None:
    """`queue.shutdown.complete` is defined and never emitted."""
    sink = MemorySink()
    async with running(clock, sinks=[sink]) as manager:
        await manager.shutdown()
        await clock.run(manager.drain())
        await clock.advance(0)
        assert sink.keys()[-2:] == ["queue.shutdown.started", "queue.shutdown.complete"]


async def test_a_drain_that_fails_like_a_command_and_tells_nothing(clock: VirtualClock) -> None:
    """Its drain gives the error of a command's time-out and no list of what is left; a bad time ends in a panic."""
    async with running(clock) as manager:
        await manager.submit_many("a", [(sleep, clock, 9)] * 4)
        with pytest.raises(DrainTimeout) as caught:
            await clock.run(manager.drain(0.5))
        assert not isinstance(caught.value, CommandTimeout)
        assert caught.value.report.left == {"a": {"running": 1, "ready": 3}}
        with pytest.raises(ConfigError):
            await manager.drain(-1)


async def test_a_drain_of_a_queue_that_never_started(clock: VirtualClock) -> None:
    """It waits out its time; and work of a queue that never ends is lost without a word."""
    sink = MemorySink()
    manager = QueueManager({"a": LaneConfig(0, 1)}, clock=clock, sinks=[sink])
    handles = await manager.submit_many("a", [noop] * 124)
    with pytest.raises(NotStarted):
        await manager.drain(5)
    await manager.close()
    assert {handle.state for handle in handles} == {State.CANCELLED}
    assert sink.events[-1].payload["cancelled"] == 124


async def test_a_scheduler_that_keeps_the_queue_alive_for_ever(clock: VirtualClock) -> None:
    """The loop goes on polling after shutdown, drain and drop: one leak for each manager."""
    manager = QueueManager({"a": LaneConfig(0, 1)}, clock=clock, sinks=[MemorySink()])
    await manager.start()
    await clock.run(await manager.submit("a", noop))
    await clock.run(manager.close())
    gone = weakref.ref(manager)
    del manager
    await clock.advance(0)
    gc.collect()
    assert gone() is None
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- events and monitor --------------------------------------------------------------------------------------------


async def test_events_without_id_number_or_times(clock: VirtualClock) -> None:
    """`submitted` has no command id there; no event has a sequence number, a wait or a run time."""
    sink = MemorySink()
    async with running(clock, sinks=[sink]) as manager:
        handle = await manager.submit("a", sleep, clock, 2)
        await clock.run(handle)
        told = [event for event in sink.events if event.key.startswith("queue.command")]
        assert {event.payload["command_id"] for event in told} == {handle.id}
        assert [event.seq for event in told] == [2, 3, 4]
        assert (told[2].payload["wait_seconds"], told[2].payload["run_seconds"]) == (0.0, 2.0)


async def test_a_slow_reader_that_loses_events_without_knowing(clock: VirtualClock) -> None:
    """Capacity 100, 300 emitted, 128 seen, no count of the rest."""
    emitter = EventEmitter(100)
    stream = emitter.subscribe()
    async with running(clock, LaneConfig(0, 99), sinks=[emitter]) as manager:
        await manager.submit_many("a", [noop] * 100)
        await clock.run(manager.drain())
    received = [event async for event in stream]
    assert len(received) == 100
    assert stream.dropped == received[-1].seq - 100


async def test_a_monitor_that_repeats_itself_and_cannot_be_stopped(clock: VirtualClock) -> None:
    """It warns at every sample, never resolves, and has no stop; alerts given to the builder never fire."""
    sink = MemorySink()
    async with running(clock, sinks=[sink]) as manager:
        monitor = QueueMonitor(manager, MonitorConfig(interval=1, pending_warning_threshold=10, rules=()))
        await monitor.start()
        await manager.submit_many("a", [(sleep, clock, 1)] * 20)
        await clock.advance(60)
        assert [event.key for event in sink.events if "alert" in event.key] == [
            "queue.alert.firing",
            "queue.alert.resolved",
        ]
        await monitor.stop()
        assert clock.pending == 0


def test_a_package_whose_documented_import_fails() -> None:
    """`from a3s_lane import Lane` does not work with its wheel, which has no types either."""
    import lane_obs

    assert all(hasattr(lane_obs, name) for name in lane_obs.__all__)
    assert importlib.resources.files("lane_obs").joinpath("py.typed").is_file()
