"""A producer here and a worker in a process of its own: a real collector and a real Prometheus see what they share."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import prometheus_client
import pytest

from lane_obs import QueueManager
from lane_obs.distributed import RedisBroker
from lane_obs.errors import RemoteError
from lane_obs.http import MetricsServer
from lane_obs.sinks.otel import OtelSink, SpanPipeline
from lane_obs.sinks.prometheus import PrometheusSink
from tests.integration.services.process import free_port, poll
from tests.integration.services.tools import require_rotel
from tests.integration.shared.commands import add, boom
from tests.integration.shared.tracing_worker import LANES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry import trace

    from tests.integration.servers.server import Server
    from tests.integration.services.otlp import Collector
    from tests.integration.services.prometheus import Prometheus

QUEUE = "traced"


@contextlib.contextmanager
def worker(server: Server, endpoint: str, port: int) -> Iterator[str]:
    """The other process; gives its id at the broker."""
    arguments = [server.url, QUEUE, endpoint, str(port)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.shared.tracing_worker", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            member = process.stdout.readline().strip()
            assert member
            yield member
        finally:
            process.communicate("", timeout=30)
    assert process.returncode == 0


async def submit(server: Server, pipeline: SpanPipeline, tracer: trace.Tracer) -> str:
    """Submits a command that succeeds and one that fails twice; gives the producer's id."""
    broker = RedisBroker(server.url, queue=QUEUE, lease=3.0)
    async with QueueManager(LANES, broker=broker, work=False, sinks=[OtelSink(pipeline=pipeline)]) as manager:
        with tracer.start_as_current_span("request"):
            assert await (await manager.submit("api", add, 1, 2, id="good")) == 3
            with pytest.raises(RemoteError):
                await (await manager.submit("api", boom, "no", id="bad"))
        return broker.member


async def test_a_collector_receives_one_trace_of_two_processes(server: Server, collector: Collector) -> None:
    require_rotel()
    pipeline = SpanPipeline(endpoint=collector.http_endpoint, protocol="http")
    tracer = pipeline.provider.get_tracer("app")
    with worker(server, collector.http_endpoint, 0) as theirs:
        ours = await submit(server, pipeline, tracer)
    # good: submit, process; bad: submit, two attempts; the request; a drain each.
    spans = await asyncio.to_thread(collector.spans, 8)

    def named(command: str, name: str) -> list[Any]:
        found = [span for span in spans if span.attributes.get("messaging.message.id") == command and span.name == name]
        return sorted(found, key=lambda span: span.start_ns)

    (request,) = (span for span in spans if span.name == "request")
    (submitted,), (process,) = named("good", "submit api"), named("good", "process api")
    assert (submitted.parent_id, submitted.trace_id) == (request.span_id, request.trace_id)
    assert (process.kind, process.parent_id, process.trace_id) == ("CONSUMER", submitted.span_id, request.trace_id)
    assert [link.span_id for link in process.links] == [submitted.span_id]
    assert submitted.attributes["messaging.client.id"] == ours
    assert process.attributes["messaging.client.id"] == process.attributes["lane.worker"] == theirs
    (submitted,), (first, second) = named("bad", "submit api"), named("bad", "process api")
    assert (first.parent_id, first.trace_id) == (submitted.span_id, request.trace_id)
    assert (second.parent_id, second.trace_id != request.trace_id) == ("", True)
    assert submitted.span_id in [link.span_id for link in second.links]
    assert (second.status, second.attributes["error.type"]) == ("ERROR", "ValueError")


async def test_prometheus_sees_the_whole_queue_once(
    server: Server, start_prometheus: Callable[..., Prometheus], collector: Collector
) -> None:
    require_rotel()
    mine, other = free_port(), free_port()
    registry = prometheus_client.CollectorRegistry()
    broker = RedisBroker(server.url, queue=QUEUE, lease=3.0)
    sinks = [PrometheusSink(registry), MetricsServer(mine, registry=registry)]
    prometheus = start_prometheus({"producer": f"127.0.0.1:{mine}", "worker": f"127.0.0.1:{other}"})
    with worker(server, collector.http_endpoint, other):
        async with QueueManager(LANES, broker=broker, work=False, sinks=sinks) as manager:
            await manager.submit("api", add, 1, 2, delay=60.0)
            assert await (await manager.submit("api", add, 1, 2)) == 3

            def whole() -> dict[str, float] | None:
                """What the queries of the document give, once both were scraped and agree."""
                asked = {
                    "leads": "sum(lane_broker_leads)",
                    "processes": "count(lane_broker_leads)",
                    "shown by": "count(lane_cluster_worker_slots)",
                    "delayed": 'max without (instance) (lane_cluster_queue_depth{state="delayed"})',
                    "workers": 'max(lane_cluster_members{role="worker"})',
                    "submitters": 'max(lane_cluster_members{role="submitter"})',
                    "taken in": "max(lane_cluster_commands_submitted_total)",
                    "submitted": "sum(lane_commands_submitted_total)",
                    "finished": 'sum(lane_commands_finished_total{outcome="ok"})',
                    "down": "sum(lane_broker_down)",
                }
                found = {name: sum(value for _, value in prometheus.query(query)) for name, query in asked.items()}
                return found if found == WHOLE else None

            await asyncio.to_thread(
                poll, whole, 30, lambda: str(prometheus.query('{__name__=~"lane_(cluster|broker).*"}'))
            )
            workers = {labels["worker"] for labels, _ in prometheus.query("lane_worker_info")}
            assert len(workers) == 2
            assert broker.member in workers


WHOLE = {
    "leads": 1, "processes": 2, "shown by": 1, "delayed": 1, "workers": 1, "submitters": 1, "taken in": 2,
    "submitted": 2, "finished": 1, "down": 0,
}  # fmt: skip
"""One leads; what it says of the whole queue is what both say together."""
