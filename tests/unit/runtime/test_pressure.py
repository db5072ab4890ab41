"""Pressure and idleness of lanes, told at the edges; and why a submit was refused."""

from __future__ import annotations

import pytest

from lane_obs import LaneConfig, LaneObsError, MemorySink, RetryPolicy, VirtualClock
from lane_obs.clock import sleep
from tests.unit.runtime.support import Attempts, Gate, noop, running

EDGES = ("queue.lane.pressure", "queue.lane.idle")


def edges(sink: MemorySink) -> list[tuple[str, int]]:
    return [(event.key.rpartition(".")[2], event.payload["pending"]) for event in sink.events if event.key in EDGES]


async def test_pressure_is_told_once_when_it_begins_and_once_when_nothing_waits(clock: VirtualClock) -> None:
    gate, sink = Gate(), MemorySink()
    async with running(clock, LaneConfig(0, 1, pressure_threshold=3), sinks=[sink]) as manager:
        for name in range(10):
            await manager.submit("a", gate, name)
            await clock.advance(0)
        assert edges(sink) == [("pressure", 3)]
        for name in range(9):
            gate.open(name)
            await clock.advance(0)
        assert edges(sink) == [("pressure", 3), ("idle", 0)]
        (pressure,) = sink.of("queue.lane.pressure")
        assert pressure.payload == {"lane": "a", "pending": 3, "threshold": 3}


async def test_between_the_edges_nothing_is_told(clock: VirtualClock) -> None:
    gate, sink = Gate(), MemorySink()
    async with running(clock, LaneConfig(0, 1, pressure_threshold=2), sinks=[sink]) as manager:
        for name in range(3):
            await manager.submit("a", gate, name)
            await clock.advance(0)
        for name in range(20):  # one waits, then two, then one ...
            gate.open(name)
            await clock.advance(0)
            await manager.submit("a", gate, name + 3)
            await clock.advance(0)
        assert edges(sink) == [("pressure", 2)]


async def test_a_second_wave_is_told_again(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, LaneConfig(0, 1, pressure_threshold=2), sinks=[sink]) as manager:
        for _ in range(3):
            await manager.submit_many("a", [(sleep, clock, 1)] * 4)
            await clock.run(manager.drain())
        assert edges(sink) == [("pressure", 2), ("idle", 0)] * 3


async def test_a_lane_without_a_threshold_tells_nothing(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, sinks=[sink]) as manager:
        await manager.submit_many("a", [noop] * 100)
        await clock.run(manager.drain())
        assert edges(sink) == []


async def test_cancelled_commands_end_the_pressure_too(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, LaneConfig(0, 1, pressure_threshold=2), sinks=[sink]) as manager:
        manager.pause("a")
        handles = await manager.submit_many("a", [noop] * 2)
        for handle in handles:
            handle.cancel()
        await clock.advance(0)
        assert edges(sink) == [("pressure", 2), ("idle", 0)]


async def test_commands_that_back_off_press_as_well(clock: VirtualClock) -> None:
    sink = MemorySink()
    lane = LaneConfig(0, 2, pressure_threshold=2, retry=RetryPolicy.fixed(1, 10, jitter="none"))
    async with running(clock, lane, sinks=[sink]) as manager:
        for _ in range(2):
            await manager.submit("a", Attempts(clock, ValueError("x"), seconds=1))
            await clock.advance(0)
        await clock.advance(5)
        assert edges(sink) == [("pressure", 2)]
        await clock.run(manager.drain())
        assert edges(sink) == [("pressure", 2), ("idle", 0)]


@pytest.mark.parametrize("reason", ["full", "shutting_down", "unknown_lane"])
async def test_every_refused_submit_is_an_event_with_its_reason(clock: VirtualClock, reason: str) -> None:
    sink = MemorySink()
    lane = LaneConfig(0, 1, max_pending=1, overflow="reject")
    async with running(clock, lane, sinks=[sink]) as manager:
        await manager.submit("a", noop, delay=5)
        if reason == "shutting_down":
            await manager.shutdown()
        name = "z" if reason == "unknown_lane" else "a"
        for _ in range(2):
            with pytest.raises(LaneObsError):
                await manager.submit(name, noop)
        await clock.advance(0)
        payload = {"lane": name, "command_type": "noop", "reason": reason}
        assert [event.payload for event in sink.of("queue.command.rejected")] == [payload] * 2
