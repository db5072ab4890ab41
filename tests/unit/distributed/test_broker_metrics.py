"""What metrics tell of a broker: of this process's link to it, and, in one process, of the whole queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from lane_obs import LaneConfig, events
from lane_obs.core.fact import told, traced
from lane_obs.core.histogram import QUICK_BOUNDS, Histogram
from lane_obs.distributed.view import BrokerHealth
from lane_obs.events import TraceIds, WaitByCause
from lane_obs.metrics import catalogue
from lane_obs.sinks.otel_metrics import OtelMetricsSink
from lane_obs.sinks.otel_metrics.instruments import name_of
from lane_obs.sinks.prometheus import PrometheusSink
from tests.unit.distributed.known import SUBMITTER, WORKER, KnownBroker, KnownQueue, depth, whole

if TYPE_CHECKING:
    from lane_obs import VirtualClock
    from lane_obs.bus import AnySink

LANES = {"a": LaneConfig(0, 4), "b": LaneConfig(0, 4)}
STATS = whole(
    {
        "a": depth(ready=5, delayed=2, backoff=1, running=3, dead=4, oldest_ready_age=7.5, max_concurrency=9),
        "elsewhere": depth(paused=True),
    },
    WORKER,
    WORKER,
    SUBMITTER,
    submitted=100,
    ended={"succeeded": 80, "expired": 2},
    returned=3,
    evicted=6,
)


class Watched:
    """A queue whose broker is known, and the two sinks of metrics."""

    def __init__(self, broker: KnownBroker | None, *sinks: AnySink, clock: VirtualClock | None = None) -> None:
        self.registry, self.reader = CollectorRegistry(), InMemoryMetricReader()
        mine: list[AnySink] = [PrometheusSink(self.registry), OtelMetricsSink(MeterProvider([self.reader]))]
        self.manager = KnownQueue(LANES, sinks=[*mine, *sinks], clock=clock)
        self.queue: Any = self.manager.queue()
        self.queue.broker = broker

    def samples(self) -> dict[tuple[str, str], float]:
        """Values by name and by the label that is not the queue's; those of the broker, buckets left out."""
        return {
            (sample.name, " ".join(value for name, value in sample.labels.items() if name != "queue")): sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if not sample.name.endswith(("_bucket", "_sum"))
        }

    def of(self, metric: catalogue.Metric) -> dict[str, float]:
        """Values of a metric by the label that is not the queue's."""
        return {label: value for (name, label), value in self.samples().items() if name == metric.name}

    def of_otel(self, metric: catalogue.Metric) -> dict[str, float]:
        """The same through OpenTelemetry."""
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            " ".join(str(value) for name, value in (point.attributes or {}).items() if name != "queue"): point.value
            for one in data.resource_metrics[0].scope_metrics[0].metrics
            if one.name == name_of(metric)
            for point in one.data.data_points
            if hasattr(point, "value")
        }


def names(watched: Watched) -> set[str]:
    return {name.removesuffix("_count") for name, _ in watched.samples()}


def test_a_queue_without_a_broker_shows_nothing_of_one() -> None:
    shown = names(Watched(None))
    assert not shown & {metric.name for metric in (*catalogue.BROKERED, *catalogue.CLUSTER)}


def test_a_member_shows_its_link_and_only_the_one_that_leads_shows_the_whole_queue() -> None:
    broker = KnownBroker()
    watched = Watched(broker)
    mine, of_all = ({metric.name for metric in some} for some in (catalogue.BROKERED, catalogue.CLUSTER))
    assert mine <= names(watched)
    assert not of_all & names(watched)
    broker.stats_now = STATS
    assert mine | of_all <= names(watched)
    broker.now = BrokerHealth(ready=False, error="refused", leads=True)  # what it knows is old: another one leads
    assert not of_all & names(watched)
    broker.now, broker.stats_now = BrokerHealth(ready=True), None
    assert not of_all & names(watched)


def test_the_link() -> None:
    broker = KnownBroker()
    broker.member = ""
    watched = Watched(broker)
    of_link = (catalogue.BROKER_DOWN, catalogue.BROKER_FAILURES, catalogue.BROKER_LEADS, catalogue.WORKER_INFO)
    assert [watched.of(metric) for metric in of_link] == [{}] * 4  # it has not joined yet
    broker.member = "one:1:1"
    assert [watched.of(metric) for metric in of_link] == [{"": 0}, {"": 0}, {"": 0}, {"one:1:1": 1}]
    broker.now = BrokerHealth(ready=False, error="refused", failures=3)
    assert watched.of(catalogue.BROKER_DOWN) == {"": 1}
    assert watched.of(catalogue.BROKER_FAILURES) == {"": 3}
    assert watched.of(catalogue.BROKER_LEADS) == {"": 0}
    broker.now = BrokerHealth(ready=True, failures=3, leads=True)
    assert watched.of(catalogue.BROKER_LEADS) == {"": 1}
    assert watched.of(catalogue.WORKER_INFO) == {"one:1:1": 1}


