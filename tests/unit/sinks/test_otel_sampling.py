"""Sampling: the configured sampler's own decision, and what is exported although it was not sampled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, sampling
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, SamplingResult, StaticSampler, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState

from lane_obs import LaneConfig, LaneFullError, RetryPolicy
from lane_obs.clock import sleep
from lane_obs.sinks.otel.sampling import Decider
from tests.unit.runtime.support import Attempts, fail, noop, outcome, running
from tests.unit.sinks.otel_support import Spans, context_of, fields, ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span
    from opentelemetry.sdk.trace.sampling import Sampler

    from lane_obs import VirtualClock

ONCE = RetryPolicy.fixed(1, 2.0, jitter="none")
RECORD_ONLY = StaticSampler(Decision.RECORD_ONLY)


class Named(StaticSampler):
    """Says that it is another one."""

    def get_description(self) -> str:
        return "AlwaysOnSampler"


SAMPLERS: dict[str, Sampler] = {
    "always_on": sampling.ALWAYS_ON,
    "always_off": sampling.ALWAYS_OFF,
    "record_only": RECORD_ONLY,
    "parentbased_always_on": sampling.DEFAULT_ON,
    "parentbased_always_off": sampling.DEFAULT_OFF,
    "parentbased_record_only": ParentBased(RECORD_ONLY),
    "parentbased_record_parents": ParentBased(sampling.ALWAYS_OFF, local_parent_not_sampled=RECORD_ONLY),
    "parentbased_remote_on": ParentBased(sampling.ALWAYS_OFF, remote_parent_not_sampled=sampling.ALWAYS_ON),
    "parentbased_local_ratio": ParentBased(sampling.ALWAYS_ON, local_parent_sampled=TraceIdRatioBased(0.5)),
    "ratio_0": TraceIdRatioBased(0.0),
    "ratio_1": TraceIdRatioBased(1.0),
    "ratio_third": TraceIdRatioBased(1 / 3),
    "ratio_half": TraceIdRatioBased(0.5),
    "parentbased_ratio": sampling.ParentBasedTraceIdRatio(0.5),
    "parentbased_parentbased": ParentBased(sampling.DEFAULT_OFF),
    "always_record": sampling.AlwaysRecordSampler(TraceIdRatioBased(0.5)),
    "misnamed": Named(Decision.DROP),
    "parentbased_misnamed": ParentBased(Named(Decision.DROP)),
}

low_bits = st.integers(0, 2**64 - 1) | st.sampled_from([0, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1])
trace_ids = st.builds(lambda high, low: (high << 64) | low, st.integers(1, 2**64 - 1), low_bits)
parents = st.none() | st.tuples(st.booleans(), st.booleans(), st.booleans())


@pytest.mark.parametrize("name", SAMPLERS)
@given(trace_id=trace_ids, parent=parents)
def test_every_sampler_of_the_sdk_decides_as_if_it_were_asked(
    name: str, trace_id: int, parent: tuple[bool, bool, bool] | None
) -> None:
    sampler = SAMPLERS[name]
    above, context, state = None, None, TraceState()
    if parent is not None:
        is_remote, sampled, has_state = parent
        state = TraceState([("v", "1")]) if has_state else state
        above = SpanContext(trace_id, 7, is_remote, TraceFlags(int(sampled)), state)
        context = trace.set_span_in_context(NonRecordingSpan(above))
    asked = sampler.should_sample(context, trace_id, "submit a", SpanKind.PRODUCER)
    choice = Decider(sampler).choose(above, trace_id, "submit a", SpanKind.PRODUCER)
    assert choice.sampled == (asked.decision is Decision.RECORD_AND_SAMPLE)
    assert choice.record == (asked.decision is not Decision.DROP)
    inherited = state if choice.trace_state is None else choice.trace_state
    assert inherited == (asked.trace_state or TraceState())


class Asked(sampling.Sampler):
    """Samples by kind of span, and notes what it is asked."""

    def __init__(self, decision: Decision = Decision.RECORD_AND_SAMPLE, state: TraceState | None = None) -> None:
        self.decision = decision
        self.state = state
        self.asked: list[tuple[str, SpanKind | None, bool]] = []

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Any] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        above = trace.get_current_span(parent_context).get_span_context()
        self.asked.append((name, kind, above.is_valid and above.trace_id == trace_id))
        return SamplingResult(self.decision, {"sampler.rule": name}, self.state)

    def get_description(self) -> str:
        return "Asked"


async def test_a_sampler_of_the_users_is_asked_and_its_attributes_and_state_are_kept(clock: VirtualClock) -> None:
    sampler = Asked(state=TraceState([("s", "1")]))
    spans = Spans(sampler)
    async with running(clock, sinks=[spans.sink()]) as manager:
        await clock.run(await manager.submit("a", noop))
    assert sampler.asked == [
        ("submit a", SpanKind.PRODUCER, False),
        ("process a", SpanKind.CONSUMER, True),
        ("drain", SpanKind.INTERNAL, False),
    ]
    for name in ("submit a", "process a"):
        span = spans.one(name)
        assert fields(span)["sampler.rule"] == name
        assert context_of(span).trace_state == {"s": "1"}


async def test_a_sampler_that_returns_no_state_clears_the_parents(clock: VirtualClock) -> None:
    spans = Spans(Asked())
    parent = SpanContext(0xABC, 0x12, True, TraceFlags(1), TraceState([("v", "1")]))
    async with running(clock, sinks=[spans.sink()]) as manager:
        with trace.use_span(NonRecordingSpan(parent)):
            handle = await manager.submit("a", noop)
        await clock.run(handle)
    submit = context_of(spans.one("submit a"))
    assert (submit.trace_id, len(submit.trace_state)) == (0xABC, 0)


class Ends(SpanProcessor):
    """Keeps all spans that end, sampled or not."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Does nothing."""

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


