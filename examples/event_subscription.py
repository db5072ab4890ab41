"""Events as async iterators: all of them, or those you want."""

from __future__ import annotations

import asyncio

import lane_obs
from lane_obs import EventEmitter, EventStream, LaneConfig, QueueManager


async def fetch(url: str) -> str:
    return f"contents of {url}"


async def print_keys(name: str, stream: EventStream) -> None:
    async for event in stream:  # ends when the queue is closed; event.timestamp says when it happened
        print(f"{name}: {event.key}")


async def main() -> None:
    emitter = EventEmitter(100)  # each subscriber may be 100 events behind; then it loses the oldest, counted
    receiver = emitter.subscribe()
    filtered = emitter.subscribe_filtered(lambda event: event.key.startswith("queue.command."))
    reading = asyncio.ensure_future(print_keys("all", receiver))  # in another task

    async with QueueManager({"web": LaneConfig(1, 4)}, sinks=[emitter]) as manager:
        await (await manager.submit("web", fetch, "http://example.org/"))

    await reading
    await print_keys("commands", filtered)


if __name__ == "__main__":
    lane_obs.run(main())
