"""streaQ: takes part in batch enqueue only."""

from __future__ import annotations

import streaq

from benchmarks.distributed.jobs import PAYLOAD, QUEUE, URL, begin

_BATCH = 1_000
worker = streaq.Worker(redis_url=URL, queue_name=QUEUE)


@worker.task(ttl=0, silent=True)
async def count(_payload: dict[str, object]) -> int:
    begin()
    return 1


class Streaq:
    async def open(self) -> None:
        await worker.__aenter__()

    async def close(self) -> None:
        await worker.__aexit__(None, None, None)

    async def enqueue(self, count_: int) -> None:
        for first in range(0, count_, _BATCH):
            await worker.enqueue_many([count.enqueue(PAYLOAD) for _ in range(first, min(first + _BATCH, count_))])


contestant = Streaq()
