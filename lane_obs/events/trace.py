"""The identity of a command in a distributed trace."""

from __future__ import annotations

import msgspec


class TraceIds(msgspec.Struct, frozen=True, gc=False):
    """Names one span, as W3C Trace Context does.

    Attributes:
        trace_id: 128 bits, not zero.
        span_id: 64 bits, not zero.
        sampled: whether the trace is recorded from its start on.
    """

    trace_id: int
    span_id: int
    sampled: bool = True

    @property
    def trace_hex(self) -> str:
        """The trace id as 32 lower-case hex digits."""
        return self.trace_id.to_bytes(16, "big").hex()

    @property
    def span_hex(self) -> str:
        """The span id as 16 lower-case hex digits."""
        return self.span_id.to_bytes(8, "big").hex()
