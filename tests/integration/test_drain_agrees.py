"""A program is told to stop while it submits, and commands hang: logs, metrics and spans still say what it saw."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.drain_program import DRAIN_SECONDS
from tests.integration.services.otlp import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.integration.services.span import Span

ROOT = Path(__file__).parents[2]
STOPPED = 128 + signal.SIGTERM


@dataclasses.dataclass
class Told:
    """What the program noted itself, and what the three signals say."""

    notes: dict[str, Any]
    lines: list[dict[str, Any]]
    spans: list[Span]
    code: int

    def metric(self, name: str, *labels: str) -> Counter[tuple[str, ...]]:
        """Values of a counter, summed over all labels but these; zeros left out."""
        found: Counter[tuple[str, ...]] = Counter()
        for family in text_string_to_metric_families(self.notes["metrics"]):
            for sample in family.samples:
                if sample.name == name:
                    found[tuple(sample.labels[label] for label in labels)] += int(sample.value)
        return +found

    def of(self, *operations: str) -> list[Span]:
        return [span for span in self.spans if span.name.split()[0] in operations]


def count(rows: Iterable[tuple[Any, ...]]) -> Counter[tuple[Any, ...]]:
    return Counter(rows)


def lane_of(span: Span) -> Any:
    return span.attributes["messaging.destination.name"]


def has(span: Span, event: str) -> bool:
    return any(found.name == event for found in span.events)


@pytest.fixture(scope="module", params=["grpc", "http"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    directory = tmp_path_factory.mktemp("drain")
    log, out = directory / "log.jsonl", directory / "out.json"
    with Collector(directory) as collector:
        endpoint = collector.grpc_endpoint if request.param == "grpc" else collector.http_endpoint
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.drain_program", endpoint, request.param, str(log), str(out)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "OTEL_BSP_MAX_QUEUE_SIZE": "100000", "OTEL_BSP_SCHEDULE_DELAY": "50"},
        )
        with program:
            try:
                assert program.stdout is not None
                assert program.stdout.readline() == b"in the middle\n"
                program.send_signal(signal.SIGTERM)
                code = program.wait(30)
            finally:
                program.kill()
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        yield Told(json.loads(out.read_text()), lines, collector.spans(), code)


def test_the_program_was_stopped_in_the_middle_of_everything(told: Told) -> None:
    assert told.code == STOPPED
    assert {reason for _, reason, _ in told.notes["rejected"]} == {"full", "unknown_lane", "shutting_down"}
    ends = count((lane, outcome) for lane, outcome, _ in told.notes["ends"])
    assert {outcome for _, outcome in ends} == {"ok", "error", "timeout", "cancelled", "expired"}
    assert ends["held", "cancelled"] == 5
    assert told.notes["requeued"] > 0
    assert {name: found for name, found in told.notes["sinks"].items() if found != [0, {}]} == {}


def test_the_ends_are_the_same_for_all_command_by_command(told: Told) -> None:
    ends = count(tuple(end) for end in told.notes["ends"])
    logged = count((line["lane"], line["outcome"], line["command_id"]) for line in told.lines if "outcome" in line)
    final = [span for span in told.of("process", "settle") if not has(span, "lane.retry_scheduled")]
    traced = count(
        (lane_of(span), span.attributes["lane.outcome"], span.attributes["messaging.message.id"]) for span in final
    )
    counted = told.metric("lane_commands_finished_total", "lane", "outcome")
    assert logged == ends
    assert traced == ends
    by_lane: Counter[tuple[Any, ...]] = Counter()
    for (lane, outcome, _id), times in ends.items():
        by_lane[lane, outcome] += times
    assert counted == by_lane


def test_attempts_retries_and_dead_letters_are_the_same_for_all(told: Told) -> None:
    attempts = {(lane,): times for lane, times in told.notes["attempts"]}
    assert count((lane_of(span),) for span in told.of("process")) == attempts
    assert told.metric("lane_command_attempts_total", "lane") == attempts
    assert told.metric("lane_command_attempts_total", "lane", "outcome") == count(
        (lane_of(span), span.attributes["lane.outcome"]) for span in told.of("process")
    )
    retries = told.metric("lane_command_retries_total", "lane", "reason")
    assert set(retries) == {("flaky", "error"), ("flaky", "timeout")}
    retried = [span for span in told.spans if has(span, "lane.retry_scheduled")]
    assert count((lane_of(span), span.attributes["lane.outcome"]) for span in retried) == retries
    lines = [line for line in told.lines if line["event"] == "queue.command.retry"]
    assert count((line["lane"], line["reason"]) for line in lines) == retries
    dead = count((lane_of(span),) for span in told.spans if has(span, "lane.dead_lettered"))
    assert told.metric("lane_commands_dead_lettered_total", "lane") == dead
    unsuccessful = {"error", "timeout", "expired"}
    assert dead == count((lane,) for lane, outcome, _ in told.notes["ends"] if outcome in unsuccessful)


def test_submits_and_refusals_are_the_same_for_all(told: Told) -> None:
    rejected = {(lane, reason): times for lane, reason, times in told.notes["rejected"]}
    assert told.metric("lane_commands_rejected_total", "lane", "reason") == rejected
    refused = [span for span in told.of("submit") if span.attributes.get("lane.outcome") == "rejected"]
    assert count((lane_of(span), span.attributes["error.type"]) for span in refused) == rejected
    lines = [line for line in told.lines if line["event"] == "queue.command.rejected"]
    named = {"no such lane": "unknown"}
    assert count((named.get(line["lane"], line["lane"]), line["reason"]) for line in lines) == rejected

    taken = count((lane,) for lane, _, _ in told.notes["ends"])
    assert told.metric("lane_commands_submitted_total", "lane") == taken
    assert count((lane_of(span),) for span in told.of("submit") if span not in refused) == taken


def test_every_span_came_once_and_every_line_names_one_of_them(told: Told) -> None:
    spans = {span.span_id: span for span in told.spans}
    assert len(spans) == len(told.spans)
    traced = [line for line in told.lines if "command_id" in line]
    assert len(traced) > len(told.notes["ends"])
    for line in traced:
        span = spans[line["span_id"]]
        assert span.trace_id == line["trace_id"]
        assert span.attributes["messaging.message.id"] == line["command_id"]


def test_the_drain_that_was_cut_short_is_a_span_of_its_own(told: Told) -> None:
    (drain,) = told.of("drain")
    assert (drain.kind, drain.parent_id) == ("INTERNAL", "")
    assert drain.attributes["lane.drain.cancelled"] == 4
    assert drain.attributes["lane.drain.abandoned"] == 0
    assert drain.end_ns - drain.start_ns >= DRAIN_SECONDS * 1e9  # it was given all of its time
