"""The tracing sink with the real SDK: names, kinds, attributes, parents and links, status and events."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

from lane_obs import (
    ConfigError,
    LaneConfig,
    LaneFullError,
    MemorySink,
    Partitions,
    PriorityBoost,
    QueueManager,
    RetryPolicy,
)
from lane_obs.clock import sleep
from lane_obs.errors import ShutdownInProgress, UnknownLane
from lane_obs.events import CommandCompleted, CommandStarted, CommandSubmitted
from lane_obs.sinks.otel import OtelSink, SpanPipeline
from tests.unit.runtime.support import Attempts, Gate, fail, noop, outcome, running, stubborn
from tests.unit.sinks.otel_support import Spans, context_of, event_names, fields, ids, linked

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from lane_obs import VirtualClock

ONCE = RetryPolicy.fixed(1, 2.0, jitter="none")
ONE_SLOT_EACH = {"a": LaneConfig(0, 1), "b": LaneConfig(0, 1)}


# Names, kinds, attributes, times.


async def test_a_command_that_succeeds_is_a_submit_span_and_a_process_span(clock: VirtualClock) -> None:
    spans = Spans()
    async with running(clock, {"a": LaneConfig(0, 1, retry=ONCE)}, sinks=[spans.sink()]) as manager:
        await clock.run(manager.submit("a", sleep, clock, 3.0, id="one"))
        await clock.run(manager.submit("a", noop, id="two"))
        await clock.run(manager.drain())
    submit, process = spans.named("submit a")[0], spans.named("process a")[0]
    assert (submit.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert fields(submit) == {
        "messaging.system": "lane",
        "messaging.destination.name": "a",
        "messaging.operation.name": "submit",
        "messaging.operation.type": "send",
        "messaging.message.id": "one",
        "lane.command.type": "sleep",
        "lane.priority": 0,
    }
    assert fields(process) == {
        "messaging.system": "lane",
        "messaging.destination.name": "a",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": "one",
        "lane.command.type": "sleep",
        "lane.priority": 0,
        "lane.attempt": 1,
        "lane.max_attempts": 2,
        "lane.worker": f"{socket.gethostname()}:{os.getpid()}",
        "lane.outcome": "ok",
        "lane.queue.wait": 0.0,
    }
    assert (submit.status.status_code, process.status.status_code) == (StatusCode.UNSET, StatusCode.UNSET)
    assert (submit.events, process.events, submit.links) == ((), (), ())
    assert process.instrumentation_scope is not None
    assert process.instrumentation_scope.name == "lane_obs"
    assert process.resource is spans.provider.resource


async def test_a_wait_is_an_attribute_in_seconds_with_its_causes(clock: VirtualClock) -> None:
    spans = Spans()
    async with running(clock, sinks=[spans.sink()]) as manager:
        await clock.run(manager.submit("a", sleep, clock, 3.0))
        await clock.run(manager.submit("a", noop, id="late"))
        await clock.run(manager.drain())
    late = next(s for s in spans.named("process a") if fields(s)["messaging.message.id"] == "late")
    waits = {name: value for name, value in fields(late).items() if name.startswith("lane.queue.wait")}
    assert waits == {"lane.queue.wait": 3.0, "lane.queue.wait.slots": 3.0}


async def test_priority_cost_and_partition_are_the_commands_own(clock: VirtualClock) -> None:
    spans = Spans()
    lane = LaneConfig(0, 1, priority=9, boost=PriorityBoost.standard(8), partitions=Partitions.per_key())
    async with running(clock, {"a": lane}, sinks=[spans.sink()]) as manager:
        manager.submit_nowait("a", sleep, clock, 5.0, cost=1200, partition_key="tenant 7")
        manager.submit_nowait("a", noop)
        await clock.run(manager.drain())
    names = ("lane.priority", "lane.cost", "messaging.destination.partition.id")
    found = [[fields(span).get(name) for name in names] for span in spans.named("process a")]
    assert found == [[9, 1200.0, "tenant 7"], [7, None, None]]
    found = [[fields(span).get(name) for name in names] for span in spans.named("submit a")]
    assert found == [[9, 1200.0, "tenant 7"], [9, None, None]]


async def test_a_process_span_lasts_as_long_as_its_attempt_on_the_wall_clock(clock: VirtualClock) -> None:
    spans = Spans()
    async with running(clock, sinks=[spans.sink()]) as manager:
        began = clock.wall()
        handle = await clock.run(manager.submit("a", sleep, clock, 3.0))
        await clock.run(handle)
    submit, process = spans.one("submit a"), spans.one("process a")
    assert process.start_time is not None
    assert process.end_time is not None
    assert submit.start_time == submit.end_time
    assert submit.start_time == pytest.approx(began * 1e9, abs=1_000)
    assert process.start_time == pytest.approx(began * 1e9, abs=1_000)
    assert process.end_time - process.start_time == pytest.approx(3e9, abs=1_000)


@pytest.mark.parametrize("hurried", [False, True])
async def test_a_shutdown_is_a_drain_span_with_its_counts(clock: VirtualClock, hurried: bool) -> None:
    spans = Spans()
    async with running(clock, sinks=[spans.sink()]) as manager:
        for _ in range(3):
            await clock.run(manager.submit("a", sleep, clock, 5.0))
        await clock.advance(1.0)
        await manager.shutdown()
        if hurried:
            await clock.run(manager.close())
        await clock.run(manager.drain())
    drain = spans.one("drain")
    assert (drain.kind, drain.parent) == (SpanKind.INTERNAL, None)
    counts = {"messaging.system": "lane", "lane.drain.pending": 2, "lane.drain.running": 1}
    assert fields(drain) == (counts | {"lane.drain.cancelled": 3, "lane.drain.abandoned": 0} if hurried else counts)
    assert drain.start_time is not None
    assert drain.end_time is not None
    assert drain.end_time - drain.start_time == pytest.approx(0 if hurried else 14e9, abs=1_000)


# Parents and links.


async def attempts_of(
    clock: VirtualClock, spans: Spans, *script: Any, lanes: Any = None, options: Any = None, **sink: Any
) -> tuple[ReadableSpan, list[ReadableSpan]]:
    """The submit span and the process spans of one command, submitted under a live span of the user's."""
    async with running(clock, lanes, sinks=[spans.sink(**sink)]) as manager:
        with spans.tracer.start_as_current_span("request"):
            handle = await clock.run(manager.submit("a", Attempts(clock, *script), **(options or {})))
            await clock.run(outcome(handle))
    return spans.one("submit a"), spans.named("process a")


