"""Synchronous commands run in threads; other threads submit with `submit_threadsafe`."""

from __future__ import annotations

import asyncio
import threading

import lane_obs
from lane_obs import LaneConfig, QueueManager


def blocking(number: int) -> str:
    context = lane_obs.current()
    place = "main thread" if threading.current_thread() is threading.main_thread() else "a thread"
    return f"{number * number} from {place}, lane {context.lane}, attempt {context.attempt}"


def elsewhere(manager: QueueManager) -> str:
    future = manager.submit_threadsafe("cpu", blocking, 4)  # a concurrent.futures.Future
    return f"other thread got: {future.result(timeout=10)}"


async def main() -> None:
    async with QueueManager({"cpu": LaneConfig(1, 2)}) as manager:
        print(await (await manager.submit("cpu", blocking, 3)))
        print(await asyncio.to_thread(elsewhere, manager))


if __name__ == "__main__":
    lane_obs.run(main())
