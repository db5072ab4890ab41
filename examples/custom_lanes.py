"""Three lanes of your own: the most important work starts first."""

from __future__ import annotations

import lane_obs
from lane_obs import EventEmitter, LaneConfig, QueueManagerBuilder


async def work(name: str) -> None:
    print(name)


async def main() -> None:
    manager = (
        QueueManagerBuilder(EventEmitter(100))
        .with_lane("high-priority", LaneConfig(1, 4), 0)
        .with_lane("normal", LaneConfig(1, 8), 1)
        .with_lane("background", LaneConfig(1, 2), 2)
        .with_max_concurrency(8)  # of all lanes together; each has one slot reserved
        .build()
    )
    for lane in ("background", "normal", "high-priority"):
        await manager.submit(lane, work, lane)  # they wait: nothing runs before start()
    async with manager:
        pass  # starts, and at the end drains and closes


if __name__ == "__main__":
    lane_obs.run(main())
