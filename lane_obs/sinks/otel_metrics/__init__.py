"""The catalogue of metrics through the OpenTelemetry SDK: counters and gauges are read, histograms are recorded."""

from lane_obs.sinks.otel_metrics.instruments import name_of
from lane_obs.sinks.otel_metrics.sink import OtelMetricsSink

__all__ = ["OtelMetricsSink", "name_of"]
