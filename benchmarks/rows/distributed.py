"""One queue for many processes, on Redis: against the peers' queues, bare scripts, and itself with more to do."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from benchmarks.distributed import floor, runs
from benchmarks.distributed.contestant import OURS, missing
from benchmarks.distributed.jobs import CONCURRENCY
from benchmarks.distributed.server import unusable
from benchmarks.figure import Figure, Sizes, at_least, at_most, best_of, quantile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.distributed.runs import Run

ROW = "distributed"
_RIVAL = 4.0
_LATENCY = 1.0
_READS = 1.5
_TWO = 1.7
_DEPTH = 2.0
_ENQUEUE_PEERS = ("rq", "streaq", "docket")
_RUN_PEERS = ("dramatiq", "huey", "taskiq")
_LATENCY_PEERS = ("taskiq", "huey")
_FLOOR = "bare scripts"
_ROUNDS = 3
_JOBS = 5
_TRIPS = 10
"""Jobs, and round trips, are these parts of `sizes.commands`."""
_MANY_LANES = 10
"""The part of `sizes.lanes` that a million commands wait in."""
_FEW_LANES = 6


def figures(sizes: Sizes) -> Iterator[Figure]:
    """All of these."""
    why = unusable() or ("" if not missing(OURS) else "structlog or prometheus-client is not installed")
    if why:
        yield Figure(ROW, f"not measured: {why}", None, "")
        return
    count, trips = sizes.commands // _JOBS, sizes.commands // _TRIPS
    enqueued = yield from _rates("batch enqueue", runs.enqueue, count, _ENQUEUE_PEERS, sizes, floor.enqueue)
    drained = yield from _rates("drain, one worker", runs.drain, count, _RUN_PEERS, sizes, floor.drain)
    yield from _rates("round trips, 64 outstanding", runs.round_trips, trips, _RUN_PEERS, sizes)
    yield from _latency(sizes)
    yield from _costs(enqueued, drained, count)
    yield from _two_workers(sizes)
    yield from _depth(sizes)


# --- against the peers ----------------------------------------------------------------------------------------------


def _rates(
    what: str,
    run: Callable[[str, int], Run],
    count: int,
    peers: Sequence[str],
    sizes: Sizes,
    bare: Callable[[int], Run] | None = None,
) -> Iterator[Figure]:
    contestants = {name: functools.partial(run, name, count) for name in (OURS, *peers) if not missing(name)}
    if bare is not None:
        contestants[_FLOOR] = functools.partial(bare, count)
    best = _best(contestants, sizes)
    ours = 1 / best[OURS].seconds
    fastest = min((name for name in peers if name in best), key=lambda name: best[name].seconds, default="")
    for name in (*peers, *([_FLOOR] if bare is not None else ())):
        if name not in best:
            yield Figure(ROW, what, ours, "/s", None, f"{name} (not installed)")
            continue
        theirs = 1 / best[name].seconds
        budget, holds = at_least(_RIVAL, ours / theirs) if name == fastest else ("", None)
        yield Figure(ROW, what, ours, "/s", theirs, name, ours / theirs, budget, holds)
    return best[OURS]


def _best(contestants: Mapping[str, Callable[[], Run]], sizes: Sizes) -> dict[str, Run]:
    found: dict[str, list[Run]] = {name: [] for name in contestants}

    def measured(name: str) -> float:
        found[name].append(contestants[name]())
        return found[name][-1].seconds

    best_of({name: functools.partial(measured, name) for name in contestants}, min(sizes.rounds, _ROUNDS))
    return {name: min(made, key=lambda run: run.seconds) for name, made in found.items()}


def _latency(sizes: Sizes) -> Iterator[Figure]:
    names = [name for name in (OURS, *_LATENCY_PEERS) if not missing(name)]
    rounds = min(sizes.rounds, _ROUNDS)
    waits: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            waits[name] += runs.waits(name, sizes.samples // rounds)
    for share in (0.5, 0.99):
        ours = quantile(waits[OURS], share)
        for name in _LATENCY_PEERS:
            what = f"enqueue to start, idle, p{share * 100:g}"
            if name not in waits:
                yield Figure(ROW, what, ours, "ms", None, f"{name} (not installed)")
                continue
            theirs = quantile(waits[name], share)
            budget, holds = at_most(_LATENCY, ours / theirs) if name == _LATENCY_PEERS[0] else ("", None)
            yield Figure(ROW, what, ours, "ms", theirs, name, ours / theirs, budget, holds)


# --- against itself -------------------------------------------------------------------------------------------------


def _costs(enqueued: Run, drained: Run, count: int) -> Iterator[Figure]:
    reads = (enqueued.use.reads + drained.use.reads) / count
    budget, holds = at_most(_READS, reads)
    yield Figure(ROW, "socket reads a job, enqueue and drain", reads, "", budget=budget, holds=holds)
    yield Figure(ROW, "server, CPU a job, enqueue", enqueued.use.cpu / count * 1e6, "us")
    yield Figure(ROW, "server, CPU a job, drain", drained.use.cpu / count * 1e6, "us")
    yield Figure(ROW, "worker, CPU a job, drain", drained.cpu * 1e6, "us")


def _two_workers(sizes: Sizes) -> Iterator[Figure]:
    for what, phase, count in (
        ("drain", "enqueue", sizes.commands),
        ("drain of jobs that wait 5 ms", "enqueue_waiting", sizes.commands // _JOBS),
    ):
        contestants = {
            name: functools.partial(runs.drain, OURS, count, processes, phase)
            for name, processes in (("two", 2), ("one", 1))
        }
        best = _best(contestants, sizes)
        two, one = (1 / best[name].seconds for name in contestants)
        budget, holds = at_least(_TWO, two / one)
        yield Figure(ROW, f"{what}, two workers", two, "/s", one, "one worker", two / one, budget, holds)
        busy = [run.use.cpu / (run.seconds * count) * 100 for run in best.values()]
        yield Figure(ROW, f"{what}, two workers, server's share of a processor", busy[0], "%", busy[1], "one worker")
        cpu = [run.cpu * 1e6 for run in best.values()]
        yield Figure(ROW, f"{what}, two workers, CPU of a worker a job", cpu[0], "us", cpu[1], "one worker")


def _depth(sizes: Sizes) -> Iterator[Figure]:
    from benchmarks.distributed import depth  # it needs the package redis

    turns = max(sizes.samples // 5, 40)
    lanes = sizes.lanes // _MANY_LANES
    what = f"server, CPU a turn, {sizes.pending:,} wait in {lanes:,} lanes"
    for few_lanes, levels, rounds in ((CONCURRENCY, 1, 2), (_FEW_LANES, _FEW_LANES, 1)):
        contestants = {
            "many": functools.partial(depth.spend, sizes.pending, lanes, levels, turns),
            "few": functools.partial(depth.spend, sizes.shallow, few_lanes, levels, turns),
        }
        seconds = best_of(contestants, rounds)
        many, few = (seconds[name] * 1e6 for name in contestants)
        # Where each lane has a priority of its own a turn takes all it wants of one; else of as many as it wants.
        budget, holds = at_most(_DEPTH, many / few) if levels == 1 else ("", None)
        peer = f"{sizes.shallow:,} in {few_lanes} lanes, {levels} {'priorities' if levels > 1 else 'priority'}"
        yield Figure(ROW, what, many, "us", few, peer, many / few, budget, holds)
