"""Receivers of OTLP that nobody here wrote get every metric of the catalogue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import LaneConfig, QueueManager
from lane_obs.metrics import CATALOGUE, catalogue
from lane_obs.sinks.otel_metrics import OtelMetricsSink, name_of
from lane_obs.sinks.watchdog import LoopWatchdog
from tests.integration.services.otlp import Collector
from tests.integration.services.tools import require_oteltap, require_rotel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.services.otlp import Tap

COMMANDS = 37


async def run(sink: OtelMetricsSink) -> None:
    async def work() -> None:
        pass

    watchdog = LoopWatchdog()
    async with QueueManager({"api": LaneConfig(0, 2)}, sinks=[watchdog, sink], dead_letters=5) as manager:
        for _ in range(COMMANDS):
            await (await manager.submit("api", work))
        watchdog.loop_lag.observe(0.001)  # one heartbeat for sure


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_collector_receives_every_metric(tmp_path: Path, protocol: str) -> None:
    require_rotel()
    with Collector(tmp_path, "metrics") as collector:
        endpoint = collector.grpc_endpoint if protocol == "grpc" else collector.http_endpoint
        await run(OtelMetricsSink(endpoint=endpoint, protocol=protocol))
        for metric in CATALOGUE:
            await asyncio.to_thread(collector.wait_for_output, f"-> Name: {name_of(metric)}\n", 0)
        await asyncio.to_thread(collector.wait_for_output, f"Value: {COMMANDS}\n", 0)
        assert collector.text.count(f"-> Name: {name_of(catalogue.SUBMITTED)}\n") == 1


async def test_numbers_and_buckets_arrive_exactly(tap: Tap) -> None:
    require_oteltap()
    await run(OtelMetricsSink(endpoint=tap.http_endpoint, protocol="http"))
    records: dict[str, Any] = {record["name"]: record for record in await asyncio.to_thread(tap.records)}
    assert set(records) == {name_of(metric) for metric in CATALOGUE}
    (submitted,) = records[name_of(catalogue.SUBMITTED)]["sum"]["dataPoints"]
    assert submitted["asInt"] == COMMANDS
    (duration,) = records[name_of(catalogue.DURATION)]["histogram"]["dataPoints"]
    assert int(duration["count"]) == sum(map(int, duration["bucketCounts"])) == COMMANDS
    assert len(duration["explicitBounds"]) == len(catalogue.BUCKETS)
