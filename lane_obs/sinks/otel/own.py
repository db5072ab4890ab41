"""Spans that belong to no command's life: the drain of the queue, and alerts in the trace of what tipped them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.trace import SpanContext, SpanKind

from lane_obs import events
from lane_obs.core.fact import traced
from lane_obs.sinks.otel.span import SAMPLED, CommandSpan, never

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Tracer

    from lane_obs.core.fact import Fact
    from lane_obs.sinks.otel.sampling import Decider

OWN: Final = frozenset({events.ShutdownStarted, events.ShutdownComplete, events.QueueClosed, traced})
"""Builders of the facts that such spans are made of."""


class OwnSpans:
    """Makes these spans.

    Args:
        tracer: says where spans go, and what they have in common.
        decider: asks its sampler.
    """

    def __init__(self, tracer: Tracer, decider: Decider) -> None:
        self._export = tracer.span_processor.on_end
        self._resource = tracer.resource
        self._scope: Any = tracer._instrumentation_scope  # noqa: SLF001 - the SDK shows it on its spans only
        self._ids = tracer.id_generator
        self._decider = decider
        self._limits = SpanLimits()
        self._drain: tuple[int, dict[str, Any]] | None = None

    def take(self, fact: Fact, offset_ns: int) -> None:
        """Takes a fact of one of the kinds `OWN`.

        Args:
            fact: the fact.
            offset_ns: what makes Unix nanoseconds of the clock's.
        """
        at_ns = int(fact[1] * 1e9) + offset_ns
        if fact[0] is not traced:
            self._draining(fact, at_ns)
        elif fact[3] is events.AlertFiring and fact[4] is not None and fact[4].sampled:
            self._alert(fact, at_ns)

    def _draining(self, fact: Fact, at_ns: int) -> None:
        """Makes a `drain` span from the start of a shutdown to its completion, or to the close that cut it short."""
        kind = fact[0]
        if kind is events.ShutdownStarted:
            self._drain = (at_ns, {"lane.drain.pending": fact[2], "lane.drain.running": fact[3]})
            return
        if self._drain is None:
            return
        (start_ns, attributes), self._drain = self._drain, None
        if kind is events.QueueClosed:
            attributes |= {"lane.drain.cancelled": fact[2], "lane.drain.abandoned": fact[3]}
        trace_id = self._ids.generate_trace_id()
        if self._decider.choose(None, trace_id, "drain", SpanKind.INTERNAL).sampled:
            self._end("drain", trace_id, None, attributes, start_ns, at_ns)

    def _alert(self, fact: Fact, at_ns: int) -> None:
        """Makes an `alert {rule}` span below the span of the command that tipped it, from then until it fires.

        A span and no event on the command's: that one has ended as a rule.
        """
        ids, (rule, value, threshold, alert, severity, lane, active, *_) = fact[4], fact[5:]
        above = SpanContext(ids.trace_id, ids.span_id, False, SAMPLED)  # noqa: FBT003
        attributes = {
            "messaging.destination.name": lane,
            "lane.alert.name": alert,
            "lane.alert.rule": rule,
            "lane.alert.severity": severity,
            "lane.alert.value": value,
            "lane.alert.threshold": threshold,
        }
        self._end(f"alert {rule}", ids.trace_id, above, attributes, at_ns - int(active * 1e9), at_ns)

    def _end(
        self,
        name: str,
        trace_id: int,
        parent: SpanContext | None,
        attributes: dict[str, Any],
        start_ns: int,
        end_ns: int,
    ) -> None:
        context = SpanContext(trace_id, self._ids.generate_span_id(), False, SAMPLED)  # noqa: FBT003
        span = CommandSpan(name, SpanKind.INTERNAL, context, parent, wall_ns=never, limits=self._limits)
        attributes["messaging.system"] = "lane"
        self._export(span.finish(attributes, start_ns, end_ns, self._resource, self._scope, keep=False))
