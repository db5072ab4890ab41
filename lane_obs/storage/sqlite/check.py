"""Looks at a database file before anything in it is believed: is it ours, is it whole, is anything missing?"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import apsw
import msgspec

from lane_obs.errors import StorageCorrupt, StorageForeign, StorageVanished, error_text
from lane_obs.storage.sqlite.fault import translate
from lane_obs.storage.sqlite.file import APPLICATION_ID, DB_NAME, REPAIR_NAME, schema_sql, wal_of
from lane_obs.storage.sqlite.mark import MARK_NAME, read_mark
from lane_obs.storage.sqlite.migration import migrate

if TYPE_CHECKING:
    from pathlib import Path

    from lane_obs.storage.sqlite.mark import Mark

_MAGIC: Final = b"SQLite format 3\x00"
_HEAD_BYTES: Final = 100
_APPLICATION_ID_AT: Final = slice(68, 72)
_MOST_FAULTS: Final = 5
_LEDGER: Final = "SELECT uid, commits, commands, letters, total, last_seq FROM ledger"
_COUNTS: Final = """
SELECT (SELECT count(*) FROM commands), (SELECT count(*) FROM letters),
  (SELECT ifnull(sum(fixed_sum + state_sum), 0) FROM commands) + (SELECT ifnull(sum(sum), 0) FROM letters),
  (SELECT ifnull(max(seq), 0) FROM commands)
"""
_logger = logging.getLogger("lane_obs.storage")


class Ledger(msgspec.Struct, frozen=True):
    """What a database says about itself.

    Attributes:
        uid: which one it is.
        commits: transactions so far.
        commands, letters: how many it holds.
        total: sum of the checksums of all rows.
        last_seq: the highest `seq` it ever held.
    """

    uid: str
    commits: int
    commands: int
    letters: int
    total: int
    last_seq: int


def check_names(folder: Path) -> bool:
    """Looks at the names in a folder, before SQLite does.

    Returns:
        Whether there is a database.

    Raises:
        StorageVanished: there was one, and its file is gone.
        StorageCorrupt: what there is is not what it was.
        StorageForeign: another program's file has its name.
    """
    path, mark = folder / DB_NAME, read_mark(folder)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        left = [name for name in (MARK_NAME, wal_of(path).name, REPAIR_NAME) if (folder / name).exists()]
        if not left:
            return False
        cause = f"the file is gone, but it was there, as {' and '.join(left)} shows; nothing is made anew"
        raise StorageVanished(path, cause) from None
    except OSError as error:
        raise translate(error, path) from error
    if not head.startswith(_MAGIC):
        raise _not_ours(path, mark, "it is empty" if not head else "it is no SQLite database")
    if int.from_bytes(head[_APPLICATION_ID_AT], "big") != APPLICATION_ID:
        raise _not_ours(path, mark, "another program made it (application_id)")
    return True


def check_file(connection: apsw.Connection, folder: Path) -> Ledger:
    """Looks at all of an open database, and brings its schema up to date.

    Returns:
        Its ledger.

    Raises:
        StorageCorrupt: it is damaged, or commits are missing.
        StorageForeign: it is another program's.
        StorageTooNew: it is of a later version of this library.
        StorageError: it cannot be read.
    """
    path, mark = folder / DB_NAME, read_mark(folder)
    try:
        _check_pages(connection, path)
        migrate(connection, path)
        _check_schema(connection, path)
        ledger = _check_rows(connection, path)
    except apsw.Error as error:
        raise translate(error, path, connection) from error
    except (ValueError, TypeError) as error:  # text that is none, or something else in place of a number
        raise StorageCorrupt(path, error_text(error)) from error
    _check_mark(ledger, mark, path)
    return ledger


def _not_ours(path: Path, mark: Mark | None, cause: str) -> StorageForeign | StorageCorrupt:
    return StorageForeign(path, cause) if mark is None else StorageCorrupt(path, f"{cause}, which it was not before")


def _check_pages(connection: apsw.Connection, path: Path) -> None:
    found = [row[0] for row in connection.execute(f"PRAGMA integrity_check({_MOST_FAULTS})")]
    if found != ["ok"]:
        raise StorageCorrupt(path, "; ".join(" ".join(str(line).split()) for line in found))


def _check_schema(connection: apsw.Connection, path: Path) -> None:
    fresh = apsw.Connection(":memory:")
    fresh.execute(schema_sql())
    lacking = _schema(fresh) - _schema(connection)
    fresh.close()
    if lacking:
        names = ", ".join(sorted(name for _, name, _ in lacking))
        raise StorageCorrupt(path, f"the definition of {names} is not as it was written")


def _schema(connection: apsw.Connection) -> set[tuple[Any, ...]]:
    return set(connection.execute("SELECT type, name, sql FROM sqlite_schema"))


def _check_rows(connection: apsw.Connection, path: Path) -> Ledger:
    rows: list[Any] = connection.execute(_LEDGER).fetchall()
    if len(rows) != 1:
        raise StorageCorrupt(path, f"its ledger has {len(rows)} rows in place of one")
    ledger = Ledger(*rows[0])
    counts: list[Any] = connection.execute(_COUNTS).fetchall()
    commands, letters, total, last_seq = counts[0]
    for name, count, noted in (("commands", commands, ledger.commands), ("dead letters", letters, ledger.letters)):
        if count != noted:
            raise StorageCorrupt(path, f"it has {count} {name}, but its ledger says {noted}")
    if total != ledger.total or last_seq > ledger.last_seq:
        raise StorageCorrupt(path, "its rows are not those of its ledger: some are older than others")
    return ledger


def _check_mark(ledger: Ledger, mark: Mark | None, path: Path) -> None:
    if mark is None:
        if ledger.commits:
            _logger.warning("%s: there is no %s, so nobody can tell whether commits are missing", path, MARK_NAME)
        return
    if mark.uid != ledger.uid:
        raise StorageCorrupt(path, f"{MARK_NAME} belongs to another database")
    missing = mark.commits - ledger.commits
    if missing <= 0:
        return
    if not mark.loses_by_right():
        raise StorageCorrupt(path, f"the last {missing} commits, which were acknowledged, are missing")
    _logger.warning(
        "%s: the last %d commits are missing since the machine went down; durability=%r does not promise them",
        path, missing, mark.durability,
    )  # fmt: skip
