"""The Prometheus sink, read through the client's own registry, text formats and parsers."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, generate_latest
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from lane_obs import (
    DEFAULT_LANES,
    ConfigError,
    LaneConfig,
    LaneEvent,
    LaneFullError,
    LaneObsError,
    MonitorConfig,
    NotStarted,
    Partitions,
    PriorityBoost,
    QueueManager,
    QueueMonitor,
    RateLimit,
    RetryPolicy,
    VirtualClock,
)
from lane_obs.core.histogram import QUICK_BOUNDS
from lane_obs.events import TraceIds
from lane_obs.metrics import BUCKETS, CATALOGUE
from lane_obs.metrics.catalogue import BLOCKED_BY, BROKERED, CLUSTER, STORED
from lane_obs.monitor.notify import CallbackNotifier
from lane_obs.sinks.prometheus import PrometheusSink
from lane_obs.sinks.watchdog import LoopWatchdog
from lane_obs.testing import sleep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import Metric

    from lane_obs import CommandHandle
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
Series = dict[tuple[str, ...], float]


def generate_openmetrics(registry: CollectorRegistry) -> str:
    text: bytes = exposition.generate_latest(registry)  # type: ignore[no-untyped-call]
    return text.decode()


def parse_openmetrics(text: str) -> list[Metric]:
    return list(parser.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


class Quiet:
    """A sink that takes everything and does nothing."""

    def handle(self, events: Sequence[LaneEvent]) -> None:
        pass

    def close(self) -> None:
        pass


class Failing(Quiet):
    """A sink that always fails."""

    pending = 3

    def handle(self, events: Sequence[LaneEvent]) -> None:
        raise ValueError("no")


class Tracing(Quiet):
    """Gives every attempt ids that tell its command's number; only the second command is sampled."""

    wants: tuple[type[LaneEvent], ...] = ()

    def at_start(self, command: CommandHandle[Any]) -> None:
        command.trace = TraceIds(command.seq, 16 * command.seq + command.attempt, command.seq == 2)


def series(registry: CollectorRegistry) -> dict[str, Series]:
    """Every sample by its family's whole name; labels and values as text and number."""
    found: dict[str, Series] = {}
    for family in registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = {
            (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
            for sample in family.samples
        }
    return found


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, {"queue": "default", **labels})


async def work() -> None:
    pass


async def fail() -> None:
    raise ValueError("no")


async def drained(clock: VirtualClock, manager: QueueManager) -> None:
    await clock.run(manager.drain())
    await asyncio.sleep(0)  # the last batch


# --- what is shown ----------------------------------------------------------------------------------------------


def test_every_metric_is_there_with_its_type_and_help_in_both_formats() -> None:
    registry = CollectorRegistry()
    manager = QueueManager(sinks=[PrometheusSink(registry)])
    wanted = [(metric.name.removesuffix("_total"), metric.kind, metric.help) for metric in CATALOGUE]
    openmetrics = parse_openmetrics(generate_openmetrics(registry))
    classic = list(parse_classic(generate_latest(registry).decode()))
    assert [(family.name, family.type, family.documentation) for family in openmetrics] == wanted
    assert [(family.name, family.type, family.documentation) for family in classic] == wanted
    assert [family.unit for family in openmetrics] == [metric.unit for metric in CATALOGUE]
    without = {family.name + "_total" * (family.type == "counter") for family in classic if not family.samples}
    of_storage = {metric.name for metric in STORED} - {"lane_commands_recovered_total"}
    of_policies = {
        "lane_rate_limit_left",
        "lane_partitions",
        "lane_partition_depth",
        "lane_partition_oldest_ready_age_seconds",
    }
    of_monitor = {"lane_alert_state", "lane_alert_notifications_total"}
    of_broker = {metric.name for metric in (*BROKERED, *CLUSTER)}
    assert without == of_storage | of_policies | of_monitor | of_broker
    assert manager.stats().submitted == 0


def test_samples_have_the_labels_of_the_catalogue_and_no_others() -> None:
    registry = CollectorRegistry()
    plain = QueueManager(sinks=[PrometheusSink(registry)])
    typed = QueueManager(sinks=[PrometheusSink(registry, queue="typed", command_types=3)])
    families = {family.name: family for family in registry.collect()}
    for metric in CATALOGUE:
        for sample in families[metric.name.removesuffix("_total")].samples:
            opted = metric.opt_in if sample.labels["queue"] == "typed" else ()
            bucket = {"le"} if sample.name.endswith("_bucket") else set()
            assert set(sample.labels) == {"queue", *metric.labels, *opted} | bucket
    assert plain.lanes == typed.lanes