@pytest.mark.parametrize("sampler", [RECORD_ONLY, Asked(Decision.RECORD_ONLY)])
async def test_spans_that_are_only_recorded_reach_the_processors_and_are_not_exported(
    clock: VirtualClock, sampler: Sampler
) -> None:
    spans, ends = Spans(sampler), Ends()
    spans.provider.add_span_processor(ends)
    async with running(clock, sinks=[spans.sink(keep_failed=False)]) as manager:
        await clock.run(await manager.submit("a", noop))
        await clock.run(outcome(await manager.submit("a", fail, ValueError("no"))))
    assert spans.names == []
    assert sorted(span.name for span in ends.spans) == ["process a", "process a", "submit a", "submit a"]
    assert not any(context_of(span).trace_flags.sampled for span in ends.spans)
    assert all("lane.sampling.reason" not in fields(span) for span in ends.spans)


async def test_spans_that_are_dropped_reach_no_processor(clock: VirtualClock) -> None:
    spans, ends = Spans(sampling.ALWAYS_OFF), Ends()
    spans.provider.add_span_processor(ends)
    async with running(clock, sinks=[spans.sink(keep_failed=False)]) as manager:
        handle = await manager.submit("a", noop)
        await clock.run(handle)
        await clock.run(outcome(await manager.submit("a", fail, ValueError("no"), retry=ONCE)))
    assert ends.spans == []
    assert handle.trace is not None
    assert not handle.trace.sampled


async def test_what_runs_inside_follows_the_flag_of_the_process_span(clock: VirtualClock) -> None:
    spans = Spans(sampling.ParentBased(sampling.ALWAYS_OFF))

    async def work() -> None:
        with spans.tracer.start_as_current_span("child"):
            pass
        raise ValueError("no")

    async with running(clock, sinks=[spans.sink()]) as manager:
        await clock.run(outcome(await manager.submit("a", work)))
    assert spans.names == ["submit a", "process a"]


# Local tail sampling: everything is off, and what deserves it is exported all the same.

TAIL = {"a": LaneConfig(0, 1), "b": LaneConfig(0, 1)}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[Any, ...], list[str]]] = {
    "failed": ({}, {}, (ValueError("no"),), ["submit a", "process a"]),
    "timed_out": ({}, {"timeout": 0.5}, (None,), ["submit a", "process a"]),
    "expired": ({}, {"deadline": 0.5}, (None,), ["submit a", "process a"]),
    "retried": ({}, {"retry": ONCE}, (ValueError("no"), None), ["submit a", "process a", "process a"]),
    "slow": ({"slow_seconds": 0.9, "keep_failed": False}, {}, (None,), ["submit a", "process a"]),
}


@pytest.mark.parametrize("reason", CASES)
async def test_a_command_that_deserves_it_is_exported_whole_with_the_reason(clock: VirtualClock, reason: str) -> None:
    sink, options, script, names = CASES[reason]
    spans = Spans(sampling.ALWAYS_OFF)
    async with running(clock, TAIL, sinks=[spans.sink(**sink)]) as manager:
        quick = await manager.submit("b", noop)
        handle = await manager.submit("a", Attempts(clock, *script, seconds=1.0), **options)
        await clock.run(outcome(handle))
        await clock.run(quick)
    assert spans.names == names
    assert {fields(span)["lane.sampling.reason"] for span in spans.all} == {reason}
    assert all(context_of(span).trace_flags.sampled for span in spans.all)
    submit, first = spans.all[:2]
    assert first.parent is not None
    assert ids(first.parent) == ids(context_of(submit))
    assert all(ids(span.links[0].context) == ids(context_of(submit)) for span in spans.all[1:])
    assert handle.trace is not None
    assert not handle.trace.sampled  # as it was while it ran: its children were not recorded


