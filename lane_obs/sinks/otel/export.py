"""A tracer provider with an OTLP exporter, set up from the standard `OTEL_*` variables, that counts what it loses."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import Sampler

from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

PROTOCOLS: Final = {"grpc": "grpc", "http": "http", "http/protobuf": "http"}
"""Names of the OTLP transports, those of `OTEL_EXPORTER_OTLP_PROTOCOL` included."""

_DEFAULT_QUEUE: Final = 2_048
_PROTOCOL_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_TRACES_PATH: Final = "/v1/traces"


class SpanPipeline:
    """A tracer provider of its own, with batches and an exporter. Nothing global is touched.

    What is not given comes from the environment: service name and resource (`OTEL_SERVICE_NAME`,
    `OTEL_RESOURCE_ATTRIBUTES`), sampler (`OTEL_TRACES_SAMPLER`), exporter (`OTEL_TRACES_EXPORTER`: `otlp`, `console`,
    `none`), `OTEL_EXPORTER_OTLP_ENDPOINT`, `_PROTOCOL`, `_HEADERS`, `_TIMEOUT` (and the same with `_TRACES_`), and
    batches (`OTEL_BSP_*`).

    Args:
        endpoint: where spans go, as in `OTEL_EXPORTER_OTLP_ENDPOINT`.
        protocol: `grpc` or `http`.
        headers: sent with each request; secrets among them are never shown.
        sampler: the sampler.
        exporter: where spans go instead of to OTLP.

    Attributes:
        provider: the `TracerProvider`.
        dropped: spans lost, by reason: `full` (more than the batch processor's queue holds), `export` (the receiver
            refused them or was not there), `closed` (there was no time left for them at the end).

    Raises:
        ConfigError: an unknown protocol or exporter, or a value of the wrong kind.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        protocol: str | None = None,
        headers: Mapping[str, str] | None = None,
        sampler: Sampler | None = None,
        exporter: SpanExporter | None = None,
    ) -> None:
        _check(endpoint, headers, sampler, exporter)
        self.dropped: dict[str, int] = {}
        self._make = _exporter_maker(endpoint, protocol, headers) if exporter is None else lambda: exporter
        self.provider = TracerProvider(sampler=sampler)
        self._gate: _Gate | None = None
        self._closed = False

    def open(self) -> None:
        """Makes the exporter and its thread, without which nothing is exported; once, and not after `close`."""
        if self._gate is None and not self._closed and (exporter := self._make()) is not None:
            self._gate = _Gate(exporter, self.dropped)
            self.provider.add_span_processor(self._gate)

    @property
    def pending(self) -> int:
        """Spans that wait to be exported."""
        return 0 if self._gate is None else self._gate.waiting

    def close(self, seconds: float) -> None:
        """Exports what is left and shuts down; what is not out within `seconds` is dropped and counted."""
        self._closed = True
        if self._gate is not None:
            self._gate.hurry_after(seconds)
        self.provider.shutdown()


class _Gate(SpanProcessor):
    """Stands before the SDK's batch processor, which drops silently: what would not fit is dropped and counted here."""

    def __init__(self, exporter: SpanExporter, dropped: dict[str, int]) -> None:
        self._capacity = _queue_size()
        self._counter = _Counter(exporter, dropped)
        self._batches = BatchSpanProcessor(self._counter, max_queue_size=self._capacity)
        self._dropped = dropped
        self._given = 0
        self._closed = False
        self._timer: threading.Timer | None = None
        if hasattr(os, "register_at_fork"):
            forked = weakref.WeakMethod(self._forked)
            os.register_at_fork(after_in_child=lambda: (call := forked()) and call())

    def _forked(self) -> None:
        """In a child process the batch processor begins empty: its parent exports what waited."""
        self._given = self._counter.taken

    @property
    def waiting(self) -> int:
        """Spans given to the batch processor that it has not given to the exporter yet."""
        return self._given - self._counter.taken

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing to do."""

    def on_end(self, span: ReadableSpan) -> None:
        """Takes a span that is sampled, if there is room."""
        context = span.context
        if context is None or not context.trace_flags.sampled:
            return
        if self._closed or self._given - self._counter.taken >= self._capacity:
            reason = "closed" if self._closed else "full"
            self._dropped[reason] = self._dropped.get(reason, 0) + 1
            return
        self._given += 1
        self._batches.on_end(span)

    def hurry_after(self, seconds: float) -> None:
        """Gives the exporter so long from now on; for the shutdown."""
        self._timer = threading.Timer(seconds, self._counter.give_up)
        self._timer.daemon = True
        self._timer.start()

    def shutdown(self) -> None:
        """Exports what waits; what comes later is dropped and counted."""
        self._closed = True
        self._batches.shutdown()  # type: ignore[no-untyped-call]
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Exports what waits."""
        return self._batches.force_flush(timeout_millis)