async def test_a_first_attempt_is_a_child_of_its_submit_which_is_a_child_of_the_submitter(clock: VirtualClock) -> None:
    spans = Spans()
    submit, (process,) = await attempts_of(clock, spans, None)
    assert submit.parent is not None
    assert ids(submit.parent) == ids(context_of(spans.one("request")))
    assert process.parent is not None
    assert ids(process.parent) == ids(context_of(submit))
    assert len({context_of(span).trace_id for span in spans.all if span.name != "drain"}) == 1
    assert linked(process) == [ids(context_of(submit))]


async def test_without_a_span_around_it_a_submit_starts_a_trace(clock: VirtualClock) -> None:
    spans = Spans()
    async with running(clock, sinks=[spans.sink()]) as manager:
        for _ in range(2):
            await clock.run(await manager.submit("a", noop))
    assert [span.parent for span in spans.named("submit a")] == [None, None]
    assert len({context_of(span).trace_id for span in spans.named("process a")}) == 2


async def test_a_retry_is_a_trace_of_its_own_linked_to_the_submit_and_to_the_attempt_before(
    clock: VirtualClock,
) -> None:
    spans = Spans()
    policy = RetryPolicy.fixed(2, 1.0)
    script = (ValueError("1"), ValueError("2"), None)
    submit, (first, second, third) = await attempts_of(clock, spans, *script, options={"retry": policy})
    assert first.parent is not None
    assert [second.parent, third.parent] == [None, None]
    assert len({context_of(span).trace_id for span in (submit, second, third)}) == 3
    above = ids(context_of(submit))
    assert linked(first) == [above]
    assert linked(second) == [above, ids(context_of(first))]
    assert linked(third) == [above, ids(context_of(second))]
    assert [fields(span)["lane.attempt"] for span in (first, second, third)] == [1, 2, 3]


