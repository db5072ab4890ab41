"""What every contestant's jobs do, and what their processes are told by the environment.

A job of a drain counts itself in memory that it shares with whoever measures, one that tells its latency sends it
over a Unix socket: neither makes any traffic with the server. Imports nothing that a peer's worker would not.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Final

URL: Final = os.environ.get("LANE_OBS_BENCH_URL", "redis://127.0.0.1:6379/0")
RESULTS: Final = os.environ.get("LANE_OBS_BENCH_RESULTS") == "1"
"""Whether results are kept; where they are not, a peer that can do without them does."""
CONCURRENCY: Final = 32
OUTSTANDING: Final = 64
PAYLOAD: Final = {"user": 12345, "kind": "mail"}
QUEUE: Final = "bench"
SLOT: Final = struct.Struct("=QddQd")
"""What a process tells: how many jobs it began; when the first began, and the last; after how many it looked last how
much processor time it took since the first; and how much that was."""
_LOOK: Final = 64


class _Slot:
    """This process's part of the shared memory; threads may count at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._first = self._cpu = 0.0
        self._looked: tuple[int, float] = (1, 0.0)
        self._at = int(os.environ["LANE_OBS_BENCH_SLOT"]) * SLOT.size
        with Path(os.environ["LANE_OBS_BENCH_SLOTS"]).open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def count(self) -> None:
        """Counts a job that begins."""
        now = time.monotonic()
        with self._lock:
            self._count += 1
            if self._count == 1:
                self._first, self._cpu = now, time.process_time()
            elif self._count % _LOOK == 0:  # it is a system call
                self._looked = (self._count, time.process_time() - self._cpu)
            SLOT.pack_into(self._memory, self._at, self._count, self._first, now, *self._looked)


class _Post:
    """The way to whoever measures latency."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.connect(os.environ["LANE_OBS_BENCH_SOCKET"])

    def tell(self, seconds: float) -> None:
        """Tells a latency."""
        self._socket.send(repr(seconds).encode())


_slot: _Slot | None = None
_post: _Post | None = None
_making = threading.Lock()


def begin() -> None:
    """The whole of a no-op job."""
    global _slot
    if _slot is None:
        if "LANE_OBS_BENCH_SLOT" not in os.environ:
            return
        with _making:
            _slot = _slot or _Slot()
    _slot.count()


def arrive(sent: float) -> None:
    """The whole of a job whose latency is measured.

    Args:
        sent: `time.monotonic()`, which all processes of a machine share, when it was about to be enqueued.
    """
    global _post
    seconds = time.monotonic() - sent
    with _making:
        _post = _post or _Post()
    _post.tell(seconds)
