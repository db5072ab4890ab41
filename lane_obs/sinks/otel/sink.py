"""One `submit` span for each command and one `process` span for each attempt, for the OpenTelemetry SDK."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.trace import SpanContext, SpanKind

from lane_obs.config import to_choice, to_seconds
from lane_obs.errors import ConfigError
from lane_obs.events import NO_WAIT, TraceIds
from lane_obs.sinks.otel.command import CommandTrace
from lane_obs.sinks.otel.ending import Endings
from lane_obs.sinks.otel.export import SpanPipeline
from lane_obs.sinks.otel.sampling import Choice, Decider
from lane_obs.sinks.otel.span import SAMPLED, UNSAMPLED, CommandSpan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Tracer

    from lane_obs.config import Duration
    from lane_obs.core.fact import Fact

_SCOPE: Final = "lane_obs"


class Parent(StrEnum):
    """How the span of an attempt belongs to the submit: see `OtelSink`."""

    AUTO = "auto"
    PARENT = "parent"
    LINK = "link"


class OtelSink:
    """Traces one queue: `submit {lane}` (PRODUCER) and, for each attempt, `process {lane}` (CONSUMER).

    The names and attributes follow the OpenTelemetry conventions for messaging. Inside a command the process span is
    the current span, so that spans made there become its children and `trace.get_current_span()` may be added to.
    A command that ends without an attempt gets a `settle {lane}` span in place of one.

    Args:
        tracer_provider: the SDK's `TracerProvider`. By default the global one if that is the SDK's, else one of the
            sink's own, set up from the `OTEL_*` variables (`SpanPipeline`); nothing global is changed.
        pipeline: in place of a provider, one of the sink's own.
        parent: `auto` makes the first attempt a child of the submit, in its trace, when no delay was asked for, it
            waited no longer than `link_after`, and the span that submitted it has not ended; any other attempt
            (retries above all) starts a trace of its own with a link. `parent` makes all of them children, `link`
            none. A link to the submit, and from a retry to the attempt before, is there in any case.
        link_after: seconds.
        slow_seconds: commands that take longer, from submit to end, are exported whether sampled or not; one number,
            or numbers by lane name; `None` for no such limit.
        keep_failed: export commands that failed, timed out, expired or were retried, whether sampled or not.
        close_timeout: seconds that `close` gives a pipeline to export what is left.

    Attributes:
        provider: the tracer provider in use, for tracers of your own beside it.
        dropped: spans lost, by reason, where the provider is the sink's own (see `SpanPipeline`).

    Raises:
        ConfigError: a value that is not allowed, or a provider that is not the SDK's.
    """

    failures_in_a_row = 0

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        pipeline: SpanPipeline | None = None,
        parent: str = "auto",
        link_after: Duration = 60.0,
        slow_seconds: Duration | Mapping[str, Duration] | None = None,
        keep_failed: bool = True,
        close_timeout: Duration = 5.0,
    ) -> None:
        if tracer_provider is not None and not isinstance(tracer_provider, TracerProvider):
            raise ConfigError("tracer_provider", tracer_provider, "give a TracerProvider of opentelemetry.sdk.trace")
        if tracer_provider is not None and pipeline is not None:
            raise ConfigError("pipeline", pipeline, "give a tracer_provider or a pipeline, not both")
        self._parent: Parent = to_choice("parent", parent, Parent)
        self._link_after = to_seconds("link_after", link_after, zero=True)
        self._close_timeout = to_seconds("close_timeout", close_timeout, zero=True)
        self._slow, self._keep_failed = slow_seconds, keep_failed
        self._pipeline, self.provider = _choose(tracer_provider, pipeline)
        tracer: Any = self.provider.get_tracer(_SCOPE)
        self.dropped: Mapping[str, int] = {} if self._pipeline is None else self._pipeline.dropped
        self._endings: Endings
        self._queue: Any = None
        self._off = not hasattr(tracer, "span_processor")  # OTEL_SDK_DISABLED
        if not self._off:
            self._set_up(tracer)
        else:
            self.wants = ()
            self.at_submit = self.at_reject = self.at_start = self.in_attempt = None  # type: ignore[assignment]

    def _set_up(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._limits = SpanLimits()
        self._decider = Decider(tracer.sampler)
        self._on_start = tracer.span_processor.on_start
        self._trace_id = tracer.id_generator.generate_trace_id
        self._span_id = tracer.id_generator.generate_span_id
        slow = self._slow
        by_lane = slow if isinstance(slow, Mapping) else {}
        self._endings = Endings(
            tracer,
            self._decider,
            f"{socket.gethostname()}:{os.getpid()}",
            None if slow is None or isinstance(slow, Mapping) else to_seconds("slow_seconds", slow),
            {lane: to_seconds(f"slow_seconds.{lane}", value) for lane, value in by_lane.items()},
            keep_failed=self._keep_failed,
        )

    def attach(self, queue: Any) -> None:
        """Takes the queue whose commands it traces.

        Raises:
            ConfigError: it traces another one, or the queue has two sinks of this kind.
        """
        if self._queue is not None:
            raise ConfigError("sinks", self, "give each queue an OtelSink of its own")
        if sum(isinstance(sink, OtelSink) for sink in queue.bus.sinks) > 1:
            raise ConfigError("sinks", self, "a queue takes one OtelSink; add span processors to its provider instead")
        self._queue = queue
        self._wall = queue.clock.wall
        if not self._off:
            self._endings.attach(queue)

    @property
    def pending(self) -> int:
        """Spans that wait to be exported by a pipeline of the sink's own."""
        return 0 if self._pipeline is None else self._pipeline.pending

    def start(self) -> None:
        """Makes the exporter of a pipeline of the sink's own before there is any span to export."""
        if self._pipeline is not None and not self._off:
            self._pipeline.open()

    # --- the command's way --------------------------------------------------------------------------------------

    def at_submit(self, command: Any) -> None:
        """Gives the command the identity of its submit span, below the span that is current here."""
        current = trace.get_current_span()
        above = current.get_span_context()
        parent = above if above.is_valid else None
        name = f"submit {command.home.name}"
        context, choice = self._identify(parent, name, SpanKind.PRODUCER)
        command.span = kept = CommandTrace(context, parent, None if parent is None else current, choice.record)
        command.trace = TraceIds(context.trace_id, context.span_id, choice.sampled)
        if self._endings.notify or choice.attributes:
            kept.submit = self._make(name, SpanKind.PRODUCER, context, parent, choice)

    def traceparent(self) -> str | None:
        """The W3C traceparent of the current span, to be stored with a durable command."""
        current = trace.get_current_span().get_span_context()
        if not current.is_valid:
            return None
        return TraceIds(current.trace_id, current.span_id, current.trace_flags.sampled).traceparent

    def at_recover(self, recovered: tuple[Any, str | None]) -> None:
        """Gives a command that an earlier process took the link to where it came from; its attempts are new traces."""
        command, traceparent = recovered
        command.span = self._from_afar(TraceIds.read(traceparent), is_old=True)

    def at_claim(self, claimed: tuple[Any, str | None]) -> None:
        """Gives a command that came from a broker the submit span that it has in the process that submitted it."""
        command, traceparent = claimed
        command.trace = ids = TraceIds.read(traceparent)
        command.span = self._from_afar(ids, is_old=False)

    def _from_afar(self, ids: TraceIds | None, *, is_old: bool) -> CommandTrace:
        if ids is None:  # nobody traced the submit
            context = SpanContext(self._trace_id(), self._span_id(), True, UNSAMPLED)  # noqa: FBT003
        else:
            context = SpanContext(ids.trace_id, ids.span_id, True, SAMPLED if ids.sampled else UNSAMPLED)  # noqa: FBT003
        has_submit = ids is not None
        return CommandTrace(context, None, None, False, has_submit=has_submit, is_old=is_old)  # noqa: FBT003

    def at_reject(self, refusal: tuple[str, str, str]) -> None:
        """Makes a submit span, with an error, of a submit that is refused."""
        above = trace.get_current_span().get_span_context()
        parent = above if above.is_valid else None
        lane, kind, reason = refusal
        # The name of a span must not be whatever someone asked for.
        name = "submit unknown" if reason == "unknown_lane" else f"submit {lane}"
        context, choice = self._identify(parent, name, SpanKind.PRODUCER)
        span = self._make(name, SpanKind.PRODUCER, context, parent, choice)
        self.start()  # a queue refuses before its start, too
        self._endings.refused(span, name.removeprefix("submit "), kind, reason, self._wall_ns())

    def at_start(self, command: Any) -> None:
        """Makes the span of the attempt that starts, as a child of the submit or in a trace of its own."""
        kept: CommandTrace = command.span
        parent = kept.context if self._is_child(command, kept) else None
        name = f"process {command.home.name}"
        context, choice = self._identify(parent, name, SpanKind.CONSUMER)
        around = command._context.run(otel_context.get_current) if self._endings.notify else None  # noqa: SLF001
        kept.begin(command.attempt, self._make(name, SpanKind.CONSUMER, context, parent, choice, around))
        command.trace = TraceIds(context.trace_id, context.span_id, choice.sampled)

    def in_attempt(self, command: Any) -> None:
        """Makes the attempt's span the current one."""
        span = command.span.current
        otel_context.attach(trace.set_span_in_context(span))  # ends with the attempt's own context

    def _is_child(self, command: Any, kept: CommandTrace) -> bool:
        if kept.is_old or not kept.has_submit:
            return False
        if self._parent is not Parent.AUTO:
            return self._parent is Parent.PARENT
        if command.attempt > 1 or command._options.delay or (command.waited or NO_WAIT).delay:  # noqa: SLF001 - the queue's own record
            return False
        if command.started_at - command.submitted_at > self._link_after:
            return False
        above = kept.submitter  # a span of the SDK, or one of ours when a command submits another
        return getattr(above, "end_time", None) is None and not getattr(above, "ended", False)

    def _identify(self, parent: SpanContext | None, name: str, kind: SpanKind) -> tuple[SpanContext, Choice]:
        """A new span's identity, and whether it is sampled."""
        if parent is None:
            trace_id, state = self._trace_id(), None
        else:
            trace_id, state = parent.trace_id, parent.trace_state
        choice = self._decider.choose(parent, trace_id, name, kind)
        flags = SAMPLED if choice.sampled else UNSAMPLED
        if choice.trace_state is not None:
            state = choice.trace_state
        return SpanContext(trace_id, self._span_id(), False, flags, state), choice  # noqa: FBT003

    def _make(
        self,
        name: str,
        kind: SpanKind,
        context: SpanContext,
        parent: SpanContext | None,
        choice: Choice,
        around: Context | None = None,
    ) -> CommandSpan:
        """A live span; `around` is the context in which it starts, if not the current one."""
        span = CommandSpan(name, kind, context, parent, wall_ns=self._wall_ns, limits=self._limits)
        span.record = choice.record
        if choice.attributes:
            span.set_attributes(choice.attributes)
        if self._endings.notify:
            self._on_start(span, around)  # type: ignore[arg-type]  # what the API promises of a span is there
        return span

    def _wall_ns(self) -> int:
        return int(self._wall() * 1e9)

    # --- out ----------------------------------------------------------------------------------------------------

    def handle_facts(self, facts: Sequence[Fact]) -> None:
        """Ends the spans of what has ended, and hands them to the tracer provider's processors."""
        if self._pipeline is not None:
            self._pipeline.open()
        self._endings.take(facts)

    def take_failure(self) -> Exception | None:
        """Nothing: what it cannot export is counted in `dropped`."""
        return None

    def close(self) -> None:
        """Exports what is left, where the provider is the sink's own; a provider of the user's is left as it is."""
        if self._pipeline is not None:
            self._pipeline.close(self._close_timeout)


def _choose(
    given: TracerProvider | None, pipeline: SpanPipeline | None
) -> tuple[SpanPipeline | None, trace.TracerProvider]:
    if given is not None:
        return None, given
    if pipeline is None:
        known = trace.get_tracer_provider()
        if isinstance(known, TracerProvider):
            return None, known
        pipeline = SpanPipeline()
    return pipeline, pipeline.provider
