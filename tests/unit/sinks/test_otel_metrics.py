"""The metrics sink of OpenTelemetry, next to the Prometheus sink, whose numbers it must show."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import metrics as api
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from prometheus_client import CollectorRegistry

from lane_obs import (
    ConfigError,
    LaneConfig,
    LaneFullError,
    MonitorConfig,
    NotStarted,
    Partitions,
    PriorityBoost,
    QueueManager,
    QueueMonitor,
    RateLimit,
    RetryPolicy,
    UnknownLane,
)
from lane_obs.core.histogram import Histogram
from lane_obs.events import TraceIds
from lane_obs.metrics import CATALOGUE, catalogue
from lane_obs.monitor.notify import CallbackNotifier
from lane_obs.sinks.otel_metrics import OtelMetricsSink, name_of
from lane_obs.sinks.otel_metrics.export import Gate
from lane_obs.sinks.otel_metrics.instruments import likely
from lane_obs.sinks.prometheus import PrometheusSink
from lane_obs.sinks.watchdog import LoopWatchdog
from lane_obs.testing import sleep

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lane_obs import CommandHandle, LaneEvent, VirtualClock
    from lane_obs.bus import AnySink

LANES = {
    "a": LaneConfig(0, 2, max_pending=2, overflow="reject"),
    "b": LaneConfig(0, 2, priority=1, retry=RetryPolicy(1, 1.0, jitter="none")),
    "c": LaneConfig(
        0,
        1,
        priority=2,
        rate_limit=RateLimit.per_minute(1),
        boost=PriorityBoost.ageing(5),
        partitions=Partitions.per_key(),
    ),
}
ONE = {"a": LaneConfig(0, 1)}
Points = dict[str, dict[tuple[tuple[str, Any], ...], Any]]


class Tracing:
    """Gives every attempt ids that tell its command's number; only the second command is sampled."""

    wants: tuple[type[LaneEvent], ...] = ()

    def at_start(self, command: CommandHandle[Any]) -> None:
        command.trace = TraceIds(command.seq, 16 * command.seq + command.attempt, command.seq == 2)

    def handle(self, events: Sequence[LaneEvent]) -> None:
        pass

    def close(self) -> None:
        pass


class Setting:
    """A provider whose metrics are kept in memory."""

    def __init__(self, **options: Any) -> None:
        self.reader = InMemoryMetricReader(options.pop("temporality", None))
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False, **options)

    def metrics(self) -> list[Any]:
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return [metric for scope in scopes for metric in scope.metrics]

    def points(self) -> Points:
        """Points of data by name and attributes, collected now."""
        found: Points = {}
        for metric in self.metrics():
            for point in metric.data.data_points:
                found.setdefault(metric.name, {})[tuple(sorted(point.attributes.items()))] = point
        return found

    def values(self, metric: catalogue.Metric) -> dict[tuple[Any, ...], float]:
        points = self.points().get(name_of(metric), {})
        return {
            tuple(value for key, value in labels if key != "queue"): point.value for labels, point in points.items()
        }


@pytest.fixture(autouse=True)
def no_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")


def plain(labels: dict[str, str]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((key, value) for key, value in labels.items() if key != "le"))


def shown_by_prometheus(registry: CollectorRegistry) -> tuple[dict[Any, float], dict[Any, list[float]]]:
    """Numbers, and for each histogram that is not empty its cumulated buckets and its sum."""
    numbers: dict[Any, float] = {}
    histograms: dict[Any, list[float]] = {}
    for family in registry.collect():
        for sample in family.samples:
            if family.type != "histogram":
                numbers[sample.name, plain(sample.labels)] = sample.value
            elif sample.name.endswith(("_bucket", "_sum")):
                histograms.setdefault((family.name, plain(sample.labels)), []).append(sample.value)
    return numbers, {key: parts for key, parts in histograms.items() if parts[-2] > 0}


def shown_by_otel(points: Points) -> tuple[dict[Any, float], dict[Any, list[float]]]:
    numbers: dict[Any, float] = {}
    histograms: dict[Any, list[float]] = {}
    for metric in CATALOGUE:
        for labels, point in points.get(name_of(metric), {}).items():
            if metric.kind == "histogram":
                sums = [float(sum(point.bucket_counts[: n + 1])) for n in range(len(point.bucket_counts))]
                histograms[metric.name, labels] = [*sums, point.sum]
            else:
                numbers[metric.name, labels] = point.value
    return numbers, histograms


async def work() -> None:
    pass


async def fail() -> None:
    raise ValueError("no")


