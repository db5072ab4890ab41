"""A real server goes away and comes back: events, metrics and log lines of the process say so."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from lane_obs import LaneConfig, MemorySink, QueueManager
from lane_obs.distributed import RedisBroker
from lane_obs.sinks.prometheus import PrometheusSink
from lane_obs.sinks.structlog import StructlogSink
from tests.integration.services.process import poll
from tests.integration.shared.commands import add

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.servers.server import Server

LANES = {"api": LaneConfig(0, 4)}


async def test_a_server_that_goes_away_is_told_and_so_is_its_return(start_server: Callable[..., Server]) -> None:
    server, registry, sink, file = start_server(aof="always"), CollectorRegistry(), MemorySink(), io.BytesIO()
    broker = RedisBroker(server.url, lease=3.0)
    sinks = [PrometheusSink(registry), sink, StructlogSink(file, flush_interval=0)]

    def value(name: str) -> float | None:
        return registry.get_sample_value(name, {"queue": "default"})

    async with QueueManager(LANES, broker=broker, sinks=sinks) as manager:
        member = broker.member
        assert await (await manager.submit("api", add, 1, 2)) == 3
        await asyncio.to_thread(poll, lambda: value("lane_broker_leads") or None, 20, lambda: "it does not lead")
        assert (value("lane_broker_down"), value("lane_broker_failures_total")) == (0, 0)
        assert value("lane_cluster_worker_slots") == broker.concurrency
        server.kill()
        down = await sink.wait_for("queue.broker.down")
        assert down.payload["error"]
        assert value("lane_broker_down") == 1
        await asyncio.to_thread(
            poll, lambda: value("lane_cluster_worker_slots") is None or None, 20, lambda: "it still shows the whole"
        )
        server.start()
        up = await sink.wait_for("queue.broker.up")
        assert 0 < up.payload["seconds"] < 60
        assert value("lane_broker_down") == 0
        assert (value("lane_broker_failures_total") or 0) >= 1
        assert await (await manager.submit("api", add, 3, 4)) == 7
        await asyncio.to_thread(
            poll, lambda: value("lane_cluster_worker_slots"), 20, lambda: "it does not show the whole again"
        )
        assert value("lane_broker_turn_seconds_count")
    leads = [event.payload["leads"] for event in sink.events if event.key == "queue.broker.lead"]
    assert leads == [True, False, True][: len(leads)]
    assert leads
    told = [json.loads(line) for line in file.getvalue().splitlines()]
    levels = {line["event"]: line["level"] for line in told}
    assert (levels["queue.broker.down"], levels["queue.broker.up"]) == ("error", "info")
    assert {line["worker"] for line in told} == {member}
