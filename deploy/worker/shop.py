"""The app of the worker in this folder: two lanes at a broker, and a producer. Put your own in its place.

The worker runs `shop:app`; `python -m shop` submits for ever.
"""

from __future__ import annotations

import asyncio
import os

from lane_obs import LaneConfig, Logs, Metrics, Observability, QueueManager, command, run
from lane_obs.distributed import RedisBroker

LANES = {"mail": LaneConfig(1, 64, max_pending=10_000), "report": LaneConfig(0, 8, priority=5, max_pending=1_000)}


@command("shop.send")
async def send(to: str) -> str:
    """Stands for a command that takes a while."""
    await asyncio.sleep(0.2)
    return f"sent to {to}"


def app(*, work: bool = True) -> QueueManager:
    """The queue, for a worker or for a process that only submits."""
    broker = RedisBroker(os.environ["LANE_OBS_URL"], queue="shop", concurrency=32)
    observe = Observability(logs=Logs(level="warning"), metrics=Metrics(), traces=False, queue="shop")
    return QueueManager(LANES, broker=broker, work=work, observe=observe, drain_timeout=30)


async def main() -> None:
    """Submits ten commands a second; a full lane makes it wait."""
    async with app(work=False) as queue:
        for number in range(10**12):
            await queue.submit("report" if number % 10 == 0 else "mail", send, f"customer {number}")
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    run(main())
