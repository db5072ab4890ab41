"""Emits events as OpenTelemetry log records: the same lines as the structlog sink's, in another form.

The SDK's logs have underscores in their module names still: this module is their one home.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from opentelemetry._logs import LogRecord, SeverityNumber, get_logger_provider
from opentelemetry._logs._internal import ProxyLoggerProvider
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context, attach, detach, set_value
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import ConsoleLogRecordExporter, LogRecordExporter, LogRecordExportResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from lane_obs.clock import NS
from lane_obs.errors import ConfigError
from lane_obs.sinks import line as lines
from lane_obs.sinks.background import BackgroundSink

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry._logs import Logger
    from opentelemetry._logs import LoggerProvider as AnyLoggerProvider

    from lane_obs.bus import Bus
    from lane_obs.config import Duration
    from lane_obs.events import LaneEvent, TraceIds

_SCOPE: Final = "lane_obs"
_SEVERITIES: Final = {
    "debug": (SeverityNumber.DEBUG, "DEBUG"),
    "info": (SeverityNumber.INFO, "INFO"),
    "warning": (SeverityNumber.WARN, "WARN"),
    "error": (SeverityNumber.ERROR, "ERROR"),
}
_PROTOCOLS: Final = {"grpc": "grpc", "http": "http", "http/protobuf": "http"}
_LOGS_PATH: Final = "/v1/logs"
# A record takes the SDK some 30 us to make and encode, with the interpreter's lock held: the loop waits meanwhile.
_BATCH: Final = 64
_LAST_WAIT: Final = 1.0


class OtelLogSink(BackgroundSink):
    """One log record for each command's end, failure and alert, with the ids of its trace; off unless it is asked for.

    Records go to the provider given, else to the global one if one was set, else to a receiver of OTLP as the
    environment says: `OTEL_EXPORTER_OTLP_ENDPOINT`, `_PROTOCOL`, `_HEADERS`, `_TIMEOUT` (and the same with `_LOGS_`),
    `OTEL_LOGS_EXPORTER` (`otlp`, `console`, `none`), `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`. Nothing global
    is touched, and a provider that is not the sink's own is left open.

    All work is done in a thread. A receiver that is down, slow or refuses costs records, counted in
    `dropped["export"]` and, once the buffer is full, in `dropped["full"]`.

    Args:
        logger_provider: the provider to use.
        level: the least level emitted: `debug`, `info`, `warning` or `error`.
        redact: as for `StructlogSink`; the stack trace is `exception` there.
        endpoint: where records go, as in `OTEL_EXPORTER_OTLP_ENDPOINT`; the global provider is not asked then.
        protocol: `grpc` or `http`, likewise.
        headers: sent with each request.
        capacity: events that may wait, 1 or more.
        close_timeout: seconds that `close` waits for the buffer to empty.

    Raises:
        ConfigError: a bad level, number, protocol or exporter, or a provider together with an endpoint.
    """

    _urgent = lines.URGENT
    _chunk = _BATCH

    def __init__(
        self,
        logger_provider: AnyLoggerProvider | None = None,
        *,
        level: str = "info",
        redact: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        endpoint: str | None = None,
        protocol: str | None = None,
        headers: Mapping[str, str] | None = None,
        capacity: int = 10_000,
        close_timeout: Duration = 5.0,
    ) -> None:
        self.wants = lines.kinds_from(level)
        names_receiver = any(given is not None for given in (endpoint, protocol, headers))
        if logger_provider is not None and names_receiver:
            raise ConfigError("logger_provider", logger_provider, "give a provider or an endpoint, not both")
        make = None if logger_provider is not None else _exporter_maker(endpoint, protocol, headers)
        self._redactor = lines.Redactor(redact)
        self._records = _Records(logger_provider, make, self._redactor, asks_global=not names_receiver)
        super().__init__(self._records, capacity, close_timeout)
        self._records.dropped = self.dropped

    @property
    def redact_failures(self) -> int:
        """Records emitted without the event's own fields, because `redact` raised."""
        return self._redactor.failures

    def _empty(self) -> None:
        super()._empty()
        self._records.forget()

    def start(self) -> None:
        """Finds the provider, or makes the exporter: what is missing for it is told now."""
        self._records.open()

    def close(self) -> None:
        """Emits what is left, for `close_timeout` seconds at most; then drops and counts the rest."""
        super().close()
        thread = self._thread
        if thread is not None and thread.is_alive():  # it waits for a receiver
            self._records.give_up()
            thread.join(_LAST_WAIT)


