"""Files that a command writes: made sure of before it runs, and there as a whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Final

from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_STDOUT: Final = 1
_STDERR: Final = 2


class OutputFile:
    """A file to be written once. Pipes and devices are written to as they are, with nothing to replace.

    Args:
        path: where it is to be. A symbolic link is followed. An existing file stays as it is until `write`.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._target = os.path.realpath(path)
        self._temporary: str | None = None
        self._file = self._open()

    def _open(self) -> IO[bytes]:
        for descriptor in (_STDOUT, _STDERR):
            if is_open_as(self._path, descriptor):  # /dev/stdout: after what stands there already, if it is a file
                return open(os.dup(descriptor), "wb")
        if os.path.exists(self._path) and not self._replaceable():
            return open(self._path, "wb")  # writes to a device or pipe; raises for all else
        directory, name = os.path.split(self._target)
        descriptor, self._temporary = tempfile.mkstemp(prefix=f".{name[:100]}.", suffix=".tmp", dir=directory)
        if os.path.exists(self._target):  # a new file is private; one that is replaced keeps its mode
            os.fchmod(descriptor, stat.S_IMODE(os.stat(self._target).st_mode))
        return open(descriptor, "wb")

    def _replaceable(self) -> bool:
        # What has no name of its own (a pipe behind /dev/fd/63) has a path that leads back nowhere, or elsewhere.
        found = os.stat(self._path)
        with suppress(OSError):
            return (
                stat.S_ISREG(found.st_mode)
                and os.path.samestat(found, os.stat(self._target))
                and os.access(self._target, os.W_OK)
            )
        return False

    def write(self, chunks: Iterable[bytes]) -> None:
        """Writes the whole file and puts it in its place.

        Raises:
            OSError: it could not be written, and names it; what was there before still is.
        """
        try:
            with self._file:
                self._file.writelines(chunks)
            if self._temporary is not None:
                os.replace(self._temporary, self._target)
                self._temporary = None
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from error

    def discard(self) -> None:
        """Leaves nothing behind, unless it was written."""
        with suppress(OSError):
            self._file.close()
        if self._temporary is not None:
            with suppress(OSError):
                os.unlink(self._temporary)
            self._temporary = None


def is_open_as(path: str | Path, descriptor: int = _STDOUT) -> bool:
    """Whether a path leads to what this process has open as standard output (or error)."""
    with suppress(OSError):  # it has been closed, or there is nothing there
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


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
