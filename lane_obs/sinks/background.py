"""Runs a slow sink in a thread of its own, behind a bounded buffer."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from lane_obs.bus import Sink
from lane_obs.bus.outlet import Timing
from lane_obs.config import Duration, to_count, to_seconds
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lane_obs.events import LaneEvent

_HOOKS: Final = (
    "wants",
    "start",
    "at_submit",
    "at_reject",
    "at_recover",
    "at_claim",
    "at_start",
    "in_attempt",
    "traceparent",
)
# Writing gives up the interpreter's lock, and a busy event loop gives it back only every 5 ms: so few events a write
# would be few a second. Many would keep the loop waiting while they are rendered; this many take some 0.2 ms.
_CHUNK: Final = 256
_MARK: Final = 1_024
_logger = logging.getLogger("lane_obs.sinks")
_living: weakref.WeakSet[BackgroundSink] = weakref.WeakSet()


class BackgroundSink:
    """Hands batches to another sink from a thread, so that it may block.

    The thread sleeps while there is nothing to do. The first event wakes it; it collects more for `flush_interval`
    and then hands over what there is. It does not wait when much has gathered, nor at `close`, nor when the process
    exits without one.

    What does not fit the buffer is dropped, newest first, and counted in `dropped["full"]`; batches at which the
    inner sink raises are counted in `dropped["error"]`. One that fails `MAX_FAILURES` times in a row is cut off,
    as the bus does with sinks of its own thread. In a child process made by `os.fork` the buffer is empty: what
    waits in it is the parent's.

    Args:
        sink: the slow sink; its `handle` and `close` are called from the thread, what else it has (see `Sink`) as ever.
        capacity: events that may wait, 1 or more.
        close_timeout: seconds that `close` waits for the buffer to empty.
        flush_interval: seconds for which events are collected, 0 for not at all.

    Attributes:
        timing: how long the inner sink takes, and how old its events are then.
        dropped: events lost, by reason: `full`, `error`, and `closed` (they were left when `close` gave up).

    Raises:
        ConfigError: a bad number, or something that is no sink.
    """

    _urgent: frozenset[type[LaneEvent]] = frozenset()
    """Kinds of events that are not kept waiting."""
    _chunk = _CHUNK

    def __init__(
        self,
        sink: Sink,
        capacity: int = 10_000,
        close_timeout: Duration = 5.0,
        *,
        flush_interval: Duration = 0.05,
    ) -> None:
        if not isinstance(sink, Sink):
            raise ConfigError("sink", sink, "give an object with handle(events) and close()")
        self._sink = sink
        self._capacity = to_count("capacity", capacity, minimum=1)
        self._close_timeout = to_seconds("close_timeout", close_timeout, zero=True)
        self._interval = to_seconds("flush_interval", flush_interval, zero=True)
        self._mark = min(_MARK, (self._capacity + 1) // 2)
        self._now: Callable[[], float] | None = None
        self._closing = False
        self._failure: Any = None
        self.failures_in_a_row = 0
        self.dropped: dict[str, int] = {}
        self.timing = Timing()
        self._empty()
        for name in _HOOKS:  # looked up by the bus: there must be none that the inner sink has not
            if not hasattr(type(self), name) and (hook := getattr(sink, name, None)) is not None:
                setattr(self, name, hook)
        _living.add(self)

    def _empty(self) -> None:
        self._buffer: deque[LaneEvent] = deque()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._wake_at = self._capacity + 1
        """How many events in the buffer wake the thread: one when it sleeps, all there can be while it is at work."""
        self._hurry = False
        self._due = self._in_hand = 0

    @property
    def pending(self) -> int:
        """Events that wait, those that are just being handed over included."""
        return len(self._buffer) + self._in_hand

    def attach(self, queue: Any) -> None:
        """Takes over the queue's clock, and shows the queue to the inner sink if it looks at it."""
        self._now = queue.clock.now
        attach: Callable[[Any], object] | None = getattr(self._sink, "attach", None)
        if attach is not None:
            attach(queue)

    def take_failure(self) -> Exception | None:
        """What the inner sink raised last, if it did since this was last asked; the bus deals with it."""
        with self._lock:
            failure, self._failure = self._failure, None
            return failure  # type: ignore[no-any-return]

    # --- in -----------------------------------------------------------------------------------------------------

    def handle(self, events: Sequence[LaneEvent]) -> None:
        """Buffers a batch; never waits for the inner sink."""
        with self._lock:
            if self._closing:
                self._drop("closed", len(events))
                return
            if self._thread is None:
                self._start_thread()
            buffer = self._buffer
            room = self._capacity - len(buffer)
            if len(events) > room:
                self._drop("full", len(events) - room)
                events = events[:room]
            buffer.extend(events)
            if self._urgent and not self._hurry and not self._urgent.isdisjoint(map(type, events)):
                self._hurry = True
                self._changed.notify()
            elif len(buffer) >= self._wake_at:
                self._wake_at = self._capacity + 1
                self._changed.notify()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name="lane-obs-sink", daemon=True)
        thread.start()
        self._thread = thread

    def _drop(self, reason: str, count: int) -> None:
        if count > 0:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    # --- out: the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while batch := self._take():
            self._hand_over(batch)
        self._close_sink()

    def _take(self) -> list[LaneEvent]:
        """Waits for events and takes the next few; an empty list means that the sink was closed."""
        with self._lock:
            self._in_hand = 0
            buffer = self._buffer
            if self._due <= 0:
                self._wait(buffer)
                self._due = len(buffer)
            batch = [buffer.popleft() for _ in range(min(len(buffer), self._chunk))]
            self._in_hand = len(batch)
            self._due -= len(batch)
            return batch

    def _wait(self, buffer: deque[LaneEvent]) -> None:
        while not buffer and not self._closing:
            self._wake_at = 1
            self._changed.wait()
        if self._interval and not self._is_due():
            self._wake_at = self._mark
            self._changed.wait_for(self._is_due, self._interval)
        self._wake_at = self._capacity + 1
        self._hurry = False

    def _is_due(self) -> bool:
        return self._hurry or self._closing or len(self._buffer) >= self._mark

    def _hand_over(self, batch: list[LaneEvent]) -> None:
        now = self._now
        began = 0.0 if now is None else now()
        try:
            self._sink.handle(batch)
        except BaseException as error:  # kept for the bus, which asks for it with the next batch; the thread lives on
            with self._lock:
                self._failure = error
                self.failures_in_a_row += 1
                self._drop("error", len(batch))
        else:
            self.failures_in_a_row = 0
        if now is not None:
            self.timing.note(batch[0].at, began, now())

    def _close_sink(self) -> None:
        try:
            self._sink.close()
        except Exception as error:  # it must not end the thread, or the queue's close, in a traceback
            _logger.warning("sink %s failed to close", type(self._sink).__name__, exc_info=error)

    # --- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Lets the thread empty the buffer, for `close_timeout` seconds at most; then drops and counts the rest."""
        with self._lock:
            was_closing, self._closing = self._closing, True
            self._changed.notify()
            thread = self._thread
        if thread is None:
            if not was_closing:
                self._close_sink()
            return
        thread.join(self._close_timeout)
        with self._lock:
            self._drop("closed", len(self._buffer) + (self._in_hand if thread.is_alive() else 0))
            self._buffer.clear()


def _forget_parent() -> None:
    """In a child process there is no thread, and a lock may be held by one that was not copied."""
    for sink in list(_living):
        sink._empty()  # noqa: SLF001 - this is the class's own part


def _flush_at_exit() -> None:
    for sink in list(_living):
        if sink.pending:
            sink.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
atexit.register(_flush_at_exit)
