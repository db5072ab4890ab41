"""A lane for each conversation: its messages one at a time and in order, and no conversation waits for another."""

from __future__ import annotations

import lane_obs
from lane_obs import ConfigError, LaneConfig, QueueManager, UnknownLane

CONVERSATION = LaneConfig(0, 1, max_pending=20)


async def answer(who: str, message: str) -> str:
    return f"{who}: {message.upper()}"


async def main() -> None:
    async with QueueManager({"control": LaneConfig(1, 1)}, max_concurrency=8) as manager:
        handles = []
        for who, message in (("ann", "hi"), ("bob", "hello"), ("ann", "are you there?")):
            if who not in manager.lanes:
                manager.add_lane(who, CONVERSATION)
            handles.append(await manager.submit(who, answer, who, message))
        for handle in handles:
            print(await handle)

        try:
            manager.add_lane("greedy", LaneConfig(8, 8))
        except ConfigError as error:
            print(error)

        await manager.submit("bob", answer, "bob", "one more")
        await manager.remove_lane("ann")
        await manager.remove_lane("bob")  # it waits until the lane is empty
        try:
            await manager.submit("bob", answer, "bob", "too late")
        except UnknownLane as error:
            print(error)

        stats = manager.stats()
        print(f"lanes: {list(stats.lanes)}, removed: {stats.removed.lanes}, ran: {stats.removed.ended['succeeded']}")


if __name__ == "__main__":
    lane_obs.run(main())
