"""Many lanes against six: what a command costs, spread evenly over them, and what a lane costs that comes and goes."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

from benchmarks.figure import Figure, Sizes, at_most, best_of
from benchmarks.workload import LIMIT, LOOPS, check, no_op, on_loop
from lane_obs import LaneConfig, QueueManager

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW = "lanes"
_FEW = 6
_RATIO = 2.0


async def spread(lane_count: int, count: int, levels: int) -> float:
    """Seconds from the first submit to the last result; the queue is built before.

    Args:
        lane_count: how many lanes.
        count: commands, given to the lanes in turn.
        levels: how many priorities the lanes have among them.
    """
    lanes = {f"lane-{number}": LaneConfig(0, LIMIT, priority=number % levels) for number in range(lane_count)}
    names = list(lanes)
    async with QueueManager(lanes, max_concurrency=LIMIT) as manager:
        targets = [names[number % lane_count] for number in range(count)]
        start = time.perf_counter()
        handles = [manager.submit_nowait(name, no_op) for name in targets]
        results = [await handle for handle in handles]
        seconds = time.perf_counter() - start
    check(results, count)
    return seconds


async def come_and_go(others: int, count: int) -> float:
    """Seconds in which so many lanes are added, used and removed, one after the other, beside others that are idle."""
    lanes = {f"lane-{number}": LaneConfig(0, LIMIT, priority=number % _FEW) for number in range(others)}
    async with QueueManager(lanes, max_concurrency=LIMIT) as manager:
        results = []
        start = time.perf_counter()
        for number in range(count):
            manager.add_lane("guest", LaneConfig(0, 1, priority=number % _FEW))
            results.append(await manager.submit_nowait("guest", no_op))
            await manager.remove_lane("guest")
        seconds = time.perf_counter() - start
    check(results, count)
    return seconds


def figures(sizes: Sizes) -> Iterator[Figure]:
    """With six priorities in both, then with a priority of its own for every lane; then lanes that come and go."""
    for what, many_levels in (("six priorities", _FEW), ("a priority each", sizes.lanes)):
        shapes = {"many": (sizes.lanes, many_levels), "few": (_FEW, _FEW)}
        runs = {
            name: functools.partial(on_loop, LOOPS[0], spread, lane_count, sizes.commands, levels)
            for name, (lane_count, levels) in shapes.items()
        }
        seconds = best_of(runs, sizes.rounds)
        many, few = (seconds[name] / sizes.commands * 1e6 for name in shapes)
        budget, holds = at_most(_RATIO, many / few)
        name = f"submit and run, {sizes.lanes:,} lanes, {what}"
        yield Figure(ROW, name, many, "us", few, f"{_FEW} lanes", many / few, budget, holds)
    others = {"many": sizes.lanes, "few": _FEW}
    runs = {name: functools.partial(on_loop, LOOPS[0], come_and_go, n, sizes.lanes) for name, n in others.items()}
    seconds = best_of(runs, sizes.rounds)
    many, few = (seconds[name] / sizes.lanes * 1e6 for name in others)
    budget, holds = at_most(_RATIO, many / few)
    name = f"add, use, remove a lane beside {sizes.lanes:,}"
    yield Figure(ROW, name, many, "us", few, f"beside {_FEW}", many / few, budget, holds)
