"""Logs, metrics and traces in one line: each part on, off, configured or wrong."""

from __future__ import annotations

import io
import json
import urllib.request
from typing import TYPE_CHECKING, Any

import prometheus_client
import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from lane_obs import ConfigError, LaneConfig, Logs, Metrics, Observability, QueueManager, Traces
from lane_obs.http import MetricsServer
from lane_obs.sinks.otel import OtelSink
from lane_obs.sinks.prometheus import PrometheusSink
from lane_obs.sinks.recorder import FlightRecorder
from lane_obs.sinks.structlog import StructlogSink
from lane_obs.sinks.watchdog import LoopWatchdog
from tests.unit.runtime.support import fail, noop, outcome
from tests.unit.sinks.otel_support import Spans, context_of, fields

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS: dict[str, type[Any]] = {
    "traces": OtelSink,
    "logs": StructlogSink,
    "metrics": PrometheusSink,
    "watchdog": LoopWatchdog,
    "recorder": FlightRecorder,
}
OFF: dict[str, Any] = dict.fromkeys(PARTS, False)


@pytest.fixture(autouse=True)
def no_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")


def kinds(**parts: Any) -> list[type[Any]]:
    return [type(sink) for sink in Observability(**parts).sinks]


def test_all_parts_are_on_by_default_and_traces_come_first() -> None:
    observability = Observability(metrics=Metrics(registry=prometheus_client.CollectorRegistry()))
    assert [type(sink) for sink in observability.sinks] == list(PARTS.values())
    assert kinds() == list(PARTS.values())


@pytest.mark.parametrize("part", PARTS)
def test_each_part_can_be_the_only_one_on_and_the_only_one_off(part: str) -> None:
    assert kinds(**{**OFF, part: True}) == [PARTS[part]]
    assert kinds(**{part: False}) == [kind for name, kind in PARTS.items() if name != part]


def test_a_watchdog_or_recorder_that_is_configured_is_taken_as_it_is() -> None:
    watchdog, recorder = LoopWatchdog(), FlightRecorder()
    assert Observability(**{**OFF, "watchdog": watchdog, "recorder": recorder}).sinks == [watchdog, recorder]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("wrong", [None, 1, 0, "on", object(), {}])
def test_a_part_that_is_none_of_these_is_named(part: str, wrong: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Observability(**{**OFF, part: wrong})
    assert caught.value.field == part
    assert "give True, False or a" in str(caught.value)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Observability(**{**OFF, "logs": Logs(level="loud")}), "level"),
        (lambda: Observability(**{**OFF, "traces": Traces(parent="child")}), "parent"),
        (lambda: Observability(**{**OFF, "traces": Traces(protocol="pigeon")}), "protocol"),
        (lambda: Observability(**{**OFF, "traces": Traces(slow_seconds=-1)}), "slow_seconds"),
        (lambda: Observability(**{**OFF, "metrics": Metrics(buckets=())}), "buckets"),
        (lambda: Observability(**{**OFF, "metrics": Metrics(port=70_000)}), "port"),
        (lambda: Observability(**OFF, queue=""), "queue"),
    ],
)
def test_what_a_part_is_configured_with_is_checked(make: Callable[[], object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.field == field


@pytest.mark.parametrize(
    "own", [{"endpoint": "http://127.0.0.1:9"}, {"protocol": "http"}, {"headers": {"k": "s3cret"}}]
)
def test_a_tracer_provider_goes_with_nothing_to_build_one_from(own: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Observability(**{**OFF, "traces": Traces(tracer_provider=Spans().provider, **own)})
    assert caught.value.field == "traces"
    assert next(iter(own)) in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_headers_are_not_shown() -> None:
    traces = Traces(endpoint="http://127.0.0.1:9", headers={"authorization": "Bearer s3cret"})
    observability = Observability(**{**OFF, "traces": traces})
    assert "s3cret" not in f"{traces!r} {observability!r} {observability.sinks!r}"


async def test_logs_metrics_and_traces_of_one_queue_agree() -> None:
    spans, file, registry = Spans(), io.BytesIO(), prometheus_client.CollectorRegistry()
    observe = Observability(
        logs=Logs(file=file), metrics=Metrics(registry=registry), traces=Traces(tracer_provider=spans.provider),
        watchdog=False, queue="main",
    )  # fmt: skip
    async with QueueManager({"a": LaneConfig(0, 1)}, observe=observe) as manager:
        await (await manager.submit("a", noop, id="one"))
        await outcome(await manager.submit("a", fail, ValueError("no"), id="two"))
        await manager.drain()
        labels = {"queue": "main", "lane": "a"}
        counts = [
            registry.get_sample_value("lane_commands_finished_total", {**labels, "outcome": name})
            for name in ("ok", "error")
        ]
    processes = spans.named("process a")
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    ended = {line["command_id"]: line for line in lines if line.get("outcome")}
    assert counts == [1, 1]
    assert [fields(span)["lane.outcome"] for span in processes] == ["ok", "error"]
    for span in processes:
        line = ended[fields(span)["messaging.message.id"]]
        assert line["outcome"] == fields(span)["lane.outcome"]
        assert line["trace_id"] == f"{context_of(span).trace_id:032x}"
        assert line["span_id"] == f"{context_of(span).span_id:016x}"


async def test_what_traces_are_configured_with_reaches_the_sink() -> None:
    spans = Spans(ALWAYS_OFF)
    traces = Traces(tracer_provider=spans.provider, parent="link", slow_seconds={"a": 0.000_001}, keep_failed=False)
    async with QueueManager(
        {"a": LaneConfig(0, 1), "b": LaneConfig(0, 1)}, observe=Observability(**{**OFF, "traces": traces})
    ) as manager:
        await outcome(await manager.submit("b", fail, ValueError()))
        await (await manager.submit("a", noop))
    assert spans.names == ["submit a", "process a"]
    assert spans.one("process a").parent is None
    assert fields(spans.one("process a"))["lane.sampling.reason"] == "slow"


async def test_sinks_of_ones_own_go_with_it() -> None:
    spans = Spans()
    observe = Observability(**{**OFF, "recorder": True})
    async with QueueManager({"a": LaneConfig(0, 1)}, sinks=[spans.sink()], observe=observe) as manager:
        await (await manager.submit("a", noop))
    assert [sink.name for sink in manager.stats().sinks] == ["OtelSink", "FlightRecorder"]
    assert spans.names == ["submit a", "process a", "drain"]


async def test_metrics_with_a_port_are_served() -> None:
    metrics = Metrics(registry=prometheus_client.CollectorRegistry(), port=0)
    observe = Observability(**{**OFF, "metrics": metrics})
    (server,) = [sink for sink in observe.sinks if isinstance(sink, MetricsServer)]
    async with QueueManager({"a": LaneConfig(0, 1)}, observe=observe):
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    assert "lane_commands_finished_total" in text