class _Records(LogRecordProcessor):
    """The inner sink. Where the provider is our own it is the provider's processor too, and exports each batch."""

    def __init__(
        self,
        provider: AnyLoggerProvider | None,
        make: Callable[[], LogRecordExporter | None] | None,
        redactor: lines.Redactor,
        *,
        asks_global: bool,
    ) -> None:
        self._provider = provider
        self._make = make
        self._redactor = redactor
        self._bus: Bus | None = None
        self._asks_global = asks_global
        self._logger: Logger | None = None
        self._exporter: Any = None
        self._batch: list[ReadableLogRecord] = []
        self._over = False
        self.dropped: dict[str, int] = {}

    def attach(self, queue: Any) -> None:
        self._bus = queue.bus

    def open(self) -> Logger:
        if self._logger is None:
            if self._provider is None:
                self._provider = self._found() or self._own()
            self._logger = self._provider.get_logger(_SCOPE)
        return self._logger

    def _found(self) -> AnyLoggerProvider | None:
        found = get_logger_provider() if self._asks_global else None
        return None if isinstance(found, ProxyLoggerProvider) else found

    def _own(self) -> LoggerProvider:
        assert self._make is not None, "no provider was given"
        own = LoggerProvider(shutdown_on_exit=False)
        self._exporter = self._make()
        if self._exporter is not None:
            own.add_log_record_processor(self)
        return own

    def handle(self, events: Sequence[LaneEvent]) -> None:
        logger = self.open()
        for event in events:
            logger.emit(self._record(event))
        batch, self._batch = self._batch, []
        if batch and not self._over:
            self._export(batch)

    def _record(self, event: LaneEvent) -> LogRecord:
        form = lines.form_of(type(event))
        fields = self._redactor.fields_of(event, None if self._bus is None else self._bus.worker)
        for key in ("timestamp", "trace_id", "span_id"):
            fields.pop(key, None)
        if (stack := fields.pop("exception", None)) is not None:
            fields |= {"exception.stacktrace": stack, "exception.message": fields.get("error")}
            if "error_type" in fields:
                fields["exception.type"] = _full_name(type(lines.error_of(event)))
        number, text = _SEVERITIES[form.level]
        return LogRecord(
            timestamp=int(event.wall * NS),
            context=_context(getattr(event, "trace", None)),
            severity_number=number,
            severity_text=text,
            body=form.event,
            attributes={lines.clean(key): lines.clean(fields[key]) for key in fields if fields[key] is not None},
            event_name=form.event,
        )

    def _export(self, batch: list[ReadableLogRecord]) -> None:
        exporter = self._exporter
        # What sends the records may be instrumented, and must not make telemetry of its own.
        token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))  # noqa: FBT003 - a value, not a flag
        try:
            done = exporter.export(batch) is LogRecordExportResult.SUCCESS
        except Exception:
            if not self._over:  # afterwards its channel is closed, and all that was left is counted
                raise
        else:
            if not done and not self._over:
                self.dropped["export"] = self.dropped.get("export", 0) + len(batch)
        finally:
            detach(token)

    def give_up(self) -> None:
        """Ends a wait for the receiver."""
        self._over = True
        self._shut_down()

    def close(self) -> None:
        self._shut_down()

    def _shut_down(self) -> None:
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.shutdown()

    def forget(self) -> None:
        """Leaves an exporter to the process that made it: its connections are not to be shared."""
        if self._exporter is not None:
            self._exporter = self._provider = self._logger = None
            self._batch = []

    # --- the provider's processor -------------------------------------------------------------------------------

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        assert log_record.resource is not None, "the logger sets it"
        self._batch.append(
            ReadableLogRecord(
                log_record.log_record, log_record.resource, log_record.instrumentation_scope, log_record.limits
            )
        )

    def shutdown(self) -> None:
        """Nobody but the sink has the provider; see `close`."""

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


def _full_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _context(trace: TraceIds | None) -> Context:
    if trace is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if trace.sampled else TraceFlags.DEFAULT)
    span = NonRecordingSpan(SpanContext(trace.trace_id, trace.span_id, is_remote=False, trace_flags=flags))
    return set_span_in_context(span, Context())


def _exporter_maker(
    endpoint: str | None, protocol: str | None, headers: Mapping[str, str] | None
) -> Callable[[], LogRecordExporter | None]:
    env = os.environ
    named = "protocol" if protocol is not None else "OTEL_EXPORTER_OTLP_PROTOCOL"
    wanted = protocol or env.get("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL") or env.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
    if wanted not in _PROTOCOLS:
        raise ConfigError(named, wanted, f"give one of {', '.join(_PROTOCOLS)}")
    kind = "otlp" if endpoint is not None else env.get("OTEL_LOGS_EXPORTER", "").strip() or "otlp"
    if kind not in {"otlp", "console", "none"}:
        raise ConfigError("OTEL_LOGS_EXPORTER", kind, "give otlp, console or none")

    def make() -> LogRecordExporter | None:
        if kind == "otlp":
            return _otlp(_PROTOCOLS[wanted], endpoint, headers)
        return ConsoleLogRecordExporter() if kind == "console" else None

    return make


def _otlp(protocol: str, endpoint: str | None, headers: Mapping[str, str] | None) -> LogRecordExporter:
    given = None if headers is None else dict(headers)
    # Each where it is used: gRPC and HTTP bring libraries of their own, and one of the two is enough.
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as Grpc

        insecure = None if endpoint is None else not endpoint.startswith("https://")
        return Grpc(endpoint=endpoint, insecure=insecure, headers=given)
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as Http

    if endpoint is not None and not endpoint.rstrip("/").endswith(_LOGS_PATH):
        endpoint = endpoint.rstrip("/") + _LOGS_PATH
    return Http(endpoint=endpoint, headers=given)
