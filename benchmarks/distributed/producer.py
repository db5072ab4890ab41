"""The producing side of a contestant, in a process of its own.

usage: python -m benchmarks.distributed.producer CONTESTANT enqueue|enqueue_waiting|latency|round_trips COUNT
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from benchmarks.distributed.contestant import load

try:
    import uvloop
except ImportError:  # not every platform has it
    uvloop = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from benchmarks.distributed.contestant import Contestant

WARM_UP: Final = 8
"""Jobs before those that are measured: connections are made, scripts loaded."""
_GAPS: Final = (0.005, 0.03)
_SECONDS: Final = 120.0
_LARGEST: Final = 100


async def enqueue(queue: Contestant, count: int) -> float:
    """Seconds in which all are enqueued."""
    await queue.enqueue(WARM_UP)
    start = time.perf_counter()
    await queue.enqueue(count)
    return time.perf_counter() - start


async def enqueue_waiting(queue: Any, count: int) -> float:
    """The same for jobs that wait, which only this library's contestant has."""
    start = time.perf_counter()
    await queue.enqueue_waiting(WARM_UP + count)
    return time.perf_counter() - start


async def latency(queue: Contestant, count: int) -> list[float]:
    """Milliseconds from the call that enqueues to the first line of the job, with pauses in between."""
    loop, rng, waits = asyncio.get_running_loop(), random.Random(1), []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as arrivals:
        arrivals.bind(os.environ["LANE_OBS_BENCH_SOCKET"])
        arrivals.setblocking(False)
        for _ in range(WARM_UP + count):
            await queue.send(time.monotonic())
            async with asyncio.timeout(_SECONDS):
                told = await loop.sock_recv(arrivals, _LARGEST)
            waits.append(float(told) * 1e3)
            await asyncio.sleep(rng.uniform(*_GAPS))
    return waits[WARM_UP:]


async def round_trips(queue: Contestant, count: int) -> float:
    """Seconds in which so many results have come back."""
    await queue.round_trips(WARM_UP)
    start = time.perf_counter()
    total = await asyncio.wait_for(queue.round_trips(count), _SECONDS)
    seconds = time.perf_counter() - start
    if total != count:
        raise RuntimeError(f"results that sum up to {total}, wanted {count}")
    return seconds


_PHASES: Final = {
    "enqueue": enqueue,
    "enqueue_waiting": enqueue_waiting,
    "latency": latency,
    "round_trips": round_trips,
}


async def produce(name: str, phase: str, count: int) -> Any:
    """What the phase gives."""
    queue = load(name)
    await queue.open()
    try:
        return await _PHASES[phase](queue, count)
    finally:
        await queue.close()


def main(name: str, phase: str, count: str) -> None:
    """Prints what the phase gives, as JSON."""
    with asyncio.Runner(loop_factory=None if uvloop is None else uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(produce(name, phase, int(count)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
