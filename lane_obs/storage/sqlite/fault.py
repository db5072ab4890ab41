"""What went wrong, in the terms of this library: errors of SQLite and of the system become a `StorageError`."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

import apsw

from lane_obs.errors import (
    StorageCorrupt,
    StorageError,
    StorageFull,
    StorageIOError,
    StorageLocked,
    StorageReadOnly,
    StorageRefused,
    StorageVanished,
    error_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_BY_ERRNO: Final[Mapping[int, type[StorageError]]] = {
    errno.ENOSPC: StorageFull,
    errno.EDQUOT: StorageFull,
    errno.EFBIG: StorageFull,  # ulimit -f
    errno.EROFS: StorageReadOnly,
    errno.EACCES: StorageReadOnly,
    errno.EPERM: StorageReadOnly,
    errno.ENOENT: StorageVanished,
    errno.ENOTDIR: StorageVanished,
    errno.ESTALE: StorageVanished,
}
_BY_TYPE: Final[tuple[tuple[tuple[type[Exception], ...], type[StorageError]], ...]] = (
    ((apsw.FullError,), StorageFull),
    ((apsw.ReadOnlyError, apsw.PermissionsError), StorageReadOnly),
    ((apsw.CorruptError, apsw.NotADBError), StorageCorrupt),
    ((apsw.BusyError, apsw.LockedError), StorageLocked),
    (
        (apsw.ConstraintError, apsw.TooBigError, apsw.MismatchError, ValueError, TypeError, OverflowError),
        StorageRefused,
    ),
)
PASSING: Final = (StorageFull, StorageReadOnly, StorageIOError, StorageVanished)
"""What may pass without anybody's doing something to the files."""


def translate(error: Exception, path: object, connection: apsw.Connection | None = None) -> StorageError:
    """The error of this library for one of SQLite or of the system."""
    if isinstance(error, StorageError):
        return error
    kind, cause = _kind(error, connection)
    found = kind(path, cause)
    found.__cause__ = error
    return found


def _kind(error: Exception, connection: apsw.Connection | None) -> tuple[type[StorageError], str]:
    if isinstance(error, OSError):
        return _BY_ERRNO.get(error.errno or 0, StorageIOError), _cause(error.errno or 0) or error_text(error)
    if isinstance(error, apsw.IOError | apsw.CantOpenError):
        return _kind_of_io(error, connection)
    for types, kind in _BY_TYPE:
        if isinstance(error, types):
            return kind, error_text(error)
    return StorageError, f"{type(error).__name__}: {error_text(error)}"


def _kind_of_io(error: apsw.Error, connection: apsw.Connection | None) -> tuple[type[StorageError], str]:
    if getattr(error, "extendedresult", 0) in {
        apsw.SQLITE_IOERR_DATA,
        apsw.SQLITE_IOERR_CORRUPTFS,
        apsw.SQLITE_IOERR_SHORT_READ,
    }:
        return StorageCorrupt, error_text(error)
    code = 0 if connection is None else connection.system_errno
    return _BY_ERRNO.get(code, StorageIOError), _cause(code) or error_text(error)


def _cause(code: int) -> str:
    if code == errno.ENOENT:
        return "the file is gone"  # all that are opened were there before
    return os.strerror(code) if code else ""
