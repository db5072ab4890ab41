"""The harness itself, against libraries that are not ours: what it reads back is what was sent."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING, Any

import prometheus_client
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from tests.integration.services import span as received
from tests.integration.services import tools
from tests.integration.services.otlp import Collector, Tap
from tests.integration.services.process import ServiceError, accepts, free_port
from tests.integration.services.prometheus import Exemplar, Metadata, Prometheus, promtool_check_metrics
from tests.integration.services.rotel_text import read_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from opentelemetry.sdk.trace.export import SpanExporter

TRACE = "0af7651916cd43dd8448eb211c80319c"


# --- Prometheus -------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Scraped:
    """An application, and the Prometheus that scrapes it as job "app"; job "down" has nothing that answers."""

    registry: prometheus_client.CollectorRegistry
    address: str
    prometheus: Prometheus


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """One for all tests, as its first scrape takes 5 s to come."""
    registry = prometheus_client.CollectorRegistry()
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry)
    address = f"127.0.0.1:{server.server_port}"
    targets = {"app": address, "down": f"127.0.0.1:{free_port()}"}
    with Prometheus(tmp_path_factory.mktemp("prometheus"), targets, interval_seconds=0.2) as prometheus:
        prometheus.wait_for_scrape(0, job="app")
        yield Scraped(registry, address, prometheus)
    server.shutdown()
    server.server_close()
    thread.join()


def test_prometheus_gives_back_values_metadata_quantiles_and_exemplars(scraped: Scraped) -> None:
    prometheus = scraped.prometheus
    jobs = prometheus_client.Counter("jobs", "Jobs that ended.", ["lane"], registry=scraped.registry)
    wait = prometheus_client.Histogram("wait_seconds", "Waiting.", buckets=[0.1, 0.5, 1], registry=scraped.registry)
    began = time.time()
    jobs.labels("query").inc(3)
    for _ in range(9):
        wait.observe(0.05)
    wait.observe(0.7, {"trace_id": TRACE})
    prometheus.wait_for_scrape(time.time(), job="app")

    origin = {"job": "app", "instance": scraped.address}
    assert prometheus.query("jobs_total") == [({"__name__": "jobs_total", "lane": "query", **origin}, 3.0)]
    assert prometheus.query("sum(jobs_total) by (lane)") == [({"lane": "query"}, 3.0)]
    assert prometheus.query("scalar(wait_seconds_count)") == [({}, 10.0)]
    ((_, p95),) = prometheus.query("histogram_quantile(0.95, wait_seconds_bucket)")
    assert 0.5 < p95 <= 1

    (exemplar,) = prometheus.query_exemplars("wait_seconds_bucket", began - 1, time.time() + 1)
    series = {"__name__": "wait_seconds_bucket", "le": "1.0", **origin}
    assert exemplar == Exemplar(series, {"trace_id": TRACE}, 0.7, exemplar.at)
    assert began - 0.001 <= exemplar.at <= time.time()  # kept to the millisecond

    # Scraped as OpenMetrics, in which the family of a counter has no `_total`.
    assert prometheus.metadata()["jobs"] == [Metadata("jobs", "counter", "Jobs that ended.", "")]
    expected = Metadata("wait_seconds", "histogram", "Waiting.", "")
    assert expected in [metadata for labels, metadata in prometheus.target_metadata() if labels["job"] == "app"]


def test_a_scrape_that_is_waited_for_has_what_happened_before(scraped: Scraped) -> None:
    steps = prometheus_client.Counter("steps", "Steps.", registry=scraped.registry)
    began = time.time()
    for number in range(1, 8):
        steps.inc()
        now = time.time()
        assert scraped.prometheus.wait_for_scrape(now, job="app") >= now
        assert [value for _, value in scraped.prometheus.query("steps_total")] == [number]
    ((_, values),) = scraped.prometheus.query_range("steps_total", began, time.time() + 1, 0.1)
    assert values == sorted(values)
    assert values[-1] == 7


def test_a_target_that_is_down_is_told_as_such_and_has_no_scrape(scraped: Scraped) -> None:
    with pytest.raises(ServiceError, match="connection refused"):
        scraped.prometheus.wait_for_scrape(0, seconds=1)
    health = {target["labels"]["job"]: target["health"] for target in scraped.prometheus.targets()}
    assert health == {"app": "up", "down": "down"}


def test_an_expression_that_prometheus_does_not_understand_is_an_error(scraped: Scraped) -> None:
    with pytest.raises(ServiceError, match="parse error"):
        scraped.prometheus.query("sum(")


def test_a_stopped_prometheus_is_gone(start_prometheus: Callable[..., Prometheus]) -> None:
    prometheus = start_prometheus({})
    port = int(prometheus.url.rpartition(":")[2])
    assert accepts(port)
    prometheus.stop()
    assert not accepts(port)


def test_promtool_names_what_is_wrong_with_metrics() -> None:
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Counter("jobs", "Jobs.", registry=registry)
    assert promtool_check_metrics(prometheus_client.generate_latest(registry).decode()) == []
    (fault,) = promtool_check_metrics("# TYPE jobs counter\njobs 1\n# HELP jobs Jobs.\n")
    assert "_total" in fault
    assert promtool_check_metrics("jobs{ 1\n") != []


# --- OTLP -------------------------------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {
    "text": 'a "quoted" word, ünï ☃ \\n',
    "lines": "first\n  second -> third: x\n\n\tfourth)\n",
    "empty": "",
    "int": 2**62,
    "negative": -5,
    "float": 0.1,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "infinite": math.inf,
    "whole": 1.0,
    "true": True,
    "false": False,
    "texts": ("a, b", "c]", "", "d\ne"),
    "ints": (1, -2),
    "floats": (0.5, 1.0),
    "bools": (True, False),
    "none": (),
    "dotted.name with: colon": "x",
}


def exporter_to(receiver: Collector | Tap, protocol: str) -> SpanExporter:
    if protocol == "http":
        return HttpExporter(endpoint=f"{receiver.http_endpoint}/v1/traces")
    assert isinstance(receiver, Collector)
    return GrpcExporter(endpoint=receiver.grpc_endpoint, insecure=True)


def send(exporter: SpanExporter, attributes: dict[str, Any]) -> list[ReadableSpan]:
    """Sends spans of every kind, status and shape with the SDK; returns them as the SDK had them."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "app", "numbers": [1, 2], "text": "a\nb"}))
    provider.add_span_processor(SimpleSpanProcessor(kept))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("a.scope", "1.2", attributes={"inside": "the scope"})
    with tracer.start_as_current_span("submit query", kind=SpanKind.PRODUCER, attributes=attributes) as submit:
        submit.add_event("with", {**attributes, "Name": "x"}, timestamp=1_234_567_890_123_456_789)
        submit.add_event("without\nattributes")
    context = submit.get_span_context()
    links = [Link(context, {"kind": "submit", **attributes}), Link(context)]
    with tracer.start_as_current_span("process\nquery", kind=SpanKind.CONSUMER, links=links) as process:
        process.record_exception(ValueError("bad"))
        for kind in (SpanKind.INTERNAL, SpanKind.CLIENT, SpanKind.SERVER):
            with tracer.start_as_current_span(kind.name, kind=kind) as child:
                child.set_status(StatusCode.OK)
        process.set_status(Status(StatusCode.ERROR, "two: lines\nof text"))
    provider.shutdown()
    return list(kept.get_finished_spans())


