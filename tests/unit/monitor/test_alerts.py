"""What the monitor finds wrong, and when it says so: every rule, over the states of its alerts, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import ConfigError, LaneConfig, MemorySink, QueueManager, RetryPolicy, VirtualClock
from lane_obs.alerts import DEFAULT_RULES, Rule, Slo
from lane_obs.clock import sleep
from lane_obs.monitor import AlertState, MonitorConfig, QueueMonitor
from lane_obs.sinks.prometheus import PrometheusSink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lane_obs.alerts import AnyRule

ONCE = RetryPolicy.none()
CHANGES = ("queue.alert.pending", "queue.alert.firing", "queue.alert.resolved", "queue.alert.cleared")


class Watched:
    """A queue that a monitor looks at every second."""

    def __init__(self, clock: VirtualClock, manager: QueueManager, monitor: QueueMonitor, sink: MemorySink) -> None:
        self.clock, self.manager, self.monitor, self._sink = clock, manager, monitor, sink
        self._began = clock.now()

    def changes(self, rule: str | None = None) -> list[tuple[float, str, str, str | None]]:
        """When, which change, which severity, which lane."""
        return [
            (round(event.at - self._began, 3), event.key.rpartition(".")[2], event.severity, event.lane)
            for event in self._sink.events
            if event.key in CHANGES and rule in {None, event.rule}
        ]

    def events(self, key: str) -> list[Any]:
        return [event for event in self._sink.events if event.key == key]

    @property
    def firing(self) -> set[tuple[str, str, str | None]]:
        return {(a.rule, a.severity, a.lane) for a in self.monitor.alerts if a.state is AlertState.FIRING}


@contextlib.asynccontextmanager
async def watched(clock: VirtualClock, *rules: AnyRule, sinks: Any = (), **options: Any) -> AsyncIterator[Watched]:
    """Runs a queue of lanes `a` and `b`, one slot each, under a monitor with these rules."""
    sink = MemorySink()
    lanes = options.pop("lanes", {"a": LaneConfig(0, 1, retry=ONCE), "b": LaneConfig(0, 1, priority=1, retry=ONCE)})
    config = MonitorConfig(
        interval=1, rules=rules, pending_warning_threshold=None, active_warning_threshold=None,
        **{name: options.pop(name) for name in ("silences", "notifiers") if name in options},
    )  # fmt: skip
    manager = QueueManager(lanes, clock=clock, sinks=[sink, *sinks], **options)
    await manager.start()
    monitor = QueueMonitor(manager, config)
    await monitor.start()
    try:
        await clock.advance(0)
        yield Watched(clock, manager, monitor, sink)
    finally:
        await clock.run(manager.close())


async def fail() -> None:
    raise ValueError("broken")


async def work() -> None:
    return


# --- states -----------------------------------------------------------------------------------------------------


async def test_an_alert_is_pending_fires_and_is_resolved(clock: VirtualClock) -> None:
    rule = Rule(measure="ready_depth", warning=2, for_seconds=3)
    async with watched(clock, rule) as w:
        await w.manager.submit_many("a", [(sleep, clock, 9.9)] * 4)  # one runs, three wait
        await clock.advance(9.5)
        await clock.advance(20)
        assert w.changes() == [
            (1, "pending", "warning", "a"),
            (4, "firing", "warning", "a"),
            (10, "resolved", "warning", "a"),
        ]


async def test_an_alert_that_ends_before_its_time_never_fires(clock: VirtualClock) -> None:
    async with watched(clock, Rule(measure="ready_depth", warning=2, for_seconds=5)) as w:
        await w.manager.submit_many("a", [(sleep, clock, 2.9)] * 4)
        await clock.advance(20)
        assert w.changes() == [(1, "pending", "warning", "a"), (3, "cleared", "warning", "a")]


async def test_without_a_time_to_last_it_fires_at_once(clock: VirtualClock) -> None:
    async with watched(clock, Rule(measure="ready_depth", warning=2)) as w:
        await w.manager.submit_many("a", [(sleep, clock, 2.9)] * 4)
        await clock.advance(20)
        assert w.changes() == [(1, "firing", "warning", "a"), (3, "resolved", "warning", "a")]


async def test_while_it_fires_the_lower_level_counts(clock: VirtualClock) -> None:
    rule = Rule(measure="ready_depth", warning=5, warning_clear=2)
    async with watched(clock, rule) as w:
        await w.manager.submit_many("a", [(sleep, clock, 1.9)] * 7)  # six wait; one less every two seconds
        await clock.advance(40)
        # Six, five and four would not fire anew but keep firing; two is not above two.
        assert w.changes() == [(1, "firing", "warning", "a"), (8, "resolved", "warning", "a")]


async def test_what_is_pending_has_to_be_above_the_upper_level(clock: VirtualClock) -> None:
    rule = Rule(measure="ready_depth", warning=5, warning_clear=1, for_seconds=4)
    async with watched(clock, rule) as w:
        await w.manager.submit_many("a", [(sleep, clock, 1.9)] * 7)
        await clock.advance(40)
        assert w.changes() == [(1, "pending", "warning", "a"), (2, "cleared", "warning", "a")]


async def test_both_levels_have_an_alert_of_their_own(clock: VirtualClock) -> None:
    async with watched(clock, Rule(measure="ready_depth", warning=1, critical=3)) as w:
        await w.manager.submit_many("a", [(sleep, clock, 2)] * 5)
        await clock.advance(1)
        assert w.firing == {("ready_depth", "warning", "a"), ("ready_depth", "critical", "a")}
        assert [alert.severity for alert in w.monitor.alerts] == ["critical", "warning"]  # worst first
        await clock.advance(2)
        assert w.firing == {("ready_depth", "warning", "a")}
        await clock.advance(20)
        assert w.firing == set()


async def test_each_lane_has_an_alert_of_its_own_and_a_rule_may_name_its_lanes(clock: VirtualClock) -> None:
    rules = (Rule(measure="ready_depth", warning=1), Rule(measure="ready_depth", warning=3, lanes=("b",)))
    async with watched(clock, *rules) as w:
        await w.manager.submit_many("a", [(sleep, clock, 5)] * 4)
        await w.manager.submit_many("b", [(sleep, clock, 5)] * 4)
        await clock.advance(1)
        assert w.firing == {("ready_depth", "warning", "a")}
        await w.manager.submit("b", work)
        await clock.advance(1)
        assert w.firing == {("ready_depth", "warning", "a"), ("ready_depth", "warning", "b")}


async def test_an_alert_tells_all_there_is_to_know(clock: VirtualClock) -> None:
    async with watched(clock, Rule(measure="oldest_ready_age", warning=2, for_seconds=1)) as w:
        wall = clock.wall()
        await w.manager.submit_many("a", [(sleep, clock, 60)] * 2)
        await clock.advance(6)
        (alert,) = w.monitor.alerts
        assert (alert.alert, alert.rule, alert.lane, alert.queue) == (
            "LaneOldestReadyAgeHigh", "oldest_ready_age", "a", "default",
        )  # fmt: skip
        assert (alert.value, alert.threshold) == (pytest.approx(6), 2)
        assert (alert.since, alert.fired_at, alert.ended_at) == (
            pytest.approx(wall + 3), pytest.approx(wall + 4), None,
        )  # fmt: skip
        assert alert.labels == {
            "alertname": "LaneOldestReadyAgeHigh", "severity": "warning", "queue": "default", "lane": "a",
        }  # fmt: skip
        assert "lane 'a'" in alert.summary
        assert "6 s" in alert.description
        assert alert.runbook.endswith("#oldest-ready-age")


# --- rules ------------------------------------------------------------------------------------------------------


async def test_delayed_and_backing_off_work_has_no_age(clock: VirtualClock) -> None:
    lanes = {"a": LaneConfig(0, 1, retry=RetryPolicy.fixed(1, 30.0, jitter="none"))}
    async with watched(clock, Rule(measure="oldest_ready_age", warning=2), lanes=lanes) as w:
        await w.manager.submit("a", work, delay=20)
        await w.manager.submit("a", fail)
        await clock.advance(15)
        assert w.manager.stats().lanes["a"].pending == 2
        assert w.changes() == []


async def test_slow_waits(clock: VirtualClock) -> None:
    async with watched(clock, Rule(measure="wait_p99", warning=5, window_seconds=20)) as w:
        await w.manager.submit_many("a", [(sleep, clock, 8)] * 3)
        await clock.advance(10)
        assert w.firing == {("wait_p99", "warning", "a")}
        await clock.advance(40)  # no start in the window: no wait to speak of
        assert w.changes() == [(9, "firing", "warning", "a"), (37, "resolved", "warning", "a")]


@pytest.mark.parametrize("shared", [False, True], ids=["own counts", "those of the metrics sink"])
async def test_errors_count_by_their_share_and_need_a_rate(clock: VirtualClock, shared: bool) -> None:
    from prometheus_client import CollectorRegistry

    rule = Rule(measure="error_ratio", warning=0.2, window_seconds=10, min_rate=0.5)
    sinks = [PrometheusSink(CollectorRegistry())] if shared else []
    async with watched(clock, rule, sinks=sinks) as w:
        await w.manager.submit("a", fail)
        await clock.advance(3)
        assert w.firing == set()  # one failure in three seconds is nothing yet
        await w.manager.submit_many("a", [work] * 10)
        await w.manager.submit_many("a", [fail] * 5)
        cancelled = await w.manager.submit("a", work)
        cancelled.cancel()
        await clock.advance(1)
        (alert,) = w.monitor.alerts
        assert alert.value == pytest.approx(6 / 16)  # who was cancelled has not failed
        await clock.advance(30)
        assert [change[1] for change in w.changes()] == ["firing", "resolved"]


async def test_time_outs_and_retries(clock: VirtualClock) -> None:
    lanes = {"a": LaneConfig(0, 9, timeout=2.0, retry=RetryPolicy.fixed(1, 1.0, jitter="none"))}
    rules = (
        Rule(measure="timeout_ratio", warning=0.4, window_seconds=10, min_rate=0),
        Rule(measure="retry_ratio", warning=0.4, window_seconds=10, min_rate=0),
    )
    async with watched(clock, *rules, lanes=lanes) as w:
        await w.manager.submit_many("a", [(sleep, clock, 50)] * 4)
        await clock.advance(6)
        assert w.firing == {("timeout_ratio", "warning", "a"), ("retry_ratio", "warning", "a")}
        values = {alert.rule: alert.value for alert in w.monitor.alerts}
        assert values == {"timeout_ratio": 1, "retry_ratio": 0.5}
        await clock.advance(20)
        assert w.firing == set()


async def test_growing_dead_letters(clock: VirtualClock) -> None:
    async with watched(clock, Rule(measure="dead_letters", warning=0, critical=2, window_seconds=10)) as w:
        await w.manager.submit_many("a", [fail] * 2)
        await clock.advance(2)
        assert w.firing == {("dead_letters", "warning", "a")}
        await w.manager.submit("a", fail)
        await clock.advance(1)
        assert w.firing == {("dead_letters", "warning", "a"), ("dead_letters", "critical", "a")}
        await clock.advance(30)
        assert w.firing == set()
        assert w.manager.stats().dead_letters == 3  # they are there still, but no more come


async def test_a_lane_that_others_starve(clock: VirtualClock) -> None:
    rule = Rule(measure="starvation", warning=0.5, window_seconds=10, for_seconds=3)
    lanes = {"a": LaneConfig(0, 2), "b": LaneConfig(0, 2, priority=1)}
    async with watched(clock, rule, lanes=lanes, max_concurrency=1) as w:
        await w.manager.submit_many("a", [(sleep, clock, 5)] * 4)
        await w.manager.submit("b", work)
        await clock.advance(15)
        assert w.firing == {("starvation", "warning", "b")}
        await clock.advance(40)
        assert [change[1] for change in w.changes()] == ["pending", "firing", "resolved"]


async def test_a_stalled_lane_has_work_and_ends_none(clock: VirtualClock) -> None:
    async with watched(clock, Rule(measure="stall", warning=8, window_seconds=5)) as w:
        await w.manager.submit_many("a", [(sleep, clock, 3)] * 6)  # slow, but it moves
        await clock.advance(17)
        assert w.changes() == []
        await w.manager.submit_many("b", [(sleep, clock, 30), work])
        await clock.advance(20)
        assert w.firing == {("stall", "warning", "b")}
        await clock.advance(15)
        assert w.firing == set()


async def test_a_paused_lane_stalls_and_is_resolved_when_it_goes_on(clock: VirtualClock) -> None:
    async with watched(clock, Rule(measure="stall", warning=8, window_seconds=5)) as w:
        w.manager.pause("a")
        await w.manager.submit("a", work)
        await clock.advance(12)
        assert w.firing == {("stall", "warning", "a")}
        w.manager.resume("a")
        await clock.advance(2)
        assert w.firing == set()


async def test_a_command_that_does_not_listen(clock: VirtualClock) -> None:
    gate = asyncio.Event()

    async def deaf() -> None:
        while not gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()

    lanes = {"a": LaneConfig(0, 1, timeout=1.0, retry=ONCE)}
    async with watched(clock, Rule(measure="stuck", warning=0), lanes=lanes, stuck_after=2.0) as w:
        await w.manager.submit("a", deaf)
        await clock.advance(5)
        assert w.firing == {("stuck", "warning", "a")}
        gate.set()
        await clock.advance(2)
        assert w.firing == set()


async def test_saturation_and_the_whole_queue(clock: VirtualClock) -> None:
    rules = (
        Rule(measure="saturation", warning=0.9),
        Rule(measure="pending", warning=2, per="queue"),
        Rule(measure="active", warning=1, per="queue"),
        Rule(measure="oldest_ready_age", warning=3, per="queue"),
    )
    async with watched(clock, *rules) as w:
        for lane in ("a", "b"):
            await w.manager.submit_many(lane, [(sleep, clock, 10)] * 3)
        await clock.advance(5)
        assert w.firing == {
            ("saturation", "warning", "a"), ("saturation", "warning", "b"), ("pending", "warning", None),
            ("active", "warning", None), ("oldest_ready_age", "warning", None),
        }  # fmt: skip
        await clock.advance(60)
        assert w.firing == set()


async def test_a_sink_that_loses_events(clock: VirtualClock) -> None:
    class Lossy:
        dropped: dict[str, int] = {}  # noqa: RUF012

        def handle(self, events: object) -> None:
            pass

        def close(self) -> None:
            pass

    lossy = Lossy()
    async with watched(clock, Rule(measure="telemetry_drops", warning=0, window_seconds=5), sinks=[lossy]) as w:
        await clock.advance(3)
        assert w.firing == set()
        lossy.dropped = {"full": 3}
        await clock.advance(1)
        assert w.firing == {("telemetry_drops", "warning", None)}
        await clock.advance(10)
        assert w.firing == set()


async def test_the_error_budget_burns_in_both_windows(clock: VirtualClock) -> None:
    slo = Slo(success=0.9, fast=(20.0, 5.0, 5.0), slow=(40.0, 10.0, 2.0))
    async with watched(clock, slo) as w:
        for _ in range(30):
            await w.manager.submit("a", work)
            await clock.advance(1)
        assert w.firing == set()
        for _ in range(15):
            await w.manager.submit("a", fail)
            await clock.advance(1)
        assert {rule for rule, _, _ in w.firing} == {"error_burn_fast", "error_burn_slow"}
        for _ in range(12):  # the short windows see at once that it is over
            await w.manager.submit("a", work)
            await clock.advance(1)
        assert w.firing == set()


async def test_waits_have_an_error_budget_too(clock: VirtualClock) -> None:
    slo = Slo(wait_p=0.9, wait_seconds=2.5, lanes=("a",), fast=(20.0, 5.0, 5.0), slow=(40.0, 10.0, 2.0))
    async with watched(clock, slo) as w:
        await w.manager.submit_many("a", [(sleep, clock, 1)] * 20)
        await clock.advance(15)
        assert {rule for rule, _, _ in w.firing} == {"wait_burn_fast", "wait_burn_slow"}
        await clock.advance(60)
        assert w.firing == set()


async def test_the_default_rules_are_quiet_while_all_is_well(clock: VirtualClock) -> None:
    async with watched(clock, *DEFAULT_RULES, lanes=None) as w:
        for _ in range(100):
            for lane in w.manager.lanes:
                await w.manager.submit(lane, sleep, clock, 0.5)
            await clock.advance(1)
        assert w.changes() == []


# --- bad input --------------------------------------------------------------------------------------------------


def test_a_rule_about_a_lane_that_is_not_there_is_refused_when_the_monitor_is_built() -> None:
    config = MonitorConfig(rules=(Rule(measure="stall", warning=60, window_seconds=60, lanes=("promt",)),))
    with pytest.raises(ConfigError, match=r"promt.*did you mean 'prompt'"):
        QueueMonitor(QueueManager(), config)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"rules": Rule(measure="active", warning=1)}, "rules"),
        ({"rules": ["active"]}, "rules"),
        ({"rules": (Rule(measure="active", warning=1, for_seconds=5),)}, "rules[0].for_seconds"),
        ({"rules": (Rule(measure="stall", warning=1, window_seconds=15),)}, "rules[0].window_seconds"),
        ({"rules": (Rule(measure="active", warning=1, per="queue"),)}, "rules[2].lanes"),
        ({"silences": ["all"]}, "silences"),
        ({"notifiers": [print]}, "notifiers"),
        ({"notifiers": 5}, "notifiers"),
        ({"queue": ""}, "queue"),
    ],
)
def test_what_a_monitor_cannot_do_is_told_when_it_is_configured(values: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MonitorConfig(**values)
    assert caught.value.field == field
