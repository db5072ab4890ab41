"""The OpenTelemetry log sink: what a record says, whose provider it goes to, and receivers that are not there."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import _logs as api
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    InMemoryLogRecordExporter,
    LogRecordExportResult,
    SimpleLogRecordProcessor,
)

from lane_obs import ConfigError, LaneConfig, LaneEvent, QueueManager, RetryPolicy
from lane_obs import events as kinds
from lane_obs.events import TraceIds
from lane_obs.sinks.otel_logs import OtelLogSink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk._logs import ReadableLogRecord

TRACE = TraceIds(0xABC, 0x12)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EXPORTER_OTLP_PROTOCOL", "EXPORTER_OTLP_LOGS_PROTOCOL", "EXPORTER_OTLP_ENDPOINT", "LOGS_EXPORTER"):
        monkeypatch.delenv(f"OTEL_{name}", raising=False)


def in_memory() -> Any:
    """Keeps the records that it is given."""
    return InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]


def emitted(*events: LaneEvent, **options: Any) -> list[ReadableLogRecord]:
    """The records that a closed sink has made of these events."""
    exporter = in_memory()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    sink = OtelLogSink(provider, **options)
    sink.handle(events)
    sink.close()
    assert sink.dropped == {}
    return list(exporter.get_finished_logs())


def completed(number: int = 1, trace: TraceIds | None = None) -> LaneEvent:
    return kinds.CommandCompleted(number, 2.0, 3.25, f"id-{number}", "a", "f", 1, 0.5, 0.25, trace=trace)


def raised(error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def failed(error: BaseException) -> LaneEvent:
    name, text = type(error).__name__, "no such row"
    return kinds.CommandFailed(1, 2.0, 3.0, "id-1", "a", "f", 2, error_type=name, error=text, exception=error)


def test_an_end_is_one_record_with_the_keys_of_the_log_line() -> None:
    (data,) = emitted(completed())
    record = data.log_record
    assert (record.body, record.event_name) == ("queue.command.completed", "queue.command.completed")
    assert (record.severity_text, record.severity_number) == ("INFO", api.SeverityNumber.INFO)
    assert record.timestamp == 3_250_000_000
    assert dict(record.attributes or {}) == {
        "lane": "a", "command_id": "id-1", "command_type": "f", "attempt": 1, "outcome": "ok", "queue_wait_s": 0.5,
        "duration_s": 0.25,
    }  # fmt: skip
    assert data.instrumentation_scope is not None
    assert data.instrumentation_scope.name == "lane_obs"


def test_the_trace_of_the_event_is_the_trace_of_the_record() -> None:
    records = [data.log_record for data in emitted(completed(1, TRACE), completed(2))]
    assert [(record.trace_id, record.span_id) for record in records] == [(0xABC, 0x12), (0, 0)]
    assert [record.trace_flags for record in records] == [1, 0]


class NoSuchRow(Exception):
    pass


def test_a_failure_has_the_attributes_of_its_exception() -> None:
    (data,) = emitted(failed(raised(NoSuchRow("no such row"))))
    attributes = dict(data.log_record.attributes or {})
    assert (data.log_record.severity_text, data.log_record.severity_number) == ("ERROR", api.SeverityNumber.ERROR)
    assert attributes["exception.type"] == f"{__name__}.NoSuchRow"
    assert attributes["exception.message"] == "no such row"
    assert str(attributes["exception.stacktrace"]).startswith("Traceback")
    assert "in raised" in str(attributes["exception.stacktrace"])
    assert attributes["error_type"] == "NoSuchRow"


def test_an_exception_that_cannot_be_shown_costs_no_record() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    (data,) = emitted(failed(raised(Odd())))
    assert "Odd" in str(dict(data.log_record.attributes or {})["exception.stacktrace"])


@pytest.mark.parametrize("level", ["debug", "warning"])
async def test_events_below_the_level_are_not_emitted(level: str) -> None:
    exporter = in_memory()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    async with QueueManager({"a": LaneConfig(1, 1)}, sinks=[OtelLogSink(provider, level=level)]) as manager:

        async def work() -> None:
            raise NoSuchRow

        handle = await manager.submit("a", work, retry=RetryPolicy.fixed(1, 0.001))
        with pytest.raises(NoSuchRow):
            await handle
    names = [str(data.log_record.event_name).removeprefix("queue.") for data in exporter.get_finished_logs()]
    assert [name for name in names if name in {"command.retry", "command.failed"}] == [
        "command.retry",
        "command.failed",
    ]
    assert ("command.started" in names) == (level == "debug")


def test_fields_that_are_redacted_do_not_leave_the_process() -> None:
    (data,) = emitted(failed(raised(ValueError("secret"))), redact=lambda fields: {"lane": fields["lane"]})
    assert dict(data.log_record.attributes or {}) == {"lane": "a"}
    sink = OtelLogSink(LoggerProvider(shutdown_on_exit=False), redact=lambda fields: fields["missing"])
    sink.handle([completed()])
    sink.close()
    assert sink.redact_failures == 1


# Where records go.


def test_a_provider_that_was_given_is_left_open() -> None:
    exporter = in_memory()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    for number in (1, 2):
        sink = OtelLogSink(provider)
        sink.handle([completed(number)])
        sink.close()
    provider.force_flush()
    assert [data.log_record.attributes["command_id"] for data in exporter.get_finished_logs()] == ["id-1", "id-2"]
    provider.shutdown()


def test_the_global_provider_is_used_where_one_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = in_memory()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    monkeypatch.setattr("lane_obs.sinks.otel_logs.get_logger_provider", lambda: provider)
    sink = OtelLogSink()
    sink.handle([completed()])
    sink.close()
    assert len(exporter.get_finished_logs()) == 1


class Receiver:
    """Takes OTLP over HTTP and answers with a status."""

    def __init__(self, status: int = 200) -> None:
        self.ids: list[str] = []
        self.headers: list[str | None] = []
        received = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/logs"
                received.headers.append(self.headers.get("x-key"))
                received._take(ExportLogsServiceRequest.FromString(body))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def _take(self, request: ExportLogsServiceRequest) -> None:
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    values = {pair.key: pair.value for pair in record.attributes}
                    self.ids.append(values["command_id"].string_value)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    made = Receiver(*getattr(request, "param", ()))
    yield made
    made.close()


def test_without_a_provider_records_go_to_the_receiver_named(receiver: Receiver) -> None:
    before = api.get_logger_provider()
    sink = OtelLogSink(endpoint=receiver.endpoint, protocol="http", headers={"x-key": "k"})
    sink.start()
    sink.handle([completed(number) for number in range(200)])
    sink.close()
    assert receiver.ids == [f"id-{number}" for number in range(200)]
    assert set(receiver.headers) == {"k"}
    assert sink.dropped == {}
    assert api.get_logger_provider() is before


def test_the_environment_names_the_receiver(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    sink = OtelLogSink()
    sink.handle([completed()])
    sink.close()
    assert receiver.ids == ["id-1"]


def test_a_text_that_is_not_unicode_costs_no_record(receiver: Receiver) -> None:
    odd = kinds.CommandCompleted(1, 2.0, 3.0, "id-\ud800", "a", "f", 1)
    sink = OtelLogSink(endpoint=receiver.endpoint, protocol="http")
    sink.handle([odd, completed(2)])
    sink.close()
    assert receiver.ids == ["id-\\ud800", "id-2"]
    assert sink.dropped == {}


@pytest.mark.parametrize("receiver", [(400,)], indirect=True)
def test_what_the_receiver_refuses_is_counted_and_the_sink_goes_on(receiver: Receiver) -> None:
    sink = OtelLogSink(endpoint=receiver.endpoint, protocol="http")
    sink.handle([completed(number) for number in range(1000)])
    sink.close()
    assert sink.dropped == {"export": 1000}
    assert (sink.failures_in_a_row, sink.take_failure()) == (0, None)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_receiver_that_is_not_there_holds_close_no_longer_than_its_time_out(protocol: str) -> None:
    sink = OtelLogSink(endpoint="http://127.0.0.1:9", protocol=protocol, close_timeout=0.05)
    sink.start()  # loads what the protocol needs
    sink.handle([completed(number) for number in range(100)])
    sink.close()
    assert sink.dropped == {"closed": 100}
    assert sink._thread is not None
    assert not sink._thread.is_alive()


def test_an_exporter_that_raises_costs_its_batch() -> None:
    class Broken(InMemoryLogRecordExporter):
        def export(self, batch: Any) -> LogRecordExportResult:
            raise OSError("no route")

    sink = OtelLogSink(endpoint="http://127.0.0.1:9")
    sink._records._make = Broken
    sink.handle([completed()])
    sink.close()
    assert sink.dropped == {"error": 1}
    assert isinstance(sink.take_failure(), OSError)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_a_forked_child_has_a_connection_of_its_own_and_no_record_is_sent_twice(receiver: Receiver) -> None:
    program = f"""
