"""The process's SIGUSR1 and `sys.excepthook`, held once for all flight recorders: a process has one of each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final

from lane_obs.errors import error_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

    from lane_obs.sinks.recorder import FlightRecorder

_logger = logging.getLogger("lane_obs.recorder")

SIGNAL: Final[signal.Signals | None] = getattr(signal, "SIGUSR1", None)
_CLOSE_TIMEOUT: Final = 5.0


def _nothing() -> None:
    """What the loop does on the signal: waking up is enough."""


class _Hooks:
    """The process's SIGUSR1 and `sys.excepthook`, for all recorders."""

    def __init__(self) -> None:
        self._listening: list[FlightRecorder] = []
        self._armed: list[FlightRecorder] = []
        self._installed: Callable[..., object] | None = None
        self._asked: queue.SimpleQueue[tuple[FlightRecorder, ...]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    # --- SIGUSR1 ------------------------------------------------------------------------------------------------
    #
    # `signal.signal` and not the loop's `add_signal_handler`, whose callback would wait for a blocked loop to be free.

    def listen(self, recorder: FlightRecorder, number: signal.Signals) -> None:
        """Has a recorder dump on the signal, unless that is used by others or cannot be had in this thread."""
        if signal.getsignal(number) != self._on_signal and not self._take(number):
            return
        self._listening.append(recorder)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lane-obs-recorder", daemon=True)
            self._thread.start()

    def _take(self, number: signal.Signals) -> bool:
        if signal.getsignal(number) is not signal.SIG_DFL:
            _logger.info("%s has a handler of the program's own: the flight recorder leaves it alone", number.name)
            return False
        try:
            with contextlib.suppress(NotImplementedError):  # has a loop woken that falls asleep just then
                asyncio.get_running_loop().add_signal_handler(number, _nothing)
            signal.signal(number, self._on_signal)
        except (ValueError, RuntimeError):
            _logger.info("%s can be had in the main thread only: the flight recorder does without", number.name)
            return False
        return True

    def leave(self, recorder: FlightRecorder, number: signal.Signals, loop: asyncio.AbstractEventLoop) -> None:
        """Undoes `listen`; what was asked for before is written first."""
        if recorder not in self._listening:
            return
        self._listening.remove(recorder)
        if self._listening:
            return
        if signal.getsignal(number) == self._on_signal:
            with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: the handler sees to it itself
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL)
        thread, self._thread = self._thread, None
        self._asked.put(())
        if thread is not None:
            thread.join(_CLOSE_TIMEOUT)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # It may interrupt anything that holds any lock, so it only puts, which is made for that; a thread writes.
        if self._listening:
            self._asked.put(tuple(self._listening))
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _run(self) -> None:
        while recorders := self._asked.get():
            for recorder in recorders:
                recorder.dump_or_log("SIGUSR1")

    # --- crash --------------------------------------------------------------------------------------------------

    def arm(self, recorder: FlightRecorder) -> None:
        """Has a recorder dump when an exception ends the program. Those that are closed are of the past now."""
        self._armed = [other for other in self._armed if not other.closed and other is not recorder] + [recorder]
        if self._installed is None or sys.excepthook is not self._installed:
            self._install(sys.excepthook)

    def _install(self, before: Callable[..., object]) -> None:
        # A new function each time: each calls the one that it has replaced, so that a chain has no cycle.
        def on_crash(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
            if not issubclass(kind, KeyboardInterrupt):
                self._dump(error)
            if sys.excepthook is on_crash:
                sys.excepthook = before
            before(kind, error, traceback)

        self._before = before
        self._installed = sys.excepthook = on_crash

    def _dump(self, error: BaseException) -> None:
        armed, self._armed = self._armed, []
        for recorder in armed:
            recorder.dump_or_log(f"the program ends with {type(error).__name__}: {error_text(error)}")

    def disarm(self, recorder: FlightRecorder) -> None:
        """Undoes `arm`, and gives the excepthook back with the last one unless another stands before it by now."""
        self._armed = [other for other in self._armed if other is not recorder]
        if not self._armed and self._installed is not None and sys.excepthook is self._installed:
            sys.excepthook, self._installed = self._before, None


hooks: Final = _Hooks()
