"""Whom the monitor tells of what: notifiers, repeats, silences, the log, the metric and the trace."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from lane_obs import ConfigError, ShutdownInProgress, VirtualClock
from lane_obs.alerts import Rule
from lane_obs.clock import sleep
from lane_obs.monitor import Alert, Silence
from lane_obs.sinks.otel import OtelSink
from lane_obs.sinks.prometheus import PrometheusSink
from tests.unit.monitor.test_alerts import fail, watched

if TYPE_CHECKING:
    from collections.abc import Sequence

DEPTH = Rule(measure="ready_depth", warning=1, renotify_seconds=20)


class Told:
    """A notifier that remembers what it was told."""

    def __init__(self, refresh_seconds: float | None = None, name: str = "Told") -> None:
        self.name = name
        self.alerts: list[Alert] = []
        self.closed = False
        if refresh_seconds is not None:
            self.refresh_seconds = refresh_seconds

    async def notify(self, alerts: Sequence[Alert]) -> None:
        self.alerts += alerts

    async def close(self) -> None:
        self.closed = True

    @property
    def states(self) -> list[str]:
        return [str(alert.state) for alert in self.alerts]


async def test_a_notifier_hears_of_the_start_the_end_and_again_meanwhile(clock: VirtualClock) -> None:
    told = Told()
    async with watched(clock, DEPTH, notifiers=[told]) as w:
        await w.manager.submit_many("a", [(sleep, clock, 49.9)] * 3)
        await clock.advance(15)
        assert told.states == ["firing"]
        await clock.advance(20)
        assert told.states == ["firing", "firing"]
        await clock.advance(30)
        assert told.states == ["firing", "firing", "firing", "resolved"]
        assert told.alerts[-1].ended_at is not None
    assert told.closed


async def test_a_stopped_monitor_with_notifiers_is_not_started_again(clock: VirtualClock) -> None:
    told = Told()
    async with watched(clock, DEPTH, notifiers=[told]) as w:
        await clock.run(w.monitor.stop())
        assert told.closed
        with pytest.raises(ShutdownInProgress, match="notifiers are closed"):
            await w.monitor.start()


async def test_a_notifier_that_wants_to_be_refreshed_is_told_more_often(clock: VirtualClock) -> None:
    told, other = Told(refresh_seconds=5), Told(name="other")
    async with watched(clock, Rule(measure="ready_depth", warning=1), notifiers=[told, other]) as w:
        await w.manager.submit_many("a", [(sleep, clock, 19.9)] * 3)
        await clock.advance(19)
        assert len(told.states) >= 4
        assert set(told.states) == {"firing"}
        await clock.advance(10)
        assert told.states.count("resolved") == 1
        assert other.states == ["firing", "resolved"]


async def test_what_is_pending_is_nobodys_business(clock: VirtualClock) -> None:
    told = Told()
    async with watched(clock, Rule(measure="ready_depth", warning=1, for_seconds=8), notifiers=[told]) as w:
        await w.manager.submit_many("a", [(sleep, clock, 2)] * 4)
        await clock.advance(20)
        assert w.changes() != []
        assert told.alerts == []


async def test_a_silence_holds_back_until_it_expires(clock: VirtualClock) -> None:
    told = Told()
    async with watched(clock, DEPTH, notifiers=[told]) as w:
        silence = w.monitor.silence(10, rule="ready_depth", lane="a")
        for lane in ("a", "b"):
            await w.manager.submit_many(lane, [(sleep, clock, 60)] * 3)
        await clock.advance(5)
        assert [alert.lane for alert in told.alerts] == ["b"]
        assert {alert.lane: alert.silenced for alert in w.monitor.alerts} == {"a": True, "b": False}
        assert w.monitor.silences == [silence]
        assert w.firing == {("ready_depth", "warning", "a"), ("ready_depth", "warning", "b")}
        await clock.advance(7)
        assert [alert.lane for alert in told.alerts] == ["b", "a"]
        assert w.monitor.silences == []


async def test_what_was_told_before_a_silence_is_told_to_be_over(clock: VirtualClock) -> None:
    told = Told()
    async with watched(clock, DEPTH, notifiers=[told]) as w:
        await w.manager.submit_many("a", [(sleep, clock, 4.9)] * 3)
        await clock.advance(2)
        silence = w.monitor.silence(until=datetime.fromtimestamp(clock.wall() + 60, UTC))
        await clock.advance(20)
        assert told.states == ["firing", "resolved"]
        w.monitor.unsilence(silence)
        assert w.monitor.silences == []


async def test_an_alert_that_comes_and_goes_in_silence_is_never_told(clock: VirtualClock) -> None:
    told = Told()
    silences = [Silence(until=datetime.fromtimestamp(clock.wall(), UTC) + timedelta(hours=1))]
    async with watched(clock, DEPTH, notifiers=[told], silences=silences) as w:
        await w.manager.submit_many("a", [(sleep, clock, 4.9)] * 3)
        await clock.advance(20)
        assert [change[1] for change in w.changes()] == ["firing", "resolved"]
        assert told.alerts == []


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({}, "seconds"),
        ({"seconds": 5, "until": datetime.now(UTC)}, "seconds"),
        ({"seconds": 0}, "seconds"),
        ({"until": datetime(2026, 1, 1)}, "until"),  # noqa: DTZ001 - that is what is wrong with it
        ({"seconds": 5, "lane": "c"}, "lane.c"),
        ({"seconds": 5, "rule": "ready_dept"}, "rule.ready_dept"),
    ],
)
async def test_a_bad_silence_is_refused(clock: VirtualClock, values: dict[str, Any], field: str) -> None:
    async with watched(clock, DEPTH) as w:
        with pytest.raises(ConfigError) as caught:
            w.monitor.silence(**values)
        assert caught.value.field == field
        assert w.monitor.silences == []


async def test_the_metric_has_the_worst_level_and_begins_at_zero(clock: VirtualClock) -> None:
    registry = CollectorRegistry()

    def state(lane: str) -> float | None:
        labels = {"queue": "default", "alert": "LaneReadyDepthHigh", "lane": lane}
        return registry.get_sample_value("lane_alert_state", labels)

    rule = Rule(measure="ready_depth", warning=1, critical=3)
    async with watched(clock, rule, sinks=[PrometheusSink(registry)]) as w:
        await clock.advance(0)
        assert (state("a"), state("b")) == (0, 0)
        await w.manager.submit_many("a", [(sleep, clock, 1.9)] * 5)
        await clock.advance(1.5)
        assert (state("a"), state("b")) == (2, 0)
        await clock.advance(1.5)
        assert state("a") == 1
        await clock.advance(20)
        assert state("a") == 0
        assert registry.get_sample_value("lane_monitor_tick_seconds_count", {"queue": "default"}) > 20


async def test_notifications_are_counted(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    async with watched(clock, DEPTH, notifiers=[Told()], sinks=[PrometheusSink(registry)]) as w:
        await w.manager.submit_many("a", [(sleep, clock, 2)] * 3)
        await clock.advance(9)
        labels = {"queue": "default", "notifier": "Told"}
        counts = {
            outcome: registry.get_sample_value("lane_alert_notifications_total", labels | {"outcome": outcome})
            for outcome in ("sent", "retried", "failed", "dropped")
        }
        assert counts == {"sent": 2, "retried": 0, "failed": 0, "dropped": 0}


@pytest.mark.parametrize(
    "rule",
    [
        Rule(measure="oldest_ready_age", warning=2),
        Rule(measure="saturation", warning=0.5),
        Rule(measure="error_ratio", warning=0.1, window_seconds=10, min_rate=0),
        Rule(measure="wait_p99", warning=0.001, window_seconds=10),
    ],
    ids=lambda rule: rule.measure,
)
async def test_an_alert_leads_into_the_trace_of_what_tipped_it(clock: VirtualClock, rule: Rule) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with watched(clock, rule, sinks=[OtelSink(provider)]) as w:
        await w.manager.submit("a", fail)
        await w.manager.submit_many("a", [(sleep, clock, 30)] * 2)
        await clock.advance(40)
    spans = {span.name: span for span in exporter.get_finished_spans() if span.name.startswith("alert")}
    span = spans[f"alert {rule.measure}"]
    others = [span for span in exporter.get_finished_spans() if span.name not in spans]
    assert span.parent is not None
    above = [other for other in others if other.context.span_id == span.parent.span_id]
    assert [other.context.trace_id for other in above] == [span.context.trace_id]
    assert span.attributes is not None
    assert span.attributes["lane.alert.severity"] == "warning"
    assert span.attributes["messaging.destination.name"] == "a"
    firing = [event for event in w.events("queue.alert.firing") if event.trace is not None]
    assert f"{span.context.trace_id:032x}" in {event.trace.trace_hex for event in firing}
