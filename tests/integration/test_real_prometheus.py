"""A real Prometheus scrapes a running replay, and what it says is what the replay recorded.

A second queue in the same registry gets into every kind of trouble meanwhile, so that all metrics move.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
import urllib.request
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Any

import prometheus_client
import pytest

from lane_obs import (
    BackgroundSink,
    LaneConfig,
    MemorySink,
    MonitorConfig,
    Partitions,
    PriorityBoost,
    QueueConfig,
    QueueManager,
    QueueMonitor,
    RateLimit,
    RetryPolicy,
    SystemClock,
)
from lane_obs.distributed import LocalBroker
from lane_obs.events import CommandStarted
from lane_obs.metrics import BUCKETS, CATALOGUE, Metric
from lane_obs.metrics.catalogue import BROKERED, CLUSTER, STORED
from lane_obs.monitor.notify import CallbackNotifier
from lane_obs.observability import Metrics, Observability, Traces
from lane_obs.simulation.replay import Replay
from lane_obs.simulation.summary import spread
from lane_obs.simulation.trace import read_trace
from lane_obs.sinks.prometheus import PrometheusSink
from lane_obs.storage import MemoryStorage
from tests.conftest import run_clean
from tests.integration.services.otlp import Collector
from tests.integration.services.process import free_port
from tests.integration.services.prometheus import Prometheus, promtool_check_metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from lane_obs.bus import AnySink
    from lane_obs.events import LaneEvent
    from lane_obs.simulation.record import CommandRecord
    from lane_obs.simulation.replay import ReplayResult
    from tests.integration.services.span import Span

OUTCOMES = {
    "succeeded": "ok",
    "failed": "error",
    "timed_out": "timeout",
    "cancelled": "cancelled",
    "expired": "expired",
}
"""The label `outcome` of each final state."""

CONFIG = QueueConfig(
    {
        "steady": LaneConfig(1, 4, priority=5),
        "flaky": LaneConfig(0, 3, priority=2, timeout=0.2, retry=RetryPolicy.fixed(2, 0.05, jitter="none")),
        "small": LaneConfig(0, 1, priority=1, max_pending=3, overflow="reject"),
        "held": LaneConfig(0, 1),
    },
    max_concurrency=6,
)
HISTOGRAMS = ("lane_command_queue_wait_seconds", "lane_command_duration_seconds", "lane_command_end_to_end_seconds")


def rows() -> Iterator[str]:
    """A second in which Prometheus sees zeros, then three of traffic; one command runs until it is cancelled."""
    yield "0,held,3600,ok,0,"
    for number in range(240):  # bursts of eight for four slots, so that there is queueing of all lengths
        yield f"{1 + number // 8 * 0.1:.3f},steady,{0.005 + number % 7 * 0.008:.3f},ok,0,"
    for number in range(40):
        at = f"{1.05 + number * 0.07:.3f},flaky"
        yield f"{at},0.01,{'fail' if number % 5 == 0 else 'ok'},{number % 3 % 2},"
        if number % 10 == 0:
            yield f"{at},0.01,hang,0,"
        if number % 8 == 0:
            yield from [f"{at},0.01,ok,0,0.0001"] * 6  # too many to start before that
    for _ in range(10):
        yield "2.5,small,0.05,ok,0,"


class Countdown:
    """A sink that tells when all commands of a replay but so many have ended."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.reached = asyncio.Event()
        self.replay: Replay | None = None

    def handle(self, events: Sequence[LaneEvent]) -> None:
        # The recorder, the first of the sinks, has counted the same events already.
        replay = self.replay
        if replay is not None and replay.recorder.total.ended >= len(replay.trace.commands) - self.left:
            self.reached.set()

    def close(self) -> None:
        pass


@dataclasses.dataclass
class Run:
    """A replay that is over. At Unix time `at` a scrape saw it with only the command of lane "held" left."""

    prometheus: Prometheus
    result: ReplayResult
    spans: list[Span]
    began: float
    at: float
    classic: str

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], int]:
        """Values of the replay's queue at `at`, summed over all labels but these; zeros left out."""
        expr = f'sum by ({",".join(labels)}) ({name}{{queue="replay"}})'
        found = self.prometheus.query(expr, self.at)
        return {tuple(series[label] for label in labels): round(value) for series, value in found if value}

    def one(self, expr: str) -> float:
        """The one value of an expression at `at`."""
        ((_, value),) = self.prometheus.query(expr, self.at)
        return value

    @property
    def taken(self) -> list[CommandRecord]:
        """The records of the commands that were not rejected."""
        return [record for record in self.result.records if record.outcome != "rejected"]

    @property
    def ended(self) -> list[CommandRecord]:
        """Those of the commands that had ended by `at`."""
        return [record for record in self.taken if record.lane != "held"]


