"""Durable lanes: submits of many submitters and of a lone one, recovery, and what they cost the lanes beside them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import TYPE_CHECKING, Any

from benchmarks.durable_peers import (
    INSERT,
    NAME,
    SUBMITTERS,
    connect,
    durable_no_op,
    folder,
    huey,
    persist_queue,
    raw,
    raw_row,
)  # fmt: skip
from benchmarks.figure import Figure, Sizes, at_least, at_most, best_of, quantile
from benchmarks.memory import resident
from benchmarks.workload import LIMIT, LOOPS, check, no_op, on_loop
from lane_obs import LaneConfig, QueueManager, command
from lane_obs.command import registry
from lane_obs.storage import LocalStorage, StoredCommand
from lane_obs.storage.change import Save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROW = "durable"
_SHARE = 0.25
_LONE = 1.5
_RECOVERY = 100_000.0
_BESIDE = 1.0
_DIVISOR = 5
"""Durable commands cost a commit each, where they are alone: this is the part of `sizes.commands` that is used."""
_BATCH = 1_000
_BUSY = 8
LANES = {"durable": LaneConfig(0, LIMIT), "bare": LaneConfig(0, LIMIT, durable=False)}


# --- many submitters ------------------------------------------------------------------------------------------------


async def submitted(count: int, *, runs: bool) -> float:
    """Seconds in which 256 submitters get `count` submits acknowledged; with `runs` until all have ended, too."""
    with folder() as where:
        async with QueueManager(LANES, storage=LocalStorage(where)) as manager:
            if not runs:
                manager.pause("durable")

            async def submitter(numbers: range) -> list[Any]:
                return [await manager.submit("durable", durable_no_op, number) for number in numbers]

            start = time.perf_counter()
            parts = await asyncio.gather(*(submitter(range(first, count, SUBMITTERS)) for first in range(SUBMITTERS)))
            acked = time.perf_counter() - start
            if not runs:
                manager.resume("durable")
            results = [await handle for part in parts for handle in part]
            ended = time.perf_counter() - start
            check(results, count)
    return ended if runs else acked


# --- a lone one -----------------------------------------------------------------------------------------------------


async def lone(count: int) -> tuple[list[float], list[float]]:
    """Seconds of each lone durable submit, and of each lone commit of sqlite3, taken in turn."""
    ours, theirs = [], []
    with folder() as where, contextlib.closing(connect(where)) as connection:
        async with QueueManager(LANES, storage=LocalStorage(where / "queue")) as manager:
            for number in range(count):
                start = time.perf_counter()
                handle = await manager.submit("durable", durable_no_op, number)
                ours.append(time.perf_counter() - start)
                await handle
                await manager.drain()
                row = raw_row(number)
                start = time.perf_counter()
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(INSERT, row)
                connection.execute("COMMIT")
                theirs.append(time.perf_counter() - start)
    return ours, theirs


# --- recovery -------------------------------------------------------------------------------------------------------


async def recovered(count: int) -> tuple[float, float, float]:
    """Seconds to bring back `count` stored commands, share of that before the first ran, bytes for each."""
    first: list[float] = []

    async def stored_no_op(_number: int) -> None:
        if not first:
            first.append(time.perf_counter())

    with folder() as where:
        registry.remove(NAME)
        command(NAME)(stored_no_op)
        await _fill(where, count)
        lanes = {"durable": LaneConfig(0, 1)}
        manager = QueueManager(lanes, storage=LocalStorage(where, durability="normal"))
        before = resident()
        await manager.start()
        opened = time.perf_counter()
        while not manager.is_recovered:
            await asyncio.sleep(0.001)
        seconds = time.perf_counter() - opened
        each = (resident() - before) / count
        early = (first[0] - opened) / seconds if first else 1.0
        await manager.close()
    return seconds, early, each


async def _fill(where: Path, count: int) -> None:
    storage = LocalStorage(where, durability="normal")
    await storage.open()
    now = time.time()
    for start in range(1, count + 1, _BATCH):
        rows = [
            StoredCommand(
                id=f"0123456789ab-{seq}", seq=seq, lane="durable", command_type=NAME, payload=b"[1]",
                submitted_at=now, updated_at=now,
            )
            for seq in range(start, min(start + _BATCH, count + 1))
        ]  # fmt: skip
        await storage.apply([Save(row) for row in rows])
    await storage.close()


# --- beside ---------------------------------------------------------------------------------------------------------


async def beside(count: int, contestant: str) -> float:
    """Seconds for `count` no-ops through a bare lane, or a semaphore, while durable lanes of the same loop are busy."""
    with folder() as where:
        async with QueueManager(LANES, storage=LocalStorage(where)) as manager:
            busy = True

            async def keep_busy() -> None:
                while busy:
                    await (await manager.submit("durable", durable_no_op, 1))

            others = [asyncio.ensure_future(keep_busy()) for _ in range(_BUSY)]
            await asyncio.sleep(0.05)
            start = time.perf_counter()
            results = await (_bare(manager, count) if contestant == "lane" else _semaphore(count))
            seconds = time.perf_counter() - start
            busy = False
            await asyncio.gather(*others)
    check(results, count)
    return seconds


async def _bare(manager: QueueManager, count: int) -> list[int]:
    handles = [manager.submit_nowait("bare", no_op) for _ in range(count)]
    return [await handle for handle in handles]


async def _semaphore(count: int) -> list[int]:
    room = asyncio.Semaphore(LIMIT)

    async def one() -> int:
        async with room:
            return await no_op()

    return await asyncio.gather(*(asyncio.create_task(one()) for _ in range(count)))


async def bare(count: int, *, storage: bool) -> float:
    """Seconds for `count` no-ops through a bare lane of a queue with or without a storage."""
    with folder() as where:
        options = {"storage": LocalStorage(where)} if storage else {}
        async with QueueManager(
            {"bare": LaneConfig(0, LIMIT, durable=False if storage else None)}, **options
        ) as manager:
            start = time.perf_counter()
            results = await _bare(manager, count)
            seconds = time.perf_counter() - start
    check(results, count)
    return seconds


# --- figures --------------------------------------------------------------------------------------------------------


def figures(sizes: Sizes) -> Iterator[Figure]:
    """All of these."""
    yield from _many(sizes)
    ours, theirs = (quantile(times, 0.5) * 1e3 for times in on_loop(LOOPS[0], lone, sizes.samples))
    budget, holds = at_most(_LONE, ours / theirs)
    yield Figure(ROW, "lone submit, median", ours, "ms", theirs, "lone sqlite3 commit", ours / theirs, budget, holds)
    seconds, early, each = on_loop(LOOPS[0], recovered, sizes.pending)
    rate = sizes.pending / seconds
    budget, holds = at_least(_RECOVERY, rate)
    yield Figure(ROW, f"recovery of {sizes.pending:,} commands", rate, "/s", None, "", None, f"{budget} /s", holds)
    yield Figure(ROW, "the first one started after", early * 100, "% of it", budget="below 100", holds=early < 1)
    yield Figure(ROW, "memory a recovered command", each, "B")
    yield from _others(sizes)


def _many(sizes: Sizes) -> Iterator[Figure]:
    count = sizes.commands // _DIVISOR
    runs: dict[str, Callable[[], float]] = {
        "submit": functools.partial(on_loop, LOOPS[0], functools.partial(submitted, runs=False), count),
        "run": functools.partial(on_loop, LOOPS[0], functools.partial(submitted, runs=True), count),
        "raw": functools.partial(raw, count),
    }
    seconds = best_of(runs, min(sizes.rounds, 3))
    rates = {name: count / value for name, value in seconds.items()}
    share = rates["submit"] / rates["raw"]
    budget, holds = at_least(_SHARE, share)
    peer = f"sqlite3 executemany, {SUBMITTERS} rows a commit"
    what = f"{SUBMITTERS} submitters, submits"
    yield Figure(ROW, what, rates["submit"], "/s", rates["raw"], peer, share, budget, holds)
    share = rates["run"] / rates["raw"]
    yield Figure(ROW, f"{SUBMITTERS} submitters, submitted and run", rates["run"], "/s", rates["raw"], peer, share)
    few = sizes.peer_commands
    for name, measure in (("huey, SQLite", huey), ("persist-queue, SQLiteAckQueue", persist_queue)):
        found = measure(few)
        theirs = None if found is None else few / found
        shown = name if found is not None else f"{name} (not installed)"
        ratio = None if theirs is None else rates["submit"] / theirs
        yield Figure(ROW, what, rates["submit"], "/s", theirs, shown, ratio)


def _others(sizes: Sizes) -> Iterator[Figure]:
    count = sizes.commands
    runs = {name: functools.partial(on_loop, LOOPS[0], beside, count, name) for name in ("lane", "semaphore")}
    seconds = best_of(runs, sizes.rounds)
    ours, theirs = (seconds[name] / count * 1e6 for name in runs)
    budget, holds = at_least(_BESIDE, theirs / ours)
    what = "bare lane, durable lanes busy"
    yield Figure(ROW, what, ours, "us", theirs, "asyncio.Semaphore, likewise", theirs / ours, budget, holds)
    made = {
        name: functools.partial(on_loop, LOOPS[0], functools.partial(bare, storage=name == "with"), count)
        for name in ("with", "without")
    }
    seconds = best_of(made, sizes.rounds)
    ours, theirs = (seconds[name] / count * 1e6 for name in made)
    yield Figure(ROW, "bare lane of a queue with a storage", ours, "us", theirs, "without a storage", ours / theirs)