def as_received(sent: ReadableSpan) -> received.Span:
    """What a receiver must have of a span of the SDK."""
    context, scope = sent.get_span_context(), sent.instrumentation_scope
    assert context is not None
    assert scope is not None
    return received.Span(
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        parent_id="" if sent.parent is None else f"{sent.parent.span_id:016x}",
        name=sent.name,
        kind=sent.kind.name,
        start_ns=sent.start_time or 0,
        end_ns=sent.end_time or 0,
        attributes=_plain(sent.attributes),
        links=tuple(
            received.Link(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}", _plain(link.attributes))
            for link in sent.links
        ),
        events=tuple(received.Event(event.name, event.timestamp, _plain(event.attributes)) for event in sent.events),
        status=sent.status.status_code.name,
        status_message=sent.status.description or "",
        resource=_plain(sent.resource.attributes),
        scope=f"{scope.name} {scope.version}",
    )


def _plain(attributes: Any) -> received.Attributes:
    return dict(attributes or {})


def typed(value: Any) -> Any:
    """A copy in which 1, 1.0 and True differ, and order does not matter to attributes."""
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(typed(inner) for inner in value)
    return (type(value), value)


def assert_same(arrived: list[received.Span], sent: list[ReadableSpan], **unknown: Any) -> None:
    """That each span arrived once, with every field; `unknown` are fields that the receiver does not tell."""
    assert len(arrived) == len(sent) == 5
    found = {span.span_id: span for span in arrived}
    for span in map(as_received, sent):
        for field in received.Span.__dataclass_fields__:
            expected = unknown.get(field, getattr(span, field))
            assert typed(getattr(found[span.span_id], field)) == typed(expected), (span.name, field)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_collector_gives_back_every_field_of_every_span(collector: Collector, protocol: str) -> None:
    sent = send(exporter_to(collector, protocol), PLAIN)
    assert_same(collector.spans(count=5), sent)


