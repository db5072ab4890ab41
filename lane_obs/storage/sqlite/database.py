"""One open database: writes what many changes come to in one transaction, and reads. Used by one thread at a time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import apsw

from lane_obs.errors import StorageCorrupt, StorageVanished
from lane_obs.storage.record import LetterPage
from lane_obs.storage.sqlite import statement
from lane_obs.storage.sqlite.check import check_file, check_names
from lane_obs.storage.sqlite.fault import translate
from lane_obs.storage.sqlite.file import DB_NAME, PAGE_BYTES, close, connect, make_file, wal_of
from lane_obs.storage.sqlite.mark import Mark, MarkFile, boot_id
from lane_obs.storage.sqlite.row import DamagedRow, to_command, to_letter

if TYPE_CHECKING:
    from pathlib import Path

    from lane_obs.storage.record import LetterFilter, StoredCommand, StoredDeadLetter
    from lane_obs.storage.sqlite.net import Net

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
        self._connection = connect(self.path, "FULL" if durability == "full" else "NORMAL")
        self._mark: MarkFile | None = None
        try:
            self._connection.execute(f"PRAGMA query_only = {int(read_only)}")
            ledger = check_file(self._connection, folder)
            if not read_only:
                self._mark = MarkFile(folder, Mark(ledger.uid, ledger.commits, durability, boot_id()))
        except BaseException:
            self._connection.close(force=True)
            raise
        self.uid = ledger.uid
        self.commits, self.commands, self.letters = ledger.commits, ledger.commands, ledger.letters
        self.last_seq = ledger.last_seq
        self.wal_pages = self.file_bytes = 0
        self._files = [(self.path, os.stat(self.path))]
        self._wal = wal_of(self.path)
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
        self.check_place()
        run = self._connection.execute
        try:
            run("BEGIN IMMEDIATE")
            self._write_commands(net)
            evicted = self._write_letters(net)
            counts: list[Any] = run(statement.COUNT).fetchall()
            run("COMMIT")
        except Exception as error:
            raise self._undo(error) from error
        self.commits, self.commands, self.letters, self.last_seq = counts[0]
        if len(self._files) == 1:
            self._files.append((self._wal, os.stat(self._wal)))
        self.check_place()
        assert self._mark is not None
        self._mark.write(self.commits)
        return evicted

    def _write_commands(self, net: Net) -> None:
        many = self._connection.executemany
        if net.clears_commands:
            self._connection.execute("DELETE FROM commands")
        saves, updates, removes = net.parts()
        # Removes first: a place in the order of submits may pass from one command to another.
        if removes:
            many(statement.REMOVE, removes)
        if saves:
            many(statement.SAVE, saves)
        if updates:
            many(statement.UPDATE, updates)

    def _write_letters(self, net: Net) -> list[str]:
        run, evicted = self._connection.execute, []
        if net.clears_letters:
            run("DELETE FROM letters")
        if net.letters:
            self._connection.executemany(statement.REMOVE_LETTER, [(key,) for key in net.letters])
            self._connection.executemany(statement.ADD_LETTER, [row for row in net.letters.values() if row is not None])
        if net.before is not None:
            evicted += [row[0] for row in run(statement.EVICT_OLD, (net.before,))]
        if net.limit is not None:
            evicted += [row[0] for row in run(statement.EVICT, (net.limit,))]
        return evicted

    def _undo(self, error: Exception) -> Exception:
        found = translate(error, self.path, self._connection)
        try:
            if not self._connection.get_autocommit():
                self._connection.execute("ROLLBACK")
        except apsw.Error:  # SQLite has done it itself
            pass
        return found

    def check_place(self) -> None:
        """Makes sure that the open files are still those of their names: others would be gone at the next start.

        Raises:
            StorageVanished: they are not.
        """
        size = 0
        for path, opened in self._files:
            try:
                found = os.stat(path)
            except OSError as error:
                raise StorageVanished(path, "the file is gone") from error
            if found.st_ino != opened.st_ino or found.st_dev != opened.st_dev:
                raise StorageVanished(path, "another file has taken its place")
            size += found.st_size
        self.file_bytes = size

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
            return [to_command(row) for row in self._connection.execute(statement.PAGE, (after, until, limit))]
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
        if isinstance(error, DamagedRow):
            return StorageCorrupt(self.path, str(error))
        return translate(error, self.path, self._connection)

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

    def leak(self) -> apsw.Connection:
        """What a forked process must neither use nor let go of."""
        return self._connection
