"""One process owns a folder: a lock of the operating system on a file in it, which tells who the owner is.

The system lets go of the lock when its owner ends, however it ends. Only the lock counts, never the file's text: a
process id may belong to another program by now.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from typing import TYPE_CHECKING, Final

import msgspec

from lane_obs.errors import StorageLocked
from lane_obs.storage.sqlite.fault import translate

if TYPE_CHECKING:
    from pathlib import Path

LOCK_NAME: Final = "queue.lock"
_MOST_BYTES: Final = 1_024


class Owner(msgspec.Struct, frozen=True):
    """Who owns a folder.

    Attributes:
        pid: its process id.
        host: its host's name.
    """

    pid: int
    host: str


class FolderLock:
    """The lock on a folder.

    Args:
        folder: the folder; it exists.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        self._file: int | None = None
        self._made = False

    def take(self) -> None:
        """Takes the lock, or fails at once.

        Raises:
            StorageLocked: another storage has it.
            StorageError: the file cannot be made or read.
        """
        while self._file is None:
            self._made = not self._path.exists()
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise translate(error, self._path) from error
            self._lock(file)
            if not self.is_in_place:  # whoever had it just now has removed it
                self.release()

    def _lock(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _read_owner(file)
            os.close(file)
            if isinstance(error, BlockingIOError):
                raise _locked(self._path, owner) from None
            raise translate(error, self._path) from error
        self._file = file
        _write_owner(file)

    def release(self, *, tidily: bool = False) -> None:
        """Lets go of the lock.

        Args:
            tidily: whether its file goes, too, if it was made here.
        """
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                if tidily and self._made:
                    self._path.unlink()  # while it is locked: who waits for it sees that it is gone
                os.ftruncate(file, 0)
            os.close(file)

    def leave_to_parent(self) -> None:
        """In a forked process: closes the file, so that the lock ends with the parent. It is not let go of here."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    @property
    def is_in_place(self) -> bool:
        """Whether the locked file is still the one of that name."""
        if self._file is None:
            return False
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except OSError:
            return False


def _write_owner(file: int) -> None:
    owner = Owner(os.getpid(), socket.gethostname())
    with contextlib.suppress(OSError):  # on a full disk; the lock holds without its text
        written = os.pwrite(file, msgspec.json.encode(owner) + b"\n", 0)
        os.ftruncate(file, written)


def _read_owner(file: int) -> Owner | None:
    try:
        return msgspec.json.decode(os.pread(file, _MOST_BYTES, 0), type=Owner)
    except (OSError, msgspec.DecodeError):
        return None


def _locked(path: Path, owner: Owner | None) -> StorageLocked:
    if owner is None:
        return StorageLocked(path, "another process owns this folder")
    whose = "this very process" if owner == Owner(os.getpid(), socket.gethostname()) else "process"
    cause = f"{whose} {owner.pid} on {owner.host} owns this folder"
    return StorageLocked(path, cause, pid=owner.pid, host=owner.host)