def test_the_tap_gives_back_strings_that_imitate_the_collectors_text(tap: Tap) -> None:
    evil = "x)\n     -> fake: Str(1)\nSpan #1\nEvents:\n"
    attributes = {"text": evil, "texts": ("a), Str(b", "c"), "name\nwith line: Str(x)": True, "nul": "\0", "one": 1.0}
    sent = send(exporter_to(tap, "http"), attributes)
    assert_same(tap.spans(count=5), sent, resource={}, scope="")


def test_the_tap_gives_metrics_as_well(tap: Tap) -> None:
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=f"{tap.http_endpoint}/v1/metrics"))
    provider = MeterProvider([reader])
    provider.get_meter("app").create_counter("jobs", "1", "Jobs.").add(3, {"lane": "query"})
    provider.shutdown()
    (metric,) = tap.metrics()
    assert (metric["name"], metric["description"], metric["unit"]) == ("jobs", "Jobs.", "1")
    (point,) = metric["sum"]["dataPoints"]
    assert point["asInt"] == 3


def test_the_collector_prints_metrics_where_it_is_told_to(tmp_path: Path) -> None:
    with Collector(tmp_path, "metrics") as collector:
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=f"{collector.http_endpoint}/v1/metrics"))
        provider = MeterProvider([reader])
        provider.get_meter("app").create_counter("jobs", "1", "Jobs.").add(3, {"lane": "query"})
        provider.shutdown()
        end = collector.wait_for_output("Value: 3\n", 0)
        assert "-> Name: jobs\n" in collector.output(0, end)


def test_spans_keep_their_count_over_many_batches_and_both_protocols(collector: Collector) -> None:
    providers = []
    for protocol in ("grpc", "http"):
        provider = TracerProvider(resource=Resource({"service.name": protocol}))
        provider.add_span_processor(BatchSpanProcessor(exporter_to(collector, protocol), max_export_batch_size=64))
        providers.append(provider)
    for number in range(1_000):
        tracer = providers[number % 2].get_tracer("app")
        tracer.start_span(f"span {number}", attributes={"number": number, "text": "x" * 200}).end()
    for provider in providers:
        provider.shutdown()
    arrived = collector.spans(count=1_000)
    assert sorted(span.attributes["number"] for span in arrived) == list(range(1_000))
    assert {span.resource["service.name"] for span in arrived} == {"grpc", "http"}
    assert collector.spans() == arrived


def test_waiting_for_spans_that_never_come_says_how_many_came(collector: Collector) -> None:
    assert collector.spans() == []
    with pytest.raises(ServiceError, match=r"^0 of 1 spans"):
        collector.spans(count=1, deadline=0.1)


def test_a_collector_that_was_away_takes_spans_again_on_the_same_ports(collector: Collector) -> None:
    send(exporter_to(collector, "grpc"), {})
    assert len(collector.spans(count=5)) == 5
    collector.stop()
    assert not accepts(collector.grpc_port)
    assert not accepts(collector.http_port)
    collector.start()
    send(exporter_to(collector, "http"), {})
    assert len(collector.spans(count=10)) == 10


def test_text_without_spans_has_none() -> None:
    assert read_spans("\x1b[2m2026-11-25T20:33:03.134038Z\x1b[0m INFO Starting Rotel.\n") == []


# --- what is missing --------------------------------------------------------------------------------------------


def test_a_missing_program_skips_a_test_on_a_desk_and_fails_it_in_ci(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="promtool is not installed: it comes with the Debian package"):
        tools.require("promtool")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="promtool is not installed"):
        tools.require("promtool")
