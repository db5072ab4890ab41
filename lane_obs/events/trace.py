"""The identity of a command in a distributed trace."""

from __future__ import annotations

import re
from typing import Final

import msgspec

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")


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

    @classmethod
    def read(cls, traceparent: str | None) -> TraceIds | None:
        """What a W3C traceparent names; `None` of none, or of a text that is none."""
        match = _TRACEPARENT.fullmatch(traceparent or "")
        if match is None:
            return None
        ids = cls(int(match[1], 16), int(match[2], 16), bool(int(match[3], 16) & 1))
        return ids if ids.trace_id and ids.span_id else None

    @property
    def traceparent(self) -> str:
        """It as a W3C traceparent."""
        return f"00-{self.trace_hex}-{self.span_hex}-{self.sampled:02x}"

    @property
    def trace_hex(self) -> str:
        """The trace id as 32 lower-case hex digits."""
        return self.trace_id.to_bytes(16, "big").hex()

    @property
    def span_hex(self) -> str:
        """The span id as 16 lower-case hex digits."""
        return self.span_id.to_bytes(8, "big").hex()