class _Counter(SpanExporter):
    """Counts what the real exporter could not deliver."""

    def __init__(self, exporter: SpanExporter, dropped: dict[str, int]) -> None:
        self._exporter = exporter
        self._dropped = dropped
        self._over = False
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        if self._over:
            self._lose("closed", len(spans))
            return SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        except Exception:
            self._lose("export", len(spans))
            raise  # the batch processor logs it
        if result is not SpanExportResult.SUCCESS:
            self._lose("closed" if self._over else "export", len(spans))
        return result

    def _lose(self, reason: str, count: int) -> None:
        self._dropped[reason] = self._dropped.get(reason, 0) + count

    def give_up(self) -> None:
        """Ends a wait for the receiver, and takes no more."""
        self._over = True
        self._exporter.shutdown()

    def shutdown(self) -> None:
        if not self._over:
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _check(endpoint: object, headers: object, sampler: object, exporter: object) -> None:
    """Refuses now what would fail at the first span.

    Raises:
        ConfigError: a value of the wrong kind.
    """
    if not (endpoint is None or (isinstance(endpoint, str) and endpoint)):
        raise ConfigError("endpoint", endpoint, "give a URL such as http://localhost:4317")
    if headers is not None:
        texts = [text for pair in headers.items() for text in pair] if isinstance(headers, Mapping) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise ConfigError("headers", f"a {type(headers).__name__}", "give a mapping of strings to strings")
    if not (sampler is None or isinstance(sampler, Sampler)):
        raise ConfigError("sampler", sampler, "give a Sampler of opentelemetry.sdk.trace.sampling")
    if not (exporter is None or isinstance(exporter, SpanExporter)):
        raise ConfigError("exporter", exporter, "give a SpanExporter of opentelemetry.sdk.trace.export")


def _queue_size() -> int:
    """The batch processor's own reading of its variable: what is no number means the default."""
    try:
        return int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or _DEFAULT_QUEUE)
    except ValueError:
        return _DEFAULT_QUEUE


def _exporter_maker(endpoint: str | None, protocol: str | None, headers: Mapping[str, str] | None) -> Any:
    env = os.environ
    ways = [("protocol", protocol), *((name, env.get(name)) for name in _PROTOCOL_VARIABLES)]
    named, wanted = next(((name, given) for name, given in ways if given), ("protocol", "grpc"))
    if wanted not in PROTOCOLS:
        raise ConfigError(named, wanted, f"give one of {', '.join(PROTOCOLS)}")
    kind = "otlp" if endpoint is not None else env.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if kind not in {"otlp", "console", "none"}:
        raise ConfigError("OTEL_TRACES_EXPORTER", kind, "give otlp, console or none")

    def make() -> SpanExporter | None:
        if kind == "otlp":
            return _otlp(PROTOCOLS[wanted], endpoint, headers)
        return ConsoleSpanExporter() if kind == "console" else None

    return make


def _otlp(protocol: str, endpoint: str | None, headers: Mapping[str, str] | None) -> SpanExporter:
    given = None if headers is None else dict(headers)
    # Each where it is used: gRPC and HTTP bring libraries of their own, and one of the two is enough.
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        insecure = None if endpoint is None else not endpoint.startswith("https://")
        return Grpc(endpoint=endpoint, insecure=insecure, headers=given)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    if endpoint is not None and not endpoint.rstrip("/").endswith(_TRACES_PATH):
        endpoint = endpoint.rstrip("/") + _TRACES_PATH
    return Http(endpoint=endpoint, headers=given)


_IDLE_STARTS: Final = {
    SpanProcessor.on_start,
    BatchSpanProcessor.on_start,
    SimpleSpanProcessor.on_start,
    _Gate.on_start,
}


def wants_starts(processor: Any) -> bool:
    """Whether any processor does something at the start of spans; those of the SDK do not."""
    inner = getattr(processor, "_span_processors", None)
    if inner is None:
        return getattr(type(processor), "on_start", None) not in _IDLE_STARTS
    return any(wants_starts(one) for one in inner)
