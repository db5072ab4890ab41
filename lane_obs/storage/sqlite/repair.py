"""Puts a new database, made of what can be read, in the place of a damaged one."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from lane_obs.clock import SystemClock
from lane_obs.errors import StorageCorrupt, StorageError, StorageVanished
from lane_obs.storage.change import AddLetter, Save
from lane_obs.storage.rescue import RepairReport
from lane_obs.storage.sqlite.database import Database
from lane_obs.storage.sqlite.fault import translate
from lane_obs.storage.sqlite.file import DB_NAME, REPAIR_NAME, WAL_SUFFIX, sync_folder, wal_of
from lane_obs.storage.sqlite.lock import FolderLock
from lane_obs.storage.sqlite.mark import MARK_NAME, read_mark
from lane_obs.storage.sqlite.net import Net, steps_of
from lane_obs.storage.sqlite.salvage import Losses, Salvage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lane_obs.storage.change import Change

_ASIDE: Final = f"{DB_NAME}.corrupt-"
_BATCH: Final = 10_000


class Repair:
    """The repair of one folder.

    The new files are made in a folder of their own and then take the old ones' names. Should the process end between
    two of these steps, the storage does not open, and the next repair begins anew with what was set aside.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workplace = folder / REPAIR_NAME
        self._clock = SystemClock()
        self._losses = Losses()
        self._facts: dict[str, Any] = {}

    def run(self) -> RepairReport:
        """Does it, if it has to be done.

        Raises:
            StorageLocked: a process owns the folder.
            StorageError: the files cannot be read or written at all, or are not ours.
        """
        if not self._folder.is_dir():
            raise StorageVanished(self._folder, "there is no such folder")
        lock = FolderLock(self._folder)
        lock.take()
        try:
            fault = self._diagnose()
            if fault is None:
                return RepairReport(path=str(self._folder), fault=None)
            self._rebuild(self._source())
            set_aside = self._exchange()
        except OSError as error:
            raise translate(error, self._folder) from error
        finally:
            lock.release(tidily=True)
        facts = {**self._facts, "lost": self._losses.told(), "set_aside": set_aside}
        return RepairReport(path=str(self._folder), fault=str(fault), **facts)

    def _diagnose(self) -> StorageError | None:
        try:
            self._check()
        except StorageVanished as error:
            if not any((self._folder / name).exists() for name in (MARK_NAME, REPAIR_NAME, wal_of(self._path).name)):
                raise  # there never was one
            return error
        except StorageCorrupt as error:
            return error
        return None

    def _check(self) -> None:
        database = Database(self._folder, "full", self._clock.wall(), make=False, read_only=True)
        try:
            database.check_all_rows()
        finally:
            database.drop()

    @property
    def _path(self) -> Path:
        return self._folder / DB_NAME

    def _source(self) -> Path | None:
        """The file to read: the damaged one, or what an interrupted repair set aside."""
        if self._path.exists():
            return self._path
        aside = [path for path in self._folder.glob(f"{_ASIDE}*") if not path.name.endswith(WAL_SUFFIX)]
        if not aside or not self._workplace.exists():
            return None
        latest = max(aside, key=lambda path: path.name)
        if wal_of(self._path).exists():
            wal_of(self._path).rename(wal_of(latest))
        return latest

    # --- the new files ------------------------------------------------------------------------------------------

    def _rebuild(self, source: Path | None) -> None:
        shutil.rmtree(self._workplace, ignore_errors=True)
        self._workplace.mkdir(mode=0o700)
        spare = self._workplace / "spare"
        spare.mkdir(mode=0o700)
        new = Database(self._workplace, "full", self._clock.wall())
        try:
            if source is None:
                self._losses.note(f"all of {DB_NAME}: the file is gone")
            else:
                self._take_over(source, spare, new)
            self._facts |= {"commands": new.commands, "letters": new.letters}
        finally:
            new.close()
        shutil.rmtree(spare)

    def _take_over(self, source: Path, spare: Path, new: Database) -> None:
        try:
            old = Salvage(source, spare, self._losses)
        except Exception as error:  # damaged beyond reading
            self._losses.note(f"all of {source.name}: {error}")
            return
        try:
            self._note_ledger(old.ledger())
            _copy((Save(command) for command in old.commands()), new)
            _copy((AddLetter(letter) for letter in old.letters()), new)
            for key in old.ids("commands"):
                if not new.has_command(key):
                    self._losses.note(f"command {key!r}")
            for key in old.ids("letters"):
                if new.find_letter(key) is None:
                    self._losses.note(f"dead letter {key!r}")
        finally:
            old.close()

    def _note_ledger(self, ledger: tuple[str, int, int, int] | None) -> None:
        if ledger is None:
            return
        uid, commits, commands, letters = ledger
        self._facts |= {"noted_commands": commands, "noted_letters": letters}
        try:
            mark = read_mark(self._folder)
        except StorageError:
            mark = None
        if mark is not None and mark.uid == uid:
            self._facts["missing_commits"] = max(0, mark.commits - commits)

    def _exchange(self) -> tuple[str, ...]:
        """The old files get other names, the new ones theirs; the mark last, so that no step in between opens."""
        stamp = time_name(self._clock.wall())
        while (aside := self._folder / f"{_ASIDE}{stamp}").exists() or wal_of(aside).exists():
            stamp += "+"
        moved = []
        for old, name in ((self._path, aside), (wal_of(self._path), wal_of(aside))):
            if not old.exists():
                continue
            old.rename(name)
            if name.stat().st_size:
                moved.append(str(name))
            else:
                name.unlink()
        sync_folder(self._folder)
        (self._workplace / DB_NAME).rename(self._path)
        (self._workplace / MARK_NAME).replace(self._folder / MARK_NAME)
        shutil.rmtree(self._workplace)
        sync_folder(self._folder)
        return tuple(moved)


def time_name(wall: float) -> str:
    """A time as part of a file's name, so that names sort by time."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y%m%dT%H%M%SZ")


def _copy(changes: Iterable[Change], new: Database) -> None:
    net = Net()
    for change in changes:
        net.add(steps_of([change]))
        if net.changes >= _BATCH:
            new.commit(net)
            net = Net()
    if net:
        new.commit(net)
