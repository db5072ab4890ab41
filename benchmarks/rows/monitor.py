"""One look of the monitor, with all default rules: over the default lanes, over many idle lanes and many busy ones."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.figure import Figure, Sizes, at_most
from benchmarks.workload import LOOPS, no_op, on_loop
from lane_obs import DEFAULT_LANES, LaneConfig, MonitorConfig, QueueManager, QueueMonitor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROW = "monitor"
_MOST_MS = 50.0
_LOOKS = 11


async def look(lanes: Mapping[str, LaneConfig], busy: bool) -> float:
    """Milliseconds of the median look, after each lane has run a command; busy ones have work that waits, too."""
    gate = asyncio.Event()
    async with QueueManager(dict(lanes)) as manager:
        monitor = QueueMonitor(manager, MonitorConfig(pending_warning_threshold=None, active_warning_threshold=None))
        monitor.sample()
        await asyncio.gather(*[manager.submit_nowait(name, no_op) for name in lanes])
        if busy:
            for name, config in lanes.items():
                for _ in range(config.max_concurrency + 1):
                    manager.submit_nowait(name, gate.wait)
        await asyncio.sleep(0)
        taken = []
        for _ in range(_LOOKS):
            began = time.process_time()
            monitor.sample()
            taken.append((time.process_time() - began) * 1e3)
        gate.set()
    return statistics.median(taken)


def figures(sizes: Sizes) -> Iterator[Figure]:
    """How long a look takes; the budget is about many lanes."""
    many = {f"lane-{number}": LaneConfig(0, 2) for number in range(sizes.lanes)}
    for what, lanes, busy in (
        ("the 6 default lanes", DEFAULT_LANES, True),
        (f"{sizes.lanes:,} lanes, idle", many, False),
        (f"{sizes.lanes:,} lanes, work waits in each", many, True),
    ):
        taken = on_loop(LOOPS[0], look, lanes, busy)
        budget, holds = at_most(_MOST_MS, taken, "ms") if lanes is many else ("", None)
        yield Figure(ROW, f"a look at {what}", taken, "ms", budget=budget, holds=holds)
