"""The database file: its names, how it is made and how it is opened."""

from __future__ import annotations

import contextlib
import os
import secrets
from importlib import resources
from typing import TYPE_CHECKING, Final

import apsw

from lane_obs.errors import StorageError, StorageReadOnly
from lane_obs.storage.sqlite.fault import translate
from lane_obs.storage.sqlite.place import remove_empty

if TYPE_CHECKING:
    from pathlib import Path

DB_NAME: Final = "queue.db"
WAL_SUFFIX: Final = "-wal"
REPAIR_NAME: Final = "queue.repair"
"""Folder in which a repair makes new files; there only while it works, or when it was interrupted."""
APPLICATION_ID: Final = 0x4C616E65
"""Tells SQLite files of this library from others: "Lane"."""
SCHEMA_VERSION: Final = 1
PAGE_BYTES: Final = 4_096

_NEW_SUFFIX: Final = ".new"
_BUSY_MS: Final = 1_000
_PRAGMAS: Final = (
    # Alone with the file: no shared memory, and no reader who keeps the write-ahead log from being emptied.
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    "journal_size_limit = 16777216",
    "cache_size = -16384",
    "temp_store = MEMORY",
    "mmap_size = 0",  # a fault of the disk must be an error, not a signal
    "secure_delete = OFF",
    "cell_size_check = ON",
    "trusted_schema = OFF",
)


def schema_sql() -> str:
    """The statements that make the tables."""
    return resources.files(__package__).joinpath("schema.sql").read_text("utf-8")


def make_folder(folder: Path) -> None:
    """Makes the folder, private to its user, where there is none.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True)
            sync_folder(folder.parent)
    except OSError as error:
        raise translate(error, folder) from error


def make_file(folder: Path, created_at: float, *, name: str = DB_NAME) -> None:
    """Makes an empty database: all of it or nothing, whenever the process ends.

    Raises:
        StorageError: it cannot be made.
    """
    path = folder / name
    new = folder / (name + _NEW_SUFFIX)
    try:
        for left in (new, wal_of(new)):
            left.unlink(missing_ok=True)
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = connect(new, "FULL")
        try:
            _fill(connection, created_at)
            close(connection)
        finally:
            connection.close(force=True)
        new.rename(path)
        sync_folder(folder)
    except (apsw.Error, OSError) as error:
        raise translate(error, path) from error


def _fill(connection: apsw.Connection, created_at: float) -> None:
    ledger = (secrets.token_hex(16), created_at)
    with connection:
        connection.execute(schema_sql())
        connection.execute("INSERT INTO ledger VALUES (1, ?, ?, 0, 0, 0, 0, 0)", ledger)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def connect(path: Path, synchronous: str) -> apsw.Connection:
    """Opens an SQLite file that is there.

    Args:
        path: the file.
        synchronous: SQLite's word for when to sync: `FULL` or `NORMAL`.

    Raises:
        StorageError: it cannot be opened.
    """
    makes_log, connection = not wal_of(path).exists(), _open(path)
    try:
        # A forked process that drops its copy of the connection must not touch the files.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.set_busy_timeout(_BUSY_MS)
        for pragma in (*_PRAGMAS, f"synchronous = {synchronous}", f"fullfsync = {int(synchronous == 'FULL')}"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.wal_autocheckpoint(0)
        mode = connection.pragma("journal_mode")
    except apsw.Error as error:
        found = translate(error, path, connection)
        connection.close(force=True)
        if makes_log:
            remove_empty(wal_of(path))
        raise found from error
    if mode != "wal":
        connection.close(force=True)
        raise StorageError(path, "this file system cannot keep a write-ahead log")
    return connection


def _open(path: Path) -> apsw.Connection:
    try:
        # One thread at a time uses it; a lock for each column would take a quarter of the time of reading.
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOMUTEX)
    except apsw.Error as error:
        raise translate(error, path) from error
    if connection.readonly("main"):  # what SQLite makes of a file that may not be written
        connection.close(force=True)
        raise StorageReadOnly(path, "the file may not be written")
    return connection


def close(connection: apsw.Connection) -> None:
    """Closes a connection for good: all is in the database file afterwards, and the write-ahead log is gone."""
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    connection.close(force=True)


def wal_of(path: Path) -> Path:
    """The write-ahead log of a database file."""
    return path.with_name(path.name + WAL_SUFFIX)


def sync_folder(folder: Path) -> None:
    """Makes sure that names in a folder outlive a crash of the machine, where the system can."""
    with contextlib.suppress(OSError):
        file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)
