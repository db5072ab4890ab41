"""The live span of an attempt: as much of a span as the command may touch, made in a microsecond."""

from __future__ import annotations

import traceback
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from lane_obs.errors import error_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
UNSAMPLED: Final = TraceFlags(TraceFlags.DEFAULT)
_UNSET: Final = Status(StatusCode.UNSET)


class CommandSpan(trace.Span):
    """A span that the queue starts and ends; whoever runs inside may add to it.

    `end()` does nothing: the queue ends the span together with the attempt.

    Args:
        name: name of the span.
        kind: its kind.
        context: its own identity.
        parent: its parent's; `None` for a root.
        wall_ns: gives Unix nanoseconds for events.
        limits: how much it may hold.
    """

    __slots__ = (
        "_attributes", "_context", "_events", "_kind", "_limits", "_links", "_name", "_parent", "_recorded", "_status",
        "_wall_ns", "ended", "previous", "record",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        kind: SpanKind,
        context: SpanContext,
        parent: SpanContext | None,
        *,
        wall_ns: Callable[[], int],
        limits: SpanLimits,
    ) -> None:
        self._name = name
        self._kind = kind
        self._context = context
        self._parent = parent
        self._links: tuple[Link, ...] = ()
        self._wall_ns = wall_ns
        self._limits = limits
        self._attributes: dict[str, Any] | None = None
        self._events: Any = None
        self._status = _UNSET
        self._recorded: tuple[BaseException, ...] = ()
        self.record = True
        """Whether it goes to the span processors at its end, sampled or not."""
        self.ended = False
        self.previous: SpanContext | None = None
        """Identity of the attempt before."""

    # What span processors read of the SDK's spans when they start.

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def kind(self) -> SpanKind:
        """Its kind."""
        return self._kind

    @property
    def context(self) -> SpanContext:
        """Its identity."""
        return self._context

    @property
    def parent(self) -> SpanContext | None:
        """Identity of its parent; `None` for a root."""
        return self._parent

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What was added so far; the queue's own attributes come at the end."""
        return MappingProxyType(self._attributes or {})

    def get_span_context(self) -> SpanContext:
        """Its identity."""
        return self._context

    def is_recording(self) -> bool:
        """Whether what is added is kept."""
        return not self.ended

    def end(self, end_time: int | None = None) -> None:
        """Does nothing."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Sets one attribute."""
        if self.ended:  # by work that goes on although the queue has given it up
            return
        if self._attributes is None:
            self._attributes = {}
        self._attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Sets several attributes."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Adds an event, at Unix nanoseconds `timestamp` or now."""
        if self.ended:
            return
        limits = self._limits
        if self._events is None:
            self._events = BoundedList(limits.max_events)
        bounded = BoundedAttributes(limits.max_event_attributes, attributes, max_value_len=limits.max_attribute_length)
        self._events.append(Event(_plain(name), bounded, self._wall_ns() if timestamp is None else timestamp))

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        """Links it to another span."""
        self._links = (*self._links, Link(context, attributes))

    def update_name(self, name: str) -> None:
        """Gives it another name."""
        self._name = _plain(name)

    def set_status(self, status: Any, description: str | None = None) -> None:
        """Sets its status, a `Status` or a `StatusCode`; a failure of the command has the last word."""
        made = status if isinstance(status, Status) else Status(status, description)
        if made.description is not None and not made.description.isascii():
            made = Status(made.status_code, _plain(made.description))
        self._status = made

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: FBT001, FBT002 - the API's signature
    ) -> None:
        """Adds an `exception` event; the same exception a second time, as it escapes, is not added again."""
        if self.ended or any(exception is known for known in self._recorded):
            return
        self._recorded = (*self._recorded, exception)
        kind = type(exception)
        fields = {
            "exception.type": kind.__qualname__
            if kind.__module__ == "builtins"
            else f"{kind.__module__}.{kind.__qualname__}",
            "exception.message": _plain(error_text(exception)),
            "exception.stacktrace": _plain(_stack(exception)),
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**fields, **(attributes or {})}, timestamp)

    def finish(
        self,
        attributes: dict[str, Any],
        start_ns: int,
        end_ns: int,
        resource: Resource,
        scope: InstrumentationScope,
        links: tuple[Link, ...] = (),
        *,
        keep: bool,
    ) -> ReadableSpan:
        """Ends it and returns it in the SDK's form.

        Args:
            attributes: the queue's own attributes.
            start_ns: Unix nanoseconds.
            end_ns: likewise.
            resource: of the tracer provider.
            scope: of the tracer.
            links: spans it is linked to, before those that were added.
            keep: export it although it was not sampled.
        """
        self.ended = True
        context = self._context
        if keep and context.trace_flags is not SAMPLED:
            context = SpanContext(context.trace_id, context.span_id, False, SAMPLED, context.trace_state)  # noqa: FBT003
        own = self._attributes
        given: Any = attributes
        if own is not None:  # the SDK's own container: it refuses what is no attribute, and counts what is too much
            limits = self._limits
            given = BoundedAttributes(
                limits.max_span_attributes,
                {**own, **attributes},
                immutable=False,
                max_value_len=limits.max_span_attribute_length,
            )
        return ReadableSpan(
            name=self._name,
            context=context,
            parent=self._parent,
            resource=resource,
            attributes=given,
            events=self._events or (),
            links=(*links, *self._links) if self._links else links,
            kind=self._kind,
            status=self._status,
            start_time=start_ns,
            end_time=max(start_ns, end_ns),
            instrumentation_scope=scope,
        )


def _plain(text: str) -> str:
    """The text with halves of surrogate pairs written out: with one of them no OTLP exporter can send its batch."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _stack(exception: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(exception), exception, exception.__traceback__))
    except Exception as fault:  # it shows the user's objects
        return f"<traceback unavailable: {type(fault).__name__}>"


def never() -> int:
    """Time for events of spans that nobody adds events to."""
    return 0
