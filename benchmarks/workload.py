"""The workloads that all benchmarks share: the same no-op commands through this library and through its peers."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lane_obs import LaneConfig, QueueManager

try:
    import uvloop
except ImportError:  # not every platform has it
    uvloop = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from lane_obs import LaneEvent

T = TypeVar("T")

LIMIT: Final = 32
"""How many commands may run at once, for every contestant."""

LANE: Final = "bench"

LOOPS: Final = ("asyncio",) if uvloop is None else ("uvloop", "asyncio")
"""Event loops at hand, the one that `lane_obs.run` would take first."""


async def no_op() -> int:
    """The command of every throughput benchmark: it never waits and gives 1, so that results can be counted."""
    return 1


def runner(loop: str) -> asyncio.Runner:
    """A new event loop of this kind."""
    return asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None)


def on_loop(loop: str, work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """What `work(*args)` gives on a new event loop of this kind; garbage of earlier work is collected before."""
    gc.collect()
    with runner(loop) as made:
        return made.run(work(*args))


class OpenQueue:
    """A started queue on an event loop of its own, for suites that time one part of the work.

    Args:
        loop: kind of event loop.
        lanes: its lanes; default one with the limit that all contestants have.
        **options: further options of `QueueManager`.
    """

    def __init__(self, loop: str, lanes: Mapping[str, LaneConfig] | None = None, **options: Any) -> None:
        gc.collect()
        self._runner = runner(loop)
        self.manager = QueueManager(lanes or {LANE: LaneConfig(0, LIMIT)}, **options)
        self.run(self.manager.start)

    async def pause(self, count: int = 0) -> None:
        """Pauses the lane and has `count` no-op commands wait in it."""
        self.manager.pause(LANE)
        for _ in range(count):
            self.manager.submit_nowait(LANE, no_op)

    async def resume_and_wait(self) -> None:
        """Runs all that waits in the lane."""
        last = self.manager.submit_nowait(LANE, no_op)
        self.manager.resume(LANE)
        await last

    def run(self, work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """What `work(*args)` gives on the queue's loop."""
        return self._runner.run(work(*args))

    async def submit_and_wait(self, names: Iterable[str]) -> None:
        """Submits a no-op command to each of these lanes and waits for all of them."""
        handles = [self.manager.submit_nowait(name, no_op) for name in names]
        check([await handle for handle in handles], len(handles))

    def close(self) -> None:
        """Drops what is left, and ends queue and loop."""
        self.run(self.manager.close)
        self._runner.close()


class NullSink:
    """Counts events and forgets them: what the bus itself costs."""

    def __init__(self) -> None:
        self.count = 0

    def handle(self, events: Sequence[LaneEvent]) -> None:
        """Counts a batch."""
        self.count += len(events)

    def close(self) -> None:
        """Holds nothing."""


class WrongResult(AssertionError):
    """A contestant lost a command or its result."""


def check(results: list[int], count: int) -> None:
    """Makes sure that every command ran and gave its result.

    Raises:
        WrongResult: some did not.
    """
    if len(results) != count or sum(results) != count:
        raise WrongResult(f"{len(results)} results that sum up to {sum(results)}, wanted {count}")


async def by_lane_obs(count: int) -> float:
    """Seconds from the first submit to the last result: one lane, `await submit`, `await handle`."""
    async with QueueManager({LANE: LaneConfig(0, LIMIT)}) as manager:
        start = time.perf_counter()
        handles = [await manager.submit(LANE, no_op) for _ in range(count)]
        results = [await handle for handle in handles]
        seconds = time.perf_counter() - start
    check(results, count)
    return seconds


async def by_semaphore(count: int) -> float:
    """The same by `asyncio.Semaphore` and one task a command."""
    semaphore = asyncio.Semaphore(LIMIT)

    async def limited() -> int:
        async with semaphore:
            return await no_op()

    start = time.perf_counter()
    results = await asyncio.gather(*(limited() for _ in range(count)))
    seconds = time.perf_counter() - start
    check(results, count)
    return seconds


async def by_priority_queue(count: int) -> float:
    """The same by `asyncio.PriorityQueue` and workers; a future carries each result.

    The workers run the commands in their own tasks: no command has a task, a context, a time-out or a cancellation of
    its own, so this is what a bare loop over a heap costs rather than a contestant.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.PriorityQueue[tuple[int, int, asyncio.Future[int]]] = asyncio.PriorityQueue()

    async def work() -> None:
        while True:
            _, _, future = await queue.get()
            future.set_result(await no_op())

    workers = [loop.create_task(work()) for _ in range(LIMIT)]
    start = time.perf_counter()
    futures = []
    for number in range(count):
        future: asyncio.Future[int] = loop.create_future()
        queue.put_nowait((0, number, future))
        futures.append(future)
    results = [await future for future in futures]
    seconds = time.perf_counter() - start
    await end_tasks(workers)
    check(results, count)
    return seconds


async def end_tasks(tasks: list[asyncio.Task[None]]) -> None:
    """Cancels tasks and waits for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def by_aiojobs(count: int, **options: Any) -> float:
    """The same by `aiojobs`: `Scheduler(limit=32)`, `await spawn`, `await job.wait()`."""
    import aiojobs

    scheduler = aiojobs.Scheduler(limit=LIMIT, **options)
    start = time.perf_counter()
    jobs = [await scheduler.spawn(no_op()) for _ in range(count)]
    results = [await job.wait() for job in jobs]
    seconds = time.perf_counter() - start
    await scheduler.close()
    check(results, count)
    return seconds


async def by_aiojobs_unbounded(count: int) -> float:
    """Likewise, but `spawn` never waits for room (`pending_limit=0`; by default it does from 10,000 pending on)."""
    return await by_aiojobs(count, pending_limit=0)


THROUGHPUT: Final[dict[str, Callable[[int], Coroutine[Any, Any, float]]]] = {
    "lane_obs": by_lane_obs,
    "asyncio.Semaphore": by_semaphore,
    "asyncio.PriorityQueue": by_priority_queue,
    "aiojobs": by_aiojobs,
    "aiojobs, pending_limit=0": by_aiojobs_unbounded,
}
"""Contestants by name: each takes a number of commands and gives the seconds from first submit to last result."""
