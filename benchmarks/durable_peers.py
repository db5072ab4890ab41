"""What durable submits are compared with: plain SQLite with the same pragmas, and queues on SQLite.

The peers are huey and persist-queue (the optional extra `peers`); neither has a commit that several submits share.
"""

from __future__ import annotations

import contextlib
import importlib
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lane_obs import command
from lane_obs.command import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

SUBMITTERS: Final = 256
NAME: Final = "benchmarks.durable"
_TABLE: Final = """
CREATE TABLE commands (seq INTEGER PRIMARY KEY, id TEXT UNIQUE, lane TEXT, command_type TEXT, payload BLOB,
options TEXT, submitted_at REAL, state TEXT, attempt INTEGER, updated_at REAL)
"""
INSERT: Final = f"INSERT INTO commands VALUES ({', '.join('?' * 10)})"


async def durable_no_op(number: int) -> int:
    """The command: it never waits and gives 1."""
    return 1 if number >= 0 else 0


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder on the disk of this place, and the command registered meanwhile."""
    command(NAME)(durable_no_op)
    try:
        with tempfile.TemporaryDirectory(prefix="lane-obs-") as name:
            yield Path(name)
    finally:
        registry.remove(NAME)


def connect(where: Path) -> sqlite3.Connection:
    """An SQLite file opened as `LocalStorage` does."""
    connection = sqlite3.connect(where / "raw.db", isolation_level=None)
    for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 1000"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.execute(_TABLE)
    return connection


def raw_row(number: int) -> tuple[Any, ...]:
    """A row as a durable command takes."""
    now = time.time()
    return number, f"0123456789ab-{number}", "durable", NAME, b"[1]", "{}", now, "ready", 0, now


def raw(count: int) -> float:
    """Seconds for `count` rows in transactions of 256, each with `executemany`."""
    with folder() as where, contextlib.closing(connect(where)) as connection:
        start = time.perf_counter()
        for first in range(0, count, SUBMITTERS):
            rows = [raw_row(number) for number in range(first, min(first + SUBMITTERS, count))]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT, rows)
            connection.execute("COMMIT")
        return time.perf_counter() - start


def huey(count: int) -> float | None:
    """Seconds for `count` enqueues of huey on SQLite, with fsync; it has no group commit."""
    try:
        module = importlib.import_module("huey")
    except ImportError:
        return None
    with folder() as where:
        queue = module.SqliteHuey(filename=str(where / "huey.db"), fsync=True, results=False)
        task = queue.task()(lambda number: number)
        start = time.perf_counter()
        for number in range(count):
            task(number)
        seconds = time.perf_counter() - start
        queue.storage.close()
    return seconds


def persist_queue(count: int) -> float | None:
    """Seconds for `count` puts of persist-queue's SQLite queue with acknowledgements."""
    try:
        module = importlib.import_module("persistqueue")
    except ImportError:
        return None
    with folder() as where:
        queue = module.SQLiteAckQueue(str(where), auto_commit=True)
        start = time.perf_counter()
        for number in range(count):
            queue.put({"work": NAME, "args": [number]})
        seconds = time.perf_counter() - start
        queue.close()
    return seconds
