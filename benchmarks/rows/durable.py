"""Durable work: what a storage takes beside bare SQLite, and how fast stored commands come back.

Bare SQLite is the standard library's `sqlite3` with the same settings and the same rows in a table of the same columns,
in the same folder: what somebody would write who needs no queue. Set `TMPDIR` to choose the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.figure import Figure, Sizes, at_least, at_most, best_of, quantile
from benchmarks.workload import LOOPS, on_loop
from lane_obs.storage import LocalStorage, Remove, Save, StoredCommand, Update
from lane_obs.storage.sqlite.row import COLUMNS, command_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROW = "storage"
_ROOT: Final = Path(__file__).parents[2]
SUBMITTERS: Final = 256
_LEAST_SHARE = 0.65
_LEAST_AT_ONCE = 0.75
_MOST_LONE = 1.5
_STREAM = 220_000
_STREAM_MIB = 64.0
_PRAGMAS: Final = (
    "locking_mode = EXCLUSIVE", "journal_mode = WAL", "journal_size_limit = 16777216", "cache_size = -16384",
    "temp_store = MEMORY", "secure_delete = OFF", "synchronous = FULL",
)  # fmt: skip


def command(seq: int) -> StoredCommand:
    """A command of usual size: some 100 bytes of arguments, a trace."""
    return StoredCommand(
        id=f"0123456789ab-{seq}", seq=seq, lane="query", command_type="send_mail",
        payload=b'{"to":"%s","subject":"%s"}' % (b"a" * 20, b"s" * 60), options={"timeout": 30.0},
        trace=f"00-{seq:032x}-{seq:016x}-01", submitted_at=1_767_225_600.0, updated_at=1_767_225_600.0,
    )  # fmt: skip


class RawSqlite:
    """Bare SQLite: one table, one statement, a transaction for each batch.

    Args:
        folder: where its file goes.
    """

    def __init__(self, folder: Path) -> None:
        self._connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
        for pragma in _PRAGMAS:
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        columns = [f"{name} {_kind(name)}" for name in COLUMNS]
        self._connection.execute(f"CREATE TABLE commands ({', '.join(columns)})")
        self._statement = f"INSERT INTO commands VALUES ({', '.join('?' * len(COLUMNS))})"

    def insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Commits some rows."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(self._statement, rows)
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Closes it."""
        self._connection.close()


def _kind(name: str) -> str:
    return {"seq": "INTEGER PRIMARY KEY", "id": "TEXT NOT NULL UNIQUE"}.get(name, "")


def raw_batches(commands: Sequence[StoredCommand]) -> float:
    """Seconds for committing them by `executemany`, as many at a time as there are submitters."""
    rows = [command_row(each) for each in commands]
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(RawSqlite(Path(folder))) as raw:
        start = time.perf_counter()
        for first in range(0, len(commands), SUBMITTERS):
            raw.insert(rows[first : first + SUBMITTERS])
        return time.perf_counter() - start


@contextlib.asynccontextmanager
async def open_storage(durability: str = "full") -> Any:
    """An empty storage in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        storage = LocalStorage(Path(folder) / "queue", durability=durability)
        await storage.open()
        try:
            yield storage
        finally:
            await storage.close()


async def submits(commands: Sequence[StoredCommand], durability: str = "full") -> float:
    """Seconds until all are stored, with each submitter waiting for its command before it brings the next."""
    async with open_storage(durability) as storage:
        left = iter(commands)

        async def submitter() -> None:
            for each in left:
                await storage.apply([Save(each)])

        start = time.perf_counter()
        await asyncio.gather(*(submitter() for _ in range(SUBMITTERS)))
        seconds = time.perf_counter() - start
        if storage.health().commands != len(commands):
            raise AssertionError("commands were lost")
        return seconds


async def together(commands: Sequence[StoredCommand], durability: str = "full") -> float:
    """The same with as many commands in one call as there were submitters: the submits of one turn of the loop."""
    async with open_storage(durability) as storage:
        start = time.perf_counter()
        for first in range(0, len(commands), SUBMITTERS):
            await storage.apply([Save(each) for each in commands[first : first + SUBMITTERS]])
        return time.perf_counter() - start


async def lives(commands: Sequence[StoredCommand], durability: str = "full") -> float:
    """The same for whole lives: stored, started (nobody waits for that to be written), removed."""
    async with open_storage(durability) as storage:
        left = iter(commands)

        async def submitter() -> None:
            for each in left:
                await storage.apply([Save(each)])
                storage.apply([Update(id=each.id, state="running", attempt=1, updated_at=1.0)])
                await storage.apply([Remove(each.id)])

        start = time.perf_counter()
        await asyncio.gather(*(submitter() for _ in range(SUBMITTERS)))
        return time.perf_counter() - start


async def lone(samples: int, durability: str = "full") -> tuple[list[float], list[float]]:
    """Milliseconds of single submits and of single commits of bare SQLite, in turns."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(RawSqlite(Path(folder))) as raw:
        async with open_storage(durability) as storage:
            for seq in range(1, samples + 1):
                each = command(seq)
                row = command_row(each)
                await asyncio.sleep(0.0005)
                start = time.perf_counter()
                await storage.apply([Save(each)])
                ours.append((time.perf_counter() - start) * 1e3)
                await asyncio.sleep(0.0005)
                start = time.perf_counter()
                raw.insert([row])
                theirs.append((time.perf_counter() - start) * 1e3)
    return ours, theirs


