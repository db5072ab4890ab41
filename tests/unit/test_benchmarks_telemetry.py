"""The telemetry benchmarks: both sides tell the same, nothing is lost, and what is not installed is said to be so."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from benchmarks import collector, scrape, telemetry
from benchmarks.figure import Sizes
from benchmarks.rows import telemetry as row
from benchmarks.telemetry import SINKS, Outside, by_hand, by_lane_obs
from benchmarks.workload import LOOPS, WrongResult, on_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from lane_obs import LaneEvent

COUNT = 20
TINY = Sizes(commands=COUNT, rounds=1, scrapes=2, judged=False)


def by_lane_obs_in_full(outside: Outside) -> Coroutine[Any, Any, telemetry.Spent]:
    return by_lane_obs(outside, row.FULL)


BOTH = {"ours": by_lane_obs_in_full, "by hand": by_hand}


class Told:
    """What one side has told in a run."""

    def __init__(self, work: Callable[[Outside], Coroutine[Any, Any, telemetry.Spent]]) -> None:
        exporter, lines, text = InMemorySpanExporter(), io.BytesIO(), io.StringIO()
        with Outside(COUNT, exporter=lambda: exporter) as outside:
            outside.__dict__ |= {"null": lines, "null_text": text}
            self.spent = on_loop(LOOPS[0], work, outside)
        self.spans = [span for span in exporter.get_finished_spans() if span.name != "drain"]
        self.lines = [json.loads(line) for line in (lines.getvalue().decode() or text.getvalue()).splitlines()]

    def named(self, prefix: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name.startswith(prefix)]


@pytest.fixture(scope="module")
def told() -> dict[str, Told]:
    return {name: Told(work) for name, work in BOTH.items()}


@pytest.mark.parametrize("name", BOTH)
def test_each_side_makes_two_spans_and_one_log_line_for_each_command(name: str, told: dict[str, Told]) -> None:
    side = told[name]
    assert len(side.named("submit ")) == len(side.named("process ")) == len(side.lines) == COUNT
    assert side.spent.seconds >= side.spent.answered > 0
    assert side.spent.closing >= 0


def shape(span: ReadableSpan) -> tuple[Any, ...]:
    return span.name, span.kind, span.status.status_code, span.parent is not None, len(span.links)


@pytest.mark.parametrize("prefix", ["submit ", "process "])
def test_both_sides_make_spans_of_the_same_shape_and_ours_say_no_less(prefix: str, told: dict[str, Told]) -> None:
    ours, hand = (told[name].named(prefix)[0] for name in BOTH)
    assert shape(ours) == shape(hand)
    assert set(ours.attributes or ()) >= set(hand.attributes or ())


def test_both_sides_link_each_process_span_to_a_submit_span_in_one_trace(told: dict[str, Told]) -> None:
    for side in told.values():
        submits = {span.context.span_id: span.context.trace_id for span in side.named("submit ") if span.context}
        for span in side.named("process "):
            assert span.context is not None
            assert span.parent is not None
            assert submits[span.parent.span_id] == span.context.trace_id
            assert span.links[0].context.span_id == span.parent.span_id


def test_our_log_lines_say_no_less_than_those_by_hand(told: dict[str, Told]) -> None:
    ours, hand = (told[name].lines[0] for name in BOTH)
    assert set(ours) >= set(hand)
    assert (ours["event"], ours["lane"], ours["outcome"]) == (hand["event"], hand["lane"], hand["outcome"])


@pytest.mark.parametrize("names", [(), *((name,) for name in SINKS), tuple(SINKS)], ids=" ".join)
def test_a_queue_runs_with_each_sink_alone_and_with_all(names: Sequence[str]) -> None:
    with Outside(COUNT) as outside:
        spent = on_loop(LOOPS[0], by_lane_obs, outside, names)
    assert spent.spans >= (row.SPANS_EACH * COUNT if "traces" in names else 0)


def test_no_spans_are_sampled_at_ratio_0() -> None:
    with Outside(COUNT, ratio=0.0) as outside:
        assert on_loop(LOOPS[0], by_lane_obs, outside, ("traces",)).spans == 0


class Broken:
    def handle(self, events: Sequence[LaneEvent]) -> None:
        raise OSError("full")

    def close(self) -> None:
        pass


def test_a_run_whose_sink_has_lost_something_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(telemetry.MAKERS, "broken", lambda _outside: Broken())
    with Outside(COUNT) as outside, pytest.raises(WrongResult, match="Broken has failed"):
        on_loop(LOOPS[0], by_lane_obs, outside, ("broken",))


@pytest.mark.skipif(collector.agent() is None, reason="rotel is not installed")
def test_a_real_receiver_gets_every_span_of_both_sides() -> None:
    program = collector.agent()
    assert program is not None
    with collector.receiver(program) as port:
        for work in BOTH.values():
            with Outside(COUNT, exporter=collector.over_grpc(port)) as outside:
                assert on_loop(LOOPS[0], work, outside).spans >= row.SPANS_EACH * COUNT


def test_a_receiver_that_is_not_installed_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "agent", lambda: None)
    (figure,) = row._with_collector(TINY)
    assert (figure.ours, figure.peer) == (None, "not measured, not installed: rotel")


def test_libraries_that_are_not_installed_are_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "NEEDED", {"no_such_module.at_all": "no-such-package", "json": "json"})
    (figure,) = row.figures(TINY)
    assert (figure.ours, figure.peer) == (None, "not measured, not installed: no-such-package")


def test_lost_spans_are_counted_as_a_share() -> None:
    meter = row.Meter(LOOPS[0], COUNT, half_of_the_spans)
    meter()
    assert meter.lost == 50


async def half_of_the_spans(outside: Outside) -> telemetry.Spent:
    return telemetry.Spent(1.0, 1.0, 1.0, row.SPANS_EACH * outside.count // 2)


def test_the_longest_gap_is_the_one_that_reaches_into_the_window() -> None:
    turns = [0.0, 1.0, 2.0, 7.0, 8.0, 20.0]
    assert scrape.longest(turns, 3.0, 4.0) == 5.0
    assert scrape.longest(turns, 0.5, 1.5) == 1.0
    assert scrape.longest(turns, 7.5, 30.0) == 12.0
    assert scrape.longest([], 0.0, 1.0) == 0.0


@pytest.fixture(params=[False, True], ids=["our server", "their server"])
def gaps(request: pytest.FixtureRequest) -> scrape.Gaps:
    async def measure() -> scrape.Gaps:
        return await scrape.gaps(2, 2, theirs=request.param)

    return on_loop(LOOPS[0], measure)


def test_scrapes_over_http_give_one_gap_each_with_and_without(gaps: scrape.Gaps) -> None:
    assert len(gaps.scraped) == len(gaps.free) == 2
    assert min(gaps.scraped) > 0
    assert gaps.series > 100


def test_the_lanes_for_a_number_of_series_have_about_that_many() -> None:
    async def series(lanes: int) -> int:
        return (await scrape.rendering(lanes, 1)).series

    assert on_loop(LOOPS[0], series, scrape.lanes_for(1_000)) == pytest.approx(1_000, rel=0.1)
