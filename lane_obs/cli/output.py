"""Files that a command writes: made sure of before it runs, and there as a whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


class OutputFile:
    """A file to be written once.

    Args:
        path: where it is to be. A symbolic link is followed. An existing file stays as it is until `write`.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._target = os.path.realpath(path)
        self._temporary: str | None = None
        self._file = self._open()

    def _open(self) -> IO[bytes]:
        if os.path.exists(self._target) and not _replaceable(self._target):
            return open(self._target, "wb")  # writes to a device or pipe; raises for all else
        directory, name = os.path.split(self._target)
        descriptor, self._temporary = tempfile.mkstemp(prefix=f".{name[:100]}.", suffix=".tmp", dir=directory)
        if os.path.exists(self._target):  # a new file is private; one that is replaced keeps its mode
            os.fchmod(descriptor, stat.S_IMODE(os.stat(self._target).st_mode))
        return open(descriptor, "wb")

    def write(self, chunks: Iterable[bytes]) -> None:
        """Writes the whole file and puts it in its place.

        Raises:
            OSError: it could not be written; what was there before still is.
        """
        with self._file:
            self._file.writelines(chunks)
        if self._temporary is not None:
            os.replace(self._temporary, self._target)
            self._temporary = None

    def discard(self) -> None:
        """Leaves nothing behind, unless it was written."""
        with suppress(OSError):
            self._file.close()
        if self._temporary is not None:
            with suppress(OSError):
                os.unlink(self._temporary)
            self._temporary = None


def _replaceable(path: str) -> bool:
    return stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.W_OK)


@contextmanager
def output_file(option: str, path: Path | None) -> Iterator[OutputFile | None]:
    """An output file for an option of the command line; `None` where the option was not given.

    Raises:
        ConfigError: it cannot be written.
    """
    if path is None:
        yield None
        return
    try:
        file = OutputFile(path)
    except OSError as error:
        raise ConfigError(option, str(path), f"give a file that can be written: {error.strerror}") from error
    try:
        yield file
    finally:
        file.discard()