async def drained(clock: VirtualClock, manager: QueueManager) -> None:
    await clock.run(manager.drain())
    await asyncio.sleep(0)  # the last batch


SEEN_ELSEWHERE = {catalogue.LOOP_LAG, *catalogue.STORED, *catalogue.BROKERED, *catalogue.CLUSTER} - {
    catalogue.RECOVERED
}
"""What needs a watchdog, a storage or a broker."""


async def everything_happens(clock: VirtualClock, manager: QueueManager) -> None:
    async with manager:
        told = [CallbackNotifier(lambda _: None, "told")]
        monitor = QueueMonitor(
            manager, MonitorConfig(interval=1, pending_warning_threshold=1, rules=(), notifiers=told)
        )
        await monitor.start()
        for _ in range(5):
            manager.submit_nowait("b", work, delay=0.25)
        manager.submit_nowait("b", fail)
        manager.submit_nowait("b", asyncio.Event().wait, timeout=0.5)
        for _ in range(2):
            manager.submit_nowait("a", work, delay=1)
        with pytest.raises(LaneFullError):
            manager.submit_nowait("a", work)
        with pytest.raises(UnknownLane):
            manager.submit_nowait("z", work)
        for key in "kkl":
            manager.submit_nowait("c", work, partition_key=key)
        manager.submit_nowait("b", work, delay=9).cancel()
        manager.submit_nowait("b", work, delay=9, deadline=2)
        await drained(clock, manager)
        await clock.run(monitor.stop())


# --- what is shown ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command_types", [0, 2])
async def test_the_numbers_are_those_of_the_prometheus_sink(clock: VirtualClock, command_types: int) -> None:
    setting, registry = Setting(), CollectorRegistry()
    options: dict[str, Any] = {"buckets": {"a": [0.5, 2.0]}, "command_types": command_types, "queue": "q"}
    sinks: list[AnySink] = [PrometheusSink(registry, **options), OtelMetricsSink(setting.provider, **options)]
    manager = QueueManager(LANES, sinks=sinks, clock=clock)
    both: list[Any] = []

    async def look() -> None:
        both.append((shown_by_otel(setting.points()), shown_by_prometheus(registry)))

    manager.submit_nowait("b", look, delay=20)
    await everything_happens(clock, manager)
    (numbers, histograms), (wanted_numbers, wanted_histograms) = both[0]
    assert numbers == wanted_numbers
    assert {key: pytest.approx(parts, abs=1e-9) for key, parts in wanted_histograms.items()} == histograms
    assert {name for name, _ in numbers} | {name for name, _ in histograms} == {
        metric.name for metric in CATALOGUE if metric not in SEEN_ELSEWHERE
    }
    assert {labels for labels in numbers if labels[0] == "lane_commands_finished_total" and numbers[labels]}


def test_all_numbers_are_there_at_zero_before_anything_happens_and_histograms_are_not() -> None:
    setting, registry = Setting(), CollectorRegistry()
    manager = QueueManager(LANES, sinks=[PrometheusSink(registry), OtelMetricsSink(setting.provider)])
    numbers, histograms = shown_by_otel(setting.points())
    assert numbers == shown_by_prometheus(registry)[0]
    assert not histograms
    assert manager.stats().submitted == 0


def translated(metric: Any) -> str:
    """The name in Prometheus, by OpenTelemetry's rules for the translation."""
    name: str = metric.name.replace(".", "_") + {"s": "_seconds", "": ""}[metric.unit]
    return name + ("_total" if getattr(metric.data, "is_monotonic", False) else "")


async def test_prometheus_gives_each_metric_its_name_of_the_catalogue_back(clock: VirtualClock) -> None:
    setting = Setting()
    manager = QueueManager(LANES, sinks=[OtelMetricsSink(setting.provider)], clock=clock)
    found: list[Any] = []

    async def look() -> None:
        found.extend(setting.metrics())

    manager.submit_nowait("b", look, delay=20)
    await everything_happens(clock, manager)
    kinds = {"Sum": "counter", "Gauge": "gauge", "Histogram": "histogram"}
    assert {(translated(metric), kinds[type(metric.data).__name__], metric.description) for metric in found} == {
        (metric.name, metric.kind, metric.help) for metric in CATALOGUE if metric not in SEEN_ELSEWHERE
    }
    assert [metric.name for metric in found if not metric.name.startswith("lane.")] == []


