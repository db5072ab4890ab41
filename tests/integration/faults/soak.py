"""Processes of the soak test: as many commands of every kind as they are told, counted one by one."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lane_obs import LaneConfig, Partitions, QueueManager, RetryPolicy, command, current
from lane_obs.distributed import RedisBroker
from lane_obs.runtime.run import loop_factory
from tests.integration.faults import program

if TYPE_CHECKING:
    from tests.integration.faults.ledger import Ledger

LANES = {
    "plain": LaneConfig(0, 100),
    "parted": LaneConfig(0, 100, partitions=Partitions.per_key()),
    "retried": LaneConfig(0, 100, retry=RetryPolicy.fixed(1, 0.01)),
}
BATCH = 500
OUTSTANDING = 8
"""Batches."""

ledger: Ledger
runs = bytearray()


@command("soak.count")
async def count(number: int, fails: int) -> int:
    if current().attempt <= fails:
        raise ConnectionError(number)
    runs[number] += 1
    return number


def to_manager(order: dict[str, Any], **options: Any) -> QueueManager:
    broker = RedisBroker(order["url"], concurrency=100, lease=10, result_ttl=5)
    return QueueManager(LANES, broker=broker, **options)


async def work(order: dict[str, Any]) -> None:
    runs.extend(bytes(order["count"]))
    async with to_manager(order):
        ledger.note("up")
        await program.until_told()
    Path(order["runs"]).joinpath(order["who"]).write_bytes(runs)


async def produce(order: dict[str, Any]) -> None:
    rng = random.Random(order["seed"])
    async with to_manager(order, work=False) as manager:
        ledger.note("up")
        under_way: deque[tuple[int, list[Any]]] = deque()
        for first in range(0, order["count"], BATCH):
            if len(under_way) == OUTSTANDING:
                await take(*under_way.popleft())
            under_way.append((first, await submit(manager, rng, first)))
            ledger.note("submitted", count=first + BATCH)
        for batch in under_way:
            await take(*batch)
        ledger.note("done")


async def submit(manager: QueueManager, rng: random.Random, first: int) -> list[Any]:
    """Most are plain, so that there are many; some of each kind leave traces in other places of the server."""
    numbers = range(first, first + BATCH - 4)
    handles: list[Any] = await manager.submit_many("plain", [(count, number, 0) for number in numbers])
    last = first + BATCH - 4
    handles.append(await manager.submit("parted", count, last, 0, partition_key=f"part-{last // BATCH // 2}"))
    handles.append(await manager.submit("retried", count, last + 1, 1))
    handles.append(await manager.submit("plain", count, last + 2, 0, key=f"key-{last}", deadline=3600))
    handles.append(await manager.submit("plain", count, last + 3, 0, delay=rng.uniform(0.0, 0.05)))
    return handles


async def take(first: int, handles: list[Any]) -> None:
    assert await asyncio.gather(*handles) == [*range(first, first + BATCH)]


def main(order: dict[str, Any]) -> None:
    """What such a process runs."""
    global ledger
    ledger = program.begin(order)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run({"worker": work, "producer": produce}[order["role"]](order))
