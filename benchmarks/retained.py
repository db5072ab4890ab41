"""How much memory a process keeps of commands that have ended, with all sinks on; in a process of its own.

usage: python -m benchmarks.retained FEW MANY METHOD

Runs FEW commands, reads the memory, runs on until MANY have run and reads it again; prints both as JSON, in bytes
since the start of the queue. METHOD is `rss` or `tracemalloc`, as in `benchmarks.memory`. The commands come in waves
whose handles are let go, and nobody holds anything else of them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.memory import STATM, resident, traced
from benchmarks.telemetry import DEFAULT_SPANS, SINKS, Outside
from benchmarks.workload import LANE, LIMIT, LOOPS, check, no_op, runner
from lane_obs import LaneConfig, QueueManager

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ROOT = Path(__file__).parents[1]
_WAVE = 500


def kept(few: int, many: int, method: str) -> tuple[float, float] | None:
    """Bytes kept after `few` and after `many` commands; `None` where the system does not tell."""
    if method == "rss" and not STATM.exists():
        return None
    command = [sys.executable, "-m", "benchmarks.retained", str(few), str(many), method]
    done = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True, timeout=600)
    after_few, after_many = json.loads(done.stdout)
    return after_few, after_many


async def growth(outside: Outside, stops: Sequence[int], read: Callable[[], int]) -> list[int]:
    """What `read` has grown by when so many commands have run in all, for each of `stops`, rising."""
    manager = QueueManager({LANE: LaneConfig(0, LIMIT)}, sinks=[make(outside) for make in SINKS.values()])
    await manager.start()
    gc.collect()
    before, ran, found = read(), 0, []
    for stop in stops:
        while ran < stop:
            await _wave(manager, min(_WAVE, stop - ran))
            ran += _WAVE
        await asyncio.to_thread(outside.provider.force_flush)
        gc.collect()
        found.append(read() - before)
    await manager.close()
    outside.flush()
    return found


async def _wave(manager: QueueManager, size: int) -> None:
    handles = [manager.submit_nowait(LANE, no_op) for _ in range(size)]
    check([await handle for handle in handles], size)


def main(few: int, many: int, method: str) -> list[int]:
    """Measures in this process."""
    if method == "tracemalloc":
        tracemalloc.start()
    with Outside(many, span_room=DEFAULT_SPANS) as outside, runner(LOOPS[0]) as made:
        return made.run(growth(outside, (few, many), resident if method == "rss" else traced))


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
