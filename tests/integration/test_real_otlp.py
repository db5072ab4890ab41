"""A real OTLP collector receives what the tracing sink says, over gRPC and over HTTP."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace

from lane_obs import LaneConfig, Observability, QueueManager, RetryPolicy, Traces
from lane_obs.sinks.otel import OtelSink, SpanPipeline
from tests.integration.services.tools import require_rotel

if TYPE_CHECKING:
    from tests.integration.services.otlp import Collector
    from tests.integration.services.span import Span


@pytest.fixture(autouse=True)
def _needs_rotel() -> None:
    require_rotel()


def endpoint(collector: Collector, protocol: str) -> str:
    return collector.grpc_endpoint if protocol == "grpc" else collector.http_endpoint


async def run_all_ends(manager: QueueManager, tracer: trace.Tracer) -> None:
    async def work() -> None:
        with tracer.start_as_current_span("inner"):
            trace.get_current_span().set_attribute("deep", 1)
        trace.get_current_span().set_attribute("mine", "yes")

    async def flaky() -> None:
        raise ConnectionError("refused")

    with tracer.start_as_current_span("request"):
        await (await manager.submit("api", work, id="good"))
        failing = await manager.submit("api", flaky, id="bad")
        with pytest.raises(ConnectionError):
            await failing
        orphan = await manager.submit("api", work, id="orphan")
    await orphan
    late = await manager.submit("api", work, delay=60.0, id="late")
    late.cancel()


def by_id(spans: list[Span], command: str, name: str) -> list[Span]:
    found = [span for span in spans if span.attributes.get("messaging.message.id") == command and span.name == name]
    return sorted(found, key=lambda span: span.start_ns)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_collector_receives_every_span_once_with_its_links_and_times(
    collector: Collector, protocol: str
) -> None:
    pipeline = SpanPipeline(endpoint=endpoint(collector, protocol), protocol=protocol)
    lanes = {"api": LaneConfig(0, 2, retry=RetryPolicy.fixed(1, 0.01))}
    began = time.time_ns()
    async with QueueManager(lanes, sinks=[OtelSink(pipeline=pipeline)]) as manager:
        await run_all_ends(manager, pipeline.provider.get_tracer("app"))
    ended = time.time_ns()
    # good and orphan: submit, process, inner; bad: submit, two attempts; late: submit, settle; the request, the drain.
    spans = await asyncio.to_thread(collector.spans, 13)
    assert len(spans) == 13
    assert len({span.span_id for span in spans}) == 13
    assert all(began - 1_000_000 <= span.start_ns <= span.end_ns <= ended + 1_000_000 for span in spans)
    assert manager.bus.stats()[0].dropped == {}

    (request,) = (span for span in spans if span.name == "request")
    (submit,) = by_id(spans, "good", "submit api")
    (process,) = by_id(spans, "good", "process api")
    (inner,) = (span for span in spans if span.name == "inner" and span.trace_id == process.trace_id)
    assert (submit.kind, submit.parent_id, submit.trace_id) == ("PRODUCER", request.span_id, request.trace_id)
    assert (process.kind, process.parent_id, process.trace_id) == ("CONSUMER", submit.span_id, submit.trace_id)
    assert [link.span_id for link in process.links] == [submit.span_id]
    assert (inner.parent_id, inner.trace_id) == (process.span_id, process.trace_id)
    assert process.start_ns <= inner.start_ns <= inner.end_ns <= process.end_ns
    assert process.attributes["mine"] == "yes"
    assert process.attributes["lane.outcome"] == "ok"
    assert process.status == "UNSET"

    (submit,) = by_id(spans, "bad", "submit api")
    first, second = by_id(spans, "bad", "process api")
    assert first.trace_id == submit.trace_id
    assert (second.trace_id != submit.trace_id, second.parent_id) == (True, "")
    assert [link.span_id for link in second.links] == [submit.span_id, first.span_id]
    assert [event.name for event in first.events] == ["exception", "lane.retry_scheduled"]
    assert [event.name for event in second.events] == ["exception", "lane.dead_lettered"]
    assert (second.status, second.attributes["error.type"]) == ("ERROR", "ConnectionError")

    (submit,), (process,) = by_id(spans, "orphan", "submit api"), by_id(spans, "orphan", "process api")
    assert submit.trace_id == request.trace_id
    assert (process.parent_id, [link.span_id for link in process.links]) == ("", [submit.span_id])

    (settle,) = by_id(spans, "late", "settle api")
    assert (settle.kind, settle.attributes["lane.outcome"]) == ("CLIENT", "cancelled")
    assert {span.kind for span in spans if span.name == "drain"} == {"INTERNAL"}
    assert all(span.attributes["messaging.system"] == "lane" for span in spans if span.name not in {"inner", "request"})


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_collector_that_is_away_costs_spans_which_are_counted_and_nothing_else(
    collector: Collector, protocol: str
) -> None:
    collector.stop()
    traces = Traces(endpoint=endpoint(collector, protocol), protocol=protocol, close_timeout=0.2)
    observe = Observability(logs=False, metrics=False, traces=traces, watchdog=False, recorder=False)

    async def work() -> int:
        return 1

    async with QueueManager({"api": LaneConfig(0, 8)}, observe=observe) as manager:
        handles = await manager.submit_many("api", [work] * 100)
        assert sum(await asyncio.gather(*handles)) == 100
    (stats,) = manager.bus.stats()
    assert sum(stats.dropped.values()) == 201  # two for each command, and the drain
    assert (stats.errors, stats.disabled) == (0, False)
