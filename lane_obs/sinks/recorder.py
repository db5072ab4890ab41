"""Keeps the last events, and writes them to a file on demand, on SIGUSR1 and when the process dies of an exception.

A process has one SIGUSR1 and one excepthook, however many recorders it has: `_Hooks` holds both for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import queue
import signal
import sys
import tempfile
import threading
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lane_obs.clock import SystemClock
from lane_obs.config import to_count
from lane_obs.errors import ConfigError, error_text
from lane_obs.events import EVENT_TYPES, LaneEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType, TracebackType

    from lane_obs.bus import Bus

_logger = logging.getLogger("lane_obs.recorder")

_SIGNAL: Final[signal.Signals | None] = getattr(signal, "SIGUSR1", None)
_CLOSE_TIMEOUT: Final = 5.0
_WITH_EXCEPTION: Final = frozenset(kind for kind in EVENT_TYPES if "exception" in kind.__struct_fields__)
_clock = SystemClock()
_running_loop = asyncio._get_running_loop  # noqa: SLF001 - documented; None where no loop runs
_number = itertools.count(1).__next__


class FlightRecorder:
    """A sink that keeps the last events; `dump` writes them as JSON Lines.

    On SIGUSR1 it dumps by itself, also while a command blocks the event loop, unless the program has a handler for
    that signal. When an exception ends the program (`sys.excepthook` is called with anything but
    `KeyboardInterrupt`) it dumps as well. By then the queue is closed as a rule: so a closed recorder keeps its
    events until the next recorder starts, or `forget` is called. Where these files are is logged as a warning
    (`lane_obs.recorder`).

    Args:
        capacity: events kept, 1 or more; the oldest give way. That is no loss and not counted as a drop.
        path: directory of the files that have no other name given; default the system's for temporary files.
        on_signal: whether to dump on SIGUSR1, where the platform has it.
        on_crash: whether to dump when an exception ends the program.

    Raises:
        ConfigError: a bad capacity, or no such directory.
    """

    def __init__(
        self,
        capacity: int = 4096,
        path: str | os.PathLike[str] | None = None,
        *,
        on_signal: bool = True,
        on_crash: bool = True,
    ) -> None:
        self._events: deque[LaneEvent] = deque(maxlen=to_count("capacity", capacity, minimum=1))
        self._directory = _directory(path)
        self._on_signal = on_signal
        self._on_crash = on_crash
        self._bus: Bus | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False
        """Whether its queue was closed."""

    @property
    def events(self) -> list[LaneEvent]:
        """The events kept, oldest first, without the exceptions that some had."""
        return list(self._events.copy())

    def attach(self, queue: Any) -> None:
        """Learns whose events it keeps.

        Raises:
            ConfigError: it belongs to another queue already.
        """
        if self._bus is not None:
            raise ConfigError("sinks", self, "give each queue a FlightRecorder of its own")
        self._bus = queue.bus

    def start(self) -> None:
        """Listens for the signal and the crash."""
        self._loop = asyncio.get_running_loop()
        self.closed = False
        if self._on_crash:
            _hooks.arm(self)
        if self._on_signal and _SIGNAL is not None:
            _hooks.listen(self, _SIGNAL)

    def handle(self, events: Sequence[LaneEvent]) -> None:
        """Takes a batch."""
        # An exception would hold all that its traceback holds; the event has its type and message as text.
        self._events.extend(
            [
                msgspec.structs.replace(event, exception=None) if type(event) in _WITH_EXCEPTION else event
                for event in events
            ]
        )

    def close(self) -> None:
        """Listens for the signal no more, and keeps what it has."""
        self.closed = True
        self._bus = self._loop = None
        if _SIGNAL is not None:
            _hooks.leave(self, _SIGNAL)

    def forget(self) -> None:
        """Lets go of all events, and no longer waits for a crash."""
        _hooks.disarm(self)
        self._events.clear()

    def dump(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Writes the events kept, oldest first, one JSON object a line: `key`, `seq`, `at`, `wall` and `payload`.

        The file appears whole or not at all, replaces one of the same name, and only its owner may read it. Called
        on the queue's event loop it includes all that happened before; from elsewhere the events of the loop's
        present turn are missing. May be called from any thread.

        Args:
            path: name of the file, or a directory; without a name it is `lane-obs-<pid>-<UTC time>-<number>.jsonl`.

        Returns:
            The file.

        Raises:
            OSError: it could not be written.
        """
        if self._bus is not None and self._loop is not None and _running_loop() is self._loop:
            self._bus.flush()
        target = self._directory / _file_name() if path is None else Path(path)
        if target.is_dir():
            target /= _file_name()
        _write(target, (_line(event) for event in self._events.copy()))
        return target

    def dump_or_log(self, why: str) -> None:
        """Dumps where nobody could take an error, and logs what came of it."""
        try:
            _logger.warning("%s: the last events are in %s", why, self.dump())
        except Exception:
            _logger.exception("%s: the last events could not be written", why)


def _directory(path: object) -> Path:
    if path is None:
        return Path(tempfile.gettempdir())
    if not isinstance(path, str | os.PathLike) or not Path(path).is_dir():
        raise ConfigError("path", path, "give an existing directory")
    return Path(path).absolute()  # the program may go elsewhere


def _file_name() -> str:
    now = datetime.fromtimestamp(_clock.wall(), UTC)
    return f"lane-obs-{os.getpid()}-{now:%Y%m%dT%H%M%S.%fZ}-{_number()}.jsonl"


def _write(target: Path, lines: Iterator[bytes]) -> None:
    # mkstemp makes a file that only its owner may read, under a name that nobody can have prepared.
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:100]}-", dir=target.parent)
    try:
        with open(descriptor, "wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _line(event: LaneEvent) -> bytes:
    fields: dict[str, Any] = {"key": event.key, "seq": event.seq, "at": event.at, "wall": event.wall}
    try:
        return msgspec.json.encode({**fields, "payload": event.payload}) + b"\n"
    except Exception:  # an event of the user's own kind, or text that is not Unicode: the other lines matter more
        names = (name for name in event.__struct_fields__ if name not in fields)
        payload = {name: _text(getattr(event, name)) for name in names}
        return json.dumps({**fields, "payload": payload}, default=str).encode() + b"\n"


def _text(value: object) -> object:
    try:
        return value if isinstance(value, str | int | float | None) else repr(value)
    except Exception as error:
        return f"<{type(error).__name__}>"


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
            signal.signal(number, self._on_signal)
        except ValueError:
            _logger.info("%s can be had in the main thread only: the flight recorder does without", number.name)
            return False
        return True

    def leave(self, recorder: FlightRecorder, number: signal.Signals) -> None:
        """Undoes `listen`; what was asked for before is written first."""
        if recorder not in self._listening:
            return
        self._listening.remove(recorder)
        if self._listening:
            return
        if signal.getsignal(number) == self._on_signal:
            with contextlib.suppress(ValueError):  # not the main thread: the handler sees to it itself
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


_hooks: Final = _Hooks()