async def test_a_command_that_expired_while_it_waited_is_exported_whole(clock: VirtualClock) -> None:
    spans = Spans(sampling.ALWAYS_OFF)
    async with running(clock, sinks=[spans.sink()]) as manager:
        await manager.submit("a", sleep, clock, 2.0)
        await clock.run(outcome(await manager.submit("a", noop, deadline=1.0)))
        await clock.run(manager.drain())
    assert spans.names == ["submit a", "settle a"]
    assert {fields(span)["lane.sampling.reason"] for span in spans.all} == {"expired"}


async def test_what_the_command_added_is_there_when_it_is_exported_after_all(clock: VirtualClock) -> None:
    spans = Spans(sampling.ALWAYS_OFF)

    async def work() -> None:
        span = trace.get_current_span()
        assert span.is_recording()
        span.set_attribute("row", 7)
        span.add_event("seen")
        raise ValueError("no")

    async with running(clock, sinks=[spans.sink()]) as manager:
        await clock.run(outcome(await manager.submit("a", work)))
    process = spans.one("process a")
    assert fields(process)["row"] == 7
    assert [event.name for event in process.events] == ["seen", "exception", "lane.dead_lettered"]


@pytest.mark.parametrize("options", [{}, {"keep_failed": False}, {"slow_seconds": {"a": 60}}])
async def test_commands_that_are_nothing_special_are_not_exported(clock: VirtualClock, options: dict[str, Any]) -> None:
    spans = Spans(sampling.ALWAYS_OFF)
    async with running(clock, TAIL, sinks=[spans.sink(**options)]) as manager:
        await clock.run(await manager.submit("a", noop))
        cancelled = await manager.submit("a", sleep, clock, 1.0)
        await clock.advance(0.5)
        cancelled.cancel()
        await clock.run(outcome(cancelled))
    assert spans.names == []


async def test_slow_may_mean_something_else_in_each_lane(clock: VirtualClock) -> None:
    spans = Spans(sampling.ALWAYS_OFF)
    async with running(clock, TAIL, sinks=[spans.sink(slow_seconds={"a": 1.0, "b": 5.0})]) as manager:
        for lane in ("a", "b"):
            await manager.submit(lane, sleep, clock, 2.0)
        await clock.run(manager.drain())
    assert spans.names == ["submit a", "process a"]


async def test_the_wait_counts_towards_slow(clock: VirtualClock) -> None:
    spans = Spans(sampling.ALWAYS_OFF)
    async with running(clock, sinks=[spans.sink(slow_seconds=1.5)]) as manager:
        for name in ("first", "second"):
            await manager.submit("a", sleep, clock, 1.0, id=name)
        await clock.run(manager.drain())
    assert {fields(span)["messaging.message.id"] for span in spans.all} == {"second"}


async def test_what_is_sampled_anyway_gets_no_reason(clock: VirtualClock) -> None:
    spans = Spans()
    async with running(clock, sinks=[spans.sink(slow_seconds=0.001)]) as manager:
        await clock.run(outcome(await manager.submit("a", fail, ValueError("no"))))
    assert len(spans.all) >= 2
    assert not any("lane.sampling.reason" in fields(span) for span in spans.all)


@pytest.mark.parametrize("keep_failed", [True, False])
async def test_a_refused_submit_that_is_not_sampled_is_kept_like_a_failure(
    clock: VirtualClock, keep_failed: bool
) -> None:
    spans = Spans(sampling.ALWAYS_OFF)
    lanes = {"a": LaneConfig(0, 1, max_pending=1, overflow="reject")}
    async with running(clock, lanes, sinks=[spans.sink(keep_failed=keep_failed)]) as manager:
        for _ in range(2):
            await manager.submit("a", sleep, clock, 1.0)
            await clock.advance(0.1)
        with pytest.raises(LaneFullError):
            await manager.submit("a", noop)
        await clock.run(manager.drain())
    reasons = [fields(span).get("lane.sampling.reason") for span in spans.all]
    assert reasons == (["rejected"] if keep_failed else [])
    assert all(context_of(span).trace_flags.sampled for span in spans.all)
