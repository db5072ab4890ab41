"""What all events have in common."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import msgspec

_HEADER: Final = frozenset({"seq", "at", "wall", "exception", "trace"})


class LaneEvent(msgspec.Struct, frozen=True, kw_only=False):
    """Base of all events.

    Attributes:
        key: name of the kind of event, such as `queue.command.started`.
        seq: 1, 2, 3, ... in the order the events of one queue happened.
        at: monotonic seconds on the queue's clock.
        wall: Unix seconds.
    """

    key: ClassVar[str] = "queue.event"

    seq: int
    at: float
    wall: float

    @property
    def timestamp(self) -> datetime:
        """When it happened, as an aware datetime in UTC."""
        return datetime.fromtimestamp(self.wall, UTC)

    @property
    def payload(self) -> dict[str, Any]:
        """The event's own fields as plain data, ready for JSON; `trace_id` and `span_id` where it has a trace."""
        fields = {name: _plain(getattr(self, name)) for name in self.__struct_fields__ if name not in _HEADER}
        trace = getattr(self, "trace", None)
        return fields if trace is None else {**fields, "trace_id": trace.trace_hex, "span_id": trace.span_hex}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else msgspec.to_builtins(value)
