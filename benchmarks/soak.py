"""Durable lanes at half of their maximum rate for a long time: file size, memory and commit time stay flat.

usage: python -m benchmarks.soak [--seconds 600] [--share 0.5] [--folder DIR]

Prints a line for each tenth of the time. The exit code is 1 where something grew: the last third of the time is
compared with the third in the middle. The first is left out, as buffers fill and the file finds its size. The time of
a commit is compared with that of plain SQLite on the same disk at the same time, so that a busy machine is no growth.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import math
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from benchmarks import durable_peers
from benchmarks.memory import STATM, resident
from benchmarks.workload import runner
from lane_obs import LaneConfig, QueueManager, RetryPolicy, command
from lane_obs.storage import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Sequence

LANES: Final = {
    "quick": LaneConfig(0, 32),
    "flaky": LaneConfig(0, 32, retry=RetryPolicy.fixed(2, 0.01)),
    "dying": LaneConfig(0, 32),
}
_SUBMITTERS: Final = 256
_PARTS: Final = 30
_TRIAL_SECONDS: Final = 5.0
_GROWTH: Final = 1.1
_SPARE_BYTES: Final = 8 * 1024 * 1024
_SLOWER: Final = 1.5
_RAW_ROWS: Final = 32
_RAW_BREAK: Final = 0.05


@command("soak.work")
async def work(fails: int) -> int:
    """Fails its first attempts."""
    from lane_obs import current

    if current().attempt <= fails:
        raise ConnectionError("refused")
    return fails


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """What was seen in one part of the time."""

    rate: float
    memory: int
    file_bytes: int
    commit_ms: float
    plain_ms: float
    commands: int


class PlainCommits(threading.Thread):
    """Commits to plain SQLite now and then, for as long as it is entered.

    Args:
        folder: where its file goes.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(name="plain-sqlite")
        self._folder = folder
        self._ends = threading.Event()
        self._times: list[float] = []

    def __enter__(self) -> PlainCommits:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self.join()

    def run(self) -> None:
        """The thread."""
        with contextlib.closing(durable_peers.connect(self._folder)) as connection:
            while not self._ends.wait(_RAW_BREAK):
                began = time.perf_counter()
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("DELETE FROM commands")
                connection.executemany(durable_peers.INSERT, map(durable_peers.raw_row, range(_RAW_ROWS)))
                connection.execute("COMMIT")
                self._times.append((time.perf_counter() - began) * 1e3)

    def take(self) -> float:
        """Milliseconds of a commit since it was last asked; NaN when there was none."""
        taken, self._times = self._times, []
        return fmean(taken) if taken else math.nan


class Soak:
    """Submits to one queue at a steady rate.

    Args:
        manager: the queue, started.
        plain: plain SQLite on the same disk.
    """

    def __init__(self, manager: QueueManager, plain: PlainCommits) -> None:
        self._manager = manager
        self._plain = plain
        self._number = 0
        self.ended = 0

    async def one(self) -> None:
        """One command, from submit to end: one in ten is tried again, one in a hundred becomes a dead letter."""
        self._number += 1
        rest = self._number % 100
        lane, fails = ("dying", 1) if not rest else ("flaky", 1) if rest % 10 == 0 else ("quick", 0)
        handle = await self._manager.submit(lane, work, fails)
        with contextlib.suppress(ConnectionError):
            await handle
        self.ended += 1

    async def submitter(self, until: float, gap: float) -> None:
        """Submits one each `gap` seconds, as far as the queue keeps up."""
        due = time.perf_counter()
        while (now := time.perf_counter()) < until:
            due = max(due + gap, now)
            await self.one()
            await asyncio.sleep(max(due - time.perf_counter(), 0))

    async def run(self, seconds: float, rate: float | None) -> float:
        """Runs all submitters; returns the rate that came of it."""
        began, before = time.perf_counter(), self.ended
        gap = 0.0 if rate is None else _SUBMITTERS / rate
        await asyncio.gather(*(self.submitter(began + seconds, gap) for _ in range(_SUBMITTERS)))
        return (self.ended - before) / (time.perf_counter() - began)

    async def part(self, seconds: float, rate: float) -> Part:
        """Runs for a while and looks."""
        storage: Any = self._manager._keeper.journal.storage  # type: ignore[union-attr]
        spent, commits = storage.health().commit_seconds.total, storage.health().commits
        got = await self.run(seconds, rate)
        gc.collect()
        health = storage.health()
        commit_ms = (health.commit_seconds.total - spent) / max(health.commits - commits, 1) * 1e3
        memory = resident() if STATM.exists() else 0
        return Part(got, memory, health.file_bytes, commit_ms, self._plain.take(), health.commands)


async def soak(folder: Path, seconds: float, share: float) -> list[Part]:
    """Finds the maximum rate, then goes on at a share of it."""
    storage = LocalStorage(folder / "queue")
    async with QueueManager(LANES, storage=storage, dead_letters=1_000) as manager:
        with PlainCommits(folder) as plain:
            return await _soak(Soak(manager, plain), seconds, share)


async def _soak(load: Soak, seconds: float, share: float) -> list[Part]:
    top = await load.run(min(_TRIAL_SECONDS, seconds / 10), None)
    rate = top * share
    print(f"at most {top:,.0f} commands a second; soaking at {rate:,.0f} for {seconds:g} s", flush=True)
    parts = []
    for number in range(_PARTS):
        parts.append(part := await load.part(seconds / _PARTS, rate))
        if number % 3 == 2:
            print(
                f"{(number + 1) / _PARTS:4.0%}  {part.rate:8,.0f} /s  memory {part.memory / 1e6:7.1f} MB"
                f"  files {part.file_bytes / 1e6:6.2f} MB  commit {part.commit_ms:6.2f} ms (plain SQLite"
                f" {part.plain_ms:6.2f})  stored {part.commands}",
                flush=True,
            )
    return parts


def complaints(parts: Sequence[Part]) -> list[str]:
    """What grew from the middle third to the last."""
    third = len(parts) // 3
    middle, last = parts[third : 2 * third], parts[-third:]
    found = []
    for what in ("memory", "file_bytes"):
        before, after = (max(getattr(part, what) for part in some) for some in (middle, last))
        if after > before * _GROWTH and after > before + _SPARE_BYTES:
            found.append(f"{what} grew from {before:,} to {after:,}")
    slow, slower = (
        sum(part.commit_ms for part in some) / sum(part.plain_ms for part in some) for some in (middle, last)
    )
    if slower > slow * _SLOWER:
        found.append(f"a commit took {slow:.1f} commits of plain SQLite, then {slower:.1f}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Soaks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="how long, default ten minutes")
    parser.add_argument("--share", type=float, default=0.5, help="of the maximum rate, default half")
    parser.add_argument("--folder", type=Path, help="where to put the folder of the storage, default a temporary one")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lane-obs-soak-", dir=given.folder) as name, runner("uvloop") as made:
        found = complaints(made.run(soak(Path(name), given.seconds, given.share)))
    print("\n".join(found) or "all flat")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