async def test_a_command_with_a_delay_is_a_trace_of_its_own(clock: VirtualClock) -> None:
    submit, (process,) = await attempts_of(clock, Spans(), None, options={"delay": 0.5})
    assert process.parent is None
    assert linked(process) == [ids(context_of(submit))]


@pytest.mark.parametrize(("waits", "is_child"), [(5.0, True), (5.5, False)])
async def test_a_command_that_waited_longer_than_link_after_is_a_trace_of_its_own(
    clock: VirtualClock, waits: float, is_child: bool
) -> None:
    spans = Spans()
    async with running(clock, sinks=[spans.sink(link_after=5)]) as manager:
        await clock.run(manager.submit("a", sleep, clock, waits))
        await clock.run(manager.submit("a", noop))
        await clock.run(manager.drain())
    submit, process = spans.named("submit a")[1], spans.named("process a")[1]
    assert (process.parent is not None) == is_child
    assert (context_of(process).trace_id == context_of(submit).trace_id) == is_child


async def test_a_command_whose_submitters_span_has_ended_is_a_trace_of_its_own(clock: VirtualClock) -> None:
    spans = Spans()
    async with running(clock, sinks=[spans.sink()]) as manager:
        await clock.run(manager.submit("a", sleep, clock, 1.0))
        with spans.tracer.start_as_current_span("request") as request:
            await clock.run(manager.submit("a", noop))
        await clock.run(manager.drain())
    submit, process = spans.named("submit a")[1], spans.named("process a")[1]
    assert submit.parent is not None
    assert ids(submit.parent) == ids(request.get_span_context())
    assert process.parent is None
    assert linked(process) == [ids(context_of(submit))]


@pytest.mark.parametrize("lasts", [0.0, 5.0])
async def test_a_command_submitted_inside_a_command_is_its_child_while_that_one_runs(
    clock: VirtualClock, lasts: float
) -> None:
    spans = Spans()
    async with running(clock, ONE_SLOT_EACH, sinks=[spans.sink()]) as manager:

        async def outer() -> None:
            await manager.submit("b", noop)
            await sleep(clock, lasts)

        await clock.run(manager.submit("b", sleep, clock, 2.0))
        await clock.run(manager.submit("a", outer))
        await clock.run(manager.drain())
    above, submit, process = spans.one("process a"), spans.named("submit b")[1], spans.named("process b")[1]
    assert submit.parent is not None
    assert ids(submit.parent) == ids(context_of(above))
    assert (process.parent is not None) == bool(lasts)


async def test_parent_makes_every_attempt_a_child_of_the_submit(clock: VirtualClock) -> None:
    spans = Spans()
    options = {"retry": ONCE, "delay": 100.0}
    submit, processes = await attempts_of(clock, spans, ValueError(), None, options=options, parent="parent")
    assert len(processes) == 2
    assert [ids(span.parent) for span in processes] == [ids(context_of(submit))] * 2
    assert linked(processes[1]) == [ids(context_of(submit)), ids(context_of(processes[0]))]


async def test_link_makes_no_attempt_a_child(clock: VirtualClock) -> None:
    submit, (process,) = await attempts_of(clock, Spans(), None, parent="link")
    assert process.parent is None
    assert context_of(process).trace_id != context_of(submit).trace_id
    assert linked(process) == [ids(context_of(submit))]


