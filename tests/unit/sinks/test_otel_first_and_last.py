"""Spans that end before anything else has happened are exported; those after the end are counted as lost."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lane_obs import QueueManager, ShutdownInProgress, UnknownLane
from lane_obs.sinks.otel import OtelSink, SpanPipeline


async def work() -> None:
    """Succeeds."""


def names(exporter: InMemorySpanExporter) -> list[str]:
    return [span.name for span in exporter.get_finished_spans()]


async def test_spans_that_end_in_the_very_turn_of_the_start_are_exported() -> None:
    exporter = InMemorySpanExporter()
    pipeline = SpanPipeline(exporter=exporter)
    async with QueueManager(sinks=[OtelSink(pipeline=pipeline)]) as manager:
        with pipeline.provider.get_tracer("app").start_as_current_span("request"), pytest.raises(UnknownLane):
            await manager.submit("typo", work)
    assert names(exporter) == ["submit unknown", "request", "drain"]


async def test_a_submit_that_is_refused_before_the_start_is_exported() -> None:
    exporter = InMemorySpanExporter()
    manager = QueueManager(sinks=[OtelSink(pipeline=SpanPipeline(exporter=exporter))])
    with pytest.raises(UnknownLane):
        await manager.submit("typo", work)
    await manager.close()
    assert names(exporter)[0] == "submit unknown"


async def test_a_submit_that_is_refused_after_the_close_is_counted_as_lost() -> None:
    exporter = InMemorySpanExporter()
    sink = OtelSink(pipeline=SpanPipeline(exporter=exporter))
    async with QueueManager(sinks=[sink]) as manager:
        pass
    with pytest.raises(ShutdownInProgress):
        await manager.submit("query", work)
    assert names(exporter) == ["drain"]
    assert (sink.dropped, sink.pending) == ({"closed": 1}, 0)


def test_a_pipeline_that_was_closed_before_it_was_opened_stays_closed() -> None:
    exporter = InMemorySpanExporter()
    pipeline = SpanPipeline(exporter=exporter)
    pipeline.close(0.1)
    pipeline.open()
    with pipeline.provider.get_tracer("app").start_as_current_span("late"):
        pass
    assert names(exporter) == []
