"""Where spans go: the environment, both OTLP protocols, receivers that are not there, forks, and global providers."""

from __future__ import annotations

import concurrent.futures
import http.server
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.trace import TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from lane_obs import ConfigError, LaneConfig, QueueManager
from lane_obs.sinks.otel import OtelSink, SpanPipeline
from tests.unit.runtime.support import fail, noop, outcome, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from lane_obs import VirtualClock

NOBODY = "http://127.0.0.1:9"
WHAT = ("submit", "process")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


async def run(count: int, sink: OtelSink) -> dict[str, int]:
    """Runs some commands and closes the queue; returns what the sink has lost."""
    async with QueueManager({"a": LaneConfig(0, 4)}, sinks=[sink]) as manager:
        for number in range(count):
            assert await (await manager.submit("a", noop, number)) == number
    (stats,) = manager.stats().sinks
    assert (stats.errors, stats.disabled) == (0, False)
    return dict(stats.dropped)


def python(program: str, **env: str) -> str:
    """Runs a program in a process of its own and returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, timeout=60, check=False, text=True,
        env={**os.environ, **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


class Receiver(TraceServiceServicer):
    """Takes OTLP over gRPC and HTTP, and keeps the spans."""

    def __init__(self, status: int = 200) -> None:
        self.spans: list[Any] = []
        self.headers: list[str | None] = []
        self.resource: dict[str, str] = {}
        received = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                received.take(ExportTraceServiceRequest.FromString(body), self.headers.get("x-key"))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._grpc = grpc.server(self._pool)
        add_TraceServiceServicer_to_server(self, self._grpc)  # type: ignore[no-untyped-call]
        port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._grpc.start()
        self.endpoints = {
            "http": f"http://127.0.0.1:{self._http.server_port}",
            "http/protobuf": f"http://127.0.0.1:{self._http.server_port}",
            "grpc": f"http://127.0.0.1:{port}",
        }

    def Export(self, request: Any, context: Any) -> Any:
        keys = [value for key, value in context.invocation_metadata() if key == "x-key"]
        self.take(request, keys[0] if keys else None)
        return ExportTraceServiceResponse()

    def take(self, request: Any, key: str | None) -> None:
        self.headers.append(key)
        for resource in request.resource_spans:
            self.resource = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += scope.spans

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.spans]

    def close(self) -> None:
        self._grpc.stop(None).wait()
        self._pool.shutdown()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    made = Receiver(*getattr(request, "param", ()))
    yield made
    made.close()


# Receivers that are there.


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_every_span_reaches_the_receiver_once(receiver: Receiver, protocol: str) -> None:
    pipeline = SpanPipeline(endpoint=receiver.endpoints[protocol], protocol=protocol, headers={"x-key": "k"})
    assert await run(300, OtelSink(pipeline=pipeline)) == {}
    assert len({span.span_id for span in receiver.spans}) == len(receiver.spans) == 601
    assert {name: receiver.names.count(name) for name in receiver.names} == {
        "submit a": 300, "process a": 300, "drain": 1,
    }  # fmt: skip
    assert set(receiver.headers) == {"k"}
    process = next(span for span in receiver.spans if span.name == "process a")
    submit = next(span for span in receiver.spans if span.span_id == process.parent_span_id)
    assert (submit.kind, process.kind) == (4, 5)  # PRODUCER and CONSUMER
    assert (process.links[0].trace_id, process.links[0].span_id) == (submit.trace_id, submit.span_id)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_the_environment_names_receiver_protocol_service_and_headers(
    receiver: Receiver, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoints[protocol])
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "printer")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.version=7")
    assert await run(1, OtelSink()) == {}
    assert sorted(receiver.names) == ["drain", "process a", "submit a"]
    assert receiver.headers == ["k"]
    wanted = {"service.name": "printer", "deployment.environment.name": "test", "service.version": "7"}
    assert wanted.items() <= receiver.resource.items()


async def test_the_variable_for_traces_alone_wins(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", receiver.endpoints["http"] + "/v1/traces")
    assert await run(1, OtelSink()) == {}
    assert len(receiver.names) == 3


async def test_a_text_that_is_not_unicode_costs_no_batch(receiver: Receiver) -> None:
    sink = OtelSink(pipeline=SpanPipeline(endpoint=receiver.endpoints["http"], protocol="http"))
    async with QueueManager({"a": LaneConfig(0, 1)}, sinks=[sink]) as manager:
        await outcome(await manager.submit("a", fail, ValueError("file \udc80")))

        async def rename() -> None:
            span = trace.get_current_span()
            span.update_name("\ud800")
            span.add_event("\ud800")
            span.set_status(StatusCode.ERROR, "\ud800 é")

        await (await manager.submit("a", rename))
        await (await manager.submit("a", noop))
    assert sink.dropped == {}
    assert receiver.names.count("process a") == 2
    assert [span.status.message for span in receiver.spans if span.status.code == 2] == ["file \\udc80", "\\ud800 é"]
    assert "\\ud800" in receiver.names


@pytest.mark.parametrize(
    ("sampler", "argument", "sampled"),
    [
        ("always_on", "", True),
        ("always_off", "", False),
        ("parentbased_always_off", "", False),
        ("traceidratio", "0", False),
        ("parentbased_traceidratio", "1", True),
    ],
)
async def test_the_environment_names_the_sampler(
    monkeypatch: pytest.MonkeyPatch, sampler: str, argument: str, sampled: bool
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    exporter = InMemorySpanExporter()
    assert await run(1, OtelSink(pipeline=SpanPipeline(exporter=exporter))) == {}
    names = [span.name for span in exporter.get_finished_spans()]
    assert names == (["submit a", "process a", "drain"] if sampled else [])


def test_a_sampler_that_is_given_goes_before_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    assert SpanPipeline(sampler=sampling.ALWAYS_ON).provider.sampler is sampling.ALWAYS_ON


# Off.


async def test_a_disabled_sdk_makes_no_spans_ids_or_exporters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    before = set(threading.enumerate())
    seen = []
    sink = OtelSink()
    async with QueueManager({"a": LaneConfig(0, 1)}, sinks=[sink]) as manager:

        async def work() -> None:
            seen.append(trace.get_current_span().get_span_context().is_valid)

        handle = await manager.submit("a", work)
        await handle
        assert (handle.trace, set(threading.enumerate()) - before) == (None, set())
    assert (seen, sink.dropped, sink.pending) == ([False], {}, 0)
    assert manager.stats().sinks[0].events == 0


async def test_an_exporter_of_none_sends_nothing_and_still_gives_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    sink = OtelSink()
    async with QueueManager({"a": LaneConfig(0, 1)}, sinks=[sink]) as manager:
        handle = await manager.submit("a", noop)
        await handle
    assert handle.trace is not None
    assert (sink.dropped, sink.pending) == ({}, 0)


PROGRAM = """
import lane_obs
from lane_obs import LaneConfig, QueueManager
from lane_obs.sinks.otel import OtelSink