async def test_the_lateness_of_the_event_loop_is_shown_when_a_watchdog_looks_for_it() -> None:
    setting, watchdog = Setting(), LoopWatchdog()
    async with QueueManager(ONE, sinks=[watchdog, OtelMetricsSink(setting.provider)]):
        for seconds in (0.00003, 0.2, 30.0):
            watchdog.loop_lag.observe(seconds)
        (point,) = setting.points()["lane.event_loop_lag"].values()
        assert point.bucket_counts[1] >= 1
        assert (point.bucket_counts[9], point.bucket_counts[-1]) == (1, 1)
        assert point.sum >= 30.2


async def test_values_of_sampled_commands_have_their_span_as_an_example(clock: VirtualClock) -> None:
    setting = Setting()
    async with QueueManager(ONE, sinks=[Tracing(), OtelMetricsSink(setting.provider)], clock=clock) as manager:
        for _ in range(3):
            manager.submit_nowait("a", work)
        await drained(clock, manager)
        points = setting.points()
    for metric in (catalogue.QUEUE_WAIT, catalogue.DURATION, catalogue.END_TO_END):
        (point,) = points[name_of(metric)].values()
        assert [(example.trace_id, example.span_id) for example in point.exemplars] == [(2, 33)]


async def test_a_view_may_make_exponential_histograms_of_the_exact_values(clock: VirtualClock) -> None:
    exponential = View(instrument_name="lane.command_*", aggregation=ExponentialBucketHistogramAggregation())
    setting = Setting(views=[exponential])
    async with QueueManager(ONE, sinks=[OtelMetricsSink(setting.provider)], clock=clock) as manager:
        manager.submit_nowait("a", sleep, clock, 0.3)
        await drained(clock, manager)
        (point,) = setting.points()["lane.command_duration"].values()
    assert (point.count, point.min, point.max) == (1, pytest.approx(0.3), pytest.approx(0.3))


async def test_differences_are_shown_to_those_who_prefer_them(clock: VirtualClock) -> None:
    preferred: dict[type, Any] = dict.fromkeys((ObservableCounter, HistogramInstrument), AggregationTemporality.DELTA)
    setting = Setting(temporality=preferred)
    seen = []
    async with QueueManager(ONE, sinks=[OtelMetricsSink(setting.provider)], clock=clock) as manager:
        for count in (3, 1):
            for _ in range(count):
                manager.submit_nowait("a", work)
            await drained(clock, manager)
            points = setting.points()
            (submitted,) = points["lane.commands_submitted"].values()
            (duration,) = points["lane.command_duration"].values()
            seen.append((submitted.value, duration.count))
    assert seen == [(3, 3), (1, 1)]


# --- several queues, one after the other ------------------------------------------------------------------------


async def test_queues_of_one_provider_are_told_apart_and_go_when_they_are_closed(clock: VirtualClock) -> None:
    setting = Setting()
    async with QueueManager(ONE, sinks=[OtelMetricsSink(setting.provider, queue="x")], clock=clock) as first:
        first.submit_nowait("a", work)
        await drained(clock, first)
        async with QueueManager(ONE, sinks=[OtelMetricsSink(setting.provider, queue="y")], clock=clock):
            both = setting.points()["lane.commands_submitted"]
        one = setting.points()["lane.commands_submitted"]
    assert {dict(labels)["queue"]: point.value for labels, point in both.items()} == {"x": 1, "y": 0}
    assert [dict(labels)["queue"] for labels in one] == ["x"]
    assert "lane.commands_submitted" not in setting.points()


