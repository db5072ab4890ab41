"""Metrics of several processes in one exposition: what is added up, what goes, and what a scrape costs."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary
from prometheus_client import generate_latest as generate_plain
from prometheus_client.openmetrics.exposition import generate_latest

from lane_obs.http.merged import MergedMetrics, Worker
from lane_obs.http.text import OPENMETRICS, read_families, write_families

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Process:
    """Stands for a child: a real registry behind a real HTTP server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.done = Counter("done", "Done.", ["lane"], registry=self.registry)
        self.depth = Gauge("depth", "Waiting.", ["lane"], registry=self.registry)
        self.took = Histogram("took_seconds", "Took.", ["lane"], buckets=(1, 2), registry=self.registry)
        self.broken = False

    def text(self) -> str:
        return generate_latest(self.registry).decode()

    @contextmanager
    def served(self) -> Iterator[str]:
        process = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = process.text().encode()
                self.send_response(500 if process.broken else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()


class Places:
    """What a supervisor knows."""

    def __init__(self, count: int = 1) -> None:
        self.now = [Worker(str(place), 0, None, "starting", {"died": 0}) for place in range(count)]
        self.merged = MergedMetrics(lambda: list(self.now))

    def put(self, place: int, url: str | None, run: int = 1) -> None:
        self.now[place] = self.now[place]._replace(run=run, url=url, state="waiting" if url is None else "ready")

    def text(self, accept: str = "") -> str:
        return write_families(self.merged.families(), accept)[0].decode()

    def samples(self) -> dict[str, float]:
        text = self.text()
        found = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {series: float(number) for series, _, number in found}


@pytest.fixture
def places() -> Places:
    return Places()


DONE = 'done_total{process="0",lane="a"}'
DEPTH = 'depth{process="0",lane="a"}'


def test_each_process_has_series_of_its_own_in_families_that_are_there_once() -> None:
    places, processes = Places(2), [Process(), Process()]
    for number, process in enumerate(processes):
        process.done.labels("a").inc(number + 1)
        process.took.labels("a").observe(1.5)
    with processes[0].served() as first, processes[1].served() as second:
        places.put(0, first)
        places.put(1, second)
        samples = places.samples()
        text = places.text()
    assert samples[DONE] == 1
    assert samples['done_total{process="1",lane="a"}'] == 2
    assert samples['took_seconds_bucket{process="1",lane="a",le="2.0"}'] == 1
    assert text.count("# TYPE done_total counter") == 1
    assert samples['lane_worker_up{process="1"}'] == 1


def test_a_counter_goes_on_where_the_process_before_was_and_gauges_go_with_it(places: Places) -> None:
    before, after = Process(), Process()
    before.done.labels("a").inc(5)
    before.depth.labels("a").set(7)
    before.took.labels("a").observe(0.5)
    after.done.labels("a").inc(1)
    after.took.labels("a").observe(1.5)
    with before.served() as url:
        places.put(0, url)
        assert places.samples()[DEPTH] == 7
    places.put(0, None)
    between = places.samples()
    assert between[DONE] == 5
    assert DEPTH not in between
    assert between['lane_worker_up{process="0"}'] == 0
    with after.served() as url:
        places.put(0, url, 2)
        samples = places.samples()
        assert places.samples()[DONE] == samples[DONE] == 6
    assert samples['took_seconds_bucket{process="0",lane="a",le="1.0"}'] == 1
    assert samples['took_seconds_count{process="0",lane="a"}'] == 2
    assert samples['took_seconds_sum{process="0",lane="a"}'] == 2


def test_no_counter_ever_goes_backwards_while_twenty_processes_follow_each_other(places: Places) -> None:
    seen = []
    for run in range(1, 21):
        process = Process()
        with process.served() as url:
            places.put(0, url, run)
            for _ in range(3):
                process.done.labels("a").inc()
                seen.append(places.samples()[DONE])
            if run % 2:
                process.done.labels("a").inc()
                places.merged.note_last_words("0", run, process.text())
        places.put(0, None, run)
        seen.append(places.samples()[DONE])
    assert seen == sorted(seen)
    assert seen[-1] == 20 * 3 + 10


def test_what_a_process_says_late_of_itself_is_not_counted_twice(places: Places) -> None:
    process = Process()
    process.done.labels("a").inc(2)
    with process.served() as url:
        places.put(0, url)
        places.merged.note_last_words("0", 1, process.text())
        assert places.samples()[DONE] == 2  # it is asked once more, before the supervisor knows
        assert places.samples()[DONE] == 2
        assert DEPTH not in places.samples()


def test_last_words_that_a_scrape_outruns_take_nothing_back(places: Places) -> None:
    process = Process()
    process.done.labels("a").inc(2)
    process.took.labels("a").observe(0.5)
    with process.served() as url:
        places.put(0, url)
        text = process.text()
        process.done.labels("a").inc()
        process.took.labels("a").observe(1.5)
        before = places.samples()
        places.merged.note_last_words("0", 1, text)
        after = places.samples()
    places.put(0, None)
    counted = {name for name in before if name.startswith(("done", "took"))}
    assert {name: after[name] for name in counted} == {name: before[name] for name in counted}
    assert {name: places.samples()[name] for name in counted} == {name: before[name] for name in counted}


def test_one_that_gives_no_answer_keeps_its_counters_and_is_counted(
    places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process()
    process.done.labels("a").inc(2)
    process.depth.labels("a").set(1)
    with process.served() as url:
        places.put(0, url)
        assert DEPTH in places.samples()
        process.broken = True
        samples = places.samples()
    assert "process 0 gave no metrics: 500" in caplog.text
    assert samples[DONE] == 2
    assert DEPTH not in samples
    assert samples['lane_worker_scrape_failures_total{process="0"}'] == 1
    assert places.samples()['lane_worker_scrape_failures_total{process="0"}'] == 2  # nothing listens there now


def test_lanes_of_the_past_go(places: Places) -> None:
    for run in range(1, 6):
        process = Process()
        process.done.labels(f"lane-{run}").inc()
        with process.served() as url:
            places.put(0, url, run)
            samples = places.samples()
    lanes = [series for series in samples if series.startswith("done_total")]
    assert lanes == [f'done_total{{process="0",lane="lane-{run}"}}' for run in (5, 4)]


def test_exemplars_come_through_and_when_it_began_is_when_the_first_one_did(places: Places) -> None:
    first, second = Process(), Process()
    first.done.labels("a").inc(1, {"trace_id": "abc"})
    second.done.labels("a").inc()
    began = first.registry.get_sample_value("done_created", {"lane": "a"})
    with first.served() as url:
        places.put(0, url)
        assert '# {trace_id="abc"}' in places.text(OPENMETRICS)
    with second.served() as url:
        places.put(0, url, 2)
        text = places.text(OPENMETRICS)
    assert text.endswith("# EOF\n")
    (created,) = [line for line in text.splitlines() if line.startswith("done_created")]
    assert float(created.split()[1]) == began


ODD = 'a"b}\\ c, d=\nlane="x" # 1'


@pytest.mark.parametrize("encode", [generate_latest, generate_plain], ids=["openmetrics", "classic"])
def test_text_is_read_and_written_as_it_was(encode: Callable[[CollectorRegistry], bytes]) -> None:
    registry = CollectorRegistry()
    for name in ("", ODD):
        Counter(f"one{len(name)}", 'It says "one".\nAnd more.', ["lane"], registry=registry).labels(name).inc(1.5)
    Gauge("no_labels", "A \\ b.", registry=registry).set(float("inf"))
    Histogram("took_seconds", "Took.", ["lane"], unit="seconds", registry=registry).labels(ODD).observe(1)
    Summary("size", "Size.", registry=registry).observe(2)
    Info("build", "Build.", registry=registry).info({"version": "1"})
    Enum("mood", "Mood.", states=["good", "bad"], registry=registry)
    accept = OPENMETRICS if encode is generate_latest else ""
    written = write_families(read_families(generate_latest(registry).decode()), accept)[0].decode()
    assert sorted(without_braces(written)) == sorted(without_braces(encode(registry).decode()))


def without_braces(text: str) -> list[str]:
    return [line.replace("{}", "") for line in text.splitlines()]


def test_two_meanings_of_a_name_do_not_mix() -> None:
    places, one, other = Places(2), Process(), CollectorRegistry()
    Gauge("took_seconds", "Took.", registry=other).set(4)
    process = Process()
    process.registry = other
    with one.served() as first, process.served() as second:
        places.put(0, first)
        places.put(1, second)
        samples = places.samples()
    assert 'took_seconds{process="1"}' not in samples


def test_a_brokers_totals_are_not_added_up_over_the_processes_that_told_of_them(places: Places) -> None:
    name = "lane_cluster_commands_submitted"
    first, second = Process(), Process()
    for process, total in ((first, 1_000), (second, 1_001)):
        Counter(name, "Taken in.", registry=process.registry).inc(total)
        process.done.labels("a").inc(3)
    with first.served() as url:
        places.put(0, url, run=1)
        assert places.samples()[f'{name}_total{{process="0"}}'] == 1_000
    places.put(0, None, run=1)
    assert f'{name}_total{{process="0"}}' not in places.samples()
    with second.served() as url:
        places.put(0, url, run=2)
        found = places.samples()
    assert found[f'{name}_total{{process="0"}}'] == 1_001
    assert found['done_total{process="0",lane="a"}'] == 6