async def fill(folder: Path, count: int) -> None:
    """Stores many commands."""
    storage = LocalStorage(folder, durability="normal")
    await storage.open()
    for first in range(1, count + 1, 10_000):
        await storage.apply([Save(command(seq)) for seq in range(first, min(first + 10_000, count + 1))])
    await storage.close()


async def read_back(folder: Path) -> dict[str, float]:
    """Opens a storage and reads all of it.

    Returns:
        `found`: commands; `opened`, `read`: seconds for opening it and for reading it; `grown`: MiB that the process
        grew by at most.
    """
    storage = LocalStorage(folder)
    before = _peak_mib()
    start = time.perf_counter()
    await storage.open()
    opened = time.perf_counter()
    found = 0
    async for batch in storage.stream_commands():
        found += len(batch)
    read = time.perf_counter()
    await storage.close()
    return {"found": found, "opened": opened - start, "read": read - opened, "grown": _peak_mib() - before}


def stream(count: int) -> dict[str, float]:
    """Stores many commands and reads them back in a process of its own, whose memory nothing else has used.

    Raises:
        AssertionError: not all came back.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "queue"
        on_loop(LOOPS[0], fill, folder, count)
        call = [sys.executable, "-m", "benchmarks.rows.durable", str(folder)]
        done = subprocess.run(call, cwd=_ROOT, check=True, capture_output=True, text=True, timeout=600)
    found: dict[str, float] = json.loads(done.stdout)
    if found["found"] != count:
        raise AssertionError(f"{found['found']} of {count} commands came back")
    return found


def _peak_mib() -> float:
    """The most memory that this program had; 0 where the system does not say. `getrusage` counts its parent's too."""
    status = Path("/proc/self/status")
    lines = status.read_text("ascii").splitlines() if status.exists() else []
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def figures(sizes: Sizes) -> Iterator[Figure]:
    """Many submitters, a lone one, and the way back."""
    loop = LOOPS[0]
    commands = [command(seq) for seq in range(1, max(sizes.commands // 2, 1) + 1)]
    runs: dict[str, Callable[[], float]] = {
        "raw": lambda: raw_batches(commands),
        "submits": lambda: on_loop(loop, submits, commands),
        "together": lambda: on_loop(loop, together, commands),
        "lives": lambda: on_loop(loop, lives, commands),
    }
    seconds = best_of(runs, sizes.rounds)
    raw, ours, at_once = (len(commands) / seconds[name] for name in ("raw", "submits", "together"))
    peer = f"sqlite3, executemany of {SUBMITTERS}"
    what = f"durable submits a second, {SUBMITTERS} submitters, {loop}"
    yield Figure(ROW, what, ours, "/s", raw, peer, ours / raw, *at_least(_LEAST_SHARE, ours / raw))
    what = f"durable submits a second, {SUBMITTERS} in one call, {loop}"
    yield Figure(ROW, what, at_once, "/s", raw, peer, at_once / raw, *at_least(_LEAST_AT_ONCE, at_once / raw))
    whole = len(commands) / seconds["lives"]
    yield Figure(ROW, f"durable lives a second (submit, start, end), {loop}", whole, "/s", raw, peer, whole / raw)
    yield from _lone_figures(sizes)
    found = stream(sizes.pending)
    rate = sizes.pending / found["read"]
    budget, holds = at_least(_STREAM, rate)
    yield Figure(ROW, f"reading back {sizes.pending:,} commands", rate, "/s", None, "", None, f"{budget} /s", holds)
    budget, holds = at_most(_STREAM_MIB, found["grown"], "MiB")
    what = f"memory for reading back {sizes.pending:,}"
    yield Figure(ROW, what, found["grown"], "MiB", None, "", None, budget, holds)
    yield Figure(ROW, f"opening and checking {sizes.pending:,}", found["opened"] * 1e3, "ms")


def _lone_figures(sizes: Sizes) -> Iterator[Figure]:
    for loop in LOOPS:
        ours, theirs = on_loop(loop, lone, sizes.samples)
        mine, other = quantile(ours, 0.5), quantile(theirs, 0.5)
        budget, holds = at_most(_MOST_LONE, mine / other)
        what = f"a lone durable submit, p50, {loop}"
        figure = Figure(ROW, what, mine, "ms", other, "sqlite3, a lone commit", mine / other, budget, holds)
        # Where a sync takes 0.1 ms, waking asyncio's own loop twice takes as long: shown, but not judged.
        yield figure if loop == LOOPS[0] else dataclasses.replace(figure, budget="", holds=None)


if __name__ == "__main__":
    print(json.dumps(on_loop(LOOPS[0], read_back, Path(sys.argv[1]))))
