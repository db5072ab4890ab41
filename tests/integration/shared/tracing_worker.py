"""A worker in a process of its own: runs the commands of one queue, with spans and metrics, until its input ends.

python -m tests.integration.shared.tracing_worker REDIS_URL QUEUE OTLP_ENDPOINT METRICS_PORT
"""

from __future__ import annotations

import asyncio
import sys

import lane_obs
from lane_obs import LaneConfig, Metrics, Observability, QueueManager, RetryPolicy, Traces
from lane_obs.distributed import RedisBroker
from tests.integration.shared import commands

LANES = {"api": LaneConfig(0, 4, retry=RetryPolicy.fixed(1, 0.01))}
assert commands  # registers what it runs


def observed(endpoint: str, port: int | None = None) -> Observability:
    """Spans to a collector, and metrics on a port."""
    return Observability(
        logs=False,
        metrics=False if port is None else Metrics(port=port),
        traces=Traces(endpoint=endpoint, protocol="http"),
        watchdog=False,
        recorder=False,
    )


async def main(url: str, queue: str, endpoint: str, port: str) -> None:
    broker = RedisBroker(url, queue=queue, lease=3.0)
    async with QueueManager(LANES, broker=broker, observe=observed(endpoint, int(port))):
        sys.stdout.write(f"{broker.member}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    lane_obs.run(main(*sys.argv[1:]))