async def run_replay(prometheus: Prometheus, collector: Collector, port: int, trace: Path) -> Run:
    registry = prometheus_client.CollectorRegistry()
    countdown = Countdown(left=1)
    observability = Observability(
        logs=False,
        metrics=Metrics(registry=registry, port=port),
        traces=Traces(endpoint=collector.grpc_endpoint, protocol="grpc"),
        queue="replay",
    )
    sinks = [*observability.sinks, countdown]
    replay = countdown.replay = Replay(read_trace(trace), CONFIG, SystemClock(), sinks=sinks)
    began = time.time()
    running = asyncio.ensure_future(replay.run())
    async with troubled(registry, prometheus), shared(registry):
        waiting = asyncio.ensure_future(countdown.reached.wait())
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        assert waiting.done(), f"the replay ended early: {await running}"
        at = await asyncio.to_thread(prometheus.wait_for_scrape, time.time())
        classic = await asyncio.to_thread(get, f"http://127.0.0.1:{port}/metrics")
    replay.cancel()
    result = await running
    return Run(prometheus, result, collector.spans(), began, at, classic)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


# --- the other queue --------------------------------------------------------------------------------------------


class Broken:
    """A sink that fails at everything."""

    def handle(self, events: Sequence[LaneEvent]) -> None:
        raise OSError("no space left on device")

    def close(self) -> None:
        pass


class Blocked:
    """A sink that takes nothing until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def handle(self, events: Sequence[LaneEvent]) -> None:
        self.released.wait()

    def close(self) -> None:
        pass


async def pass_by() -> None:
    pass


async def fail() -> None:
    raise ValueError("bad")


@contextlib.asynccontextmanager
async def shared(registry: prometheus_client.CollectorRegistry) -> AsyncIterator[None]:
    """A queue with a broker, at rest; other tests have brokers to which things happen."""
    sinks = [PrometheusSink(registry, queue="shared")]
    async with QueueManager({"shared": LaneConfig(0, 1)}, sinks=sinks, broker=LocalBroker()):
        yield


@contextlib.asynccontextmanager
async def troubled(registry: prometheus_client.CollectorRegistry, prometheus: Prometheus) -> AsyncIterator[None]:
    """A queue that has been scraped at rest and is in trouble then: inside, and until the end."""
    memory, blocked, release = MemorySink(), Blocked(), asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    sinks: list[AnySink] = [PrometheusSink(registry, queue="troubled"), memory, Broken(), BackgroundSink(blocked)]
    lanes = {name: LaneConfig(1, 2, durable=False) for name in ("a", "b")}
    lanes["c"] = LaneConfig(
        0, 1, durable=False, rate_limit=RateLimit.per_minute(1), boost=PriorityBoost.ageing(0.1, floor=-1_000),
        partitions=Partitions.per_key(),
    )  # fmt: skip
    options: dict[str, Any] = {"dead_letters": 1, "stuck_after": 0.01, "storage": MemoryStorage()}
    async with QueueManager(lanes, max_concurrency=8, sinks=sinks, **options) as manager:
        told = [CallbackNotifier(lambda _: None, "told")]
        monitor = QueueMonitor(manager, MonitorConfig(interval=0.01, active_warning_threshold=0, notifiers=told))
        await monitor.start()
        await asyncio.to_thread(prometheus.wait_for_scrape, time.time())
        waiting = [await manager.submit("c", pass_by, partition_key="x") for _ in range(3)]
        manager.set_lane("a", min_concurrency=2, max_concurrency=3, priority=7)
        handles = [await manager.submit("a", fail) for _ in range(15)]  # more than a failing sink may fail in a row
        for handle in handles:
            with pytest.raises(ValueError, match="bad"):
                await handle
        (letter,) = manager.dead_letters.list()
        with pytest.raises(ValueError, match="bad"):
            await manager.dead_letters.requeue(letter.id)
        stuck = await manager.submit("b", stubborn)
        await memory.wait_for(lambda event: isinstance(event, CommandStarted) and event.lane == "b")
        await memory.wait_for("queue.alert.notified")
        stuck.cancel()
        await memory.wait_for("queue.command.stuck")
        await asyncio.to_thread(prometheus.wait_for_scrape, time.time())
        waiting += [await manager.submit("c", pass_by, partition_key=key) for key in "xy"]
        try:
            yield
        finally:
            release.set()
            blocked.released.set()
            for handle in waiting:  # but for the first, their rate limit keeps them for minutes
                handle.cancel()
            await monitor.stop()


# --- the tests --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run for all tests."""
    directory = tmp_path_factory.mktemp("real")
    trace = directory / "trace.csv"
    lines = ["timestamp,lane,duration,outcome,fail_attempts,deadline", *rows()]
    trace.write_text("".join(f"{line}\n" for line in lines))
    port = free_port()
    targets = {"replay": f"127.0.0.1:{port}"}
    with (
        Collector(directory) as collector,
        Prometheus(directory / "prometheus", targets, interval_seconds=0.25) as prometheus,
    ):
        prometheus.wait_for_targets()
        yield run_clean(run_replay, prometheus=prometheus, collector=collector, port=port, trace=trace)


