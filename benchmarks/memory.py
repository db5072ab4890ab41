"""How many bytes a pending command takes, measured in a process of its own.

usage: python -m benchmarks.memory KIND COUNT METHOD

KIND is `lane_obs` (commands that wait in one lane), a name of `benchmarks.features` (likewise, with that on), or
`semaphore` (tasks that wait for an `asyncio.Semaphore`).
METHOD is `rss` (growth of the process's resident memory) or `tracemalloc` (memory that Python asked for). The
commands share one function and what they say at submit is made before, so nothing of the caller's own is in the figure;
nobody holds the handles either.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import subprocess
import sys
import tracemalloc
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.features import FEATURES, PLAIN, Feature
from benchmarks.workload import LANE, no_op, runner
from lane_obs import QueueManager

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = Path(__file__).parents[1]
STATM = Path("/proc/self/statm")


def bytes_each(kind: str, count: int, method: str) -> float | None:
    """Bytes for each of `count` pending commands; `None` where the system does not tell."""
    if method == "rss" and not STATM.exists():
        return None
    command = [sys.executable, "-m", "benchmarks.memory", kind, str(count), method]
    done = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True, timeout=300)
    return float(done.stdout)


def resident() -> int:
    """Resident memory of this process in bytes."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def traced() -> int:
    """Memory that Python objects take, in bytes, since tracing began."""
    return tracemalloc.get_traced_memory()[0]


async def lane_obs_growth(count: int, read: Callable[[], int], feature: Feature = PLAIN) -> int:
    """Growth of what `read` reads while `count` commands come to wait in a lane of a started queue."""
    options = [feature.options(number) for number in range(count)] if feature is not PLAIN else repeat({}, count)
    manager = QueueManager({LANE: feature.lane(1)})
    await manager.start()
    manager.pause(LANE)
    gc.collect()
    before = read()
    for given in options:
        manager.submit_nowait(LANE, no_op, **given)
    await asyncio.sleep(0)
    gc.collect()
    return read() - before


async def semaphore_growth(count: int, read: Callable[[], int]) -> int:
    """The same for tasks that wait for a semaphore."""
    semaphore = asyncio.Semaphore(0)

    async def limited() -> int:
        async with semaphore:
            return await no_op()

    gc.collect()
    before = read()
    tasks = {asyncio.create_task(limited()) for _ in range(count)}
    await asyncio.sleep(0)
    gc.collect()
    grown = read() - before
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return grown


def main(kind: str, count: int, method: str) -> float:
    """Measures in this process and returns bytes for each command."""
    if method == "tracemalloc":
        tracemalloc.start()
    of_lane = functools.partial(lane_obs_growth, feature=FEATURES.get(kind, PLAIN))
    growth = semaphore_growth if kind == "semaphore" else of_lane
    with runner("asyncio") as made:
        return made.run(growth(count, resident if method == "rss" else traced)) / count


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
