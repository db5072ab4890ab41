"""Threads for synchronous commands.

Not `ThreadPoolExecutor`: its threads are joined at interpreter exit, so one command that never returns would keep
the process from ending (cpython#111358), and its bound would be a second, hidden queue behind the lane's slots.
Here the lane's slots are the only bound, threads are daemons, and an idle one is used again.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Call: TypeAlias = "Callable[[], Callable[[], None]]"
"""Does the work and returns what tells of its end. Neither may raise."""


class Threads:
    """Daemon threads, one for each call under way; idle ones are kept for the next call."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._all: set[threading.Thread] = set()
        self._busy: set[threading.Thread] = set()
        self._idle = 0

    def run(self, call: Call) -> None:
        """Runs `call` in a thread at once, then what it returns."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                thread = threading.Thread(target=self._work, name="lane-obs-command", daemon=True)
                thread.start()
                self._all.add(thread)
        self._calls.put(call)

    def _work(self) -> None:
        me = threading.current_thread()
        while (call := self._calls.get()) is not None:
            with self._lock:
                self._busy.add(me)
            tell = call()
            with self._lock:  # before anyone is told: who then starts a call finds this thread idle
                self._busy.discard(me)
                self._idle += 1
            tell()
            del call, tell  # an idle thread must not keep a command's arguments and result alive
        with self._lock:
            self._all.discard(me)

    def close(self) -> None:
        """Ends the idle threads and waits for them; those still busy end after their call."""
        with self._lock:
            threads, busy = list(self._all), set(self._busy)
        for _ in threads:
            self._calls.put(None)
        for thread in threads:
            if thread not in busy:
                thread.join()