def test_the_replay_has_commands_of_every_outcome(run: Run) -> None:
    outcomes = Counter(record.outcome for record in run.result.records)
    assert set(outcomes) == {*OUTCOMES, "rejected"}
    assert outcomes["cancelled"] == 1


def test_prometheus_knows_every_metric_of_the_catalogue_with_its_type_help_and_unit(run: Run) -> None:
    known = {
        name: [(entry.type, entry.help, entry.unit) for entry in entries]
        for name, entries in run.prometheus.metadata().items()
    }
    # In OpenMetrics a counter's family is named without the suffix of its sample.
    families = {
        metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name: [
            (metric.kind, metric.help, metric.unit)
        ]
        for metric in CATALOGUE
    }
    assert {name: entries for name, entries in known.items() if name.startswith("lane_")} == families


def test_every_metric_of_the_catalogue_has_series_with_its_labels(run: Run) -> None:
    for metric in CATALOGUE:
        series = run.prometheus.query(sample_name(metric), run.at)
        assert series, metric.name
        for labels, _ in series:
            # Prometheus has no empty labels: an alert about the whole queue comes back without its lane.
            given = set(metric.labels)
            if metric.name == "lane_alert_state":
                given -= {"lane"} - set(labels)
            assert set(labels) == {"__name__", "job", "instance", "queue", *given}


def test_every_metric_of_the_catalogue_moves(run: Run) -> None:
    span = f"[{round(run.at - run.began) + 5}s]"
    moves = {
        name: run.prometheus.query(f"max_over_time({name}{span}) - min_over_time({name}{span})", run.at)
        for name in map(sample_name, CATALOGUE)
    }
    still = {name for name, series in moves.items() if not any(value for _, value in series)}
    # Those of a storage and of a broker have tests of their own, in which these fail and work again.
    assert still - set(map(sample_name, (*STORED, *BROKERED, *CLUSTER))) == {"lane_info", "lane_build_info"}
    # These are always 1; what may change are the labels.
    info = run.prometheus.query(f'count_over_time(lane_info{{queue="troubled", lane="a"}}{span})', run.at)
    assert {labels["priority"] for labels, _ in info} == {"0", "7"}


def sample_name(metric: Metric) -> str:
    """The name under which one sample of each label set of a metric is found."""
    return f"{metric.name}_count" if metric.kind == "histogram" else metric.name


def test_counters_equal_the_records(run: Run) -> None:
    submitted = Counter((record.lane,) for record in run.taken)
    assert run.by("lane_commands_submitted_total", "lane") == submitted
    rejected = Counter((record.lane, "full") for record in run.result.records if record.outcome == "rejected")
    assert run.by("lane_commands_rejected_total", "lane", "reason") == rejected
    finished = Counter((record.lane, OUTCOMES[record.outcome]) for record in run.ended)
    assert run.by("lane_commands_finished_total", "lane", "outcome") == finished
    attempts: Counter[tuple[str]] = Counter()
    for record in run.ended:
        attempts[record.lane,] += record.attempts
    assert run.by("lane_command_attempts_total", "lane") == attempts
    assert run.by("lane_command_duration_seconds_count", "lane") == attempts
    retries = Counter({(lane,): tally.retries for lane, tally in run.result.lanes.items()})
    assert run.by("lane_command_retries_total", "lane") == +retries
    assert run.by("lane_command_end_to_end_seconds_count", "lane") == Counter((record.lane,) for record in run.ended)
    started = Counter((record.lane,) for record in run.taken if record.started_at is not None)
    assert run.by("lane_command_queue_wait_seconds_count", "lane") == started