async def test_a_remote_parent_is_the_parent_of_the_submit_and_its_state_goes_on(clock: VirtualClock) -> None:
    spans = Spans()
    state = TraceState([("vendor", "x")])
    remote = SpanContext(0xABC, 0x12, True, TraceFlags(TraceFlags.SAMPLED), state)
    async with running(clock, sinks=[spans.sink()]) as manager:
        token = otel_context.attach(trace.set_span_in_context(NonRecordingSpan(remote)))
        await clock.run(manager.submit("a", sleep, clock, 1.0))
        otel_context.detach(token)
        await clock.run(manager.drain())
    submit, process = spans.one("submit a"), spans.one("process a")
    assert submit.parent is remote
    assert process.parent is not None
    assert [context_of(span).trace_id for span in (submit, process)] == [0xABC] * 2
    assert [context_of(span).trace_state for span in (submit, process)] == [state] * 2
    assert not context_of(process).is_remote


async def test_a_dead_letter_that_comes_back_has_a_submit_span_of_its_own(clock: VirtualClock) -> None:
    spans = Spans()
    async with running(clock, sinks=[spans.sink()]) as manager:
        handle = await clock.run(manager.submit("a", Attempts(clock, ValueError(), None)))
        await clock.run(outcome(handle))
        with spans.tracer.start_as_current_span("repair") as repair:
            await clock.run(manager.dead_letters.requeue(handle.id))
    first, second = spans.named("submit a")
    assert first.parent is None
    assert second.parent is not None
    assert ids(second.parent) == ids(repair.get_span_context())
    assert [linked(span) for span in spans.named("process a")] == [[ids(context_of(first))], [ids(context_of(second))]]


# Status, errors and events.


class NoSuchRow(Exception):
    pass


async def test_a_failure_has_a_status_an_error_type_and_the_exception_once(clock: VirtualClock) -> None:
    spans = Spans()
    async with running(clock, sinks=[spans.sink()]) as manager:
        handle = await clock.run(manager.submit("a", fail, NoSuchRow("row 7")))
        await clock.run(outcome(handle))
    span = spans.one("process a")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "row 7")
    assert (fields(span)["error.type"], fields(span)["lane.outcome"]) == ("NoSuchRow", "error")
    assert event_names(span) == ["exception", "lane.dead_lettered"]
    told = dict(span.events[0].attributes or {})
    assert (told["exception.type"], told["exception.message"]) == (f"{__name__}.NoSuchRow", "row 7")
    assert told["exception.escaped"] == "True"
    assert "in fail" in str(told["exception.stacktrace"])
    assert dict(span.events[1].attributes or {}) == {"lane.dead_letter.reason": "failed"}


async def test_an_exception_that_the_command_has_recorded_is_not_recorded_again(clock: VirtualClock) -> None:
    spans = Spans()

    async def work() -> None:
        span = trace.get_current_span()
        other, error = ValueError("on the way"), NoSuchRow("row 7")
        for one in (error, other, other):
            span.record_exception(one)
        raise error

    async with running(clock, sinks=[spans.sink()]) as manager:
        await clock.run(outcome(await clock.run(manager.submit("a", work))))
    span = spans.one("process a")
    assert event_names(span) == ["exception", "exception", "lane.dead_lettered"]
    told = [dict(event.attributes or {}) for event in span.events[:2]]
    assert [one["exception.message"] for one in told] == ["row 7", "on the way"]


async def test_an_attempt_that_is_retried_says_why_and_when(clock: VirtualClock) -> None:
    spans = Spans()
    _submit, (first, second) = await attempts_of(clock, spans, NoSuchRow("no"), None, options={"retry": ONCE})
    assert event_names(first) == ["exception", "lane.retry_scheduled"]
    assert dict(first.events[1].attributes or {}) == {"lane.retry.delay": 2.0}
    assert fields(first)["lane.outcome"] == "error"
    assert first.status.status_code is StatusCode.ERROR
    assert (second.status.status_code, fields(second)["lane.outcome"]) == (StatusCode.UNSET, "ok")
    assert (second.events, "error.type" in fields(second)) == ((), False)


