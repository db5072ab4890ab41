"""taskiq on a stream of Redis, which acknowledges; results are polled for every 10 ms instead of every 200."""

from __future__ import annotations

import asyncio

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.distributed.contestant import side_by_side
from benchmarks.distributed.jobs import PAYLOAD, QUEUE, RESULTS, URL, arrive, begin

_BATCH = 100
_CHECK_INTERVAL = 0.01
broker = RedisStreamBroker(URL, queue_name=QUEUE)
if RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=300))


@broker.task
async def count(_payload: dict[str, object]) -> int:
    begin()
    return 1


@broker.task
async def latency(sent: float) -> None:
    arrive(sent)


class Taskiq:
    async def open(self) -> None:
        await broker.startup()

    async def close(self) -> None:
        await broker.shutdown()

    async def enqueue(self, count_: int) -> None:
        for first in range(0, count_, _BATCH):
            await asyncio.gather(*(count.kiq(PAYLOAD) for _ in range(first, min(first + _BATCH, count_))))

    async def send(self, sent: float) -> None:
        await latency.kiq(sent)

    async def round_trips(self, count_: int) -> int:
        async def trip() -> int:
            task = await count.kiq(PAYLOAD)
            return (await task.wait_result(check_interval=_CHECK_INTERVAL)).return_value

        return await side_by_side(trip, count_)


contestant = Taskiq()