async def work():
    pass

async def main():
    async with QueueManager({"a": LaneConfig(0, 1)}, sinks=[OtelSink()]) as manager:
        await (await manager.submit("a", work))
"""


def test_an_exporter_of_console_prints_spans() -> None:
    printed = python(PROGRAM + "lane_obs.run(main())", OTEL_TRACES_EXPORTER="console")
    assert [printed.count(f'"name": "{name}"') for name in ("submit a", "process a", "drain")] == [1, 1, 1]


# What is wrong is named.


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "carrier pigeon"),
        ("OTEL_TRACES_EXPORTER", "jaeger"),
    ],
)
def test_a_variable_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        OtelSink()
    assert (caught.value.field, value in str(caught.value)) == (variable, True)


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        SpanPipeline(protocol="http/json")
    assert caught.value.field == "protocol"


def test_headers_are_not_shown() -> None:
    pipeline = SpanPipeline(endpoint=NOBODY, headers={"authorization": "Bearer s3cret"})
    assert "s3cret" not in f"{pipeline!r} {OtelSink(pipeline=pipeline)!r} {vars(pipeline)!r}"


# Global providers.


def test_a_global_provider_of_the_sdk_is_used_and_left_open() -> None:
    program = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
lane_obs.run(main())
assert trace.get_tracer_provider() is provider
with provider.get_tracer("mine").start_as_current_span("after"):
    pass
print(*(span.name for span in exporter.get_finished_spans()), sep=",")
"""
    assert python(PROGRAM + program) == "submit a,process a,drain,after\n"


def test_no_global_provider_is_set() -> None:
    program = """
from opentelemetry import trace

before = trace.get_tracer_provider()
lane_obs.run(main())
assert trace.get_tracer_provider() is before
trace.set_tracer_provider(mine := trace.NoOpTracerProvider())
assert trace.get_tracer_provider() is mine
print("ok")
"""
    assert python(PROGRAM + program, OTEL_TRACES_EXPORTER="none") == "ok\n"


async def test_the_sdks_own_batch_processor_takes_the_spans(clock: VirtualClock) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    async with running(clock, sinks=[OtelSink(provider)]) as manager:
        await clock.run(await manager.submit("a", noop))
    provider.force_flush()
    assert [span.name for span in exporter.get_finished_spans()] == ["submit a", "process a", "drain"]
    provider.shutdown()


# Receivers that are not there, slow, or refuse.


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_receiver_that_is_down_costs_spans_and_nothing_else(protocol: str) -> None:
    pipeline = SpanPipeline(endpoint=NOBODY, protocol=protocol)
    dropped = await run(100, OtelSink(pipeline=pipeline, close_timeout=0.05))
    assert sum(dropped.values()) == 201
    assert dropped.keys() <= {"export", "closed"}
    assert pipeline.pending == 0


