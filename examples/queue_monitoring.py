"""Statistics at any moment, and an alert when too much waits."""

from __future__ import annotations

import asyncio

import lane_obs
from lane_obs import LaneConfig, MemorySink, MonitorConfig, QueueManager, QueueMonitor


async def main() -> None:
    sink = MemorySink()
    async with QueueManager({"api": LaneConfig(1, 2)}, sinks=[sink]) as manager:
        config = MonitorConfig(interval=5.0, pending_warning_threshold=2, active_warning_threshold=25)
        monitor = QueueMonitor.with_config(manager.queue(), config)

        gate = asyncio.Event()
        for _ in range(5):
            await manager.submit("api", gate.wait)
        await asyncio.sleep(0)  # one turn of the loop, in which the free slots are filled

        await monitor.start()  # samples now and every 5 s, in the background
        await sink.wait_for("queue.alert.firing")
        stats = await monitor.stats()
        print(f"Pending: {stats.total_pending}, Active: {stats.total_active}")
        for alert in monitor.alerts:
            print(f"{alert.alert}: {alert.rule} {alert.value} > {alert.threshold:g} ({alert.severity}, {alert.state})")

        gate.set()
        await monitor.stop()


if __name__ == "__main__":
    lane_obs.run(main())
