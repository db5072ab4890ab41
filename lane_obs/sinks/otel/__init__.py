"""Spans for OpenTelemetry: the sink, and an exporter set up from the standard environment variables."""

from lane_obs.sinks.otel.export import SpanPipeline
from lane_obs.sinks.otel.sink import OtelSink

__all__ = ["OtelSink", "SpanPipeline"]
