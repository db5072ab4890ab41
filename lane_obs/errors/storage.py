"""Exceptions of storages."""

from __future__ import annotations

from lane_obs.errors.queue import LaneObsError


class StorageError(LaneObsError):
    """The storage could not do what it was asked to; its subclasses say why. Trying again may help.

    Attributes:
        path: the file or folder; empty for a storage that has none.
        cause: what went wrong, in words.
        kept: whether the change is kept in memory and written once the storage works again.
    """

    def __init__(self, path: object, cause: str, *, kept: bool = False) -> None:
        super().__init__(f"{path}: {cause}" if str(path) else cause)
        self.path = str(path)
        self.cause = cause
        self.kept = kept


class StorageFull(StorageError):
    """There is no room: a full disk, a quota, or a limit on the size of files. It goes on once there is room."""


class StorageReadOnly(StorageError):
    """Its files may not be written. It goes on once they may."""


class StorageIOError(StorageError):
    """Reading or writing failed. It goes on once that works again."""


class StorageVanished(StorageError):
    """Its folder or a file in it is gone. It goes on once the same files are back; nothing is made anew."""


class StorageCorrupt(StorageError):
    """Its files are damaged, or changes that were acknowledged are missing. `lane-obs repair` saves what it can."""


class StorageForeign(StorageError):
    """The file belongs to another program. It is not touched."""


class StorageTooNew(StorageError):
    """The file was written by a newer version of this library. It is not touched; use that version."""


class StorageLocked(StorageError):
    """Another process, or another storage in this one, owns the folder. Trying again helps once that has ended.

    Attributes:
        pid: the owner's process id; `None` when it is not known.
        host: the owner's host name; `None` when it is not known.
    """

    def __init__(
        self, path: object, cause: str, *, kept: bool = False, pid: int | None = None, host: str | None = None
    ) -> None:
        super().__init__(path, cause, kept=kept)
        self.pid = pid
        self.host = host


class StorageRefused(StorageError):
    """The storage cannot hold such a change. Nothing of it was stored, and trying again does not help."""


class StorageClosed(StorageError):
    """The storage is not open, or belongs to the process that this one was forked from."""