def test_gauges_show_the_one_command_that_is_left(run: Run) -> None:
    assert run.by("lane_active_commands", "lane") == {("held",): 1}
    assert run.by("lane_queue_depth", "lane") == {}
    limits = {(name,): lane.max_concurrency for name, lane in CONFIG.lanes.items()}
    assert run.by("lane_concurrency_limit", "lane") == limits


@pytest.mark.parametrize("lane", ["steady", "flaky", "small"])
def test_sums_of_seconds_equal_the_records(run: Run, lane: str) -> None:
    ended = sum(record.finished_at - record.submitted_at for record in run.ended if record.lane == lane)
    end_to_end = run.one(f'lane_command_end_to_end_seconds_sum{{queue="replay", lane="{lane}"}}')
    assert end_to_end == pytest.approx(ended, rel=1e-6)
    busy = run.one(f'lane_busy_seconds_total{{queue="replay", lane="{lane}"}}')
    assert busy == pytest.approx(run.result.lanes[lane].run_seconds, rel=1e-6)


def test_the_quantile_of_the_wait_is_within_one_bucket_of_the_records(run: Run) -> None:
    # Of the lane without retries, where the wait of a command is that before its first attempt.
    buckets = 'lane_command_queue_wait_seconds_bucket{queue="replay", lane="steady"}'
    estimate = run.one(f"histogram_quantile(0.95, sum by (le) ({buckets}))")
    exact = spread(record.wait_seconds for record in run.ended if record.lane == "steady").p95
    assert exact is not None
    assert exact > 0.001  # there was queueing
    assert abs(bisect_left(BUCKETS, estimate) - bisect_left(BUCKETS, exact)) <= 1


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_exemplars_name_spans_that_the_collector_received(run: Run, name: str) -> None:
    spans = {(span.trace_id, span.span_id): span for span in run.spans}
    exemplars = run.prometheus.query_exemplars(f'{name}_bucket{{queue="replay"}}', run.began - 1, run.at + 1)
    assert {exemplar.series["lane"] for exemplar in exemplars} >= {"steady", "flaky", "small"}
    for exemplar in exemplars:
        span = spans[exemplar.labels["trace_id"], exemplar.labels["span_id"]]
        assert span.attributes["messaging.destination.name"] == exemplar.series["lane"]
        assert exemplar.value <= float(exemplar.series["le"])
        assert run.began - 1 <= exemplar.at <= run.at + 1


def test_an_exemplar_of_the_wait_is_the_wait_of_its_span(run: Run) -> None:
    spans = {span.span_id: span for span in run.spans}
    expr = 'lane_command_queue_wait_seconds_bucket{queue="replay"}'
    exemplars = run.prometheus.query_exemplars(expr, run.began - 1, run.at + 1)
    assert exemplars
    for exemplar in exemplars:
        span = spans[exemplar.labels["span_id"]]
        assert (span.name, span.kind) == (f"process {exemplar.series['lane']}", "CONSUMER")
        assert span.attributes["lane.queue.wait"] == pytest.approx(exemplar.value, abs=1e-6)


def test_the_collector_has_a_span_of_each_submit_and_of_each_attempt_once(run: Run) -> None:
    assert len({span.span_id for span in run.spans}) == len(run.spans)
    spans = Counter((span.kind, span.name) for span in run.spans)
    expected = Counter({("INTERNAL", "drain"): 1})
    for record in run.result.records:
        expected["PRODUCER", f"submit {record.lane}"] += 1
        expected["CONSUMER", f"process {record.lane}"] += record.attempts
        # A command that ended without an attempt has one span that says so; a refused one has its submit only.
        expected["CLIENT", f"settle {record.lane}"] += record.attempts == 0 and record.outcome != "rejected"
    assert spans == expected


def test_promtool_finds_nothing_wrong_with_the_classic_text(run: Run) -> None:
    assert 'lane_commands_finished_total{lane="steady"' in run.classic.replace('queue="replay",', "")
    assert promtool_check_metrics(run.classic) == []
