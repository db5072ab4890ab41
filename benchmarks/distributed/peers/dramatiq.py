"""Dramatiq: 32 threads of one process, which fetch in batches and acknowledge."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.distributed.contestant import in_window
from benchmarks.distributed.jobs import PAYLOAD, RESULTS, URL, begin

_TIMEOUT_MS = 30_000
broker = RedisBroker(url=URL)
if RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)
_OPTIONS: dict[str, Any] = {"store_results": True} if RESULTS else {}


@dramatiq.actor(**_OPTIONS)
def count(_payload: dict[str, object]) -> int | None:
    begin()
    return 1 if RESULTS else None


class Dramatiq:
    async def open(self) -> None:
        """Connects by itself."""

    async def close(self) -> None:
        broker.close()

    async def enqueue(self, count_: int) -> None:
        dramatiq.group([count.message(PAYLOAD) for _ in range(count_)]).run()

    async def round_trips(self, count_: int) -> int:
        def finish(message: Any) -> int:
            result: int = message.get_result(block=True, timeout=_TIMEOUT_MS)
            return result

        return in_window(lambda: count.send(PAYLOAD), finish, count_)


contestant = Dramatiq()
