"""The monitor: alerts at the edges, and a clean life of its own."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from typing import Any

import pytest

from lane_obs import (
    ConfigError,
    LaneConfig,
    MemorySink,
    MonitorConfig,
    QueueManager,
    QueueMonitor,
    ShutdownInProgress,
    VirtualClock,
)
from lane_obs.clock import sleep

CONFIG = MonitorConfig(interval=5, pending_warning_threshold=2, active_warning_threshold=1, rules=())
ALERTS = ("queue.alert.firing", "queue.alert.resolved")


def alerts(sink: MemorySink) -> list[tuple[str, str, float, float]]:
    found = [event for event in sink.events if event.key in ALERTS]
    return [(event.key.rpartition(".")[2], event.rule, event.value, event.threshold) for event in found]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"interval": 0}, "interval"),
        ({"interval": -1}, "interval"),
        ({"interval": math.nan}, "interval"),
        ({"interval": math.inf}, "interval"),
        ({"interval": True}, "interval"),
        ({"pending_warning_threshold": -1}, "pending_warning_threshold"),
        ({"pending_warning_threshold": 1.5}, "pending_warning_threshold"),
        ({"active_warning_threshold": True}, "active_warning_threshold"),
        ({"active_warning_threshold": "50"}, "active_warning_threshold"),
    ],
)
def test_a_bad_value_is_named(values: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: "):
        MonitorConfig(**values)


def test_the_defaults_are_those_of_the_reference() -> None:
    config = MonitorConfig()
    assert (config.interval, config.pending_warning_threshold, config.active_warning_threshold) == (10.0, 100, 50)


async def test_an_alert_fires_and_resolves_once_for_each_crossing(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with QueueManager({"a": LaneConfig(0, 1)}, clock=clock, sinks=[sink]) as manager:
        monitor = QueueMonitor(manager.queue(), CONFIG)
        await monitor.start()
        await clock.advance(6)
        assert alerts(sink) == []
        for _ in range(4):  # one runs, three wait: above the threshold of two
            await manager.submit("a", sleep, clock, 20)
        await clock.advance(18)  # several samples see it
        assert alerts(sink) == [("firing", "pending", 3, 2)]
        await clock.advance(20)  # two wait: at the threshold, not above
        assert alerts(sink) == [("firing", "pending", 3, 2), ("resolved", "pending", 2, 2)]
        await clock.run(manager.drain())
        assert len(alerts(sink)) == 2
        await monitor.stop()


async def test_both_rules_are_watched_and_told_apart(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with QueueManager({"a": LaneConfig(0, 3)}, clock=clock, sinks=[sink]) as manager:
        monitor = QueueMonitor.with_config(manager, CONFIG)
        for _ in range(7):
            await manager.submit("a", sleep, clock, 7)
        await clock.advance(0)
        monitor.sample()
        await clock.advance(0)
        assert alerts(sink) == [("firing", "pending", 4, 2), ("firing", "active", 3, 1)]
        await clock.run(manager.drain())
        monitor.sample()
        await clock.advance(0)
        assert alerts(sink)[2:] == [("resolved", "pending", 0, 2), ("resolved", "active", 0, 1)]


async def test_start_and_stop_can_be_called_again(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with QueueManager({"a": LaneConfig(0, 1)}, clock=clock, sinks=[sink]) as manager:
        monitor = QueueMonitor(manager, CONFIG)
        await monitor.stop()
        for _ in range(10):
            await monitor.start()
        await clock.advance(6)
        assert clock.pending == 1  # one sampler, not ten
        await monitor.stop()
        await monitor.stop()
        assert clock.pending == 0
        await monitor.start()
        await clock.advance(6)
        assert clock.pending == 1
        await monitor.stop()


async def test_a_stopped_monitor_leaves_no_task(clock: VirtualClock) -> None:
    async with QueueManager(clock=clock) as manager:
        before = asyncio.all_tasks()
        monitor = QueueMonitor(manager, CONFIG)
        await monitor.start()
        await clock.advance(12)
        assert len(asyncio.all_tasks() - before) == 1
        await monitor.stop()
        assert asyncio.all_tasks() == before


async def test_it_gives_the_statistics_of_its_queue(clock: VirtualClock) -> None:
    async with QueueManager({"a": LaneConfig(0, 1)}, clock=clock) as manager:
        monitor = QueueMonitor(manager)
        for _ in range(3):
            await manager.submit("a", sleep, clock, 1)
        await clock.advance(0)
        stats = await monitor.stats()
        assert (stats.total_pending, stats.total_active) == (2, 1)
        await clock.run(manager.drain())


@pytest.mark.parametrize("queue", [5, None, "queue", QueueManager, MonitorConfig(), VirtualClock()])
def test_it_watches_nothing_but_a_queue(queue: Any) -> None:
    for build in (QueueMonitor, lambda wrong: QueueMonitor.with_config(wrong, CONFIG)):
        with pytest.raises(ConfigError, match=r"^queue: .* give a CommandQueue or QueueManager") as caught:
            build(queue)
        assert caught.value.value is queue


@pytest.mark.parametrize("config", [5, 0, {}, "x", MonitorConfig], ids=repr)
def test_its_configuration_is_a_monitor_config(config: Any) -> None:
    for build in (QueueMonitor, QueueMonitor.with_config):
        with pytest.raises(ConfigError, match=r"^config: .* give a MonitorConfig"):
            build(QueueManager(), config)


@pytest.mark.parametrize("end", ["close", "stop"])
async def test_it_ends_with_its_queue(clock: VirtualClock, end: str) -> None:
    manager = QueueManager(clock=clock)
    await manager.start()
    before = asyncio.all_tasks()
    monitors = [QueueMonitor(manager, CONFIG) for _ in range(3)]
    for monitor in monitors:
        await monitor.start()
    await clock.advance(12)
    await clock.run(getattr(manager, end)())
    assert (asyncio.all_tasks(), clock.pending) == (before, 0)
    for monitor in monitors:
        await monitor.stop()  # nothing is left to stop


async def test_it_does_not_outlive_a_queue_that_closes_in_the_turn_of_its_start(clock: VirtualClock) -> None:
    manager = QueueManager(clock=clock)
    before = asyncio.all_tasks()
    monitor = QueueMonitor(manager, CONFIG)
    await monitor.start()
    await clock.run(manager.close())
    assert (asyncio.all_tasks(), clock.pending) == (before, 0)


async def test_it_cannot_be_started_on_a_closed_queue(clock: VirtualClock) -> None:
    manager = QueueManager(clock=clock)
    await clock.run(manager.close())
    with pytest.raises(ShutdownInProgress, match="closed"):
        await QueueMonitor(manager, CONFIG).start()
    assert clock.pending == 0


async def test_a_stopped_monitor_is_forgotten_by_its_queue(clock: VirtualClock) -> None:
    async with QueueManager(clock=clock) as manager:
        monitor = QueueMonitor(manager, CONFIG)
        await monitor.start()
        await monitor.stop()
        gone = weakref.ref(monitor)
        del monitor
        gc.collect()
        assert gone() is None
