"""One open database: writes what many changes come to in one transaction, and reads. Used by one thread at a time."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import apsw

from lane_obs.errors import StorageCorrupt, StorageVanished, error_text
from lane_obs.storage.methods import LARGE_PAGE
from lane_obs.storage.record import LetterFilter, LetterPage
from lane_obs.storage.sqlite import statement
from lane_obs.storage.sqlite.check import check_file, check_names
from lane_obs.storage.sqlite.fault import translate
from lane_obs.storage.sqlite.file import DB_NAME, PAGE_BYTES, SCHEMA_VERSION, close, connect, make_file, wal_of
from lane_obs.storage.sqlite.mark import Mark, MarkFile, boot_id
from lane_obs.storage.sqlite.place import check_room, check_same, look_at, remove_empty
from lane_obs.storage.sqlite.row import AFTER_ALL, BEFORE_ALL, to_command, to_letter
from lane_obs.storage.sqlite.transaction import write

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from lane_obs.storage.record import StoredCommand, StoredDeadLetter
    from lane_obs.storage.sqlite.net import Net
    from lane_obs.storage.sqlite.row import Row

_SMALL_PAGES: Final = 16 * 1024 * 1024 // PAGE_BYTES


class Database:
    """The database of a folder, opened and checked; made where there is none.

    Args:
        folder: the folder; its lock is held.
        durability: `full`, `normal` or `async`.
        now: Unix time, for a file that is made.
        make: whether to make it where there is none.
        read_only: whether it may only be read.

    Attributes:
        path: its file.
        uid: which database it is.
        commits: transactions that it holds, over its whole life.
        commands, letters: how many it holds.
        last_seq: the highest `seq` that it ever held.
        schema_version: of its tables.
        wal_pages: pages in the write-ahead log that are not in the file yet.
        file_bytes: size of its files.

    Raises:
        StorageError: it cannot be opened, or what it holds cannot be believed.
    """

    def __init__(
        self, folder: Path, durability: str, now: float, *, make: bool = True, read_only: bool = False
    ) -> None:
        self.path = folder / DB_NAME
        if not check_names(folder):
            if not make:
                raise StorageVanished(self.path, "there is no such file")
            make_file(folder, now)
        self._makes_log = not wal_of(self.path).exists()
        self._mark: MarkFile | None = None
        self._connection = connect(self.path, "FULL" if durability == "full" else "NORMAL")
        try:
            self._connection.execute(f"PRAGMA query_only = {int(read_only)}")
            ledger = check_file(self._connection, folder)
            if not read_only:
                self._mark = MarkFile(folder, Mark(ledger.uid, ledger.commits, durability, boot_id()))
        except BaseException:
            self.drop()
            raise
        self._makes_log = self._makes_log and read_only  # else it may be another's by the end
        self.uid = ledger.uid
        self.commits, self.commands, self.letters = ledger.commits, ledger.commands, ledger.letters
        self.last_seq = ledger.last_seq
        self.schema_version, self.wal_pages = SCHEMA_VERSION, 0
        self._name, self._wal_name = str(self.path), str(wal_of(self.path))
        self._file = look_at(self._name)
        self.file_bytes = self._file.st_size + sum(log.stat().st_size for log in [wal_of(self.path)] if log.exists())
        self._wal_file: os.stat_result | None = None
        self._connection.set_wal_hook(self._note_wal)

    def _note_wal(self, _connection: object, _name: str, pages: int) -> int:
        self.wal_pages = pages
        return int(apsw.SQLITE_OK)

    # --- in -----------------------------------------------------------------------------------------------------

    def commit(self, net: Net) -> list[str]:
        """Writes changes in one transaction; on return they are as safe as `durability` says.

        Returns:
            Ids of the dead letters that gave way.

        Raises:
            StorageError: nothing was written.
        """
        self.check_place()  # before, so that nothing is written there; and after, before it is told
        try:
            try:
                evicted, counts = self._transact(net)
            except apsw.ConstraintError:  # a command is there already, or cannot be stored at all
                self._roll_back()
                evicted, counts = self._transact(net, replaces=True)
        except Exception as error:
            raise self._undo(error) from error
        self.commits, self.commands, self.letters, self.last_seq = counts
        self.check_place()
        return evicted

    def _transact(self, net: Net, *, replaces: bool = False) -> tuple[list[str], Row]:
        self._connection.execute("BEGIN IMMEDIATE")
        written = write(self._connection, net, replaces=replaces)
        self._connection.execute("COMMIT")
        return written

    def _undo(self, error: Exception) -> Exception:
        found = translate(error, self.path, self._connection)
        with contextlib.suppress(apsw.Error):  # SQLite has done it itself
            self._roll_back()
        return found

    def _roll_back(self) -> None:
        if not self._connection.get_autocommit():
            self._connection.execute("ROLLBACK")

    def check_place(self) -> None:
        """Makes sure that the open file is still the one of its name: another would be opened at the next start.

        Raises:
            StorageVanished: it is not.
        """
        check_same(self._name, self._file)

    def check_room(self, size: int) -> None:
        """Makes sure that a transaction of so many bytes has room, in the log and then in the file.

        Raises:
            StorageFull: it has not.
            StorageError: that cannot be told.
        """
        try:
            spare = self._connection.pragma("freelist_count") * PAGE_BYTES
        except apsw.Error as error:
            raise translate(error, self.path, self._connection) from error
        log = look_at(self._wal_name).st_size
        check_room(self.path, max(size - spare, 0) + max(size - log, 0))

    def mark(self) -> None:
        """After a commit: writes down that it was made, looks at the write-ahead log, and takes the files' size.

        Raises:
            StorageVanished: the file or the log is gone.
        """
        if self._mark is not None:
            self._mark.write(self.commits)
        file = check_same(self._name, self._file)
        if self._wal_file is None:
            self._wal_file = look_at(self._wal_name)
        log = check_same(self._wal_name, self._wal_file)
        self.file_bytes = log.st_size + file.st_size

    # --- out ----------------------------------------------------------------------------------------------------

    def top_seq(self) -> int:
        """The highest `seq` of all commands; 0 when there are none.

        Raises:
            StorageError: it cannot be read.
        """
        try:
            rows: list[Any] = self._connection.execute(statement.TOP).fetchall()
        except Exception as error:
            raise self._unreadable(error) from error
        return int(rows[0][0])

    def page(self, after: int, until: int, limit: int) -> list[StoredCommand]:
        """Commands in order of `seq`, from behind `after` up to `until`.

        Raises:
            StorageError: they cannot be read, or one is damaged.
        """
        try:
            rows = self._connection.execute(statement.PAGE, (after, until, limit)).fetchall()
            return list(map(to_command, rows))
        except Exception as error:
            raise self._unreadable(error) from error

    def letter_page(self, meant: LetterFilter, limit: int, after: int) -> LetterPage:
        """Dead letters, oldest first.

        Raises:
            StorageError: they cannot be read, or one is damaged.
        """
        given = {name: value for name in statement.FILTERS if (value := getattr(meant, name)) is not None}
        query = statement.LETTERS.format("".join(f" AND {statement.FILTERS[name]}" for name in given))
        try:
            rows: list[Any] = self._connection.execute(query, (after, *given.values(), limit + 1)).fetchall()
            letters = tuple(to_letter(row[:-1]) for row in rows[:limit])
        except Exception as error:
            raise self._unreadable(error) from error
        return LetterPage(letters, rows[limit - 1][-1] if len(rows) > limit else None)

    def find_letter(self, key: str) -> StoredDeadLetter | None:
        """The dead letter of this id.

        Raises:
            StorageError: it cannot be read, or is damaged.
        """
        try:
            rows = self._connection.execute(statement.FIND_LETTER, (key,)).fetchall()
            return to_letter(rows[0]) if rows else None
        except Exception as error:
            raise self._unreadable(error) from error

    def has_command(self, key: str) -> bool:
        """Whether a command of this id is stored."""
        return bool(self._connection.execute(statement.COMMAND, (key,)).fetchall())

    def waiting(self) -> list[tuple[Any, ...]]:
        """Counts of commands by lane, type and state.

        Raises:
            StorageError: they cannot be read.
        """
        try:
            return self._connection.execute(statement.WAITING).fetchall()
        except Exception as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> Exception:
        if isinstance(error, ValueError):  # a damaged row, or text that is none
            return StorageCorrupt(self.path, error_text(error))
        return translate(error, self.path, self._connection)

    def check_all_rows(self) -> None:
        """Reads everything.

        Raises:
            StorageError: something cannot be read, or is damaged.
        """
        after, place = BEFORE_ALL, 0
        while found := self.page(after, AFTER_ALL, LARGE_PAGE):
            after = found[-1].seq
        while (page := self.letter_page(LetterFilter(), LARGE_PAGE, place)).after is not None:
            place = page.after

    # --- upkeep -------------------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Brings what is in the write-ahead log into the file, so that the log can start anew.

        Raises:
            StorageError: it cannot be done; nothing is lost by that.
        """
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            raise translate(error, self.path, self._connection) from error
        self.wal_pages = 0

    def close(self) -> None:
        """Brings all into the file and closes it; one that is much too large for what it holds is made small.

        Raises:
            StorageError: the log could not be brought into the file. It is closed all the same, and nothing is lost.
        """
        try:
            self.check_place()
            if self._mark is not None:
                self._mark.write(self.commits)
            free, pages = self._connection.pragma("freelist_count"), self._connection.pragma("page_count")
            if pages - free <= _SMALL_PAGES <= free:
                self._connection.execute("VACUUM")
            close(self._connection)
        except apsw.Error as error:
            raise translate(error, self.path, self._connection) from error
        finally:
            self.drop()

    def drop(self) -> None:
        """Closes it as it is."""
        if self._mark is not None:
            self._mark.close()
        self._connection.close(force=True)
        if self._makes_log:
            remove_empty(wal_of(self.path))

    def leak(self) -> apsw.Connection:
        """What a forked process must neither use nor let go of."""
        return self._connection