async def test_attempts_that_time_out_say_so_each(clock: VirtualClock) -> None:
    spans = Spans()
    async with running(clock, sinks=[spans.sink()]) as manager:
        handle = await clock.run(manager.submit("a", sleep, clock, 9.0, timeout=1.0, retry=ONCE))
        await clock.run(outcome(handle))
    first, second = spans.named("process a")
    assert event_names(first) == ["lane.timeout", "exception", "lane.retry_scheduled"]
    assert event_names(second) == ["lane.timeout", "exception", "lane.dead_lettered"]
    assert [fields(span)["lane.outcome"] for span in (first, second)] == ["timeout", "timeout"]
    assert [fields(span)["error.type"] for span in (first, second)] == ["CommandTimeout", "CommandTimeout"]


async def test_a_cancel_that_was_asked_for_is_an_event_and_no_exception(clock: VirtualClock) -> None:
    spans = Spans()
    async with running(clock, sinks=[spans.sink()]) as manager:
        handle = await clock.run(manager.submit("a", sleep, clock, 9.0))
        await clock.advance(1.0)
        handle.cancel()
        await clock.run(outcome(handle))
    span = spans.one("process a")
    assert event_names(span) == ["lane.cancel_requested"]
    assert (fields(span)["lane.outcome"], fields(span)["error.type"]) == ("cancelled", "CommandCancelled")
    assert span.status.status_code is StatusCode.ERROR


async def end_in_the_queue(clock: VirtualClock, spans: Spans, how: str) -> None:
    """Has a command end while it waits."""
    config = LaneConfig(0, 1, max_pending=1, overflow="drop_oldest")
    async with running(clock, config, sinks=[spans.sink()]) as manager:
        await clock.run(manager.submit("a", sleep, clock, 9.0))
        await clock.advance(1.0)
        handle = await clock.run(manager.submit("a", noop, deadline=2.0, id="w"))
        if how == "cancelled":
            handle.cancel()
        elif how == "error":
            await clock.run(manager.submit("a", noop))
        await clock.run(outcome(handle))
        await clock.run(manager.drain())


@pytest.mark.parametrize(
    ("how", "error"), [("cancelled", "CommandCancelled"), ("expired", "CommandExpired"), ("error", "CommandDropped")]
)
async def test_a_command_that_ends_while_it_waits_has_a_settle_span(clock: VirtualClock, how: str, error: str) -> None:
    spans = Spans()
    await end_in_the_queue(clock, spans, how)
    settle = spans.one("settle a")
    submit = next(span for span in spans.named("submit a") if fields(span)["messaging.message.id"] == "w")
    told = fields(settle)
    assert (settle.kind, told["messaging.operation.type"]) == (SpanKind.CLIENT, "settle")
    assert (told["lane.outcome"], told["error.type"], told["messaging.message.id"]) == (how, error, "w")
    assert settle.parent is not None
    assert ids(settle.parent) == ids(context_of(submit))
    assert settle.start_time == settle.end_time
    assert ("lane.dead_lettered" in event_names(settle)) == (how != "cancelled")


async def test_a_command_that_ends_between_two_attempts_settles_with_a_link_to_the_first(clock: VirtualClock) -> None:
    spans = Spans()
    async with running(clock, sinks=[spans.sink()]) as manager:
        handle = await clock.run(manager.submit("a", fail, ValueError(), retry=ONCE))
        await clock.advance(1.0)
        handle.cancel()
        await clock.run(outcome(handle))
    submit, process, settle = (spans.one(f"{name} a") for name in ("submit", "process", "settle"))
    assert linked(settle) == [ids(context_of(submit)), ids(context_of(process))]


async def test_work_that_goes_on_after_it_was_given_up_changes_its_span_no_more(clock: VirtualClock) -> None:
    spans = Spans()

    async def work() -> None:
        span = trace.get_current_span()
        span.set_attribute("before", 1)
        await stubborn(clock, 50.0)
        assert not span.is_recording()
        span.set_attribute("after", 1)
        span.add_event("after")
        span.record_exception(ValueError())
        span.update_name("after")

    async with running(clock, sinks=[spans.sink()], close_timeout=5.0) as manager:
        await clock.run(manager.submit("a", work))
        await clock.advance(1.0)
        await clock.run(manager.close())
        await clock.advance(100.0)
    span = spans.one("process a")
    assert fields(span)["before"] == 1
    assert "after" not in fields(span)
    assert set(event_names(span)) == {"lane.cancel_requested"}