@pytest.mark.parametrize("receiver", [(400,)], indirect=True)
async def test_spans_that_the_receiver_refuses_are_counted(receiver: Receiver) -> None:
    pipeline = SpanPipeline(endpoint=receiver.endpoints["http"], protocol="http")
    assert await run(100, OtelSink(pipeline=pipeline)) == {"export": 201}
    assert pipeline.pending == 0


class Slow(SpanExporter):
    """Takes nothing until it is told to, or is shut down."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.inside = threading.Event()
        self.go_on = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.inside.set()
        self.go_on.wait()
        self.names += [span.name for span in spans]
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.go_on.set()


async def test_what_does_not_fit_the_queue_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    exporter = Slow()
    sink = OtelSink(pipeline=SpanPipeline(exporter=exporter))
    async with QueueManager({"a": LaneConfig(0, 1)}, sinks=[sink]) as manager:
        for number in range(50):
            assert await (await manager.submit("a", noop, number)) == number
        (stats,) = manager.stats().sinks
        assert 0 < stats.pending <= 8
        exporter.go_on.set()
    assert len(exporter.names) + sink.dropped["full"] == 101
    assert (list(sink.dropped), sink.pending) == (["full"], 0)


async def test_close_does_not_wait_for_a_receiver_that_takes_for_ever() -> None:
    exporter = Slow()
    sink = OtelSink(pipeline=SpanPipeline(exporter=exporter), close_timeout=0.05)
    async with QueueManager({"a": LaneConfig(0, 1)}, sinks=[sink]) as manager:
        for _ in range(1_000):
            await (await manager.submit("a", noop))
        assert exporter.inside.wait(30)
    exported = len(exporter.names)
    assert exported > 0  # the batch that was under way when the exporter was told to end
    assert exported + sink.dropped["closed"] == 2_001


async def test_an_exporter_that_raises_costs_its_batch() -> None:
    class Broken(InMemorySpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            raise OSError("no route")

    assert await run(10, OtelSink(pipeline=SpanPipeline(exporter=Broken()))) == {"export": 21}


def test_closing_a_pipeline_that_was_never_used_does_nothing() -> None:
    before = set(threading.enumerate())
    made: list[Callable[[], object]] = [lambda: SpanPipeline(endpoint=NOBODY), lambda: SpanPipeline(protocol="http")]
    for make in made:
        sink = OtelSink(pipeline=make())  # type: ignore[arg-type]
        sink.close()
        assert (sink.dropped, sink.pending) == ({}, 0)
    assert set(threading.enumerate()) <= before


def test_a_queue_size_that_is_no_number_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "many")
    pipeline = SpanPipeline(exporter=InMemorySpanExporter())
    pipeline.open()
    assert pipeline._gate is not None
    assert pipeline._gate._capacity == 2_048
    pipeline.close(1.0)


# Forks.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_a_forked_child_exports_its_own_spans_and_no_span_is_sent_twice(receiver: Receiver) -> None:
    program = f"""
import asyncio, os
from lane_obs import LaneConfig, QueueManager
from lane_obs.sinks.otel import OtelSink, SpanPipeline

pipeline = SpanPipeline(endpoint={receiver.endpoints["http"]!r}, protocol="http")

async def work():
    pass

async def main(lane):
    sink = OtelSink(pipeline.provider)
    pipeline.open()
    async with QueueManager({{lane: LaneConfig(0, 1)}}, sinks=[sink]) as manager:
        await (await manager.submit(lane, work))

asyncio.run(main("before"))
child = os.fork()
if child == 0:
    assert pipeline.pending == 0
    asyncio.run(main("child"))
    pipeline.close(30.0)
    os._exit(bool(pipeline.dropped))
assert os.waitpid(child, 0)[1] == 0
asyncio.run(main("parent"))
assert pipeline.pending
pipeline.close(30.0)
assert (pipeline.dropped, pipeline.pending) == ({{}}, 0)
"""
    python(program, OTEL_BSP_SCHEDULE_DELAY="3600000")
    lanes = ["before", "child", "parent"]
    assert sorted(receiver.names) == sorted(["drain"] * 3 + [f"{what} {lane}" for lane in lanes for what in WHAT])


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"endpoint": 4317}, "endpoint"),
        ({"endpoint": ""}, "endpoint"),
        ({"headers": "x-key=s3cret"}, "headers"),
        ({"headers": {"x-key": 7}}, "headers"),
        ({"sampler": 0.5}, "sampler"),
        ({"exporter": "console"}, "exporter"),
    ],
)
def test_a_pipeline_refuses_what_would_fail_at_the_first_span(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SpanPipeline(**options)
    assert (caught.value.field, "s3cret" in str(caught.value)) == (field, False)


async def test_an_exporter_that_cannot_be_made_fails_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    manager = QueueManager({"a": LaneConfig(0, 1)}, sinks=[OtelSink(pipeline=SpanPipeline(protocol="http"))])
    with pytest.raises(ImportError):
        await manager.start()
    await manager.close()
