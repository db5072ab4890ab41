"""`LocalStorage`: one SQLite file in a folder. Here is the side that lives on the event loop."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lane_obs.clock import SystemClock
from lane_obs.config import to_choice, to_count, to_seconds
from lane_obs.core.histogram import QUICK_BOUNDS, Histogram
from lane_obs.errors import ConfigError, StorageClosed, StorageRefused, error_text
from lane_obs.storage.methods import LARGE_PAGE, ByChanges
from lane_obs.storage.port import StorageHealth
from lane_obs.storage.record import LetterFilter, WaitingCommands
from lane_obs.storage.sqlite.batch import Batch, Durability, Job, Settings, fail
from lane_obs.storage.sqlite.net import steps_of
from lane_obs.storage.sqlite.row import BEFORE_ALL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from lane_obs.config import Duration
    from lane_obs.storage.change import Change
    from lane_obs.storage.record import LetterPage, StoredCommand, StoredDeadLetter
    from lane_obs.storage.sqlite.database import Database
    from lane_obs.storage.sqlite.writer import Writer


_EXIT_SECONDS: Final = 5.0
_living: weakref.WeakSet[LocalStorage] = weakref.WeakSet()


class LocalStorage(ByChanges):
    """Keeps commands and dead letters in one SQLite file, `queue.db`, in a folder of its own.

    One thread writes; all changes that arrive during a commit share the next. One process owns the folder. When the
    disk is full, read-only or broken, changes fail with a `StorageError`; what is about commands that are stored
    already is kept in memory and written once the disk works again. See docs/storage.md.

    Args:
        path: the folder; made, for its user only, where there is none.
        durability: `full` (default), `normal` or `async`, see `Durability`.
        buffer: with `async`, batches that may wait to be written; further ones wait for their commit. 1 or more.
        keep_bytes: how much may be kept in memory while the disk fails, roughly, in bytes.
        first_retry: time from a failure to the next try, above zero. It doubles up to `last_retry`.
        last_retry: the longest time between two tries, above zero.
        read_only: only to look into the folder of a queue that does not run; nothing in it is changed.

    Attributes:
        path: the folder.
        cannot: empty: it can do all that a durable queue needs.
        on_state: called on the event loop with its health when it fails and when it works again.
        on_evicted: called on the event loop with the ids of dead letters that gave way.

    Raises:
        ConfigError: a value that is not allowed.
    """

    cannot: Sequence[str] = ()

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: str = "full",
        buffer: int = 10_000,
        keep_bytes: int = 64 * 1024 * 1024,
        first_retry: Duration = 0.1,
        last_retry: Duration = 5.0,
        read_only: bool = False,
    ) -> None:
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise ConfigError("path", path, "give the path of a folder")
        self.path = Path(path)
        self._durability = Durability(to_choice("durability", durability, Durability))
        self._buffer = to_count("buffer", buffer, minimum=1) if self._durability is Durability.ASYNC else 0
        self._settings = Settings(
            folder=self.path,
            durability=str(self._durability),
            keep_bytes=to_count("keep_bytes", keep_bytes),
            first_retry=to_seconds("first_retry", first_retry),
            last_retry=to_seconds("last_retry", last_retry),
            read_only=read_only,
        )
        self._writer: Writer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.on_state: Callable[[StorageHealth], object] | None = None
        self.on_evicted: Callable[[list[str]], object] | None = None

    def __repr__(self) -> str:
        return f"LocalStorage({str(self.path)!r}, durability={str(self._durability)!r})"

    # --- open and close -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Takes the folder, checks all of the file, and starts the thread. Calling it again does nothing.

        Raises:
            StorageLocked: another process owns the folder.
            StorageCorrupt: the file is damaged, or changes are missing that were acknowledged.
            StorageError: it cannot be opened for another reason.
        """
        if self._writer is not None:
            return
        from lane_obs.storage.sqlite.writer import Writer  # loads SQLite

        self._loop = asyncio.get_running_loop()
        self._writer = writer = Writer(
            self._settings, SystemClock(), loop=self._loop, on_state=self._tell_state, on_evicted=self._tell_evicted
        )
        _living.add(self)
        try:
            await asyncio.shield(writer.start())
        except BaseException:
            self._writer = None
            writer.stop()
            raise

    async def close(self) -> None:
        """Writes what waits and lets go of the folder, also when it raises. Calling it again does nothing.

        Raises:
            StorageError: changes that were kept in memory could not be written.
        """
        writer = self._writer
        if writer is None:
            return
        try:
            await asyncio.shield(writer.stop())
        finally:
            self._writer = None
        writer.join()

    # --- in -----------------------------------------------------------------------------------------------------

    def apply(self, changes: Sequence[Change]) -> asyncio.Future[None]:
        """Makes changes, in order and all at once; see `DurableStorage.apply`."""
        writer = self._writer
        if writer is None or self._loop is None:
            return self._failed(StorageClosed(self.path, "the storage is not open"))
        future: asyncio.Future[None] = self._loop.create_future()
        try:
            steps = steps_of(changes)
        except Exception as error:
            fail(future, StorageRefused(self.path, f"it cannot be stored: {error_text(error)}"))
            return future
        if self._buffer and writer.pending < self._buffer and writer.store.error is None:
            future.set_result(None)
            writer.put(Batch(steps, None))
        else:
            writer.put(Batch(steps, future))
        return future

    def _failed(self, error: Exception) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        fail(future, error)
        return future

    # --- out ----------------------------------------------------------------------------------------------------

    def _ask(self, work: Callable[[Database], Any]) -> asyncio.Future[Any]:
        writer = self._writer
        if writer is None or self._loop is None:
            return self._failed(StorageClosed(self.path, "the storage is not open"))
        future: asyncio.Future[Any] = self._loop.create_future()
        writer.ask(Job(work, future))
        return future

    async def stream_commands(self, batch: int = LARGE_PAGE) -> AsyncIterator[list[StoredCommand]]:
        """All commands that are stored now, in order of `seq`, so many at a time.

        The next ones are read while these are worked on, so no more than twice as many are in memory.

        Raises:
            StorageCorrupt: one of the next commands is damaged.
            StorageError: they cannot be read.
        """
        limit = to_count("batch", batch, minimum=1)
        until: int = await self._ask(lambda database: database.top_seq())

        def ask(after: int) -> asyncio.Future[list[StoredCommand]]:
            return self._ask(lambda database: database.page(after, until, limit))

        page = ask(BEFORE_ALL)
        while found := await page:
            page = ask(found[-1].seq)
            yield found

    async def letters(
        self,
        *,
        lane: str | None = None,
        command_type: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
        after: int | None = None,
    ) -> LetterPage:
        """A page of dead letters, oldest first; see `DurableStorage.letters`."""
        meant = LetterFilter(lane=lane, command_type=command_type, since=since, until=until)
        count = to_count("limit", limit, minimum=1)
        page: LetterPage = await self._ask(lambda database: database.letter_page(meant, count, after or 0))
        return page

    async def find_letter(self, id: str, /) -> StoredDeadLetter | None:  # noqa: A002 - the name of the field
        """The dead letter of this id."""
        letter: StoredDeadLetter | None = await self._ask(lambda database: database.find_letter(id))
        return letter

    async def waiting(self) -> list[WaitingCommands]:
        """How many commands are stored, by lane, type and state."""
        rows = await self._ask(lambda database: database.waiting())
        return [WaitingCommands(*row) for row in rows]

    # --- how it is ----------------------------------------------------------------------------------------------

    def health(self) -> StorageHealth:
        """How it is."""
        writer = self._writer
        if writer is None:
            error = StorageClosed(self.path, "the storage is not open")
            return StorageHealth(
                ready=False, error=error, path=str(self.path), commands=0, letters=0, last_seq=0,
                commit_seconds=Histogram(QUICK_BOUNDS),
            )  # fmt: skip
        store = writer.store
        return StorageHealth(
            ready=store.error is None,
            error=store.error,
            path=str(self.path),
            pending=writer.pending,
            kept=store.kept.changes,
            dropped=store.dropped,
            commits=store.commits,
            changes=store.changes,
            failures=store.failures,
            evicted=store.evicted,
            commit_seconds=store.commit_seconds,
            **store.sizes(),
        )

    def _tell_state(self) -> None:
        if self.on_state is not None:
            self.on_state(self.health())

    def _tell_evicted(self, ids: list[str]) -> None:
        if self.on_evicted is not None:
            self.on_evicted(ids)

    # --- other processes ----------------------------------------------------------------------------------------

    def _leave_to_parent(self) -> None:
        """In a forked process: this storage is closed, and its files are left as they are."""
        writer, self._writer = self._writer, None
        if writer is not None:
            for thing in writer.store.leave_to_parent():
                # For ever: the thread that held SQLite's locks is not here, so it could not even be closed.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))

    def _flush(self) -> None:
        writer = self._writer
        if writer is not None:
            writer.stop()
            writer.join(_EXIT_SECONDS)


def _forget_parent() -> None:
    for storage in list(_living):
        storage._leave_to_parent()  # noqa: SLF001 - this is the class's own part


def _flush_at_exit() -> None:
    for storage in list(_living):
        storage._flush()  # noqa: SLF001 - likewise


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
atexit.register(_flush_at_exit)
