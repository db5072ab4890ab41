"""A lane's timeout covers one attempt; a command's deadline covers its whole life, waiting included."""

from __future__ import annotations

import asyncio

import lane_obs
from lane_obs import CommandExpired, CommandTimeout, EventEmitter, LaneConfig, QueueManagerBuilder


async def hang() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print("told to stop")  # clean up here, then let it pass
        raise


async def main() -> None:
    config = LaneConfig(1, 5).with_timeout(0.02)  # seconds, or a timedelta
    manager = QueueManagerBuilder(EventEmitter(100)).with_lane("api", config, 0).build()
    async with manager:
        try:
            await (await manager.submit("api", hang))
        except CommandTimeout as error:
            print(f"{type(error).__name__} in lane {error.lane}")
        try:
            await (await manager.submit("api", hang, timeout=None, deadline=0.02))
        except CommandExpired as error:
            print(f"{type(error).__name__} in lane {error.lane}")


if __name__ == "__main__":
    lane_obs.run(main())