# Submits that are refused.


@pytest.mark.parametrize("reason", ["full", "shutting_down", "unknown_lane"])
async def test_a_submit_that_is_refused_is_a_span_with_an_error(clock: VirtualClock, reason: str) -> None:
    spans = Spans()
    async with running(clock, LaneConfig(0, 1, max_pending=1, overflow="reject"), sinks=[spans.sink()]) as manager:
        for _ in range(2):
            await clock.run(manager.submit("a", sleep, clock, 1.0))
            await clock.advance(0.1)
        if reason == "shutting_down":
            await manager.shutdown()
        with (
            spans.tracer.start_as_current_span("request"),
            pytest.raises((LaneFullError, ShutdownInProgress, UnknownLane)),
        ):
            await manager.submit("nowhere-1" if reason == "unknown_lane" else "a", noop)
        await clock.run(manager.drain())
    lane = "unknown" if reason == "unknown_lane" else "a"
    (span,) = [span for span in spans.named(f"submit {lane}") if span.status.status_code is StatusCode.ERROR]
    told = fields(span)
    assert (told["error.type"], told["lane.outcome"], told["lane.command.type"]) == (reason, "rejected", "noop")
    assert told["messaging.destination.name"] == lane
    assert span.kind is SpanKind.PRODUCER
    assert span.parent is not None
    assert ids(span.parent) == ids(context_of(spans.one("request")))


# Inside a command.


def touch(spans: Spans, number: int) -> None:
    """What instrumented code does inside a command."""
    span = trace.get_current_span()
    assert span.is_recording()
    span.set_attribute("number", number)
    span.set_attributes({"list": ["x", "y"], "lane.outcome": "mine"})
    span.add_event("seen", {"n": number})
    with spans.tracer.start_as_current_span(f"child {number}"):
        pass
    span.end()  # a library that ends what it did not start


async def touch_async(spans: Spans, number: int) -> None:
    touch(spans, number)


async def touch_in_task(spans: Spans, number: int) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(touch_async(spans, number))


@pytest.mark.parametrize("work", [touch, touch_async, touch_in_task])
async def test_inside_a_command_its_span_is_current_and_takes_what_is_added(work: Callable[..., Any]) -> None:
    spans = Spans()
    async with QueueManager({"a": LaneConfig(0, 1)}, sinks=[spans.sink()]) as manager:
        for number in (1, 2):
            await (await manager.submit("a", work, spans, number))
    for number, span in enumerate(spans.named("process a"), 1):
        told = fields(span)
        assert (told["number"], told["list"], told["lane.outcome"]) == (number, ("x", "y"), "ok")
        assert [(event.name, dict(event.attributes or {})) for event in span.events] == [("seen", {"n": number})]
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time - 1_000 <= span.events[0].timestamp <= span.end_time + 1_000
        child = spans.one(f"child {number}")
        assert child.parent is not None
        assert ids(child.parent) == ids(context_of(span))


async def test_a_command_may_rename_its_span_link_it_and_set_its_status(clock: VirtualClock) -> None:
    spans = Spans()
    other = SpanContext(0xABC, 0x12, True)

    async def work() -> None:
        span = trace.get_current_span()
        span.update_name("render")
        span.add_link(other, {"why": "cache"})
        span.set_status(StatusCode.ERROR, "half of it")

    async with running(clock, sinks=[spans.sink()]) as manager:
        await clock.run(await manager.submit("a", work))
    span = spans.one("render")
    assert linked(span) == [ids(context_of(spans.one("submit a"))), ids(other)]
    assert dict(span.links[1].attributes or {}) == {"why": "cache"}
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "half of it")


