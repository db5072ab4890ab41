"""What a contestant can do, and how round trips are kept outstanding."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import itertools
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from benchmarks.distributed.jobs import CONCURRENCY, OUTSTANDING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

OURS: Final = "lane_obs"
_HERE: Final = "benchmarks.distributed"
_THREADS: Final = str(CONCURRENCY)


class Entry(NamedTuple):
    """How a contestant takes part.

    Attributes:
        module: has it as `contestant`.
        needs: modules without which it cannot.
        worker: what runs its worker, after `python`; empty where it only enqueues.
    """

    module: str
    needs: tuple[str, ...]
    worker: tuple[str, ...] = ()


ENTRIES: Final = {
    OURS: Entry(f"{_HERE}.ours", ("redis", "structlog", "prometheus_client"), ("-m", f"{_HERE}.ours")),
    "rq": Entry(f"{_HERE}.peers.rq", ("rq",)),
    "streaq": Entry(f"{_HERE}.peers.streaq", ("streaq",)),
    "docket": Entry(f"{_HERE}.peers.docket", ("docket",)),
    "dramatiq": Entry(
        f"{_HERE}.peers.dramatiq", ("dramatiq", "redis"),
        ("-m", "dramatiq", f"{_HERE}.peers.dramatiq", "--processes", "1", "--threads", _THREADS),
    ),
    "huey": Entry(
        f"{_HERE}.peers.huey", ("huey", "redis"),
        ("-m", "huey.bin.huey_consumer", f"{_HERE}.peers.huey.app", "-w", _THREADS, "-k", "thread", "-q"),
    ),
    "taskiq": Entry(
        f"{_HERE}.peers.taskiq", ("taskiq", "taskiq_redis"),
        (
            "-m", "taskiq", "worker", f"{_HERE}.peers.taskiq:broker",
            "--workers", "1", "--max-async-tasks", _THREADS, "--log-level", "ERROR",
        ),
    ),
}  # fmt: skip


class Contestant(Protocol):
    """A queue, as a producer sees it; it can do only what it is measured by."""

    async def open(self) -> None:
        """Connects."""

    async def close(self) -> None:
        """Disconnects."""

    async def enqueue(self, count: int) -> None:
        """Enqueues so many no-op jobs in its fastest way."""

    async def send(self, sent: float) -> None:
        """Enqueues one job that tells its latency."""

    async def round_trips(self, count: int) -> int:
        """Enqueues so many jobs and waits for the result of each, 64 outstanding; gives the sum of the results."""
        ...


def load(name: str) -> Contestant:
    """The contestant of this name."""
    made: Contestant = importlib.import_module(ENTRIES[name].module).contestant
    return made


def missing(name: str) -> bool:
    """Whether this environment lacks what a contestant needs."""
    return any(importlib.util.find_spec(module) is None for module in ENTRIES[name].needs)


async def side_by_side(trip: Callable[[], Awaitable[int]], count: int) -> int:
    """Round trips of 64 tasks, each of which makes one after another."""
    numbers = iter(range(count))

    async def one_after_another() -> int:
        return sum([await trip() for _ in numbers])

    return sum(await asyncio.gather(*(one_after_another() for _ in range(OUTSTANDING))))


def in_window(begin: Callable[[], Any], finish: Callable[[Any], int], count: int) -> int:
    """Round trips of one thread: before another begins, the oldest of 64 is waited for."""
    open_trips = deque(begin() for _ in range(min(count, OUTSTANDING)))
    total = 0
    for _ in itertools.repeat(None, count - len(open_trips)):
        total += finish(open_trips.popleft())
        open_trips.append(begin())
    return total + sum(map(finish, open_trips))
