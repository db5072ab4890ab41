"""This library: `QueueManager` over `RedisBroker`, with logs and metrics on.

usage: python -m benchmarks.distributed.ours    (a worker; SIGTERM ends it)
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry

from benchmarks.distributed.contestant import side_by_side
from benchmarks.distributed.jobs import CONCURRENCY, PAYLOAD, QUEUE, URL, arrive, begin
from benchmarks.workload import runner
from lane_obs import LaneConfig, Logs, Metrics, Observability, QueueManager, command
from lane_obs.distributed import RedisBroker

if TYPE_CHECKING:
    from collections.abc import Callable

LANE: Final = "bench"
_BATCH: Final = 1_000
_WAIT: Final = 0.005
_ANY: Final = 100_000
"""The lane's own limit, which counts the commands of all workers: each worker's concurrency is what bounds it."""


@command("bench.count")
async def count(_payload: dict[str, object]) -> int:
    begin()
    return 1


@command("bench.wait")
async def wait(_payload: dict[str, object]) -> int:
    begin()
    await asyncio.sleep(_WAIT)
    return 1


@command("bench.latency")
async def latency(sent: float) -> None:
    arrive(sent)


def manager(*, work: bool) -> QueueManager:
    """The queue of one process: a line of JSON for each command to the null device, and all metrics."""
    lines = Path(os.devnull).open("wb")  # noqa: SIM115 - lives as long as the process
    observe = Observability(
        logs=Logs(file=lines),
        metrics=Metrics(registry=CollectorRegistry()),
        traces=False,
        watchdog=False,
        recorder=False,
    )
    broker = RedisBroker(URL, queue=QUEUE, concurrency=CONCURRENCY)
    return QueueManager({LANE: LaneConfig(0, _ANY)}, broker=broker, work=work, observe=observe)


class Ours:
    async def open(self) -> None:
        self._manager = manager(work=False)
        await self._manager.start()

    async def close(self) -> None:
        await self._manager.close()

    async def enqueue(self, count_: int) -> None:
        await self._enqueue(count, count_)

    async def enqueue_waiting(self, count_: int) -> None:
        """Enqueues jobs that wait 5 ms each, so that what they wait for is what bounds a worker."""
        await self._enqueue(wait, count_)

    async def _enqueue(self, job: Callable[..., Any], count_: int) -> None:
        for first in range(0, count_, _BATCH):
            numbers = range(first, min(first + _BATCH, count_))
            await self._manager.submit_many(LANE, [(job, PAYLOAD) for _ in numbers])

    async def send(self, sent: float) -> None:
        await self._manager.submit(LANE, latency, sent)

    async def round_trips(self, count_: int) -> int:
        async def trip() -> int:
            return await (await self._manager.submit(LANE, count, PAYLOAD))

        return await side_by_side(trip, count_)


contestant = Ours()


async def work() -> None:
    """Works until SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with manager(work=True):
        await ended.wait()


if __name__ == "__main__":
    with runner("uvloop") as made:
        made.run(work())
