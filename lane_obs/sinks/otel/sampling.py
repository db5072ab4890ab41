"""Whether a span is sampled: the configured sampler decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import sampling
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.trace import TraceState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import SpanContext, SpanKind

_LOW_BITS: Final = TraceIdRatioBased.TRACE_ID_LIMIT
_PARENT_BASED: Final = {sampling.ParentBased, sampling.ParentBasedTraceIdRatio}
_BOUNDS: Final = {Decision.DROP: 0, Decision.RECORD_AND_SAMPLE: _LOW_BITS + 1}
_AS_PARENT: Final = {
    "_remote_parent_sampled": _LOW_BITS + 1,
    "_remote_parent_not_sampled": 0,
    "_local_parent_sampled": _LOW_BITS + 1,
    "_local_parent_not_sampled": 0,
}


class Choice(NamedTuple):
    """What the sampler says of one span; without a `trace_state` it is the parent's."""

    sampled: bool
    record: bool
    trace_state: TraceState | None = None
    attributes: Mapping[str, Any] | None = None


_YES: Final = Choice(sampled=True, record=True)
_NO: Final = Choice(sampled=False, record=False)


class Decider:
    """Asks a sampler.

    The SDK's own samplers are pure functions of the trace id and of the parent's flag; for these the answer is
    worked out here, as asking them costs more than the rest of a span. Any other sampler is asked.

    Args:
        sampler: the tracer provider's.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._follows_parent = type(sampler) in _PARENT_BASED
        self._bound: int | None = None
        if self._follows_parent:
            parts = vars(sampler)  # where an SDK keeps them otherwise, it is asked
            if all(_bound(parts.get(name)) == bound for name, bound in _AS_PARENT.items()):
                self._bound = _bound(parts.get("_root"))
        else:
            self._bound = _bound(sampler)

    def choose(self, parent: SpanContext | None, trace_id: int, name: str, kind: SpanKind) -> Choice:
        """Decides about a span with this parent, `None` for a root."""
        if self._bound is None:
            return self._ask(parent, trace_id, name, kind)
        if self._follows_parent and parent is not None:
            return _YES if parent.trace_flags.sampled else _NO
        return _YES if trace_id & _LOW_BITS < self._bound else _NO

    def _ask(self, parent: SpanContext | None, trace_id: int, name: str, kind: SpanKind) -> Choice:
        context = Context()
        if parent is not None:
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent), context)
        result = self._sampler.should_sample(context, trace_id, name, kind)
        decision = result.decision
        state = TraceState() if result.trace_state is None else result.trace_state
        return Choice(decision is Decision.RECORD_AND_SAMPLE, decision is not Decision.DROP, state, result.attributes)


def _bound(sampler: object) -> int | None:
    """Below which low bits of a trace id it samples; `None` for a sampler that has to be asked."""
    if type(sampler) is TraceIdRatioBased:
        return sampler.bound
    if type(sampler) is sampling.StaticSampler:
        return _BOUNDS.get(sampler.should_sample(None, 0, "").decision)
    return None
