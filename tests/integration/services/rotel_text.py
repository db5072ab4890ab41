"""Reads the text in which rotel prints the spans it received.

Its strings are not escaped. Those with line breaks are put together again; only what imitates the text itself is read
wrongly: a line inside of a string that looks like one of rotel's own, `), Str(` inside of a string in a list, and line
breaks in the name of an attribute. For such values there is `oteltap`, which prints JSON.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, Final

from tests.integration.services.span import Attributes, Event, Link, Span, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

_TYPE: Final = r"(?:Str|Int|Double|Bool|Slice|Bytes|KvList|Map)"
_ATTRIBUTE: Final = re.compile(rf" +-> (.+?): ({_TYPE}\(.*\))", re.DOTALL)
_FIELD: Final = re.compile(r" {5}-> (Name|Timestamp|Trace ID|ID): (.*)", re.DOTALL)
_BEGIN: Final = re.compile(
    r"(?:Resource|Scope)Spans #\d+$"
    r"|(?:Resource|ScopeSpans) SchemaURL: "
    r"|(?:Resource|InstrumentationScope) attributes:$"
    r"|InstrumentationScope "
    r"|Span(?:Event|Link)? #\d+$"
    r"|(?:    (?:Trace ID|Parent ID|ID|Name|Kind|Status code|Status message)\s*:|Start time:|End time:) "
    r"|(?:Attributes|Events|Links):$"
    r"| {5}-> (?:Name|Timestamp|DroppedAttributesCount|Trace ID|ID|TraceState): "
    r"| {5}-> Attributes::$"
    rf"| {{5}}(?: {{5}})?-> .+?: {_TYPE}\("
    r"|\x1b\[2m\d{4}-\d\d-\d\dT"  # a line of rotel's log
)
_SIMPLE: Final = {"Str": str, "Int": int, "Double": float, "Bool": lambda text: text == "true"}
_NEXT: Final = re.compile(rf"(?<=\)), (?={_TYPE}\()")


def read_spans(text: str) -> list[Span]:
    """The spans in a text that begins and ends between two of rotel's records."""
    reader = _Reader()
    for line in _lines(text):
        reader.take(line)
    return [_span(parts) for parts in reader.spans]


def _lines(text: str) -> Iterator[str]:
    """Lines that are whole: what follows and is no line of rotel's own is the rest of a string."""
    pending: list[str] = []
    for line in text.split("\n"):
        if _BEGIN.match(line) and pending:
            yield "\n".join(pending)
            pending = []
        pending.append(line)
    if pending:
        yield "\n".join(pending).removesuffix("\n")


@dataclasses.dataclass
class _Parts:
    """A span being read; `fields` by rotel's names, links and events as pairs of fields and attributes."""

    resource: Attributes
    scope: str = ""
    fields: dict[str, str] = dataclasses.field(default_factory=dict)
    attributes: Attributes = dataclasses.field(default_factory=dict)
    links: list[tuple[dict[str, str], Attributes]] = dataclasses.field(default_factory=list)
    events: list[tuple[dict[str, str], Attributes]] = dataclasses.field(default_factory=list)


class _Reader:
    """Takes line after line, and knows where attributes and fields go."""

    def __init__(self) -> None:
        self.spans: list[_Parts] = []
        self._resource: Attributes = {}
        self._scope = ""
        self._attributes: Attributes = {}
        self._fields: dict[str, str] = {}
        self._is_inner = False
        """In an event or a link, where fields look like the attributes of a span; attributes stand further in."""

    def take(self, line: str) -> None:
        head = line.split("#", 1)[0] if re.match(r"\w+ #\d+$", line) else line
        begin = getattr(self, f"_begin_{head.strip().rstrip(':').replace(' ', '_').lower()}", None)
        if begin is not None:
            begin()
        elif line.startswith("InstrumentationScope "):
            self._scope = line.removeprefix("InstrumentationScope ").strip()
        elif self._is_inner and (found := _FIELD.fullmatch(line)):
            self._fields[found[1]] = found[2]
        elif found := _ATTRIBUTE.fullmatch(line):
            self._attributes[found[1]] = _value(found[2])
        elif " -> " not in line and ":" in line:
            name, _, value = line.partition(":")
            self._fields[name.strip()] = value.removeprefix(" ")

    def _begin_resourcespans(self) -> None:
        self._resource = self._attributes = {}
        self._fields, self._is_inner = {}, False

    def _begin_instrumentationscope_attributes(self) -> None:
        self._attributes = {}

    def _begin_span(self) -> None:
        parts = _Parts(self._resource, self._scope)
        self.spans.append(parts)
        self._attributes, self._fields, self._is_inner = parts.attributes, parts.fields, False

    def _begin_spanevent(self) -> None:
        self._inner(self.spans[-1].events)

    def _begin_spanlink(self) -> None:
        self._inner(self.spans[-1].links)

    def _inner(self, target: list[tuple[dict[str, str], Attributes]]) -> None:
        self._fields, self._attributes, self._is_inner = {}, {}, True
        target.append((self._fields, self._attributes))


def _value(text: str) -> Value:
    kind, _, inner = text.removesuffix(")").partition("(")
    if kind == "Slice":
        return tuple(_value(item) for item in _NEXT.split(inner)) if inner else ()
    read: Any = _SIMPLE.get(kind)
    return text if read is None else read(inner)


def _span(parts: _Parts) -> Span:
    fields = parts.fields
    return Span(
        trace_id=fields["Trace ID"],
        span_id=fields["ID"],
        parent_id=fields["Parent ID"],
        name=fields["Name"],
        kind=fields["Kind"].removeprefix("SPAN_KIND_"),
        start_ns=int(fields["Start time"]),
        end_ns=int(fields["End time"]),
        attributes=parts.attributes,
        links=tuple(Link(found["Trace ID"], found["ID"], attributes) for found, attributes in parts.links),
        events=tuple(Event(found["Name"], int(found["Timestamp"]), attributes) for found, attributes in parts.events),
        status=fields["Status code"].removeprefix("STATUS_CODE_"),
        status_message=fields["Status message"],
        resource=parts.resource,
        scope=parts.scope,
    )
