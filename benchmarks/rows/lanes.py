"""Many lanes against six: what a command costs, spread evenly over them, and what a lane costs that comes and goes."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

from benchmarks.features import PLAIN, Feature
from benchmarks.figure import Figure, Sizes, at_most, best_of
from benchmarks.workload import LIMIT, LOOPS, check, no_op, on_loop
from lane_obs import LaneConfig, QueueManager

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW = "lanes"
_FEW = 6
_RATIO = 2.0


async def spread(lane_count: int, count: int, levels: int, feature: Feature = PLAIN) -> float:
    """Processor seconds from the first submit to the last result; the queue is built before.

    Args:
        lane_count: how many lanes.
        count: commands, given to the lanes in turn.
        levels: how many priorities the lanes have among them.
        feature: what each lane has on.
    """
    lanes = {f"lane-{number}": feature.lane(priority=number % levels) for number in range(lane_count)}
    names, options = list(lanes), [feature.options(number) for number in range(count)]
    async with QueueManager(lanes, max_concurrency=LIMIT) as manager:
        targets = [(names[number % lane_count], no_op) for number in range(count)]
        start = time.process_time()
        handles = [manager.submit_nowait(*target, **given) for target, given in zip(targets, options, strict=True)]
        results = [await handle for handle in handles]
        seconds = time.process_time() - start
    check(results, count)
    return seconds


async def come_and_go(others: int, count: int) -> float:
    """Processor seconds in which so many lanes are added, used and removed, one by one, beside others that are idle."""
    lanes = {f"lane-{number}": LaneConfig(0, LIMIT, priority=number % _FEW) for number in range(others)}
    async with QueueManager(lanes, max_concurrency=LIMIT) as manager:
        results = []
        start = time.process_time()
        for number in range(count):
            manager.add_lane("guest", LaneConfig(0, 1, priority=number % _FEW))
            results.append(await manager.submit_nowait("guest", no_op))
            await manager.remove_lane("guest")
        seconds = time.process_time() - start
    check(results, count)
    return seconds


def figures(sizes: Sizes) -> Iterator[Figure]:
    """With six priorities in both, then with a priority of its own for every lane; then lanes that come and go."""
    for what, many_levels in (("six priorities", _FEW), ("a priority each", sizes.lanes)):
        yield figure(f"submit and run, {sizes.lanes:,} lanes, {what}", many_levels, sizes)
    others = {"many": sizes.lanes, "few": _FEW}
    runs = {name: functools.partial(on_loop, LOOPS[0], come_and_go, n, sizes.lanes) for name, n in others.items()}
    seconds = best_of(runs, sizes.rounds)
    many, few = (seconds[name] / sizes.lanes * 1e6 for name in others)
    budget, holds = at_most(_RATIO, many / few)
    name = f"add, use, remove a lane beside {sizes.lanes:,}"
    yield Figure(ROW, name, many, "us", few, f"beside {_FEW}", many / few, budget, holds)


def figure(what: str, many_levels: int, sizes: Sizes, *, feature: Feature = PLAIN, row: str = ROW) -> Figure:
    """Compares many lanes, of so many priorities, with few."""
    shapes = {"many": (sizes.lanes, many_levels), "few": (_FEW, _FEW)}
    runs = {
        name: functools.partial(on_loop, LOOPS[0], spread, lane_count, sizes.commands, levels, feature)
        for name, (lane_count, levels) in shapes.items()
    }
    seconds = best_of(runs, sizes.rounds)
    many, few = (seconds[name] / sizes.commands * 1e6 for name in shapes)
    budget, holds = at_most(_RATIO, many / few)
    return Figure(row, what, many, "us", few, f"{_FEW} lanes", many / few, budget, holds)
