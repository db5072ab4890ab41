"""The monitor of a queue whose lanes come and go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from lane_obs import LaneConfig, MemorySink, MonitorConfig, QueueManager, QueueMonitor, RetryPolicy, Rule
from lane_obs.clock import sleep
from lane_obs.monitor.notify import CallbackNotifier
from lane_obs.sinks.prometheus import PrometheusSink
from tests.unit.runtime.support import running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs import Alert, VirtualClock
    from lane_obs.events import AlertEvent

LANE = LaneConfig(0, 1)
DEPTH = Rule(measure="ready_depth", warning=1, for_seconds=0)


async def work() -> None:
    """Ends at once."""


async def fail() -> None:
    raise ValueError


def told(sink: MemorySink) -> list[tuple[str, str | None, str]]:
    found: list[Any] = [event for event in sink.events if event.key.startswith("queue.alert")]
    alerts: Sequence[AlertEvent] = [event for event in found if hasattr(event, "lane")]
    return [(alert.key.rpartition(".")[2], alert.lane, alert.reason) for alert in alerts]


def watch(manager: QueueManager, *rules: Any, **options: Any) -> QueueMonitor:
    config = MonitorConfig(
        interval=1, rules=rules, pending_warning_threshold=None, active_warning_threshold=None, **options
    )
    return QueueMonitor(manager, config)


async def flood(manager: QueueManager, lane: str, count: int = 3) -> None:
    manager.pause(lane)
    for _ in range(count):
        await manager.submit(lane, work)


async def test_an_added_lane_is_watched_at_the_next_look(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, {"a": LANE}, sinks=[sink]) as manager:
        monitor = watch(manager, DEPTH)
        await monitor.start()
        await clock.advance(2)
        manager.add_lane("b", LANE)
        await flood(manager, "b")
        await clock.advance(1)
        assert told(sink) == [("firing", "b", "")]
        assert [(alert.lane, alert.value) for alert in monitor.alerts] == [("b", 3)]
        manager.resume("b")
        await clock.advance(2)
        assert told(sink)[1:] == [("resolved", "b", "")]


async def test_an_alert_of_a_removed_lane_is_resolved_for_that_reason(clock: VirtualClock) -> None:
    sink = MemorySink()
    heard: list[Alert] = []
    async with running(clock, {"a": LANE, "b": LANE, "c": LANE}, sinks=[sink]) as manager:
        monitor = watch(manager, DEPTH, notifiers=[CallbackNotifier(heard.append, "hears")])
        await monitor.start()
        for name in "bc":
            await flood(manager, name)
        await clock.advance(1)
        await clock.run(manager.remove_lane("b", cancel=True))
        await clock.advance(1)
        assert told(sink) == [("firing", "b", ""), ("firing", "c", ""), ("resolved", "b", "lane_removed")]
        assert [alert.lane for alert in monitor.alerts] == ["c"]  # it moved up, and is followed on
        assert [(str(alert.state), alert.lane) for alert in heard][-1] == ("resolved", "b")
        assert heard[-1].description.endswith("Over, as the lane was removed.")
        manager.resume("c")
        await clock.advance(2)
        assert told(sink)[3:] == [("resolved", "c", "")]


async def test_a_pending_alert_of_a_removed_lane_is_cleared(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, {"a": LANE, "b": LANE}, sinks=[sink]) as manager:
        await watch(manager, Rule(measure="ready_depth", warning=1, for_seconds=60)).start()
        await flood(manager, "b")
        await clock.advance(2)
        await clock.run(manager.remove_lane("b", cancel=True))
        await clock.advance(2)
        assert told(sink) == [("pending", "b", ""), ("cleared", "b", "lane_removed")]


async def test_a_lane_that_is_removed_and_added_again_between_two_looks_is_another(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, {"b": LANE, "c": LANE}, sinks=[sink]) as manager:
        await watch(manager, DEPTH).start()
        await flood(manager, "b")
        await clock.advance(1.5)
        await clock.run(manager.remove_lane("b", cancel=True))
        manager.add_lane("b", LANE)
        await flood(manager, "b")
        await clock.advance(1)
        assert told(sink) == [("firing", "b", ""), ("resolved", "b", "lane_removed"), ("firing", "b", "")]


async def test_the_state_of_a_removed_lanes_alert_leaves_the_metrics_and_stays_away(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    async with running(clock, {"a": LANE, "b": LANE}, sinks=[PrometheusSink(registry)]) as manager:
        await watch(manager, DEPTH).start()
        await flood(manager, "b")
        await clock.advance(1)

        def state(lane: str) -> float | None:
            labels = {"queue": "default", "lane": lane, "alert": "LaneReadyDepthHigh"}
            return registry.get_sample_value("lane_alert_state", labels)

        assert (state("a"), state("b")) == (0, 1)
        await clock.run(manager.remove_lane("b", cancel=True))
        assert (state("a"), state("b")) == (0, None)
        await clock.advance(2)  # the alert's end is told after the lane's
        assert (state("a"), state("b")) == (0, None)
        manager.add_lane("b", LANE)
        await clock.advance(0)
        assert (state("a"), state("b")) == (0, 0)


@pytest.mark.parametrize("counted_elsewhere", [False, True])
async def test_a_rate_of_a_lane_goes_by_its_own_past_whatever_place_it_has(
    clock: VirtualClock, counted_elsewhere: bool
) -> None:
    sink = MemorySink()
    sinks: list[Any] = [sink, PrometheusSink(CollectorRegistry())] if counted_elsewhere else [sink]
    lanes = {name: LaneConfig(0, 10) for name in ("busy", "calm")}
    async with running(clock, lanes, sinks=sinks) as manager:
        await watch(manager, Rule(measure="error_ratio", warning=0.5, window_seconds=60, min_rate=0.0)).start()
        for _ in range(50):
            await manager.submit("busy", fail)
        for _ in range(50):
            await manager.submit("calm", work)
        await clock.advance(2)
        assert told(sink) == [("firing", "busy", "")]
        await clock.run(manager.remove_lane("busy"))
        manager.add_lane("new", LaneConfig(0, 10))
        for _ in range(50):
            await manager.submit("new", work)
        await clock.advance(3)
        assert told(sink)[1:] == [("resolved", "busy", "lane_removed")]
        for _ in range(80):
            await manager.submit("new", fail)
        await clock.advance(2)
        assert told(sink)[2:] == [("firing", "new", "")]


@pytest.mark.parametrize("measure", ["error_ratio", "retry_ratio", "wait_p99", "dead_letters"])
async def test_what_a_removed_lane_has_counted_stays_in_the_queues_sum(clock: VirtualClock, measure: str) -> None:
    """A lane for each conversation, gone after it: what failed in them has failed in the queue."""
    levels = {"error_ratio": 0.5, "retry_ratio": 0.4, "wait_p99": 0.5, "dead_letters": 2}
    sink = MemorySink()
    async with running(clock, {"a": LaneConfig(0, 9)}, sinks=[sink]) as manager:
        rule = Rule(measure=measure, warning=levels[measure], window_seconds=120, per="queue")
        monitor = watch(manager, rule)
        await monitor.start()
        await clock.advance(3)
        for number in range(60):
            manager.add_lane("talk", LaneConfig(0, 1))
            manager.pause("talk")
            await manager.submit_many("talk", [fail] * 3, retry=RetryPolicy.fixed(1, 0.1, jitter="none"))
            await clock.advance(1)
            manager.resume("talk")
            await clock.run(manager.remove_lane("talk"))
            if number == 30:
                assert [alert.lane for alert in monitor.alerts] == [None]
        assert told(sink) == [("firing", None, "")]


async def test_a_queue_without_any_lane_is_watched_too(clock: VirtualClock) -> None:
    async with running(clock, {"a": LANE}) as manager:
        monitor = QueueMonitor(manager, MonitorConfig(interval=1))
        await monitor.start()
        await clock.advance(2)
        await manager.remove_lane("a")
        await clock.advance(200)
        manager.add_lane("b", LANE)
        await clock.run(await manager.submit("b", sleep, clock, 1))
        await clock.advance(200)
        assert monitor.alerts == []


async def test_a_lane_may_go_while_the_monitor_is_in_the_middle_of_a_look(clock: VirtualClock) -> None:
    async with running(clock, {"a": LANE, "b": LANE}) as manager:
        monitor = watch(manager, DEPTH)
        await monitor.start()
        await flood(manager, "b")
        look = monitor._look(clock.now())
        manager.resume("b")
        await clock.run(asyncio.ensure_future(manager.remove_lane("b")))
        for _ in look:
            pass
        monitor.sample()
        assert monitor.alerts == []
