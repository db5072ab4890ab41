"""Alerts about the link to a broker and about a queue that many processes share, as the monitor raises them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lane_obs import DEFAULT_RULES, LaneConfig, MemorySink, MonitorConfig, QueueMonitor, Rule, events
from lane_obs.distributed.view import BrokerHealth
from tests.unit.distributed.known import SUBMITTER, WORKER, KnownBroker, KnownQueue, depth, whole

if TYPE_CHECKING:
    from lane_obs import VirtualClock
    from lane_obs.distributed.view import LaneDepth, Member

LANES = {"a": LaneConfig(0, 4), "b": LaneConfig(0, 4)}
BROKER_RULES = [rule for rule in DEFAULT_RULES if rule.measure in {"broker_down", "returned", "unserved"}]
BROKER_RULES += [rule for rule in DEFAULT_RULES if rule.measure == "cluster_oldest_ready_age"]


class Scene:
    """A queue with a broker that is as it is told to be, and a monitor that looks each second."""

    def __init__(self, clock: VirtualClock, *rules: Rule) -> None:
        self.clock, self.broker, self.sink = clock, KnownBroker(), MemorySink()
        self.queue: Any = KnownQueue(LANES, sinks=[self.sink], clock=clock)
        self.queue.broker = self.broker
        config = MonitorConfig(
            interval=1.0, rules=rules or BROKER_RULES, pending_warning_threshold=None, active_warning_threshold=None
        )
        self.monitor = QueueMonitor(self.queue, config)

    async def __aenter__(self) -> Scene:
        await self.queue.start()
        await self.monitor.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.clock.run(self.monitor.stop())
        await self.clock.run(self.queue.close())

    async def lasts(self, seconds: float) -> list[tuple[str, str, str | None]]:
        """What fires once so many seconds have passed: alert, severity and lane."""
        await self.clock.advance(seconds)
        live = [one for one in self.monitor.alerts if one.state == "firing"]
        return sorted((one.alert, str(one.severity), one.lane) for one in live)

    def has(self, lanes: dict[str, LaneDepth], *members: Member) -> None:
        """This member leads, and the whole queue is so."""
        self.broker.stats_now = whole(lanes, *members)


async def test_a_link_that_stays_down_is_an_alert(clock: VirtualClock) -> None:
    async with Scene(clock) as scene:
        scene.broker.now = BrokerHealth(ready=False, error="refused")
        assert await scene.lasts(20) == []
        assert await scene.lasts(20) == [("QueueBrokerDown", "critical", None)]
        scene.broker.now = BrokerHealth(ready=True, failures=1)
        assert await scene.lasts(2) == []


async def test_a_queue_that_has_not_joined_yet_is_not_down(clock: VirtualClock) -> None:
    async with Scene(clock) as scene:
        scene.broker.member = ""
        scene.broker.now = BrokerHealth(ready=False, error="not open")
        assert await scene.lasts(60) == []


async def test_ready_commands_without_a_worker_are_an_alert_of_the_member_that_leads(clock: VirtualClock) -> None:
    async with Scene(clock) as scene:
        assert await scene.lasts(120) == []  # another one leads
        scene.has({"a": depth(), "elsewhere": depth(ready=2, oldest_ready_age=1.0)}, SUBMITTER)
        assert await scene.lasts(70) == [("QueueNoWorker", "critical", None)]
        scene.has({"a": depth(), "elsewhere": depth(ready=2, oldest_ready_age=1.0)}, SUBMITTER, WORKER)
        assert await scene.lasts(2) == []
        scene.has({"a": depth(delayed=5)}, SUBMITTER)
        assert await scene.lasts(120) == []


async def test_the_oldest_ready_command_of_all_lanes_counts_those_that_only_others_have_included(
    clock: VirtualClock,
) -> None:
    async with Scene(clock) as scene:
        scene.has({"a": depth(ready=1, oldest_ready_age=10.0), "elsewhere": depth(oldest_ready_age=70.0)}, WORKER)
        assert await scene.lasts(70) == [("QueueClusterOldestReadyAgeHigh", "warning", None)]
        scene.broker.stats_now = None  # it leads no more
        assert await scene.lasts(2) == []


async def test_the_oldest_ready_command_by_lane(clock: VirtualClock) -> None:
    async with Scene(clock, Rule(measure="cluster_oldest_ready_age", per="lane", warning=5)) as scene:
        scene.has({"a": depth(ready=1, oldest_ready_age=10.0), "elsewhere": depth(oldest_ready_age=70.0)}, WORKER)
        assert await scene.lasts(2) == [("LaneClusterOldestReadyAgeHigh", "warning", "a")]


async def test_commands_that_came_back_are_an_alert(clock: VirtualClock) -> None:
    async with Scene(clock) as scene:
        await scene.lasts(5)
        scene.queue.bus.emit(events.CommandReturned, "c1", "a", "work", 1, "two:2:1")
        assert await scene.lasts(5) == [("QueueCommandsReturned", "warning", None)]
        for number in range(200):
            scene.queue.bus.emit(events.CommandReturned, f"c{number}", "b", "work", 1, "two:2:1")
        assert [severity for _, severity, _ in await scene.lasts(5)] == ["critical", "warning"]
        assert await scene.lasts(700) == []