def test_all_label_sets_are_there_at_zero_before_anything_happens() -> None:
    registry = CollectorRegistry()
    manager = QueueManager(sinks=[PrometheusSink(registry)])
    found = series(registry)
    outcomes, lanes = 5, len(manager.lanes)
    counters = {metric.name for metric in CATALOGUE if metric.kind != "gauge"}
    assert {number for name in counters for number in found[name].values()} == {0.0}
    assert len(found["lane_commands_finished_total"]) == outcomes * lanes
    assert len(found["lane_commands_rejected_total"]) == 3 * lanes + 3
    assert len(found["lane_command_queue_wait_seconds"]) == (len(BUCKETS) + 3) * lanes
    assert len(found["lane_event_loop_lag_seconds"]) == len(QUICK_BOUNDS) + 3
    assert len(found["lane_blocked_seconds_total"]) == len(BLOCKED_BY) * lanes
    assert value(registry, "lane_sink_dropped_total", sink="PrometheusSink", reason="disabled") == 0


@pytest.mark.both_loops
async def test_every_metric_moves(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    # Two slots in all, so that lane b waits for lane a.
    watchdog, failing = LoopWatchdog(), Failing()
    sinks: list[AnySink] = [PrometheusSink(registry), failing, watchdog]
    manager = QueueManager(LANES, max_concurrency=2, sinks=sinks, dead_letters=1, clock=clock, stuck_after=1.0)
    seen = [series(registry)]
    async with manager:
        told = [CallbackNotifier(lambda _: None, "told")]
        monitor = QueueMonitor(manager, MonitorConfig(pending_warning_threshold=2, rules=(), notifiers=told))
        await monitor.start()

        async def deaf() -> None:
            try:
                await sleep(clock, 1.0)
            except asyncio.CancelledError:
                await sleep(clock, 50.0)

        for command in (deaf, deaf, work, work):
            await manager.submit("a", command, timeout=0.5)
            await clock.advance(0)
        with pytest.raises(LaneFullError):
            await manager.submit("a", work)
        with pytest.raises(LaneObsError):
            await manager.submit("typo", work)
        await manager.submit("b", fail, retry=RetryPolicy())
        await manager.submit("b", fail)
        await manager.submit("b", work, delay=60.0)
        for key in "kkl":
            await manager.submit("c", work, partition_key=key)
        await clock.advance(10.0)
        failing.pending = 0
        watchdog.loop_lag.observe(0.5)
        seen.append(series(registry))
        manager.pause("b")
        await clock.advance(60.0)
        manager.resume("b")
        await clock.advance(20.0)
        manager.set_lane("b", priority=7, min_concurrency=1, max_concurrency=3)
        manager.dead_letters.requeue(manager.dead_letters.list()[0].id)
        await drained(clock, manager)
        for _ in range(10):  # a batch each: the sink that fails is cut off
            await manager.submit("b", work)
            await drained(clock, manager)
        seen.append(series(registry))
        await clock.run(monitor.stop())
    still = [metric.name for metric in CATALOGUE if all(other[metric.name] == seen[0][metric.name] for other in seen)]
    elsewhere = (*STORED, *BROKERED, *CLUSTER)  # with the tests of durable lanes, and those of brokers
    assert still == ["lane_build_info", *(metric.name for metric in elsewhere)]


async def test_exemplars_name_the_sampled_attempts_and_come_out_in_openmetrics_only(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    sinks: list[AnySink] = [PrometheusSink(registry, buckets=[1.0, 2.0, 3.0]), Tracing()]
    retry = RetryPolicy(1, 1.0, jitter="none")
    async with QueueManager({"a": LaneConfig(0, 1, retry=retry)}, sinks=sinks, clock=clock) as manager:
        began = clock.wall()
        await manager.submit("a", sleep, clock, 1.5)
        await manager.submit("a", fail)
        await manager.submit("a", fail)
        await manager.submit("a", sleep, clock, 2.5)
        await drained(clock, manager)
        text = generate_openmetrics(registry)
        classic = generate_latest(registry).decode()
    shown = {
        (sample.name, sample.labels["le"]): sample.exemplar
        for family in parse_openmetrics(text)
        for sample in family.samples
        if sample.exemplar is not None
    }
    first = {"trace_id": f"{2:032x}", "span_id": f"{0x21:016x}"}
    second = {"trace_id": f"{2:032x}", "span_id": f"{0x22:016x}"}
    assert {key: (mark.labels, mark.value) for key, mark in shown.items()} == {
        ("lane_command_queue_wait_seconds_bucket", "2.0"): (first, 1.5),
        ("lane_command_duration_seconds_bucket", "1.0"): (second, 0.0),
        ("lane_command_end_to_end_seconds_bucket", "+Inf"): (second, 4.0),
    }
    at = float(shown["lane_command_queue_wait_seconds_bucket", "2.0"].timestamp or 0.0)
    assert at == pytest.approx(began + 1.5, rel=0, abs=0.001)
    assert "# {" not in classic


async def test_types_of_commands_are_a_label_where_that_is_asked_for(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    async with QueueManager(ONE, sinks=[PrometheusSink(registry, command_types=1)], clock=clock) as manager:
        name = "lane_command_duration_seconds_count"
        assert value(registry, name, lane="a", command_type="other") == 0
        await manager.submit("a", sleep, clock, 2.0)
        for command in (work, fail, work):
            await manager.submit("a", command)
        await drained(clock, manager)
        assert value(registry, name, lane="a", command_type="sleep") == 1
        assert value(registry, name, lane="a", command_type="other") == 3
        assert value(registry, "lane_busy_seconds_total", lane="a") == 2.0


async def test_bounds_can_be_given_for_all_lanes_or_by_lane(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    lanes = {"a": LaneConfig(0, 1), "b": LaneConfig(0, 1)}
    async with QueueManager(lanes, sinks=[PrometheusSink(registry, buckets={"a": [1, 2]})], clock=clock) as manager:
        await manager.submit("a", sleep, clock, 1.5)
        await drained(clock, manager)
        name = "lane_command_duration_seconds_bucket"
        assert [value(registry, name, lane="a", le=bound) for bound in ("1.0", "2.0", "+Inf")] == [0, 1, 1]
        assert value(registry, name, lane="b", le="300.0") == 0


# --- where and when it is shown ---------------------------------------------------------------------------------


def test_without_a_registry_the_clients_own_is_used() -> None:
    manager = QueueManager(sinks=[PrometheusSink()])
    assert "lane_queue_depth" in {family.name for family in REGISTRY.collect()}
    del manager
    gc.collect()
    assert "lane_queue_depth" not in {family.name for family in REGISTRY.collect()}


@pytest.mark.both_loops
async def test_a_dead_queue_leaves_the_registry_and_one_of_its_name_begins_at_zero(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    sink = PrometheusSink(registry)
    for made in (sink, PrometheusSink(registry), sink):
        async with QueueManager(ONE, sinks=[made], clock=clock) as manager:
            await manager.submit("a", work)
            await drained(clock, manager)
            assert value(registry, "lane_commands_finished_total", lane="a", outcome="ok") == 1
        assert series(registry) == {}
    assert caplog.records == []


async def test_one_of_the_same_name_takes_over_and_the_end_of_the_old_one_does_not_hide_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = CollectorRegistry()
    old = QueueManager({**ONE, "gone": LaneConfig(0, 1)}, sinks=[PrometheusSink(registry)])
    async with old:
        new = QueueManager({"a": LaneConfig(0, 4)}, sinks=[PrometheusSink(registry)])
        assert [(record.name, record.levelno) for record in caplog.records] == [("lane_obs.sinks", logging.WARNING)]
        assert "'default'" in caplog.text
    async with new:
        assert value(registry, "lane_concurrency_limit", lane="a") == 4
        assert value(registry, "lane_concurrency_limit", lane="gone") is None


@pytest.mark.parametrize("case", ["its sink is used again", "its sink is only kept", "its sink is forgotten too"])
def test_a_queue_that_was_forgotten_instead_of_closed_leaves_nothing(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    kept = [PrometheusSink(registry)]
    QueueManager(sinks=kept)
    sinks = kept if case == "its sink is used again" else [PrometheusSink(registry)]
    if case == "its sink is forgotten too":
        kept.clear()
    gc.collect()
    assert generate_latest(registry) == b""
    again = QueueManager({"new": LaneConfig(0, 1)}, sinks=sinks)
    assert value(registry, "lane_active_commands", lane="new") == again.stats().total_active == 0
    assert value(registry, "lane_active_commands", lane="system") is None
    assert caplog.records == []


async def test_several_queues_share_a_registry(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    one = QueueManager(ONE, sinks=[PrometheusSink(registry, queue="one")], clock=clock)
    two = QueueManager(ONE, sinks=[PrometheusSink(registry, queue="two")], clock=clock)
    async with one:
        async with two:
            for manager, count in ((one, 1), (two, 2)):
                await manager.submit_many("a", [work] * count)
                await drained(clock, manager)
            families = [family.name for family in parse_classic(generate_latest(registry).decode())]
            assert len(families) == len(set(families)) == len(CATALOGUE)
            for name, count in (("one", 1), ("two", 2)):
                labels = {"queue": name, "lane": "a"}
                assert registry.get_sample_value("lane_commands_submitted_total", labels) == count
        samples = [sample for family in registry.collect() for sample in family.samples]
        assert {sample.labels["queue"] for sample in samples} == {"one"}


async def test_a_registry_that_was_emptied_by_its_owner_does_not_disturb_the_close(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = CollectorRegistry()
    async with QueueManager(ONE, sinks=[PrometheusSink(registry)]):
        for collector in list(registry._collector_to_names):
            registry.unregister(collector)
    assert caplog.records == []


async def test_a_scrape_from_a_thread_shows_the_present_while_the_loop_is_blocked(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    async with QueueManager(ONE, sinks=[PrometheusSink(registry)], clock=clock) as manager:
        manager.pause("a")
        await manager.submit_many("a", [work] * 3)
        seen: list[dict[str, Series]] = []
        thread = threading.Thread(target=lambda: seen.append(series(registry)))
        thread.start()
        thread.join()  # which blocks the loop
        manager.resume("a")
        await clock.run(manager.drain())
    assert seen[0]["lane_queue_depth"]["lane_queue_depth", "lane=a", "queue=default", "state=ready"] == 3


async def test_a_lane_whose_priority_changes_has_one_series_that_tells_it(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    async with QueueManager(ONE, sinks=[PrometheusSink(registry)], clock=clock) as manager:
        for priority in range(20):
            manager.set_lane("a", priority=priority)
            assert list(series(registry)["lane_info"]) == [
                ("lane_info", "lane=a", f"priority={priority}", "queue=default")
            ]


# --- refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bounds", [[], [0.0, 1.0], [2.0, 1.0], [1.0, 1.0], [1.0, float("inf")], ["1"], "1", 5, {"a": []}, {"a": None}]
)
def test_bad_bounds_are_refused(bounds: Any) -> None:
    with pytest.raises(ConfigError, match="buckets"):
        PrometheusSink(CollectorRegistry(), buckets=bounds)


@pytest.mark.parametrize(
    ("field", "bad"), [("queue", ""), ("queue", 3), ("command_types", -1), ("command_types", True), ("registry", 5)]
)
def test_other_bad_values_are_refused(field: str, bad: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        PrometheusSink(**{field: bad})


def test_bounds_for_a_lane_that_does_not_exist_are_refused() -> None:
    registry = CollectorRegistry()
    with pytest.raises(ConfigError, match=r"buckets\.promt.*'prompt'"):
        QueueManager(sinks=[PrometheusSink(registry, buckets={"promt": [1.0]})])
    assert series(registry) == {}


def test_a_registry_that_has_a_metric_of_the_same_name_is_refused() -> None:
    registry = CollectorRegistry()
    Gauge("lane_queue_depth", "mine", registry=registry)
    sink = PrometheusSink(registry)
    for _ in range(2):  # the sink is not taken by the queue that was never built
        with pytest.raises(ConfigError, match="lane_queue_depth"):
            QueueManager(sinks=[sink])


def test_one_sink_for_two_queues_is_refused() -> None:
    sink = PrometheusSink(CollectorRegistry())
    first = QueueManager(sinks=[sink])
    with pytest.raises(ConfigError, match="of its own"):
        QueueManager(sinks=[sink])
    assert set(first.lanes) == set(DEFAULT_LANES)


def test_a_sink_that_belongs_to_no_queue_says_so() -> None:
    with pytest.raises(NotStarted, match="give it as one of its sinks"):
        PrometheusSink(CollectorRegistry()).handle_facts([])
