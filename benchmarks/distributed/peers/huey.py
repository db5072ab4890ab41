"""huey: 32 threads, each of which waits at the server. It does not acknowledge: a crash loses what runs."""

from __future__ import annotations

from typing import Any

import huey

from benchmarks.distributed.contestant import in_window
from benchmarks.distributed.jobs import PAYLOAD, QUEUE, RESULTS, URL, arrive, begin

app = huey.RedisHuey(QUEUE, url=URL, results=RESULTS)


@app.task()
def count(_payload: dict[str, object]) -> int | None:
    begin()
    return 1 if RESULTS else None


@app.task()
def latency(sent: float) -> None:
    arrive(sent)


class Huey:
    async def open(self) -> None:
        """Connects by itself."""

    async def close(self) -> None:
        app.storage.conn.close()

    async def enqueue(self, count_: int) -> None:
        for _ in range(count_):
            count(PAYLOAD)

    async def send(self, sent: float) -> None:
        latency(sent)

    async def round_trips(self, count_: int) -> int:
        def finish(result: Any) -> int:
            value: int = result.get(blocking=True, timeout=30, backoff=1.15, max_delay=0.05)
            return value

        return in_window(lambda: count(PAYLOAD), finish, count_)


contestant = Huey()