async def test_a_failure_has_the_last_word_on_the_status(clock: VirtualClock) -> None:
    spans = Spans()

    async def work() -> None:
        trace.get_current_span().set_status(StatusCode.OK)
        raise NoSuchRow("row 7")

    async with running(clock, sinks=[spans.sink()]) as manager:
        await clock.run(outcome(await manager.submit("a", work)))
    assert spans.one("process a").status.description == "row 7"


async def test_no_span_leaks_out_of_a_command(clock: VirtualClock) -> None:
    spans = Spans()
    seen: list[Any] = []

    async def work() -> None:
        seen.append(trace.get_current_span().get_span_context())
        otel_context.attach(trace.set_span_in_context(NonRecordingSpan(SpanContext(1, 1, False))))

    async with running(clock, sinks=[spans.sink()]) as manager:
        for _ in range(3):
            await clock.run(await manager.submit("a", work))
            assert not trace.get_current_span().get_span_context().is_valid
    assert [ids(one) for one in seen] == [ids(context_of(span)) for span in spans.named("process a")]
    assert [span.parent for span in spans.named("submit a")] == [None] * 3


async def test_baggage_travels_with_the_command(clock: VirtualClock) -> None:
    spans = Spans()
    seen: list[object] = []

    async def work() -> None:
        seen.append(baggage.get_baggage("user"))

    async with running(clock, sinks=[spans.sink()]) as manager:
        for user in ("ada", None):
            token = otel_context.attach(baggage.set_baggage("user", user)) if user else None
            handle = await manager.submit("a", work, retry=ONCE, delay=1.0)
            if token is not None:
                otel_context.detach(token)
            await clock.run(handle)
    assert seen == ["ada", None]


async def test_values_that_are_no_attributes_become_what_the_sdk_makes_of_them(clock: VirtualClock) -> None:
    spans = Spans()
    odd: Any = NoSuchRow("row 7")

    async def work() -> None:
        trace.get_current_span().set_attributes({"odd": odd, "": 1, "good": 1})

    async with running(clock, sinks=[spans.sink()]) as manager:
        await clock.run(await manager.submit("a", work))
    told = fields(spans.one("process a"))
    assert (told["good"], told["odd"], "" in told) == (1, "row 7", False)


async def test_the_limits_of_the_environment_hold(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", "2")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "40")
    spans = Spans()

    async def work() -> None:
        for number in range(5):
            trace.get_current_span().add_event(str(number))
        trace.get_current_span().set_attribute("long", "x" * 100)

    async with running(clock, sinks=[spans.sink()]) as manager:
        await clock.run(await manager.submit("a", work))
    span = spans.one("process a")
    assert (event_names(span), span.dropped_events) == (["3", "4"], 3)
    assert fields(span)["long"] == "x" * 40


# The ids that others see.


async def test_the_ids_of_events_and_of_the_handle_are_those_of_the_spans(clock: VirtualClock) -> None:
    spans = Spans()
    memory = MemorySink(100)
    gate = Gate()
    async with running(clock, sinks=[spans.sink(), memory]) as manager:
        handle = await clock.run(manager.submit("a", gate))
        assert ids(handle.trace) != (0, 0)
        await clock.advance(1.0)
        running_ids = handle.trace
        gate.open()
        await clock.run(handle)
    submit, process = spans.one("submit a"), spans.one("process a")
    by_kind = {type(event): event for event in memory.events}
    submitted, started, completed = (by_kind[kind] for kind in (CommandSubmitted, CommandStarted, CommandCompleted))
    assert ids(submitted.trace) == ids(context_of(submit))  # type: ignore[attr-defined]
    assert ids(started.trace) == ids(completed.trace) == ids(context_of(process))  # type: ignore[attr-defined]
    assert ids(running_ids) == ids(handle.trace) == ids(context_of(process))
    assert handle.trace is not None
    assert handle.trace.sampled
    assert handle.trace.span_hex == f"{context_of(process).span_id:016x}"


async def test_each_attempts_events_have_the_ids_of_its_own_span(clock: VirtualClock) -> None:
    spans = Spans()
    memory = MemorySink(100)
    async with running(clock, sinks=[spans.sink(), memory]) as manager:
        handle = await manager.submit("a", Attempts(clock, ValueError(), None), retry=ONCE)
        await clock.run(handle)
    told = [
        (event.attempt, ids(event.trace))  # type: ignore[attr-defined]
        for event in memory.events
        if event.key in {"queue.command.started", "queue.command.retry", "queue.command.completed"}
    ]
    first, second = (ids(context_of(span)) for span in spans.named("process a"))
    assert told == [(1, first), (1, first), (2, second), (2, second)]


# Span processors.


class Watcher(SpanProcessor):
    """Notes what starts and ends, and copies baggage as processors of that kind do."""

    def __init__(self) -> None:
        self.started: list[tuple[str, SpanKind, bool, object]] = []
        self.ended: list[str] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        user = baggage.get_baggage("user", parent_context)
        self.started.append((span.name, span.kind, span.parent is None, user))
        assert span.context == span.get_span_context()
        span.set_attribute("user", str(user))
        assert span.attributes is not None
        assert span.attributes["user"] == str(user)

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span.name)


