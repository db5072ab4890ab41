"""A million pending commands: what each takes in memory, and what they cost those that run."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import time
from typing import TYPE_CHECKING

from benchmarks.features import PLAIN, Feature
from benchmarks.figure import Figure, Sizes, at_most, best_of
from benchmarks.memory import bytes_each
from benchmarks.workload import LANE, LIMIT, LOOPS, check, no_op, on_loop
from lane_obs import LaneConfig, QueueManager

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any

ROW = "pending"
_BYTES = 450.0
_RATIO = 1.25
_PEER_SHARE = 10
_ROUNDS = 3


async def behind(depth: int, count: int) -> tuple[float, float]:
    """`depth` commands wait in a lane that runs at its limit, and `count` others go through a lane in front of it.

    Returns:
        Processor seconds to submit the `count` commands, and seconds to run them.
    """
    gate: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait_for_gate() -> int:
        return await gate

    lanes = {"front": LaneConfig(0, LIMIT, priority=0), "behind": LaneConfig(0, 1, priority=1)}
    async with QueueManager(lanes) as manager:
        manager.submit_nowait("behind", wait_for_gate)
        for _ in range(depth):
            manager.submit_nowait("behind", no_op)
        await asyncio.sleep(0)
        gc.collect()
        start = time.process_time()
        handles = [manager.submit_nowait("front", no_op) for _ in range(count)]
        submitted = time.process_time()
        results = [await handle for handle in handles]
        ended = time.process_time()
        gate.set_result(1)
    check(results, count)
    return submitted - start, ended - submitted


async def steady(depth: int, count: int, feature: Feature = PLAIN) -> float:
    """`depth` commands wait in a lane, and each that runs submits one more to it, until `count` have run.

    Returns:
        Processor seconds for the `count` commands, each a submit and a run.
    """
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = count
    numbers = range(0 if feature is PLAIN else depth + count)
    options = [feature.options(number) for number in numbers]

    async def step() -> None:
        nonlocal left
        left -= 1
        if left > 0:
            submit()
        elif left == 0:
            done.set_result(None)
            manager.pause(LANE)

    def submit() -> None:
        manager.submit_nowait(LANE, step, **(options.pop() if options else {}))

    async with QueueManager({LANE: feature.lane()}) as manager:
        manager.pause(LANE)
        for _ in range(depth):
            submit()
        await asyncio.sleep(0)
        gc.collect()
        start = time.process_time()
        manager.resume(LANE)
        await done
        seconds = time.process_time() - start
        manager.resume(LANE)
    return seconds


async def waves(depth: int, count: int) -> float:
    """Submits `depth` commands and runs them all, again and again until `count` have run: processor seconds for all."""
    async with QueueManager({LANE: LaneConfig(0, LIMIT)}) as manager:
        start, ran = time.process_time(), 0
        while ran < count:
            handles = [manager.submit_nowait(LANE, no_op) for _ in range(depth)]
            results = [await handle for handle in handles]
            ran += len(results)
            check(results, depth)
        return time.process_time() - start


def figures(sizes: Sizes) -> Iterator[Figure]:
    """Bytes, then the costs with many pending against those with few."""
    yield from _bytes_figures(sizes)
    many = f"{sizes.pending:,} pending"
    for part, name in enumerate(("submit", "run")):
        yield cost_figure(f"{name}, {many} in a lane behind", _part(behind, part), sizes.commands, sizes)
    yield cost_figure(f"submit and run, {many} in the lane", steady, sizes.pending // 2, sizes)
    # Not the cost at a depth but of getting there and back: shown, but not what the budget is about.
    in_waves = cost_figure(f"submit and run, in waves of {sizes.pending:,}", waves, sizes.pending, sizes)
    yield dataclasses.replace(in_waves, budget="", holds=None)


def _bytes_figures(sizes: Sizes) -> Iterator[Figure]:
    fewer = max(sizes.pending // _PEER_SHARE, 1)
    for method in ("rss", "tracemalloc"):
        ours = bytes_each("lane_obs", sizes.pending, method)
        if ours is not None:
            theirs = bytes_each("semaphore", fewer, method)
            budget, holds = at_most(_BYTES, ours, "B")
            what, name = f"bytes each of {sizes.pending:,} pending, {method}", f"asyncio.Semaphore, {fewer:,} tasks"
            yield Figure(ROW, what, ours, "B", theirs, name, theirs and ours / theirs, budget, holds)


def _part(
    measure: Callable[[int, int], Coroutine[Any, Any, tuple[float, float]]], part: int
) -> Callable[[int, int], Coroutine[Any, Any, float]]:
    async def one(depth: int, count: int) -> float:
        return (await measure(depth, count))[part]

    return one


def cost_figure(
    what: str, measure: Callable[[int, int], Coroutine[Any, Any, float]], count: int, sizes: Sizes, *, row: str = ROW
) -> Figure:
    """Compares the cost of `count` commands at both depths, never at once: one heap must not weigh on the other."""
    runs = {depth: functools.partial(on_loop, LOOPS[0], measure, depth, count) for depth in _depths(sizes)}
    seconds = best_of({str(depth): run for depth, run in runs.items()}, min(_ROUNDS, sizes.rounds))
    many, few = (seconds[str(depth)] / count * 1e6 for depth in _depths(sizes))
    budget, holds = at_most(_RATIO, many / few)
    return Figure(row, what, many, "us", few, f"{sizes.shallow:,}", many / few, budget, holds)


def _depths(sizes: Sizes) -> tuple[int, int]:
    return sizes.pending, sizes.shallow
