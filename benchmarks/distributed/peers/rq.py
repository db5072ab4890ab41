"""rq: the fastest of the peers to enqueue. It runs one job at a time, so it takes part in nothing else."""

from __future__ import annotations

import redis
import rq

from benchmarks.distributed.jobs import PAYLOAD, QUEUE, URL, begin


def count(_payload: dict[str, object]) -> int:
    begin()
    return 1


class Rq:
    async def open(self) -> None:
        self._queue = rq.Queue(QUEUE, connection=redis.Redis.from_url(URL))

    async def close(self) -> None:
        self._queue.connection.close()

    async def enqueue(self, count_: int) -> None:
        self._queue.enqueue_many([rq.Queue.prepare_data(count, (PAYLOAD,), result_ttl=0) for _ in range(count_)])


contestant = Rq()
