"""Receivers of OTLP that nobody here wrote get every metric of the catalogue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import LaneConfig, MonitorConfig, Partitions, QueueManager, QueueMonitor, RateLimit, command
from lane_obs.distributed import LocalBroker
from lane_obs.metrics import CATALOGUE, catalogue
from lane_obs.monitor.notify import CallbackNotifier
from lane_obs.sinks.otel_metrics import OtelMetricsSink, name_of
from lane_obs.sinks.watchdog import LoopWatchdog
from lane_obs.storage import LocalStorage
from tests.integration.services.otlp import Collector
from tests.integration.services.tools import require_oteltap, require_rotel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.services.otlp import Tap

COMMANDS = 37


@command("otlp_metrics.work")
async def work() -> None:
    pass


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there only while a command waits is exported meanwhile."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")


async def run(sink: OtelMetricsSink, directory: Path, wait_for: Callable[[str], object]) -> None:
    """Lets the commands run; `wait_for` returns once the receiver has a metric of this name."""
    limited = LaneConfig(0, 2, rate_limit=RateLimit.per_second(1e6), partitions=Partitions.per_key())
    watchdog, lanes = LoopWatchdog(), {"api": limited}
    async with QueueManager(lanes, sinks=[watchdog, sink], dead_letters=5, storage=LocalStorage(directory)) as manager:
        told = asyncio.Event()
        notifiers = [CallbackNotifier(lambda _: told.set(), "told")]
        config = MonitorConfig(interval=0.01, pending_warning_threshold=0, rules=(), notifiers=notifiers)
        monitor = QueueMonitor(manager, config)
        await monitor.start()
        for _ in range(COMMANDS - 1):
            await (await manager.submit("api", work))
        manager.pause("api")
        last = await manager.submit("api", work, partition_key="a tenant")
        await told.wait()  # of the one that is kept waiting
        for metric in (catalogue.PARTITION_DEPTH, catalogue.PARTITION_AGE):
            await asyncio.to_thread(wait_for, name_of(metric))
        manager.resume("api")
        await last
        watchdog.loop_lag.observe(0.001)  # one heartbeat for sure


async def run_shared(sink: OtelMetricsSink, wait_for: Callable[[str], object]) -> None:
    """The same with a broker, which a queue with a storage cannot have."""
    async with QueueManager({"shared": LaneConfig(0, 2)}, sinks=[sink], broker=LocalBroker()) as manager:
        await (await manager.submit("shared", work))
        for metric in (catalogue.BROKER_TURN, catalogue.CLUSTER_MEMBERS):
            await asyncio.to_thread(wait_for, name_of(metric))


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_collector_receives_every_metric(tmp_path: Path, protocol: str) -> None:
    require_rotel()
    with Collector(tmp_path, "metrics") as collector:
        endpoint = collector.grpc_endpoint if protocol == "grpc" else collector.http_endpoint

        def arrives(name: str) -> object:
            return collector.wait_for_output(f"-> Name: {name}\n", 0)

        await run_shared(OtelMetricsSink(endpoint=endpoint, protocol=protocol, queue="shared"), arrives)
        await run(OtelMetricsSink(endpoint=endpoint, protocol=protocol), tmp_path / "queue", arrives)
        for metric in CATALOGUE:
            await asyncio.to_thread(collector.wait_for_output, f"-> Name: {name_of(metric)}\n", 0)
        await asyncio.to_thread(collector.wait_for_output, f"Value: {COMMANDS}\n", 0)


async def test_numbers_and_buckets_arrive_exactly(tap: Tap, tmp_path: Path) -> None:
    require_oteltap()

    def arrives(name: str) -> object:
        return tap.wait_for_output(f'"name":"{name}"', 0)

    await run_shared(OtelMetricsSink(endpoint=tap.http_endpoint, protocol="http", queue="shared"), arrives)
    await run(OtelMetricsSink(endpoint=tap.http_endpoint, protocol="http"), tmp_path, arrives)
    # Of each the last, which is of the queue that ran last where it has it.
    records: dict[str, Any] = {record["name"]: record for record in await asyncio.to_thread(tap.metrics)}
    assert set(records) == {name_of(metric) for metric in CATALOGUE}
    (submitted,) = records[name_of(catalogue.SUBMITTED)]["sum"]["dataPoints"]
    assert submitted["asInt"] == COMMANDS
    (duration,) = records[name_of(catalogue.DURATION)]["histogram"]["dataPoints"]
    assert int(duration["count"]) == sum(map(int, duration["bucketCounts"])) == COMMANDS
    assert len(duration["explicitBounds"]) == len(catalogue.BUCKETS)
