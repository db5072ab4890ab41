"""The exporter that the environment names, and a gate before it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter, MetricExportResult

from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.sdk.metrics.export import MetricsData

_PROTOCOLS: Final = {"grpc": "grpc", "http": "http", "http/protobuf": "http"}
_PROTOCOL_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_METRICS_PATH: Final = "/v1/metrics"


def exporter_maker(
    endpoint: str | None, protocol: str | None, headers: Mapping[str, str] | None
) -> Callable[[], MetricExporter | None]:
    """What makes the exporter, or nothing where none is wanted.

    Raises:
        ConfigError: an unknown protocol or exporter.
    """
    env = os.environ
    ways = [("protocol", protocol), *((name, env.get(name)) for name in _PROTOCOL_VARIABLES)]
    named, wanted = next(((name, given) for name, given in ways if given), ("protocol", "grpc"))
    if wanted not in _PROTOCOLS:
        raise ConfigError(named, wanted, f"give one of {', '.join(_PROTOCOLS)}")
    kind = "otlp" if endpoint is not None else env.get("OTEL_METRICS_EXPORTER", "").strip() or "otlp"
    if kind not in {"otlp", "console", "none"}:
        raise ConfigError("OTEL_METRICS_EXPORTER", kind, "give otlp, console or none")

    def make() -> MetricExporter | None:
        if kind == "otlp":
            return _otlp(_PROTOCOLS[wanted], endpoint, headers)
        return ConsoleMetricExporter() if kind == "console" else None

    return make


def _otlp(protocol: str, endpoint: str | None, headers: Mapping[str, str] | None) -> MetricExporter:
    given = None if headers is None else dict(headers)
    # Each where it is used: gRPC and HTTP bring libraries of their own, and one of the two is enough.
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc

        insecure = None if endpoint is None else not endpoint.startswith("https://")
        return Grpc(endpoint=endpoint, insecure=insecure, headers=given)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http

    if endpoint is not None and not endpoint.rstrip("/").endswith(_METRICS_PATH):
        endpoint = endpoint.rstrip("/") + _METRICS_PATH
    return Http(endpoint=endpoint, headers=given)


class Gate(MetricExporter):
    """Lets an exporter send until it is shut down, and only in the process that made it.

    A child made by `os.fork` has a copy of the numbers, and the SDK gives it a thread to export them: they are the
    parent's, and would be counted twice.

    Args:
        exporter: the exporter.

    Attributes:
        failures: exports that failed.
    """

    def __init__(self, exporter: MetricExporter) -> None:
        # The SDK has no public names for what an exporter prefers.
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)  # noqa: SLF001
        self._exporter = exporter
        self._process = os.getpid()
        self._over = False
        self.failures = 0

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Sends what was collected."""
        if self._over or os.getpid() != self._process:
            return MetricExportResult.FAILURE
        try:
            result = self._exporter.export(metrics_data, timeout_millis, **kwargs)
        except Exception:
            self.failures += 1
            raise  # the reader logs it
        self.failures += result is not MetricExportResult.SUCCESS
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Sends what waits."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Ends a wait for the receiver, and sends nothing any more."""
        self._over = True
        self._exporter.shutdown(timeout_millis, **kwargs)
