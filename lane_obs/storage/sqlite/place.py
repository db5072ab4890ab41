"""What is asked of the file system about a database's files, past SQLite."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import TYPE_CHECKING

from lane_obs.errors import StorageVanished
from lane_obs.storage.sqlite.fault import translate

if TYPE_CHECKING:
    from pathlib import Path


def look_at(name: str) -> os.stat_result:
    """What the system says of a file.

    Raises:
        StorageVanished: it is gone.
        StorageError: it cannot be looked at.
    """
    try:
        return os.stat(name)
    except OSError as error:
        raise translate(error, name) from error


def check_same(name: str, opened: os.stat_result) -> os.stat_result:
    """Makes sure that an open file is still the one of its name.

    Raises:
        StorageVanished: it is not.
        StorageError: it cannot be looked at.
    """
    found = look_at(name)
    if found.st_ino != opened.st_ino or found.st_dev != opened.st_dev:
        raise StorageVanished(name, "another file has taken its place")
    return found


def check_room(path: Path, size: int) -> None:
    """Makes sure that so many bytes more can be written beside a file: writes them to one without a name.

    Raises:
        StorageFull: there is no room for them.
        StorageError: nothing can be written.
    """
    try:
        with tempfile.TemporaryFile(dir=path.parent, buffering=0) as file:
            left = size
            while left > 0:
                left -= file.write(bytes(left))
    except OSError as error:
        raise translate(error, path) from error


def remove_empty(path: Path) -> None:
    """Removes a file if there is nothing in it."""
    with contextlib.suppress(OSError):
        if not path.stat().st_size:
            path.unlink()
