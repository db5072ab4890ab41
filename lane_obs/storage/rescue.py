"""Saves what can be saved of a damaged `LocalStorage`, and says what could not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import os


class RepairReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a damaged storage.

    Attributes:
        path: its folder.
        fault: what was wrong with it; `None` when nothing was, and nothing was done.
        set_aside: the old files, where they are now.
        commands, letters: how many were saved.
        noted_commands, noted_letters: how many there had been, as far as the old files say; `None` when they do not.
        missing_commits: acknowledged commits that the old files do not have any more; `None` when nobody can tell.
        lost: what could not be read, each in words.
    """

    path: str
    fault: str | None
    set_aside: tuple[str, ...] = ()
    commands: int = 0
    letters: int = 0
    noted_commands: int | None = None
    noted_letters: int | None = None
    missing_commits: int | None = None
    lost: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is lost, for all that can be told."""
        if self.fault is None:
            return True
        counts = (self.commands, self.letters) == (self.noted_commands, self.noted_letters)
        return counts and self.missing_commits == 0 and not self.lost

    def __str__(self) -> str:
        if self.fault is None:
            return f"{self.path}: nothing is wrong with it"
        lines = [
            self.fault,
            f"saved: {self.commands} commands of {_or_unknown(self.noted_commands)}, "
            f"{self.letters} dead letters of {_or_unknown(self.noted_letters)}",
            f"acknowledged commits missing: {_or_unknown(self.missing_commits)}",
            *(f"lost: {line}" for line in self.lost),
            *(f"set aside: {name}" for name in self.set_aside),
        ]
        return "\n".join(lines)


def _or_unknown(number: int | None) -> str:
    return "an unknown number" if number is None else str(number)


def repair(path: str | os.PathLike[str]) -> RepairReport:
    """Sets the files of a damaged `LocalStorage` aside and makes new ones of all that can be read in them.

    A file that nothing is wrong with is left alone. So is one of another program or of a later version. Only rows
    whose checksum is right are taken over. When it is interrupted, run it again.

    Args:
        path: the folder.

    Raises:
        StorageLocked: a process owns the folder: stop it first.
        StorageError: the files cannot be read or written at all.
    """
    from lane_obs.storage.sqlite.repair import Repair  # loads SQLite

    return Repair(Path(path)).run()
