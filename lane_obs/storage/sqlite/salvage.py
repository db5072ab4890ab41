"""Reads what can be read of a damaged database: rows from all parts of each table that are whole."""

from __future__ import annotations

import contextlib
import shutil
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import apsw

from lane_obs.errors import LaneObsError
from lane_obs.storage.sqlite.file import DB_NAME, PAGE_BYTES, make_file, wal_of
from lane_obs.storage.sqlite.row import AFTER_ALL, BEFORE_ALL, COLUMNS, LETTER, DamagedRow, to_command, to_letter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lane_obs.storage.record import StoredCommand, StoredDeadLetter

_MOST_LOST: Final = 1_000
_PAGES_AT: Final = slice(28, 32)
"""Where the header of an SQLite file has its number of pages."""
_PRAGMAS: Final = ("locking_mode = EXCLUSIVE", "writable_schema = ON", "query_only = ON", "mmap_size = 0")
_NO_TEXT: Final = frozenset(
    {
        "seq", "payload", "deadline", "submitted_at", "fixed_sum", "attempt", "not_before", "updated_at", "deaths",
        "state_sum", "attempts", "failed_at", "sum",
    }
)  # fmt: skip
_TABLES: Final = ("commands", "letters", "ledger")


class Losses:
    """What could not be read.

    Attributes:
        lines: each in words; of many only the first.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = 0

    def note(self, line: str) -> None:
        """Notes one."""
        if len(self.lines) < _MOST_LOST:
            self.lines.append(line)
        else:
            self._more += 1

    def told(self) -> tuple[str, ...]:
        """All lines, and how many more there are."""
        return (*self.lines, f"and {self._more} more") if self._more else tuple(self.lines)


class Salvage:
    """A damaged database, opened to be read as far as that goes. Its file is not changed.

    Args:
        path: the file.
        spare: an empty folder for a copy, where one is needed.
        losses: where to note what cannot be read.
    """

    def __init__(self, path: Path, spare: Path, losses: Losses) -> None:
        self._losses = losses
        try:
            self._connection = _connect(path)
        except (apsw.Error, LaneObsError):
            losses.note("the first page of the file, which says where the tables are; those of a new file were used")
            self._connection = _connect(_with_new_first_page(path, spare))

    def close(self) -> None:
        """Closes it."""
        self._connection.close(force=True)

    def ledger(self) -> tuple[str, int, int, int] | None:
        """Its uid, commits, number of commands and of letters; `None` when it cannot be read."""
        with contextlib.suppress(apsw.Error):
            rows: list[Any] = self._connection.execute("SELECT uid, commits, commands, letters FROM ledger").fetchall()
            if len(rows) == 1:
                return tuple(rows[0])
        return None

    def commands(self) -> Iterator[StoredCommand]:
        """All commands that can be read and are as they were written."""
        for _, command in self._records("commands", "seq", COLUMNS, to_command):
            yield command

    def letters(self) -> Iterator[StoredDeadLetter]:
        """All dead letters that can be read and are as they were written, oldest first."""
        # Pages may have changed places, and only their places tell which letter is older. There are not many.
        for _, letter in sorted(self._records("letters", "place", LETTER, to_letter), key=itemgetter(0)):
            yield letter

    def ids(self, table: str) -> Iterator[str]:
        """Ids of rows, read from an index: it may know rows that the table has lost."""
        with contextlib.suppress(apsw.Error):
            for (key,) in self._connection.execute(
                f"SELECT CAST(id AS BLOB) FROM {table} INDEXED BY sqlite_autoindex_{table}_1"
            ):
                if isinstance(key, bytes):
                    yield key.decode(errors="replace")

    def _records(
        self, table: str, key: str, columns: tuple[str, ...], read: Callable[[Any], Any]
    ) -> Iterator[tuple[int, Any]]:
        for row in self._rows(table, key, columns):
            try:
                yield row[0], read(_as_text(row[1:], columns))
            except DamagedRow as error:
                self._losses.note(str(error))
            except Exception as error:  # a row of anything at all
                self._losses.note(f"{table}, {key} {row[0]}: {error}")

    def _rows(self, table: str, key: str, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
        # As bytes: text that is none must cost its own row only.
        parts = ", ".join(name if name in _NO_TEXT else f"CAST({name} AS BLOB)" for name in columns)
        query = f"SELECT {key}, {parts} FROM {table} NOT INDEXED WHERE {key} >= ? ORDER BY {key}"
        start: int | None = BEFORE_ALL
        while start is not None:
            last = start - 1
            try:
                for row in self._connection.execute(query, (start,)):
                    last = max(last, row[0])
                    yield row
            except apsw.Error as error:
                # A key may be readable where the rest of its row is not: then only that row is lost.
                bad = self._first_key(table, key, last + 1)
                start = self._next_start(table, key, last + 1 if bad is None else bad)
                end = "the end" if start is None else f"{key} {start - 1}"
                begin = "the first" if last < BEFORE_ALL else f"{key} {last + 1}"
                self._losses.note(f"{table}, from {begin} to {end}: {error}")
            else:
                return

    def _next_start(self, table: str, key: str, bad: int) -> int | None:
        """The lowest key above one that cannot be read from where the table can be read again."""
        if bad < 0 and self._first_key(table, key, 0) is None:
            bad = 0  # hardly any key is below, and steps that double from the lowest of all would pass over the others
        step, start = 1, bad + 1
        while start < AFTER_ALL and self._first_key(table, key, start) is None:
            bad, step = start, step * 2
            start = min(bad + step, AFTER_ALL)
        if start >= AFTER_ALL:
            return None
        while start - bad > 1:
            middle = (bad + start) // 2
            bad, start = (middle, start) if self._first_key(table, key, middle) is None else (bad, middle)
        return start

    def _first_key(self, table: str, key: str, start: int) -> int | None:
        """The first key from `start` on, where the table can be read from; `None` where it cannot, or there is none."""
        query = f"SELECT {key} FROM {table} NOT INDEXED WHERE {key} >= ? ORDER BY {key} LIMIT 1"
        try:
            found: list[Any] = self._connection.execute(query, (start,)).fetchall()
        except apsw.Error:
            return None
        return found[0][0] if found and found[0][0] >= start else None


def _as_text(row: tuple[Any, ...], columns: tuple[str, ...]) -> list[Any]:
    return [
        value.decode() if isinstance(value, bytes) and name != "payload" else value
        for name, value in zip(columns, row, strict=True)
    ]


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").fetchall()
        for table in _TABLES:
            connection.execute(f"SELECT * FROM {table} LIMIT 0").fetchall()
    except BaseException:
        connection.close(force=True)
        raise
    return connection


def _with_new_first_page(path: Path, spare: Path) -> Path:
    """A copy whose first page is that of a new database: the tables of all of them begin at the same pages."""
    make_file(spare, 0.0)
    copy = spare / DB_NAME
    head = bytearray(copy.read_bytes()[:PAGE_BYTES])
    shutil.copyfile(path, copy)
    pages = max(1, copy.stat().st_size // PAGE_BYTES)
    head[_PAGES_AT] = pages.to_bytes(4, "big")
    with copy.open("r+b") as file:
        file.write(head)
    if wal_of(path).exists():
        shutil.copyfile(wal_of(path), wal_of(copy))
    return copy
