"""Rate limits, boosts and partitions: what each costs a command, and many pending or many lanes that have them."""

from __future__ import annotations

import asyncio
import functools
import gc
import random
import time
from typing import TYPE_CHECKING, Any, Final

from benchmarks.features import EACH, FEATURES, Feature
from benchmarks.figure import Figure, Sizes, at_most, best_of
from benchmarks.memory import bytes_each
from benchmarks.rows import lanes, pending
from benchmarks.workload import LANE, LIMIT, LOOPS, check, no_op, on_loop
from lane_obs import LaneConfig, PriorityBoost, QueueManager
from lane_obs.core.engine import Engine
from lane_obs.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW = "scale"
_MOST_US: Final = 1.0
_METHOD: Final = "tracemalloc"
_ROUNDS: Final = 3
_BATCHES: Final = 5
_SHORTER: Final = 10
_SPREAD: Final = 1e6


async def through(feature: Feature, count: int) -> float:
    """Processor seconds from the first submit to the last result, in one lane; what submits say is made before."""
    options = [feature.options(number) for number in range(count)]
    async with QueueManager({LANE: feature.lane()}) as manager:
        start = time.process_time()
        handles = [manager.submit_nowait(LANE, no_op, **given) for given in options]
        results = [await handle for handle in handles]
        seconds = time.process_time() - start
    check(results, count)
    return seconds


async def by_aiolimiter(count: int) -> float:
    """The same by `aiolimiter` beside an `asyncio.Semaphore`, one task a command."""
    import aiolimiter

    semaphore, limiter = asyncio.Semaphore(LIMIT), aiolimiter.AsyncLimiter(1e9, 1)

    async def limited() -> int:
        async with semaphore, limiter:
            return await no_op()

    start = time.process_time()
    results = await asyncio.gather(*(limited() for _ in range(count)))
    seconds = time.process_time() - start
    check(results, count)
    return seconds


class Timed(Record, eq=False):
    """A command with a deadline, as the core sees it."""

    life: float = 0.0

    @property
    def deadline(self) -> float:
        """Seconds from submit."""
        return self.life


def boost_seconds(depth: int, changes: int) -> float:
    """Processor seconds for so many boosts in a lane of `depth` waiting commands, in no order: the best of batches."""
    engine = Engine({LANE: LaneConfig(0, 1, priority=9, boost=PriorityBoost.standard())}, None, 0.0)
    lane, rng = engine.lanes[LANE], random.Random(1)
    for seq in range(depth):
        engine.submit(Timed(seq, lane, 0.0, life=rng.uniform(_SPREAD, 2 * _SPREAD)), 0.0)
    rises = sorted(record.life / 4 for record in lane.ready._inside)
    gc.collect()
    best = float("inf")
    for number in range(min(_BATCHES, depth // changes)):
        until = rises[(number + 1) * changes - 1]
        start = time.process_time()
        for kind, record in engine.timers.pop_due(until):
            engine.order.on_timer(kind, record, until)
        best = min(best, time.process_time() - start)
    return best


def figures(sizes: Sizes) -> Iterator[Figure]:
    """What each feature adds, the peer, boosts; then many pending and many lanes."""
    yield from _added(sizes)
    yield _peer(sizes)
    yield _boosts(sizes)
    yield from _pending(sizes)
    yield from _lanes(sizes)


def _added(sizes: Sizes) -> Iterator[Figure]:
    # A difference of a microsecond drowns in the noise of a few long runs: many short ones, in turn, find it.
    loop, count, rounds = LOOPS[0], max(sizes.commands // _SHORTER, 1), sizes.rounds * _SHORTER
    for name, feature in FEATURES.items():
        pair = {"on": feature, "off": feature.plain}
        runs = {key: functools.partial(on_loop, loop, through, one, count) for key, one in pair.items()}
        seconds = best_of(runs, rounds)
        on, off = (seconds[key] / count * 1e6 for key in pair)
        budget, holds = at_most(_MOST_US, on - off, "us more")
        yield Figure(ROW, f"{name}, CPU a command", on, "us", off, "plain lane, same options", on / off, budget, holds)


def _peer(sizes: Sizes) -> Figure:
    loop, count = LOOPS[0], sizes.commands
    feature = FEATURES["rate limit, bucket"]
    runs: dict[str, Any] = {"ours": functools.partial(on_loop, loop, through, feature, count)}
    what, name = "rate limit, CPU a command", "aiolimiter and asyncio.Semaphore"
    try:
        import aiolimiter  # noqa: F401
    except ImportError:
        return Figure(ROW, what, runs["ours"]() / count * 1e6, "us", None, f"{name} (not installed)")
    runs["theirs"] = functools.partial(on_loop, loop, by_aiolimiter, count)
    seconds = best_of(runs, sizes.rounds)
    ours, theirs = (seconds[key] / count * 1e6 for key in ("ours", "theirs"))
    return Figure(ROW, what, ours, "us", theirs, name, theirs / ours)


def _boosts(sizes: Sizes) -> Figure:
    depths = sizes.pending, sizes.shallow
    runs = {str(depth): functools.partial(boost_seconds, depth, sizes.shallow) for depth in depths}
    seconds = best_of(runs, min(_ROUNDS, sizes.rounds))
    many, few = (seconds[str(depth)] / sizes.shallow * 1e6 for depth in depths)
    what = f"a boost, {depths[0]:,} pending in the lane"
    return Figure(ROW, what, many, "us", few, f"{depths[1]:,}", many / few)


def _pending(sizes: Sizes) -> Iterator[Figure]:
    plain = bytes_each("lane_obs", sizes.pending, _METHOD)
    for name in EACH:
        ours = bytes_each(name, sizes.pending, _METHOD)
        assert ours is not None
        assert plain is not None
        what = f"{name}, bytes each of {sizes.pending:,} pending, {_METHOD}"
        yield Figure(ROW, what, ours, "B", plain, "plain lane", ours / plain)
        yield pending.cost_figure(
            f"{name}, submit and run, {sizes.pending:,} pending in the lane",
            functools.partial(pending.steady, feature=FEATURES[name]),
            sizes.pending // 2,
            sizes,
            row=ROW,
        )


def _lanes(sizes: Sizes) -> Iterator[Figure]:
    for name in EACH:
        what = f"{name}, submit and run, {sizes.lanes:,} lanes"
        yield lanes.figure(what, sizes.lanes, sizes, feature=FEATURES[name], row=ROW)