import os
from lane_obs import events as kinds
from lane_obs.sinks.otel_logs import OtelLogSink

def completed(number):
    return kinds.CommandCompleted(number, 2.0, 3.0, f"id-{{number}}", "a", "f", 1)

sink = OtelLogSink(endpoint={receiver.endpoint!r}, protocol="http")
sink._interval = 3600
sink.start()
sink.handle([completed(1)])
child = os.fork()
if child == 0:
    sink.handle([completed(2)])
    sink.close()
    os._exit(bool(sink.dropped))
assert os.waitpid(child, 0)[1] == 0
sink.close()
assert not sink.dropped
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert receiver.ids == ["id-2", "id-1"]


def test_a_redact_that_makes_up_an_exception_costs_no_record() -> None:
    (data,) = emitted(completed(), redact=lambda _fields: {"exception": "none"})
    assert dict(data.log_record.attributes or {}) == {"exception.stacktrace": "none"}


def test_an_exporter_of_none_drops_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    sink = OtelLogSink()
    sink.start()
    sink.handle([completed()])
    sink.close()
    assert sink.dropped == {}


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: OtelLogSink(level="loud"), "level"),
        (lambda: OtelLogSink(protocol="carrier pigeon"), "protocol"),
        (lambda: OtelLogSink(LoggerProvider(shutdown_on_exit=False), endpoint="http://x"), "logger_provider"),
        (lambda: OtelLogSink(capacity=0), "capacity"),
    ],
)
def test_bad_arguments_are_refused(make: Callable[[], object], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{field}: "):
        make()


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier pigeon"), ("OTEL_LOGS_EXPORTER", "paper")]
)
def test_a_bad_environment_is_refused_by_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"^{name}: "):
        OtelLogSink()
