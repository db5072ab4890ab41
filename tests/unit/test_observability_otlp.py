"""OTLP logs and metrics of `Observability`: off unless asked for, and sent where the traces go."""

from __future__ import annotations

import io
from typing import Any

import prometheus_client
import pytest
from opentelemetry import _logs, metrics
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from lane_obs import ConfigError, LaneConfig, Logs, Metrics, Observability, QueueManager, Traces
from lane_obs.sinks.otel_logs import OtelLogSink
from lane_obs.sinks.otel_metrics import OtelMetricsSink
from tests.unit.runtime.support import noop

OFF: dict[str, Any] = dict.fromkeys(("logs", "metrics", "traces", "watchdog", "recorder"), False)
NAMED = Traces(endpoint="http://127.0.0.1:9/v1/traces", protocol="http", headers={"authorization": "s3cret"})


def kinds(**parts: Any) -> list[type[Any]]:
    return [type(sink) for sink in Observability(**{**OFF, **parts}).sinks]


def test_otlp_logs_and_metrics_are_off_by_default() -> None:
    assert not {OtelLogSink, OtelMetricsSink} & set(kinds(logs=True, metrics=True))


def test_each_is_added_where_it_is_asked_for() -> None:
    assert kinds(logs=Logs(otlp=True))[1:] == [OtelLogSink]
    assert kinds(metrics=Metrics(otlp=True))[1:] == [OtelMetricsSink]


@pytest.mark.parametrize("part", [{"logs": Logs(otlp=True)}, {"metrics": Metrics(otlp=True)}])
def test_they_take_the_receiver_of_the_traces(monkeypatch: pytest.MonkeyPatch, part: dict[str, Any]) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "pigeon")
    assert len(Observability(**{**OFF, **part, "traces": NAMED}).sinks) == 3
    with pytest.raises(ConfigError) as caught:
        Observability(**{**OFF, **part})
    assert caught.value.field == "OTEL_EXPORTER_OTLP_PROTOCOL"


async def test_logs_and_metrics_reach_the_global_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    records = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    loggers, meters = LoggerProvider(shutdown_on_exit=False), MeterProvider([reader], shutdown_on_exit=False)
    loggers.add_log_record_processor(SimpleLogRecordProcessor(records))
    monkeypatch.setattr("lane_obs.sinks.otel_logs.get_logger_provider", lambda: loggers)
    monkeypatch.setattr("lane_obs.sinks.otel_metrics.sink.get_meter_provider", lambda: meters)
    observe = Observability(
        **{
            **OFF,
            "logs": Logs(file=io.BytesIO(), otlp=True),
            "metrics": Metrics(registry=prometheus_client.CollectorRegistry(), otlp=True, buckets=[1.0]),
        },
        queue="main",
    )
    async with QueueManager({"a": LaneConfig(0, 1)}, observe=observe) as manager:
        await (await manager.submit("a", noop, id="one"))
        await manager.drain()
        text = reader.get_metrics_data().to_json()  # type: ignore[union-attr]
    (record,) = records.get_finished_logs()
    assert record.log_record.body == "queue.command.completed"
    assert '"lane.commands_submitted"' in text
    assert '"queue": "main"' in text


def test_nothing_global_is_set() -> None:
    Observability(**{**OFF, "logs": Logs(otlp=True), "metrics": Metrics(otlp=True)})
    assert not isinstance(metrics.get_meter_provider(), MeterProvider)
    assert not isinstance(_logs.get_logger_provider(), LoggerProvider)
