"""Docket: takes part in batch enqueue only."""

from __future__ import annotations

import datetime

import docket

from benchmarks.distributed.jobs import PAYLOAD, QUEUE, URL, begin

_BATCH = 100


async def count(_payload: dict[str, object]) -> int:
    begin()
    return 1


tasks = [count]


class Docket:
    async def open(self) -> None:
        self._docket = docket.Docket(name=QUEUE, url=URL, execution_ttl=datetime.timedelta())
        self._docket.register(count)
        await self._docket.__aenter__()

    async def close(self) -> None:
        await self._docket.__aexit__(None, None, None)

    async def enqueue(self, count_: int) -> None:
        made = self._docket
        for first in range(0, count_, _BATCH):
            last = min(first + _BATCH, count_)
            await made.add_many([made.call(count)(PAYLOAD) for _ in range(first, last)])


contestant = Docket()
