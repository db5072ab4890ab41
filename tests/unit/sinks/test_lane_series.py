"""The series of lanes that are added and removed: they come at zero, and leave with the lane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from lane_obs import LaneConfig, LaneRemoved, MonitorConfig, QueueManager, QueueMonitor
from lane_obs.metrics import CATALOGUE, catalogue
from lane_obs.sinks.otel_metrics import OtelMetricsSink
from lane_obs.sinks.otel_metrics.pruning import _matches
from lane_obs.sinks.prometheus import PrometheusSink
from lane_obs.testing import sleep
from tests.unit.runtime.support import running

if TYPE_CHECKING:
    from lane_obs import VirtualClock

LANE = LaneConfig(0, 1)


async def work(_: Any = None) -> None:
    """Ends at once."""


def shown(registry: CollectorRegistry) -> dict[str, set[str]]:
    """The names of the series of each lane."""
    found: dict[str, set[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            if lane := sample.labels.get("lane"):
                found.setdefault(lane, set()).add(sample.name)
    return found


def exported(reader: InMemoryMetricReader) -> dict[str, dict[str, Any]]:
    """What was exported of each lane, by the instrument's name."""
    found: dict[str, dict[str, Any]] = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    if lane := (point.attributes or {}).get("lane"):
                        found.setdefault(str(lane), {})[metric.name] = point
    return found


async def test_an_added_lane_has_all_its_series_at_zero_and_a_removed_one_none(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    async with running(clock, {"a": LANE}, sinks=[PrometheusSink(registry)]) as manager:
        await QueueMonitor(manager, MonitorConfig(interval=5)).start()
        await clock.advance(0)
        before = shown(registry)
        manager.add_lane("b", LANE)
        await clock.advance(0)
        now = shown(registry)
        assert now["b"] == now["a"] == before["a"]
        for metric in CATALOGUE:
            if metric.kind == "counter" and metric.labels == ("lane",) and metric not in catalogue.BROKERED:
                assert registry.get_sample_value(metric.name, {"queue": "default", "lane": "b"}) == 0, metric.name
        await clock.run(await manager.submit("b", work))
        await manager.remove_lane("b")
        assert shown(registry) == before


async def test_a_submit_to_a_lane_that_goes_is_counted_for_all_that_do_not_exist(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    async with running(clock, {"a": LANE, "b": LANE}, sinks=[PrometheusSink(registry)]) as manager:
        await manager.submit("b", sleep, clock, 5)
        removal = clock.run(manager.remove_lane("b"))
        refused = 0

        def submit() -> None:
            nonlocal refused
            try:
                manager.submit_nowait("b", work)
            except LaneRemoved:
                refused += 1

        clock.call_at(clock.now() + 1, submit)
        await removal
        labels = {"queue": "default", "lane": "unknown", "reason": "removed"}
        assert registry.get_sample_value("lane_commands_rejected_total", labels) == refused == 1


async def test_a_lane_of_the_same_name_counts_from_zero(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    sink = PrometheusSink(registry)
    async with QueueManager({"a": LANE}, sinks=[sink], clock=clock) as manager:
        manager.add_lane("b", LANE)
        manager.pause("b")
        handle = await manager.submit("b", work)
        await clock.advance(7)
        manager.resume("b")
        await clock.run(handle)
        labels = {"queue": "default", "lane": "b"}
        assert registry.get_sample_value("lane_blocked_seconds_total", labels | {"cause": "pause"}) == 7.0
        await manager.remove_lane("b")
        manager.add_lane("b", LANE)
        handle = await manager.submit("b", work)  # removed, added and used within one batch
        await clock.advance(0)
        assert registry.get_sample_value("lane_blocked_seconds_total", labels | {"cause": "pause"}) == 0.0
        assert registry.get_sample_value("lane_commands_submitted_total", labels) == 1.0
        assert registry.get_sample_value("lane_command_end_to_end_seconds_count", labels) == float(handle.done())
        assert sink.tally.removed[sink.tally.lanes["a"].bounds].completed == 1


async def test_bounds_given_for_all_lanes_are_those_of_an_added_one(clock: VirtualClock) -> None:
    registry = CollectorRegistry()
    sink = PrometheusSink(registry, buckets=(1.0, 2.0))
    async with QueueManager({"a": LANE}, sinks=[sink], clock=clock) as manager:
        manager.add_lane("b", LANE)
        await clock.advance(0)
        assert sink.tally.lanes["b"].bounds == (1.0, 2.0)


async def test_otel_shows_an_added_lane_and_a_removed_one_no_more(clock: VirtualClock) -> None:
    reader = InMemoryMetricReader()
    sink = OtelMetricsSink(MeterProvider([reader], shutdown_on_exit=False))
    async with QueueManager({"a": LANE}, sinks=[sink], clock=clock) as manager:
        await clock.run(await manager.submit("a", work))
        manager.add_lane("b", LANE)
        await clock.run(await manager.submit("b", work))
        await clock.advance(0)
        found = exported(reader)
        assert found["a"].keys() == found["b"].keys()
        await manager.remove_lane("b")
        after = exported(reader)
        assert "b" not in after
        assert after["a"].keys() == found["a"].keys()
        manager.add_lane("b", LANE)
        await clock.run(await manager.submit("b", work))
        await clock.advance(0)
        again = exported(reader)["b"]
        assert again["lane.commands_submitted"].value == 1
        assert again["lane.command_end_to_end"].count == 1


async def test_the_sdk_of_otel_keeps_nothing_of_thousands_of_lanes(clock: VirtualClock) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    sink = OtelMetricsSink(provider)
    async with QueueManager({"a": LANE}, sinks=[sink], clock=clock) as manager:
        for wave in range(21):
            names = [f"lane {wave} {number}" for number in range(100)]
            for name in names:
                manager.add_lane(name, LANE)
                await manager.submit(name, work)
            await clock.run(manager.drain())
            await clock.advance(0)
            assert set(names) <= set(exported(reader))
            for name in names:
                await manager.remove_lane(name)
        exported(reader)
        kept = [
            one._attributes
            for match in _matches(provider, "lane_obs")
            for one in match._attributes_aggregation.values()
        ]
        assert {attributes["lane"] for attributes in kept if "lane" in attributes} == {"a", "unknown"}
        assert {lane for _, values in sink._recorder._targets for lane in values} == {"OtelMetricsSink"}
        manager.add_lane("last", LANE)  # beyond the 2,000 that the SDK takes
        await clock.run(await manager.submit("last", work))
        await clock.advance(0)
        assert exported(reader)["last"]["lane.command_end_to_end"].count == 1
