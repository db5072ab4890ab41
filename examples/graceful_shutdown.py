"""Take no new work, let the old work end, go."""

from __future__ import annotations

import asyncio

import lane_obs
from lane_obs import DrainTimeout, LaneConfig, QueueManager, ShutdownInProgress


async def main() -> None:
    manager = QueueManager({"api": LaneConfig(1, 1)})
    await manager.start()
    gate = asyncio.Event()
    for _ in range(3):
        await manager.submit("api", gate.wait)

    await manager.shutdown()  # accepts no new commands
    try:
        await manager.submit("api", gate.wait)
    except ShutdownInProgress as error:
        print(error)

    try:
        await manager.drain(0.01)
    except DrainTimeout as error:
        print(f"left: {error.report.left}")

    gate.set()
    report = await manager.drain(30.0)
    print(f"ended meanwhile: {report.ended['succeeded']}")
    await manager.close()
    print("All commands completed, safe to exit")


if __name__ == "__main__":
    lane_obs.run(main())
