"""What the tests of the tracing sink share: a provider that keeps spans in memory, and ways to look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lane_obs.sinks.otel import OtelSink

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import SpanContext


class Spans:
    """A tracer provider of the SDK that keeps what is exported.

    Args:
        sampler: default: everything.
    """

    def __init__(self, sampler: Sampler | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("user")

    def sink(self, **options: Any) -> OtelSink:
        """A sink that traces to this provider."""
        return OtelSink(self.provider, **options)

    @property
    def all(self) -> tuple[ReadableSpan, ...]:
        """All spans, in the order in which they were exported."""
        return self.exporter.get_finished_spans()

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [span.name for span in self.all]

    def named(self, name: str) -> list[ReadableSpan]:
        """All spans of this name."""
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The only span of this name."""
        (span,) = self.named(name)
        return span


def ids(context: Any) -> tuple[int, int]:
    """Trace id and span id of a `SpanContext` or of `TraceIds`."""
    return context.trace_id, context.span_id


def linked(span: ReadableSpan) -> list[tuple[int, int]]:
    """What a span is linked to."""
    return [ids(link.context) for link in span.links]


def context_of(span: ReadableSpan) -> SpanContext:
    """Identity of a span."""
    context: SpanContext | None = span.context
    assert context is not None
    return context


def fields(span: ReadableSpan) -> dict[str, Any]:
    """Its attributes."""
    return dict(span.attributes or {})


def event_names(span: ReadableSpan) -> list[str]:
    """Names of its events in order."""
    return [event.name for event in span.events]
