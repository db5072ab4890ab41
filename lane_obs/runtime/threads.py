"""Threads for synchronous commands.

Not `ThreadPoolExecutor`: its threads are joined at interpreter exit, so one command that never returns would keep
the process from ending (cpython#111358), and its bound would be a second, hidden queue behind the lane's slots.
Here the lane's slots are the only bound, threads are daemons, and an idle one is used again.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Threads:
    """Daemon threads, one for each call under way; idle ones are kept for the next call."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._all: set[threading.Thread] = set()
        self._idle = 0

    def run(self, call: Callable[[], None]) -> None:
        """Runs `call` in a thread at once. It must not raise."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                thread = threading.Thread(target=self._work, name="lane-obs-command", daemon=True)
                self._all.add(thread)
                thread.start()
        self._calls.put(call)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            with self._lock:
                self._idle += 1
        with self._lock:
            self._all.discard(threading.current_thread())

    def close(self) -> None:
        """Ends the idle threads and waits for them; those still busy end after their call."""
        with self._lock:
            threads, idle = list(self._all), self._idle
        for _ in threads:
            self._calls.put(None)
        if idle == len(threads):
            for thread in threads:
                thread.join()
