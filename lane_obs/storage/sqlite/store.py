"""A database that may fail and come back: what is kept meanwhile, and when it is tried again. Knows no threads.

After a fault the same connection is tried first: whatever the failed transaction left in the write-ahead log is
overwritten by the next. Only when that fails too are the files opened anew.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

from lane_obs.core.histogram import QUICK_BOUNDS, Histogram
from lane_obs.errors import StorageClosed, StorageCorrupt, StorageError, StorageFull, StorageLocked, StorageRefused
from lane_obs.storage.sqlite.database import Database
from lane_obs.storage.sqlite.fault import PASSING, translate
from lane_obs.storage.sqlite.file import DB_NAME, make_folder
from lane_obs.storage.sqlite.lock import FolderLock
from lane_obs.storage.sqlite.net import Net, cost_of
from lane_obs.storage.sqlite.place import look_at

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lane_obs.clock import Clock
    from lane_obs.storage.sqlite.batch import Batch, Job, Settings

_CHECKPOINT_PAGES: Final = 1_000
_BUSY_CHECKPOINT_PAGES: Final = 4_000
"""While changes wait for it: a page that was written several times goes to the file once."""
_GROWTH: Final = 2.0
_LEAST_ROOM: Final = 64 * 1024
_MOST_ROOM: Final = 1024 * 1024
"""After a full disk: it is back when there is room for what found none, and for so much at least and at most."""
_SIZES: Final = ("commands", "letters", "last_seq", "file_bytes", "schema_version")
_logger = logging.getLogger("lane_obs.storage")


class Store:
    """The database of a folder, with its lock.

    Args:
        settings: how it is used.
        clock: real time.

    Attributes:
        error: why it takes no changes; `None` when it does.
        kept: changes that wait for it to take some again.
        dropped: changes that were lost because too many were kept.
        commit_seconds: how long transactions took.
        commits, changes, failures, evicted: transactions, changes in them, transactions that failed, letters that
            gave way; all since it was opened.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = FolderLock(settings.folder)
        self._kept_bytes = self._room = 0
        self._known: tuple[str, int] = ("", 0)
        self._marked = -1
        self._reopens = False
        self._delay = self._next_try = math.inf
        self.database: Database | None = None
        self.error: StorageError | None = None
        self.kept = Net()
        self.dropped = self.commits = self.changes = self.failures = self.evicted = 0
        self._evicted: list[str] = []
        self._sizes = dict.fromkeys(_SIZES, 0)
        self.commit_seconds = Histogram(QUICK_BOUNDS)

    # --- open and close -----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Takes the lock and opens the database; makes both where there is none.

        Raises:
            StorageError: it cannot be done. Nothing is held then.
        """
        folder = self._settings.folder
        make_folder(folder)
        self._lock.take()
        try:
            self.database = Database(folder, self._settings.durability, self._clock.wall())
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Writes what is kept, if that can be done now, and lets go of everything.

        Raises:
            StorageError: it could not be written.
        """
        if self.error is not None and self.kept and isinstance(self.error, PASSING):
            self.retry()
        try:
            if self.database is not None:
                self.database.close()
        except StorageError as error:
            _logger.warning("%s; all that was committed is in its write-ahead log", error)
        self.database = None
        self._lock.release()
        if self.kept:
            cause = self.error.cause if self.error is not None else "it was closed"
            left = self.kept.changes
            raise StorageError(self._settings.folder, f"{left} changes could not be written: {cause}") from self.error

    def leave_to_parent(self) -> list[object]:
        """In a forked process: lets go of the lock's file.

        Returns:
            What must neither be used nor let go of there.
        """
        self._lock.leave_to_parent()
        return [] if self.database is None else [self.database.leak()]

    @property
    def folder(self) -> Path:
        """The folder."""
        return self._settings.folder

    def sizes(self) -> dict[str, int]:
        """How much it holds; as last known, while it cannot be read."""
        if self.database is not None:
            self._sizes = {name: getattr(self.database, name) for name in _SIZES}
        return self._sizes

    def take_evicted(self) -> list[str]:
        """Ids of the letters that gave way since this was last asked."""
        taken, self._evicted = self._evicted, []
        return taken

    # --- in -----------------------------------------------------------------------------------------------------

    def write(self, batches: Sequence[Batch]) -> None:
        """Writes batches in one transaction; those that could not be written have an `error` then."""
        if self.error is not None:
            self._hold(batches, self.error)
            return
        net = Net()
        net.add([step for batch in batches for step in batch.steps])
        try:
            self._commit(net)
        except StorageRefused as error:
            self._write_parts(batches, error)
        except StorageError as error:
            self._fail(error, net.cost())
            self._hold(batches, error)

    def _commit(self, net: Net) -> None:
        assert self.database is not None
        began = self._clock.now()
        evicted = self.database.commit(net)
        self.commit_seconds.observe(self._clock.now() - began)
        self.commits += 1
        self.changes += net.changes
        if evicted:
            self.evicted += len(evicted)
            self._evicted += evicted

    def _write_parts(self, batches: Sequence[Batch], error: StorageRefused) -> None:
        """Finds the batch that cannot be stored, so that the others can."""
        middle = len(batches) // 2
        if middle:
            self.write(batches[:middle])
            self.write(batches[middle:])
            return
        batches[0].error = error
        if batches[0].future is None:
            _logger.error("a change that was acknowledged is lost: %s", error)

    def upkeep(self, *, busy: bool = False) -> None:
        """After a commit, and after it was told: marks it, and empties the write-ahead log when that has grown.

        Args:
            busy: whether more waits to be written; then the log may grow for longer.
        """
        database = self.database
        if self.error is not None or database is None or database.commits == self._marked:
            return
        try:
            database.mark()
            if database.wal_pages >= (_BUSY_CHECKPOINT_PAGES if busy else _CHECKPOINT_PAGES):
                database.checkpoint()
        except Exception as error:  # also the folder that goes away just now; nothing may end the writer's thread
            self._fail(translate(error, self._settings.folder))
        self._marked = database.commits

    # --- out ----------------------------------------------------------------------------------------------------

    def answer(self, job: Job) -> None:
        """Reads what a job asks for."""
        if self.database is None:
            job.error = self.error or StorageClosed(self._settings.folder, "it is not open")
            return
        try:
            job.result = job.work(self.database)
        except Exception as error:
            job.error = found = translate(error, self._settings.folder)
            if isinstance(found, StorageCorrupt) and self.error is None:
                self._fail(found)

    # --- while it fails -----------------------------------------------------------------------------------------

    def _fail(self, error: StorageError, room: int = 0) -> None:
        _logger.error("the storage failed: %s", error)
        self.error = error
        self.failures += 1
        self._reopens = False
        self._room = min(max(room, _LEAST_ROOM), _MOST_ROOM)
        self._delay = self._settings.first_retry
        self._plan(error)

    def _plan(self, error: StorageError) -> None:
        passes = isinstance(error, (*PASSING, StorageLocked))
        self._next_try = self._clock.now() + self._delay if passes else math.inf

    def _hold(self, batches: Sequence[Batch], error: StorageError) -> None:
        for batch in batches:
            kept = not batch.is_submit and self._keep(batch)
            batch.error = type(error)(error.path, error.cause, kept=kept)
            batch.error.__cause__ = error

    def _keep(self, batch: Batch) -> bool:
        cost = cost_of(batch.steps)
        if self._kept_bytes + cost > self._settings.keep_bytes:
            self._kept_bytes = self.kept.cost()  # much of it may have taken each other's place
        if self._kept_bytes + cost > self._settings.keep_bytes:
            self.dropped += len(batch.steps)
            return False
        self._kept_bytes += cost
        self.kept.add(batch.steps)
        return True

    def seconds_to_retry(self) -> float | None:
        """How long to wait for the next try; `None` when there is none to come."""
        if self.error is None or self._next_try == math.inf:
            return None
        return max(0.0, self._next_try - self._clock.now())

    def retry(self) -> None:
        """Tries whether it works again, and writes what was kept."""
        try:
            self._reopen()
            assert self.database is not None
            self.database.checkpoint()
            self._commit_kept()
            self.kept, self._kept_bytes = Net(), 0
            if isinstance(self.error, StorageFull):
                self.database.check_room(self._room)
        except StorageError as error:
            self.error = error
            self.failures += 1
            self._reopens = not isinstance(error, StorageFull)
            self._delay = min(self._delay * _GROWTH, self._settings.last_retry)
            self._plan(error)
            return
        _logger.warning("the storage works again: %s", self._settings.folder)
        self.error = None

    def _commit_kept(self) -> None:
        try:
            self._commit(self.kept)
        except StorageRefused:
            for part in self.kept.split():
                try:
                    self._commit(part)
                except StorageRefused as error:
                    _logger.error("a change that was kept is lost: %s", error)  # noqa: TRY400 - what it is stands there
                    self.dropped += 1

    def _reopen(self) -> None:
        """Opens the files anew, once the open ones were tried in vain.

        Raises:
            StorageError: that is not possible, or they are not what they were.
        """
        if self.database is not None:
            self._known = (self.database.uid, self.database.commits)
            if not self._reopens:
                return
            self.database.drop()
            self.database = None
        look_at(str(self._settings.folder / DB_NAME))  # first: a folder that is gone is told as that
        if not self._lock.is_in_place:
            self._lock.release()
            self._lock.take()
        found = Database(self._settings.folder, self._settings.durability, self._clock.wall(), make=False)
        uid, commits = self._known
        # One more: the transaction that failed had been written whole.
        if found.uid != uid or found.commits not in {commits, commits + 1}:
            found.drop()
            raise StorageCorrupt(found.path, "it is not the database that it was before the storage failed")
        self.database = found
