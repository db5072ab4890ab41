"""Many lanes against six: what a command costs, the same commands spread evenly over the lanes."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

from benchmarks.features import PLAIN, Feature
from benchmarks.figure import Figure, Sizes, at_most, best_of
from benchmarks.workload import LIMIT, LOOPS, check, no_op, on_loop
from lane_obs import QueueManager

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


def figures(sizes: Sizes) -> Iterator[Figure]:
    """With six priorities in both, then with a priority of its own for every lane."""
    for what, many_levels in (("six priorities", _FEW), ("a priority each", sizes.lanes)):
        yield figure(f"submit and run, {sizes.lanes:,} lanes, {what}", many_levels, sizes)


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
