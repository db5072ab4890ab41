"""How spans end: what the facts say becomes attributes, events and a status, and the span goes to be exported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

from lane_obs import events
from lane_obs.core import fact as builders
from lane_obs.sinks.otel.attributes import Attributes, add_wait
from lane_obs.sinks.otel.export import wants_starts
from lane_obs.sinks.otel.own import OWN, OwnSpans
from lane_obs.sinks.otel.span import SAMPLED, CommandSpan, never

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan, Tracer

    from lane_obs.core.fact import Fact
    from lane_obs.sinks.otel.command import CommandTrace
    from lane_obs.sinks.otel.sampling import Decider

_OUTCOMES: Final = {
    events.CommandFailed: "error",
    events.CommandTimedOut: "timeout",
    events.CommandCancelled: "cancelled",
    events.CommandExpired: "expired",
}
# Exceptions are on their way from span events to log records; this variable of the conventions says how far one is.
_EXCEPTIONS_AS_LOGS: Final = os.environ.get("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "").strip() == "logs"


class Endings:
    """Ends the spans of one queue.

    Args:
        tracer: says where spans go, and what they have in common.
        decider: asks its sampler.
        process: value of `lane.worker` in a queue without a broker.
        slow: seconds from submit to end above which a command is exported whether sampled or not.
        slow_by_lane: the same for single lanes.
        keep_failed: whether unsuccessful and retried commands are exported whether sampled or not.
    """

    def __init__(
        self,
        tracer: Tracer,
        decider: Decider,
        process: str,
        slow: float | None,
        slow_by_lane: Mapping[str, float],
        *,
        keep_failed: bool,
    ) -> None:
        self._processor = tracer.span_processor
        self._export = tracer.span_processor.on_end
        self.notify = wants_starts(self._processor)
        """Whether a span processor wants to hear of spans that start."""
        self._resource = tracer.resource
        self._scope: Any = tracer._instrumentation_scope  # noqa: SLF001 - the SDK shows it on its spans only
        self._ids = tracer.id_generator
        self._decider = decider
        self._limits = SpanLimits()
        self._make = Attributes(process)
        self._slow = slow
        self._slow_by_lane = slow_by_lane
        self._keep_failed = keep_failed
        self._has_tail = keep_failed or slow is not None or bool(slow_by_lane)
        self._own = OwnSpans(tracer, decider)
        self._told: dict[Any, Callable[[Fact, Any], None]] = {
            events.CommandRetry: self._retried,
            events.CommandCancelRequested: self._cancel_requested,
            events.CommandDeadLettered: self._dead_lettered,
            **dict.fromkeys(_OUTCOMES, self._failed),
        }

    def attach(self, queue: Any) -> None:
        """Takes the queue, for its times and limits."""
        self._queue = queue
        self._bus = queue.bus

    def take(self, facts: Sequence[Fact]) -> None:
        """Ends what has ended."""
        self._offset = int(self._bus.wall_offset * 1e9)
        self._make.member = self._bus.worker
        self.notify = wants_starts(self._processor)
        completed, submitted, told = builders.completed, builders.submitted, builders.told
        for fact in facts:
            build = fact[0]
            if build is completed:
                self._completed(fact[2], fact[1])
            elif build is submitted:
                self._submitted(fact[2], self._ns(fact[1]))
            elif build is told:
                call = self._told.get(fact[3])
                if call is not None and fact[2].span is not None:
                    call(fact, fact[2].span)
            elif build in OWN:
                self._own.take(fact, self._offset)

    # --- submit -------------------------------------------------------------------------------------------------

    def _submitted(self, command: Any, at_ns: int) -> None:
        kept: CommandTrace | None = command.span
        if kept is None:  # it has ended already, and with it all there is to say
            return
        if kept.context.trace_flags is SAMPLED:
            self._export(self._submit_span(kept, command, at_ns, {}, keep=False))
        elif self._has_tail or kept.record:
            kept.unsent = at_ns

    def _submit_span(
        self, kept: CommandTrace, command: Any, at_ns: int, extra: dict[str, Any], *, keep: bool
    ) -> ReadableSpan:
        attributes = self._make.of(command, "submit")
        attributes.update(extra)
        span, kept.submit = kept.submit, None
        if span is None:
            name = f"submit {command.home.name}"
            span = CommandSpan(name, SpanKind.PRODUCER, kept.context, kept.parent, wall_ns=never, limits=self._limits)
        return span.finish(attributes, at_ns, at_ns, self._resource, self._scope, keep=keep)

    def refused(self, span: CommandSpan, lane: str, kind: str, reason: str, at_ns: int) -> None:
        """Ends the submit span of what was not taken."""
        attributes = self._make.common(lane, kind, "submit")
        attributes["error.type"] = reason
        attributes["lane.outcome"] = "rejected"
        span.set_status(Status(StatusCode.ERROR, f"rejected: {reason}"))
        keep = self._keep_failed and not span.get_span_context().trace_flags.sampled
        if keep:
            attributes["lane.sampling.reason"] = "rejected"
        done = span.finish(attributes, at_ns, at_ns, self._resource, self._scope, keep=keep)
        if span.record or keep:
            self._export(done)

    # --- attempts -----------------------------------------------------------------------------------------------

    def _completed(self, command: Any, at: float) -> None:
        kept: CommandTrace | None = command.span
        if kept is None:
            return
        span = kept.take(command.attempt)
        if span is not None:
            if span.get_span_context().trace_flags is SAMPLED or span.record or self._reason(command, at, None):
                attributes = self._make.attempt(command, command.attempt, "ok", command.fold_wait())
                self._finish(kept, span, attributes, self._ns(command.started_at), self._ns(at))
            else:
                span.ended = True
        self._decide(kept, command, at, None)

    def _retried(self, fact: Fact, kept: CommandTrace) -> None:
        at, command, attempt = fact[1], fact[2], fact[4]
        reason, delay, run_seconds = fact[6:9]
        span = kept.take(attempt)
        if span is None:
            return
        attributes = self._make.attempt(command, attempt, reason, command.wait)
        end = self._ns(at)
        self._fail(span, attributes, reason, fact[9:12], end)
        span.add_event("lane.retry_scheduled", {"lane.retry.delay": delay}, end)
        self._finish(kept, span, attributes, self._ns(at - run_seconds), end)

    def _failed(self, fact: Fact, kept: CommandTrace) -> None:
        at, command, kind = fact[1], fact[2], fact[3]
        wait, attempt_seconds = fact[9], fact[10]
        outcome, end = _OUTCOMES[kind], self._ns(at)
        span = kept.take(fact[4]) if attempt_seconds is not None else None
        if span is None:
            span = self._settle(kept, command)
            attributes = self._make.common(command.home.name, command.command_type, "settle")
            attributes["messaging.message.id"] = command.id
            attributes["lane.outcome"] = outcome
            add_wait(attributes, wait)
            start = end
        else:
            attributes = self._make.attempt(command, fact[4], outcome, wait)
            start = self._ns(at - (attempt_seconds or 0.0))
        self._fail(span, attributes, outcome, fact[11:14], end)
        if kind is events.CommandCancelled:
            self._finish(kept, span, attributes, start, end)
            self._decide(kept, command, at, None)
        else:  # the word that it is a dead letter comes next
            kept.ended = (span, attributes, start, end, outcome)

    def _settle(self, kept: CommandTrace, command: Any) -> CommandSpan:
        """The span of a command that ended while it waited."""
        above = kept.context
        span_id, flags = self._ids.generate_span_id(), above.trace_flags
        context = SpanContext(above.trace_id, span_id, False, flags, above.trace_state)  # noqa: FBT003
        name = f"settle {command.home.name}"
        made = CommandSpan(name, SpanKind.CLIENT, context, above, wall_ns=never, limits=self._limits)
        made.previous = None if kept.current is None else kept.current.get_span_context()
        made.record = kept.record
        return made

    @staticmethod
    def _fail(
        span: CommandSpan, attributes: dict[str, Any], outcome: str, named: tuple[str, str, Any], at_ns: int
    ) -> None:
        error_type, text, error = named
        if outcome == "timeout":
            span.add_event("lane.timeout", None, at_ns)
        attributes["error.type"] = error_type
        span.set_status(Status(StatusCode.ERROR, text))
        if error is not None and outcome != "cancelled" and not _EXCEPTIONS_AS_LOGS:
            span.record_exception(error, None, at_ns, escaped=True)

    def _cancel_requested(self, fact: Fact, kept: CommandTrace) -> None:
        span = kept.take(fact[4])
        if span is not None:
            span.add_event("lane.cancel_requested", None, self._ns(fact[1]))

    def _dead_lettered(self, fact: Fact, kept: CommandTrace) -> None:
        if kept.ended is None:
            return
        (span, attributes, start, end, outcome), kept.ended = kept.ended, None
        span.add_event("lane.dead_lettered", {"lane.dead_letter.reason": fact[6]}, self._ns(fact[1]))
        self._finish(kept, span, attributes, start, end)
        self._decide(kept, fact[2], fact[1], outcome)

    # --- export -------------------------------------------------------------------------------------------------

    def _ns(self, at: float) -> int:
        return int(at * 1e9) + self._offset

    def _finish(
        self, kept: CommandTrace, span: CommandSpan, attributes: dict[str, Any], start_ns: int, end_ns: int
    ) -> None:
        """Exports a span that is sampled; keeps what it takes to export it later of one that is not."""
        if span.get_span_context().trace_flags is SAMPLED:
            links = kept.links(span.previous)
            self._export(span.finish(attributes, start_ns, end_ns, self._resource, self._scope, links, keep=False))
            return
        span.ended = True
        if self._has_tail or span.record:
            kept.held = [*(kept.held or ()), (span, attributes, start_ns, end_ns)]

    def _decide(self, kept: CommandTrace, command: Any, at: float, outcome: str | None) -> None:
        """At the end of a command: whether its spans that were not sampled are worth it all the same."""
        command.span = None
        if kept.held is None and not kept.unsent:
            return
        reason = self._reason(command, at, outcome)
        keep = reason is not None
        why = {"lane.sampling.reason": reason} if keep else {}
        if kept.unsent and (keep or kept.record):
            self._export(self._submit_span(kept, command, kept.unsent, why, keep=keep))
        for span, attributes, start_ns, end_ns in kept.held or ():
            if keep or span.record:
                attributes.update(why)
                links = kept.links(span.previous)
                self._export(span.finish(attributes, start_ns, end_ns, self._resource, self._scope, links, keep=keep))

    def _reason(self, command: Any, at: float, outcome: str | None) -> str | None:
        if self._keep_failed:
            if outcome is not None:
                return {"error": "failed", "timeout": "timed_out"}.get(outcome, outcome)
            if command.attempt > 1:
                return "retried"
        slow = self._slow_by_lane.get(command.home.name, self._slow)
        return "slow" if slow is not None and at - command.submitted_at > slow else None
