"""Durable work: what a storage takes beside bare SQLite, and how fast stored commands come back.

Bare SQLite is the standard library's `sqlite3` with the same settings and the same rows in a table of the same columns,
in the same folder: what somebody would write who needs no queue. Set `TMPDIR` to choose the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.figure import Figure, Sizes, at_least, at_most, best_of, quantile
from benchmarks.workload import LOOPS, on_loop
from lane_obs.storage import LocalStorage, Remove, Save, StoredCommand, Update
from lane_obs.storage.sqlite.row import FIXED, STATE, fixed_row, state_row

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROW = "storage"
SUBMITTERS: Final = 256
_LEAST_SHARE = 0.25
_MOST_LONE = 1.5
_STREAM = 100_000
_STREAM_MIB = 64.0
_COLUMNS: Final = (*FIXED, *STATE)
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
        columns = [f"{name} {_kind(name)}" for name in _COLUMNS]
        self._connection.execute(f"CREATE TABLE commands ({', '.join(columns)})")
        self._statement = f"INSERT INTO commands VALUES ({', '.join('?' * len(_COLUMNS))})"

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
    rows = [fixed_row(each) + state_row(each) for each in commands]
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
                row = fixed_row(each) + state_row(each)
                await asyncio.sleep(0.0005)
                start = time.perf_counter()
                await storage.apply([Save(each)])
                ours.append((time.perf_counter() - start) * 1e3)
                await asyncio.sleep(0.0005)
                start = time.perf_counter()
                raw.insert([row])
                theirs.append((time.perf_counter() - start) * 1e3)
    return ours, theirs


async def stream(count: int) -> tuple[float, float, float]:
    """Stores many commands and reads them back.

    Returns:
        Seconds until the storage is open, seconds until all are read, and MiB that the process grew by meanwhile.
    """
    with tempfile.TemporaryDirectory() as folder:
        storage = LocalStorage(Path(folder) / "queue", durability="normal")
        await storage.open()
        for first in range(1, count + 1, 10_000):
            await storage.apply([Save(command(seq)) for seq in range(first, min(first + 10_000, count + 1))])
        await storage.close()
        before = _peak_mib()
        start = time.perf_counter()
        await storage.open()
        opened = time.perf_counter()
        found = 0
        async for batch in storage.stream_commands():
            found += len(batch)
        read = time.perf_counter()
        grown = _peak_mib() - before
        await storage.close()
    if found != count:
        raise AssertionError(f"{found} of {count} commands came back")
    return opened - start, read - opened, grown


def _peak_mib() -> float:
    return 0.0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def figures(sizes: Sizes) -> Iterator[Figure]:
    """Many submitters, a lone one, and the way back."""
    loop = LOOPS[0]
    commands = [command(seq) for seq in range(1, max(sizes.commands // 2, 1) + 1)]
    runs: dict[str, Callable[[], float]] = {
        "raw": lambda: raw_batches(commands),
        "submits": lambda: on_loop(loop, submits, commands),
        "lives": lambda: on_loop(loop, lives, commands),
    }
    seconds = best_of(runs, sizes.rounds)
    raw, ours = (len(commands) / seconds[name] for name in ("raw", "submits"))
    peer = f"sqlite3, executemany of {SUBMITTERS}"
    what = f"durable submits a second, {SUBMITTERS} submitters, {loop}"
    yield Figure(ROW, what, ours, "/s", raw, peer, ours / raw, *at_least(_LEAST_SHARE, ours / raw))
    whole = len(commands) / seconds["lives"]
    yield Figure(ROW, f"durable lives a second (submit, start, end), {loop}", whole, "/s", raw, peer, whole / raw)
    yield from _lone_figures(sizes)
    opened, read, grown = on_loop(loop, stream, sizes.pending)
    rate = sizes.pending / read
    budget, holds = at_least(_STREAM, rate)
    yield Figure(ROW, f"reading back {sizes.pending:,} commands", rate, "/s", None, "", None, f"{budget} /s", holds)
    budget, holds = at_most(_STREAM_MIB, grown, "MiB")
    yield Figure(ROW, f"memory for reading back {sizes.pending:,}", grown, "MiB", None, "", None, budget, holds)
    yield Figure(ROW, f"opening and checking {sizes.pending:,}", opened * 1e3, "ms")


def _lone_figures(sizes: Sizes) -> Iterator[Figure]:
    for loop in LOOPS:
        ours, theirs = on_loop(loop, lone, sizes.samples)
        mine, other = quantile(ours, 0.5), quantile(theirs, 0.5)
        budget, holds = at_most(_MOST_LONE, mine / other)
        what = f"a lone durable submit, p50, {loop}"
        yield Figure(ROW, what, mine, "ms", other, "sqlite3, a lone commit", mine / other, budget, holds)


if __name__ == "__main__":
    for figure in figures(Sizes()):
        print(figure)