async def test_a_second_queue_of_a_name_takes_the_first_ones_place(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    setting = Setting()
    async with QueueManager(ONE, sinks=[OtelMetricsSink(setting.provider)], clock=clock) as first:
        first.submit_nowait("a", work)
        await drained(clock, first)
        async with QueueManager(LANES, sinks=[OtelMetricsSink(setting.provider)], clock=clock):
            await first.shutdown()
            assert setting.values(catalogue.SUBMITTED) == {("a",): 0, ("b",): 0, ("c",): 0}
    assert "takes the first one's place" in caplog.text


def test_a_queue_that_was_forgotten_instead_of_closed_is_shown_no_more() -> None:
    setting = Setting()
    manager = QueueManager(ONE, sinks=[OtelMetricsSink(setting.provider)])
    assert setting.values(catalogue.SUBMITTED) == {("a",): 0}
    del manager
    gc.collect()
    assert setting.values(catalogue.SUBMITTED) == {}


async def test_the_last_values_reach_somebody_elses_provider_which_stays_open(clock: VirtualClock) -> None:
    class Keeping(InMemoryMetricReader):
        flushed: Any = None

        def force_flush(self, timeout_millis: float = 10_000) -> bool:
            self.flushed = self.get_metrics_data()
            return True

    reader = Keeping()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    async with QueueManager(ONE, sinks=[OtelMetricsSink(provider)], clock=clock) as manager:
        manager.submit_nowait("a", work)
        await drained(clock, manager)
    scope = reader.flushed.resource_metrics[0].scope_metrics[0]
    (submitted,) = [metric for metric in scope.metrics if metric.name == "lane.commands_submitted"]
    assert [point.value for point in submitted.data.data_points] == [1]
    provider.get_meter("mine").create_counter("open").add(1)
    assert "open" in reader.get_metrics_data().to_json()  # type: ignore[union-attr]


async def test_a_provider_that_hangs_does_not_keep_the_queue_from_closing(clock: VirtualClock) -> None:
    release = threading.Event()

    class Hanging(InMemoryMetricReader):
        def force_flush(self, timeout_millis: float = 10_000) -> bool:
            return release.wait(30)

    provider = MeterProvider([Hanging()], shutdown_on_exit=False)
    manager = QueueManager(ONE, sinks=[OtelMetricsSink(provider, close_timeout=0.01)], clock=clock)
    async with manager:
        pass
    assert not manager.is_started()
    release.set()


async def test_a_flush_that_fails_is_told(clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(InMemoryMetricReader):
        def force_flush(self, timeout_millis: float = 10_000) -> bool:
            raise OSError("gone")

    async with QueueManager(
        ONE, sinks=[OtelMetricsSink(MeterProvider([Failing()], shutdown_on_exit=False))], clock=clock
    ):
        pass
    assert "were not exported" in caplog.text


# --- which provider ---------------------------------------------------------------------------------------------


@pytest.fixture
def set_global(monkeypatch: pytest.MonkeyPatch) -> Setting:
    setting = Setting()
    monkeypatch.setattr("lane_obs.sinks.otel_metrics.sink.get_meter_provider", lambda: setting.provider)
    return setting


async def test_the_global_provider_is_used_where_the_sdks_is_set(set_global: Setting, clock: VirtualClock) -> None:
    manager = QueueManager(ONE, sinks=[OtelMetricsSink()], clock=clock)
    manager.submit_nowait("a", work, delay=5).cancel()  # ends before the queue has started
    await asyncio.sleep(0)
    async with manager:
        await drained(clock, manager)
        points = set_global.points()
    (submitted,) = points["lane.commands_submitted"].values()
    (ended,) = points["lane.command_end_to_end"].values()
    assert (submitted.value, ended.count) == (1, 1)


class Receiver(BaseHTTPRequestHandler):
    """Takes OTLP over HTTP."""

    got: list[ExportMetricsServiceRequest]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append(ExportMetricsServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ExportMetricsServiceRequest]]:
    """What a receiver got that the environment names."""
    got: list[ExportMetricsServiceRequest] = []
    with HTTPServer(("127.0.0.1", 0), type("Own", (Receiver,), {"got": got})) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield got
        server.shutdown()
        thread.join()


async def test_without_a_provider_it_makes_its_own_and_sets_nothing_global(
    monkeypatch: pytest.MonkeyPatch, clock: VirtualClock, receiver: list[ExportMetricsServiceRequest]
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    async with QueueManager(ONE, sinks=[OtelMetricsSink()], clock=clock) as manager:
        manager.submit_nowait("a", work)
        await drained(clock, manager)
    (request,) = receiver
    (resource,) = request.resource_metrics
    assert {pair.key: pair.value.string_value for pair in resource.resource.attributes}["service.name"] == "shop"
    metrics = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    assert [point.as_int for point in metrics["lane.commands_submitted"].sum.data_points] == [1]
    assert [point.count for point in metrics["lane.command_duration"].histogram.data_points] == [1]
    assert not isinstance(api.get_meter_provider(), MeterProvider)
    assert not any(thread.name.startswith("OtelPeriodic") for thread in threading.enumerate())


@pytest.mark.parametrize("variable", [("OTEL_SDK_DISABLED", "true"), ("OTEL_METRICS_EXPORTER", "none")])
async def test_nothing_is_made_where_the_sdk_is_disabled_or_no_exporter_wanted(
    monkeypatch: pytest.MonkeyPatch, clock: VirtualClock, variable: tuple[str, str]
) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")
    monkeypatch.setenv(*variable)
    async with QueueManager(ONE, sinks=[OtelMetricsSink()], clock=clock) as manager:
        handle = manager.submit_nowait("a", work)
        await drained(clock, manager)
        assert handle.done()
        assert not any(thread.name.startswith("OtelPeriodic") for thread in threading.enumerate())


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_receiver_that_accepts_and_never_answers_does_not_hold_the_close_up(
    protocol: str, clock: VirtualClock
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        sink = OtelMetricsSink(endpoint=endpoint, protocol=protocol, headers={"k": "v"}, close_timeout=0.05)
        manager = QueueManager(ONE, sinks=[sink], clock=clock)
        async with manager:
            manager.submit_nowait("a", work)
            await drained(clock, manager)
        assert not manager.is_started()
    for thread in threading.enumerate():
        if thread.name.startswith("OtelPeriodic"):
            thread.join(15)  # the listener is gone, so it is told at once
    assert manager.stats().sinks[0].errors == 0


class Exporter(MetricExporter):
    """Answers what it is told to."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer
        self.calls: list[str] = []

    def export(self, metrics_data: Any, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        self.calls.append("export")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        self.calls.append("flush")
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self.calls.append("shutdown")


def test_exports_that_fail_are_counted_and_none_follows_the_shutdown() -> None:
    exporter = Exporter(MetricExportResult.SUCCESS)
    gate = Gate(exporter)
    data: Any = None
    assert gate.export(data) is MetricExportResult.SUCCESS
    exporter.answer = MetricExportResult.FAILURE
    assert gate.export(data) is MetricExportResult.FAILURE
    exporter.answer = OSError("gone")
    with pytest.raises(OSError, match="gone"):
        gate.export(data)
    assert gate.failures == 2
    assert gate.force_flush()
    gate.shutdown()
    assert gate.export(data) is MetricExportResult.FAILURE
    assert exporter.calls == ["export"] * 3 + ["flush", "shutdown"]
    assert gate.failures == 2


def test_a_child_process_exports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = Exporter(MetricExportResult.SUCCESS)
    gate = Gate(exporter)
    parent, data = os.getpid(), None
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    assert gate.export(data) is MetricExportResult.FAILURE  # type: ignore[arg-type]
    assert exporter.calls == []


# --- what is not allowed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"queue": ""}, "queue"),
        ({"buckets": []}, "buckets"),
        ({"buckets": [1, 1]}, "buckets"),
        ({"buckets": {"a": [0]}}, "buckets.a"),
        ({"command_types": -1}, "command_types"),
        ({"close_timeout": -1}, "close_timeout"),
        ({"protocol": "pigeon"}, "protocol"),
        ({"meter_provider": 3}, "meter_provider"),
        ({"meter_provider": MeterProvider(shutdown_on_exit=False), "endpoint": "http://127.0.0.1:9"}, "meter_provider"),
    ],
)
def test_values_that_are_not_allowed_are_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OtelMetricsSink(**options)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_METRICS_EXPORTER", "prometheus"), ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json")],
)
def test_variables_that_are_not_understood_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        OtelMetricsSink()
    assert caught.value.field == name


def test_bounds_for_a_lane_that_is_not_there_fail_the_queue() -> None:
    with pytest.raises(ConfigError) as caught:
        QueueManager(ONE, sinks=[OtelMetricsSink(Setting().provider, buckets={"aa": [1]})])
    assert caught.value.field == "buckets.aa"


def test_it_serves_one_queue() -> None:
    sink = OtelMetricsSink(Setting().provider)
    first = QueueManager(ONE, sinks=[sink])
    with pytest.raises(ConfigError, match="an OtelMetricsSink of its own"):
        QueueManager(ONE, sinks=[sink])
    assert first.stats().submitted == 0


def test_without_a_queue_it_says_so() -> None:
    with pytest.raises(NotStarted, match="one of its sinks"):
        OtelMetricsSink(Setting().provider).handle_facts([])


# --- values for counts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [0.5],
        [0.0],
        [1.0, 1.0],
        [0.2, 0.3, 1.7, 9.0],
        [50.0],
        [2.0, 10.5, 80.0],
        [10.0000001, 0.1, 0.1],
        [1.0000001] * 3,
    ],
)
def test_likely_values_fall_into_their_buckets_and_have_the_sum(values: list[float]) -> None:
    real, made = Histogram([1.0, 2.0, 10.0]), Histogram([1.0, 2.0, 10.0])
    for value in values:
        real.observe(value)
    for value, count in zip(likely(real.bounds, real.counts, real.total), real.counts, strict=True):
        for _ in range(count):
            made.observe(value)
    assert made.counts == real.counts
    assert made.total == pytest.approx(real.total, abs=1e-6)


def test_a_sum_that_no_values_of_these_buckets_have_comes_as_near_as_they_allow() -> None:
    assert likely([1.0, 2.0], [0, 2, 0], 100.0)[1] == 2.0
    assert 1.0 < likely([1.0, 2.0], [0, 2, 0], 0.0)[1] < 1.001