async def test_a_span_processor_hears_of_the_start_of_both_kinds_of_spans(clock: VirtualClock) -> None:
    spans, watcher = Spans(), Watcher()
    spans.provider.add_span_processor(watcher)
    async with running(clock, sinks=[spans.sink()]) as manager:
        token = otel_context.attach(baggage.set_baggage("user", "ada"))
        handle = await manager.submit("a", noop)
        otel_context.detach(token)
        await clock.run(handle)
        assert manager.stats().sinks[0].errors == 0
    assert watcher.started == [
        ("submit a", SpanKind.PRODUCER, True, "ada"),
        ("process a", SpanKind.CONSUMER, False, "ada"),
    ]
    assert watcher.ended == ["submit a", "process a", "drain"]
    assert [fields(spans.one(name))["user"] for name in ("submit a", "process a")] == ["ada", "ada"]


async def test_a_span_processor_that_raises_harms_no_command(clock: VirtualClock) -> None:
    class Broken(SpanProcessor):
        def on_start(self, span: Span, parent_context: Context | None = None) -> None:
            raise RuntimeError("no")

    spans = Spans()
    spans.provider.add_span_processor(Broken())
    async with running(clock, sinks=[spans.sink()]) as manager:
        for number in range(20):
            assert await clock.run(await manager.submit("a", noop, number)) == number
        (stats,) = manager.stats().sinks
    assert stats.errors == 40


# What is refused.


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: OtelSink("jaeger"), "tracer_provider"),  # type: ignore[arg-type]
        (lambda: OtelSink(trace.NoOpTracerProvider()), "tracer_provider"),  # type: ignore[arg-type]
        (lambda: OtelSink(Spans().provider, pipeline=SpanPipeline()), "pipeline"),
        (lambda: OtelSink(Spans().provider, parent="child"), "parent"),
        (lambda: OtelSink(Spans().provider, link_after=-1), "link_after"),
        (lambda: OtelSink(Spans().provider, slow_seconds=0), "slow_seconds"),
        (lambda: OtelSink(Spans().provider, slow_seconds={"a": "soon"}), "slow_seconds.a"),  # type: ignore[dict-item]
        (lambda: OtelSink(Spans().provider, close_timeout=-1), "close_timeout"),
    ],
)
def test_what_is_not_allowed_is_named(make: Callable[[], object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.field == field


def test_a_sink_traces_one_queue_and_a_queue_takes_one_sink() -> None:
    spans = Spans()
    sink = spans.sink()
    QueueManager(sinks=[sink])
    with pytest.raises(ConfigError, match="OtelSink of its own"):
        QueueManager(sinks=[sink])
    with pytest.raises(ConfigError, match="one OtelSink"):
        QueueManager(sinks=[spans.sink(), spans.sink()])