WHOLE: dict[catalogue.Metric, dict[str, float]] = {
    catalogue.CLUSTER_DEPTH: {
        "a ready": 5, "a delayed": 2, "a backoff": 1,
        "elsewhere ready": 0, "elsewhere delayed": 0, "elsewhere backoff": 0,
    },
    catalogue.CLUSTER_ACTIVE: {"a": 3, "elsewhere": 0},
    catalogue.CLUSTER_OLDEST: {"a": 7.5, "elsewhere": 0},
    catalogue.CLUSTER_LIMIT: {"a": 9, "elsewhere": 8},
    catalogue.CLUSTER_PAUSED: {"a": 0, "elsewhere": 1},
    catalogue.CLUSTER_LETTERS: {"a": 4, "elsewhere": 0},
    catalogue.CLUSTER_MEMBERS: {"worker": 2, "submitter": 1},
    catalogue.CLUSTER_SLOTS: {"": 64},
    catalogue.CLUSTER_SUBMITTED: {"": 100},
    catalogue.CLUSTER_ENDED: {"succeeded": 80, "failed": 0, "timed_out": 0, "cancelled": 0, "expired": 2},
    catalogue.CLUSTER_RETURNED: {"": 3},
    catalogue.CLUSTER_EVICTED: {"": 6},
}  # fmt: skip


def test_the_whole_queue_in_prometheus_and_opentelemetry() -> None:
    watched = Watched(KnownBroker(stats=STATS))
    assert set(WHOLE) == set(catalogue.CLUSTER)
    assert {metric: watched.of(metric) for metric in WHOLE} == WHOLE
    assert {metric: watched.of_otel(metric) for metric in WHOLE} == WHOLE


async def test_turns_are_those_of_whoever_measures_them() -> None:
    watched = Watched(KnownBroker())
    turns = watched.queue.bus.histograms["broker_turn_seconds"] = Histogram(QUICK_BOUNDS)
    turns.observe(0.25)
    assert watched.samples()["lane_broker_turn_seconds_count", ""] == 1


class Record:
    """A command as facts have it."""

    id, command_type, span, trace = "c1", "work", None, None

    def __init__(self, lane: str) -> None:
        self.home = LaneConfigHome(lane)


class LaneConfigHome:
    def __init__(self, name: str) -> None:
        self.name = name


async def test_lost_leases_are_counted_by_lane(clock: VirtualClock) -> None:
    watched = Watched(KnownBroker(), clock=clock)
    bus = watched.queue.bus
    async with watched.manager:
        bus.emit(events.CommandReturned, "c1", "a", "work", 1, "two:2:1")
        bus.append((traced, 0.0, None, events.CommandReturned, TraceIds(1, 2), "c2", "a", "work", 1, "two:2:1"))
        bus.emit(events.CommandReturned, "c3", "elsewhere", "work", 1, "two:2:1")
        bus.append((told, 0.0, Record("a"), events.CommandLeaseLost, 1, None))
        bus.append((told, 0.0, Record("b"), events.CommandStale, 1, None, "succeeded"))
        bus.append((told, 0.0, Record("elsewhere"), events.CommandStale, 1, None, "succeeded"))
        await clock.advance(0)
        assert watched.of(catalogue.RETURNED) == watched.of_otel(catalogue.RETURNED) == {"a": 2, "b": 0}
        assert watched.of(catalogue.LEASES_LOST) == watched.of_otel(catalogue.LEASES_LOST) == {"a": 1, "b": 0}
        assert watched.of(catalogue.STALE) == watched.of_otel(catalogue.STALE) == {"a": 0, "b": 1}
        assert not any(sink.errors for sink in watched.manager.stats().sinks)


async def test_a_wait_at_the_broker_counts_as_a_wait_before_the_start(clock: VirtualClock) -> None:
    class Waited:
        """A sink that has each command wait elsewhere before."""

        wants = ()

        def at_submit(self, command: Any) -> None:
            command.waited = WaitByCause(delay=10.0, broker=2.0)

        def handle(self, events: Any) -> None: ...
        def close(self) -> None: ...

    async def work() -> None: ...

    watched = Watched(KnownBroker(), Waited(), clock=clock)
    async with watched.manager as manager:
        manager.submit_nowait("a", work)
        await clock.run(manager.drain())
        await clock.advance(0)
        sums = [
            sample.value
            for family in watched.registry.collect()
            for sample in family.samples
            if sample.name == "lane_command_queue_wait_seconds_sum" and sample.labels["lane"] == "a"
        ]
        assert sums == [pytest.approx(2.0)]
