"""A folder that is only looked into: nothing in it is changed, and its owner must have ended."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lane_obs.errors import StorageReadOnly, StorageVanished
from lane_obs.storage.sqlite.check import check_names
from lane_obs.storage.sqlite.database import Database
from lane_obs.storage.sqlite.fault import translate
from lane_obs.storage.sqlite.file import DB_NAME, wal_of
from lane_obs.storage.sqlite.mark import MARK_NAME
from lane_obs.storage.sqlite.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.clock import Clock
    from lane_obs.storage.sqlite.batch import Batch, Settings


class Inspection(Store):
    """The database of a folder, to be read only.

    Args:
        settings: which folder.
        clock: real time.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        super().__init__(settings, clock)
        self._copy: Path | None = None

    def open(self) -> None:
        """Opens the database where it is; where nothing may be written, or its schema is an older one, a copy of it.

        Raises:
            StorageError: it cannot be done. Nothing is held then.
        """
        folder = self._settings.folder
        if not check_names(folder):
            raise StorageVanished(folder / DB_NAME, "there is no such file")
        with contextlib.suppress(StorageReadOnly):  # where nothing can be written, nobody runs
            self._lock.take()
        try:
            try:
                self.database = self._open(folder)
            except StorageReadOnly:
                self.database = self._open(self._make_copy(), read_only=False)
        except BaseException:
            self._let_go()
            raise

    def _open(self, folder: Path, *, read_only: bool = True) -> Database:
        return Database(folder, self._settings.durability, self._clock.wall(), make=False, read_only=read_only)

    def _make_copy(self) -> Path:
        folder = self._settings.folder
        self._copy = copy = Path(tempfile.mkdtemp(prefix="lane-obs-"))
        try:
            for name in (DB_NAME, wal_of(folder / DB_NAME).name, MARK_NAME):
                if (folder / name).exists():
                    shutil.copyfile(folder / name, copy / name)
        except OSError as error:
            raise translate(error, folder) from error
        return copy

    def write(self, batches: Sequence[Batch]) -> None:
        """Refuses all of them."""
        for batch in batches:
            batch.error = StorageReadOnly(self._settings.folder, "it was opened to be read only")

    def close(self) -> None:
        """Lets go of everything."""
        if self.database is not None:
            self.database.drop()
        self.database = None
        self._let_go()

    def _let_go(self) -> None:
        self._lock.release(tidily=True)
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)
