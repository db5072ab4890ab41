"""Whether a span is sampled: the configured sampler decides."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import sampling
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import SpanContext, SpanKind, TraceState

_LOW_BITS: Final = TraceIdRatioBased.TRACE_ID_LIMIT
_PARENT_BASED: Final = re.compile(
    re.escape(str(sampling.DEFAULT_ON.get_description())).replace("root:AlwaysOnSampler", "root:(.*)")  # type: ignore[no-untyped-call]
)
_RATIO: Final = re.compile(r"TraceIdRatioBased\{(.*)\}")
_STANDARD: Final = {
    sampling.StaticSampler, type(sampling.ALWAYS_ON), sampling.TraceIdRatioBased, sampling.ParentBased,
    sampling.ParentBasedTraceIdRatio,
}  # fmt: skip


class Choice(NamedTuple):
    """What the sampler says of one span."""

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
        self._follows_parent = False
        self._bound: int | None = None
        if type(sampler) in _STANDARD:
            self._read(sampler.get_description())

    def _read(self, text: str) -> None:
        parent_based = _PARENT_BASED.fullmatch(text)
        root = parent_based[1] if parent_based else text
        ratio = _RATIO.fullmatch(root)
        known = {"AlwaysOnSampler": 1.0, "AlwaysOffSampler": 0.0}
        if ratio or root in known:
            self._follows_parent = parent_based is not None
            self._bound = TraceIdRatioBased.get_bound_for_rate(float(ratio[1]) if ratio else known[root])

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
        return Choice(
            decision is Decision.RECORD_AND_SAMPLE, decision is not Decision.DROP, result.trace_state, result.attributes
        )
