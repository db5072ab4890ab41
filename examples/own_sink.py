"""A sink is any object with `handle(events)` and `close()`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import lane_obs
from lane_obs import LaneConfig, QueueManager

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs import LaneEvent


class CountingSink:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def handle(self, events: Sequence[LaneEvent]) -> None:
        self.counts.update(event.key for event in events)

    def close(self) -> None:
        for key, count in sorted(self.counts.items()):
            print(f"{count} {key}")


async def work() -> None:
    return


async def main() -> None:
    async with QueueManager({"api": LaneConfig(1, 2)}, sinks=[CountingSink()]) as manager:
        await manager.submit_many("api", [work] * 3)


if __name__ == "__main__":
    lane_obs.run(main())
