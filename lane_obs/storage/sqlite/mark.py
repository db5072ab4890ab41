"""The mark: a small file beside the database that says how many transactions were committed.

After a crash SQLite reads its write-ahead log up to the first damaged part and drops the rest, without a word. The
mark is written after each commit, so a database that has fewer commits than its mark has lost some that were
acknowledged. It is not synced: it may be older than the database, never newer.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from lane_obs.errors import StorageCorrupt
from lane_obs.storage.sqlite.fault import translate

MARK_NAME: Final = "queue.mark"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MOST_BYTES: Final = 512  # what a disk writes whole or not at all


class Mark(msgspec.Struct, frozen=True):
    """What the file says.

    Attributes:
        uid: which database it belongs to.
        commits: how many transactions it has at least.
        durability: what was promised of them.
        boot: which run of the machine wrote it.
    """

    uid: str
    commits: int
    durability: str
    boot: str

    def loses_by_right(self) -> bool:
        """Whether commits may be missing: none were promised to outlive a crash of the machine, and it had one."""
        return self.durability != "full" and self.boot != boot_id()


class MarkFile:
    """The file, opened to be written. Its text always has the same length, so it is never written in part.

    Args:
        folder: the folder it is in.
        mark: what it says from now on.
    """

    def __init__(self, folder: Path, mark: Mark) -> None:
        path = folder / MARK_NAME
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise translate(error, path) from error
        self._head = f'{{"uid":"{mark.uid}","durability":"{mark.durability:<6}","boot":"{mark.boot:<36}","commits":'
        self.write(mark.commits)
        with contextlib.suppress(OSError):
            os.fsync(self._file)  # once, so that the file itself outlives a crash of the machine

    def write(self, commits: int) -> None:
        """Says that there are so many commits. A fault is ignored: an older mark is as true as no mark."""
        text = f"{self._head}{commits:>20}}}".encode()
        with contextlib.suppress(OSError):
            os.pwrite(self._file, b"%s %08x\n" % (text, crc32(text)), 0)

    def close(self) -> None:
        """Closes it."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def read_mark(folder: Path) -> Mark | None:
    """What the file says; `None` when there is none, or when a full disk kept it from being written.

    Raises:
        StorageCorrupt: it is damaged.
        StorageError: it cannot be read.
    """
    path = folder / MARK_NAME
    try:
        content = path.read_bytes()[:_MOST_BYTES]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise translate(error, path) from error
    if not content:
        return None
    text, _, written = content.rpartition(b" ")
    try:
        mark = msgspec.json.decode(text, type=Mark)
        damaged = crc32(text) != int(written, 16)
    except (ValueError, msgspec.DecodeError):
        damaged = True
    if damaged:
        raise StorageCorrupt(path, "the mark of the last commit is damaged")
    return msgspec.structs.replace(mark, durability=mark.durability.strip(), boot=mark.boot.strip())


def boot_id() -> str:
    """Which run of the machine this is; empty where the system does not say."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:  # not on Linux: taken as the same run, so that loss is told rather than not
        return ""
