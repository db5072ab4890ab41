"""Logs, metrics and traces of a queue in one line: `QueueManager(observe=Observability())`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, BinaryIO

from lane_obs.config import check_name
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import Sampler
    from prometheus_client import CollectorRegistry

    from lane_obs.bus import AnySink
    from lane_obs.config import Duration


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """How events become log lines; see `StructlogSink` and `OtelLogSink`.

    Args:
        file: binary stream for JSON lines; default standard error, or the structlog configuration there is.
        logger: a structlog logger in place of a file.
        level: the least level written: `debug`, `info` (default), `warning` or `error`.
        redact: gets the fields of each line and returns what to write of them.
        otlp: emit the same as OpenTelemetry log records, too; they go where the traces go.
    """

    file: BinaryIO | None = None
    logger: Any = None
    level: str = "info"
    redact: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    otlp: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """How events become metrics, and where they are served; see `PrometheusSink` and `MetricsServer`.

    Args:
        registry: a `CollectorRegistry` in place of the client's own.
        port: serve `/metrics`, `/livez`, `/readyz` and `/stats` there; 0 for any free port, `None` (default) for
            no server.
        host: address to listen on; default loopback.
        buckets: upper bounds of the histograms in seconds, or such bounds by lane name.
        command_types: how many command types get a label of their own on durations; default none.
        otlp: send the same as OpenTelemetry metrics, too (`OtelMetricsSink`); they go where the traces go.
    """

    registry: CollectorRegistry | None = None
    port: int | None = None
    host: str = "127.0.0.1"
    buckets: Sequence[float] | Mapping[str, Sequence[float]] | None = None
    command_types: int = 0
    otlp: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """How commands become spans, and where these go; see `OtelSink` and `SpanPipeline`.

    Args:
        tracer_provider: your own, in place of all that follows up to `sampler`.
        endpoint: where OTLP goes; default `OTEL_EXPORTER_OTLP_ENDPOINT`.
        protocol: `grpc` or `http`; default `OTEL_EXPORTER_OTLP_PROTOCOL`.
        headers: sent with each request.
        sampler: default `OTEL_TRACES_SAMPLER`.
        parent: `auto` (default), `parent` or `link`.
        slow_seconds: commands slower than this are always exported; one limit, or limits by lane.
        keep_failed: unsuccessful and retried commands are always exported; default yes.
        close_timeout: seconds that the close of the queue gives the exporter; default 5.
    """

    tracer_provider: TracerProvider | None = None
    endpoint: str | None = None
    protocol: str | None = None
    headers: Mapping[str, str] | None = dataclasses.field(default=None, repr=False)
    sampler: Sampler | None = None
    parent: str = "auto"
    slow_seconds: Duration | Mapping[str, Duration] | None = None
    keep_failed: bool = True
    close_timeout: Duration = 5.0


class Observability:
    """The sinks that watch one queue.

    Each part is on (True), off (False), or configured. The standard `OTEL_*` variables are honoured; no global
    that the program has set is replaced, and none is set.

    Args:
        logs: one JSON line for each command's end, and more by level; `True`, `False` or `Logs`.
        metrics: Prometheus metrics; `True`, `False` or `Metrics`.
        traces: OpenTelemetry spans; `True`, `False` or `Traces`.
        watchdog: tells what blocks the event loop; `True`, `False` or a `LoopWatchdog`.
        recorder: keeps the last events for a post-mortem; `True`, `False` or a `FlightRecorder`.
        queue: name of the queue, the label `queue` of its metrics.

    Attributes:
        sinks: the sinks, in order. They serve one queue.

    Raises:
        ConfigError: a part is none of these, or what it is configured with is not allowed.
    """

    def __init__(
        self,
        *,
        logs: bool | Logs = True,
        metrics: bool | Metrics = True,
        traces: bool | Traces = True,
        watchdog: Any = True,
        recorder: Any = True,
        queue: str = "default",
    ) -> None:
        check_name("queue", queue)
        self.sinks: list[AnySink] = []
        # Traces first: its ids must be there when the others look at a command that starts.
        if (chosen_traces := _chosen("traces", traces, Traces)) is not None:
            self.sinks.append(_make_traces(chosen_traces))
        receiver = _receiver(chosen_traces)
        if (chosen_logs := _chosen("logs", logs, Logs)) is not None:
            self.sinks += _make_logs(chosen_logs, receiver)
        if (chosen_metrics := _chosen("metrics", metrics, Metrics)) is not None:
            self.sinks += _make_metrics(chosen_metrics, queue, receiver)
        self._add_watchdog(watchdog)
        self._add_recorder(recorder)

    def _add_watchdog(self, given: Any) -> None:
        from lane_obs.sinks.watchdog import LoopWatchdog

        if (watchdog := _chosen("watchdog", given, LoopWatchdog)) is not None:
            self.sinks.append(watchdog)

    def _add_recorder(self, given: Any) -> None:
        from lane_obs.sinks.recorder import FlightRecorder

        if (recorder := _chosen("recorder", given, FlightRecorder)) is not None:
            self.sinks.append(recorder)


def _chosen(field: str, given: Any, kind: Callable[[], Any]) -> Any:
    """What was configured, the default for True, `None` for False.

    Raises:
        ConfigError: it is something else.
    """
    if given is False:
        return None
    if given is True:
        return kind()
    if isinstance(given, kind):  # type: ignore[arg-type]
        return given
    raise ConfigError(field, given, f"give True, False or a {getattr(kind, '__name__', kind)}")


# Each part imports its libraries only when it is on.


def _make_traces(traces: Traces) -> AnySink:
    """The tracing sink.

    Raises:
        ConfigError: two sources for one thing.
    """
    from lane_obs.sinks.otel import OtelSink, SpanPipeline

    own = {
        "endpoint": traces.endpoint, "protocol": traces.protocol, "headers": traces.headers, "sampler": traces.sampler,
    }  # fmt: skip
    given: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    if given and traces.tracer_provider is not None:
        raise ConfigError("traces", ", ".join(given), "give either a tracer_provider or what to build one from")
    return OtelSink(
        traces.tracer_provider,
        pipeline=SpanPipeline(**given) if given else None,
        parent=traces.parent,
        slow_seconds=traces.slow_seconds,
        keep_failed=traces.keep_failed,
        close_timeout=traces.close_timeout,
    )


def _receiver(traces: Traces | None) -> dict[str, Any]:
    """What names the receiver of OTLP, where the traces name one; else it is the environment that does."""
    if traces is None:
        return {}
    endpoint = None if traces.endpoint is None else traces.endpoint.rstrip("/").removesuffix("/v1/traces")
    own = {"endpoint": endpoint, "protocol": traces.protocol, "headers": traces.headers}
    return {name: value for name, value in own.items() if value is not None}


def _make_logs(logs: Logs, receiver: dict[str, Any]) -> list[AnySink]:
    from lane_obs.sinks.structlog import StructlogSink

    sinks: list[AnySink] = [StructlogSink(logs.file, level=logs.level, redact=logs.redact, logger=logs.logger)]
    if logs.otlp:
        from lane_obs.sinks.otel_logs import OtelLogSink

        sinks.append(OtelLogSink(level=logs.level, redact=logs.redact, **receiver))
    return sinks


def _make_metrics(metrics: Metrics, queue: str, receiver: dict[str, Any]) -> list[AnySink]:
    from lane_obs.sinks.prometheus import PrometheusSink

    own: dict[str, Any] = {} if metrics.buckets is None else {"buckets": metrics.buckets}
    own |= {"queue": queue, "command_types": metrics.command_types}
    sinks: list[AnySink] = [PrometheusSink(metrics.registry, **own)]
    if metrics.port is not None:
        from lane_obs.http import MetricsServer

        sinks.append(MetricsServer(metrics.port, metrics.host, registry=metrics.registry))
    if metrics.otlp:
        from lane_obs.sinks.otel_metrics import OtelMetricsSink

        sinks.append(OtelMetricsSink(**own, **receiver))
    return sinks
