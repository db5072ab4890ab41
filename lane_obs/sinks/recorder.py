"""Keeps the last events, and writes them to a file on demand, on SIGUSR1 and when the process dies of an exception."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import tempfile
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lane_obs.clock import SystemClock
from lane_obs.config import to_count
from lane_obs.errors import ConfigError
from lane_obs.events import EVENT_TYPES, LaneEvent
from lane_obs.sinks.process_hooks import SIGNAL, hooks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lane_obs.bus import Bus

_logger = logging.getLogger("lane_obs.recorder")

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
        self._worker: str | None = None
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
            hooks.arm(self)
        if self._on_signal and SIGNAL is not None:
            hooks.listen(self, SIGNAL)

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
        self.closed, loop = True, self._loop
        self._worker = None if self._bus is None else self._bus.worker
        self._bus = self._loop = None
        if SIGNAL is not None and loop is not None:
            hooks.leave(self, SIGNAL, loop)

    def forget(self) -> None:
        """Lets go of all events, and no longer waits for a crash."""
        hooks.disarm(self)
        self._events.clear()

    def dump(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Writes the events kept, oldest first, one JSON object a line: `key`, `seq`, `at`, `wall` and `payload`.

        Where the queue has a broker each has the `worker`, too: the id of this process there. The file appears whole
        or not at all, replaces one of the same name, and only its owner may read it. Called on the queue's event loop
        it includes all that happened before; from elsewhere the events of the loop's present turn are missing. May be
        called from any thread.

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
        worker = self._worker if self._bus is None else self._bus.worker
        _write(target, (_line(event, worker) for event in self._events.copy()))
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


def _line(event: LaneEvent, worker: str | None) -> bytes:
    fields: dict[str, Any] = {"key": event.key, "seq": event.seq, "at": event.at, "wall": event.wall}
    fields |= {} if worker is None else {"worker": worker}
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
