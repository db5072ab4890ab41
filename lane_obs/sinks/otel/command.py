"""What the tracing sink keeps with each command while it lives."""

from __future__ import annotations

from typing import Any

import msgspec
from opentelemetry.trace import Link, SpanContext

from lane_obs.sinks.otel.span import CommandSpan  # noqa: TC001 - msgspec reads the annotation


class CommandTrace(msgspec.Struct, gc=False):
    """The spans of one command. A record out of the garbage collector's sight, as one exists for each that waits.

    Attributes:
        context: identity of the submit span.
        parent: the span above it.
        submitter: the same as an object; `None` when there was none.
        submit: the submit span as an object, where a span processor asked for one.
        record: whether the submit span goes to the processors although it is not sampled.
        current: the span of the latest attempt.
        attempt: its number.
        overtaken: spans of earlier attempts whose end was not told before the next one started.
        unsent: Unix nanoseconds of a submit span that is not sampled and may yet be exported; 0 for none.
        held: ended spans that were not sampled, kept until it is known whether the command is worth it.
        ended: the last attempt's span, waiting for the word that the command is a dead letter.
    """

    context: SpanContext
    parent: SpanContext | None
    submitter: Any
    record: bool
    submit: CommandSpan | None = None
    current: CommandSpan | None = None
    attempt: int = 0
    overtaken: dict[int, CommandSpan] | None = None
    unsent: int = 0
    held: list[tuple[Any, dict[str, Any], int, int]] | None = None
    ended: tuple[CommandSpan, dict[str, Any], int, int, str] | None = None
    link: Link | None = None
    has_submit: bool = True
    """Whether there is a submit span at all: a command of another process may have none."""
    is_old: bool = False
    """Whether an earlier process took the command, so that its attempts are traces of their own."""

    def links(self, previous: SpanContext | None) -> tuple[Link, ...]:
        """Links to the submit and to the attempt before."""
        if not self.has_submit:
            return () if previous is None else (Link(previous),)
        link = self.link
        if link is None:
            link = self.link = Link(self.context)
        return (link,) if previous is None else (link, Link(previous))

    def begin(self, attempt: int, span: CommandSpan) -> None:
        """Takes the span of an attempt that starts."""
        if self.current is not None:
            if not self.current.ended:
                self.overtaken = {**(self.overtaken or {}), self.attempt: self.current}
            span.previous = self.current.get_span_context()
        self.current, self.attempt = span, attempt

    def take(self, attempt: int) -> CommandSpan | None:
        """The span of an attempt, if it is still open."""
        span = self.current if attempt == self.attempt else (self.overtaken or {}).get(attempt)
        return None if span is None or span.ended else span
