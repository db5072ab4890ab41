"""Whatever happens to commands, log lines, metrics and spans are what a plain recount of the events gives."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import tempfile
from collections import Counter
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from prometheus_client import CollectorRegistry

from lane_obs import MemorySink, QueueManager, VirtualClock
from lane_obs.sinks.otel import OtelSink
from lane_obs.sinks.prometheus import PrometheusSink
from lane_obs.sinks.structlog import StructlogSink
from tests.conftest import run_clean
from tests.property.test_metrics_recount import LANES, OPERATIONS, OUTCOMES, Walk, check, recount

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from lane_obs import LaneEvent
    from lane_obs.bus import AnySink

ROUNDING_NS = 1_000
KEPT = {"error", "timeout", "expired"}
"""Outcomes that are exported whether sampled or not."""


@dataclasses.dataclass
class Seen:
    """What came out of each sink in one run."""

    events: list[LaneEvent]
    lines: list[dict[str, Any]]
    spans: list[ReadableSpan]

    def ends(self) -> Counter[tuple[str, str, str]]:
        """Ends of commands by the events: lane, outcome, id."""
        return Counter(
            (event.payload["lane"], OUTCOMES[event.key], event.payload["command_id"])
            for event in self.events
            if event.key in OUTCOMES
        )


def facts_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def events_of(span: ReadableSpan) -> set[str]:
    return {event.name for event in span.events}


def operation(span: ReadableSpan) -> str:
    return span.name.partition(" ")[0]


def ends_by_spans(spans: list[ReadableSpan]) -> Counter[tuple[str, str, str]]:
    """Ends by the spans: of attempts that no other follows, and of commands that ended while they waited."""
    finals = [
        facts_of(span)
        for span in spans
        if operation(span) in {"process", "settle"} and "lane.retry_scheduled" not in events_of(span)
    ]
    return Counter(
        (facts["messaging.destination.name"], facts["lane.outcome"], facts["messaging.message.id"]) for facts in finals
    )


def run(operations: list[tuple[Any, ...]], level: str, ratio: float) -> Seen:
    """Runs the operations with all sinks, checks the metrics, and returns what the others have."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=TraceIdRatioBased(ratio), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    async def main() -> tuple[list[LaneEvent], bytes]:
        clock, registry, seen = VirtualClock(), CollectorRegistry(), MemorySink()
        with tempfile.TemporaryFile() as file:
            sinks: list[AnySink] = [
                OtelSink(provider),
                StructlogSink(file, level=level),
                PrometheusSink(registry),
                seen,
            ]
            manager = QueueManager(LANES, max_concurrency=2, sinks=sinks, dead_letters=2, clock=clock, seed=1)
            await manager.start()
            walk = Walk(clock, manager)
            for step in operations:
                await walk.do(*step)
            for lane in LANES:
                manager.resume(lane)
            await clock.run(manager.drain())
            await asyncio.sleep(0)
            check(registry, seen)
            await manager.close()  # in real time, as the lines are written by a thread
            assert all(not stats.dropped and not stats.errors for stats in manager.bus.stats())
            file.seek(0)
            return seen.events, file.read()

    events, text = run_clean(main)
    return Seen(events, [json.loads(line) for line in text.splitlines()], list(exporter.get_finished_spans()))


@settings(max_examples=80, deadline=None)
@given(OPERATIONS)
def test_logs_and_spans_and_metrics_agree_with_the_events(operations: list[tuple[Any, ...]]) -> None:
    seen = run(operations, "debug", ratio=1.0)
    assert [line["event"] for line in seen.lines] == [event.key for event in seen.events]
    assert Counter((line["lane"], line["outcome"], line["command_id"]) for line in seen.lines if "outcome" in line) == (
        seen.ends()
    )
    assert ends_by_spans(seen.spans) == seen.ends()
    check_counts(seen)
    check_identities(seen)


def check_counts(seen: Seen) -> None:
    """That the spans of what is no end of a command are as many as the events."""
    counted: Counter[tuple[str, ...]] = Counter()
    for span in seen.spans:
        facts, names = facts_of(span), events_of(span)
        lane = facts.get("messaging.destination.name", "")
        if operation(span) == "submit" and "error.type" in facts:
            counted["lane_commands_rejected_total", lane, facts["error.type"]] += 1
        elif operation(span) == "submit":
            counted["lane_commands_submitted_total", lane] += 1
        elif operation(span) == "process":
            counted["lane_command_attempts_total", lane, facts["lane.outcome"]] += 1
        if "lane.retry_scheduled" in names:
            counted["lane_command_retries_total", lane, facts["lane.outcome"]] += 1
        if "lane.dead_lettered" in names:
            counted["lane_commands_dead_lettered_total", lane] += 1
    names = {name for name, *_ in counted}
    assert counted == {key: count for key, count in recount(memory(seen.events)).items() if key[0] in names}


def memory(events: list[LaneEvent]) -> MemorySink:
    sink = MemorySink()
    sink.handle(events)
    return sink


def check_identities(seen: Seen) -> None:
    """That the ids that events and lines bear are those of spans, each of one; and the times are the events'."""
    by_id = {span.context.span_id: span for span in seen.spans if span.context is not None}
    assert len(by_id) == len(seen.spans)
    traced = [event for event in seen.events if getattr(event, "trace", None) is not None]
    for event in traced:
        ids = event.trace  # type: ignore[attr-defined]
        span = by_id[ids.span_id]
        assert span.context is not None
        assert ids.trace_id == span.context.trace_id
        assert facts_of(span)["messaging.message.id"] == event.payload["command_id"]
        starts = {"queue.command.submitted": "submit", "queue.command.started": "process"}
        if event.key in starts:
            assert operation(span) == starts[event.key]
            assert abs((span.start_time or 0) - event.wall * 1e9) < ROUNDING_NS
    known = {f"{event.trace.trace_id:032x}" for event in traced}  # type: ignore[attr-defined]
    assert {line["trace_id"] for line in seen.lines if "trace_id" in line} == known
    assert {line["event"] for line in seen.lines if "command_id" in line and "trace_id" not in line} <= {
        "queue.dead_letter.evicted",
        "queue.dead_letter.requeued",
    }


@settings(max_examples=40, deadline=None)
@given(OPERATIONS)
def test_without_sampling_what_went_wrong_is_exported_and_nothing_else(operations: list[tuple[Any, ...]]) -> None:
    seen = run(operations, "info", ratio=0.0)
    assert Counter(line["command_id"] for line in seen.lines if "outcome" in line) == Counter(
        event.payload["command_id"] for event in seen.events if event.key in OUTCOMES
    )
    wrong = Counter(
        (event.payload["lane"], OUTCOMES[event.key], event.payload["command_id"])
        for event in seen.events
        if event.key in OUTCOMES and (OUTCOMES[event.key] in KEPT or event.payload["attempt"] > 1)
    )
    assert ends_by_spans(seen.spans) == wrong
    # Fewer where one was cancelled while it waited for its second attempt: it was not tried again.
    retries = sum(event.key == "queue.command.retry" for event in seen.events)
    assert sum("lane.retry_scheduled" in events_of(span) for span in seen.spans) <= retries
    for span in seen.spans:
        assert facts_of(span)["lane.sampling.reason"] in {"failed", "timed_out", "expired", "retried", "rejected"}
