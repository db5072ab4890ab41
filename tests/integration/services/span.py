"""A span as a receiver got it, whichever receiver that was."""

from __future__ import annotations

import dataclasses

Value = str | bool | int | float | tuple["Value", ...]
Attributes = dict[str, Value]

KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUSES = ("UNSET", "OK", "ERROR")


@dataclasses.dataclass(frozen=True)
class Link:
    """A link to a span."""

    trace_id: str
    span_id: str
    attributes: Attributes


@dataclasses.dataclass(frozen=True)
class Event:
    """An event of a span."""

    name: str
    time_ns: int
    attributes: Attributes


@dataclasses.dataclass(frozen=True)
class Span:
    """A span. Ids are lower-case hex, `parent_id` is "" at a root; `kind` and `status` are OTLP's names in short."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    attributes: Attributes
    links: tuple[Link, ...]
    events: tuple[Event, ...]
    status: str
    status_message: str
    resource: Attributes = dataclasses.field(default_factory=dict)
    scope: str = ""
