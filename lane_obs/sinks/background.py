"""Runs a slow sink in a thread of its own, behind a bounded buffer."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

from lane_obs.config import Duration, to_count, to_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.bus import Sink
    from lane_obs.events import LaneEvent

_logger = logging.getLogger("lane_obs.sinks")


class BackgroundSink:
    """Hands batches to another sink from a thread, so that it may block.

    What does not fit the buffer is dropped, newest first, and counted in `dropped["full"]`; batches at which the
    inner sink raises are counted in `dropped["error"]`. One that fails `MAX_FAILURES` times in a row is cut off,
    as the bus does with sinks of its own thread.

    Args:
        sink: the slow sink; its `handle` and `close` are called from the thread.
        capacity: events that may wait, 1 or more.
        close_timeout: seconds that `close` waits for the buffer to empty.

    Raises:
        ConfigError: a bad capacity or time-out.
    """

    def __init__(self, sink: Sink, capacity: int = 10_000, close_timeout: Duration = 5.0) -> None:
        self._sink = sink
        self._capacity = to_count("capacity", capacity, minimum=1)
        self._close_timeout = to_seconds("close_timeout", close_timeout, zero=True)
        self._buffer: deque[LaneEvent] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._in_hand = 0
        self._failure: Exception | None = None
        self.failures_in_a_row = 0
        self.dropped: dict[str, int] = {}

    def take_failure(self) -> Exception | None:
        """What the inner sink raised last, if it did since this was last asked; the bus deals with it."""
        with self._changed:
            failure, self._failure = self._failure, None
            return failure

    def handle(self, events: Sequence[LaneEvent]) -> None:
        """Buffers a batch; never waits for the inner sink."""
        with self._changed:
            room = max(self._capacity - len(self._buffer), 0)
            self._buffer.extend(events[:room])
            self._drop("full", len(events) - room)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lane-obs-sink", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _drop(self, reason: str, count: int) -> None:
        if count > 0:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def _run(self) -> None:
        while batch := self._take():
            try:
                self._sink.handle(batch)
            except Exception as error:  # kept for the bus, which asks for it with the next batch
                with self._changed:
                    self._failure = error
                    self.failures_in_a_row += 1
                    self._drop("error", len(batch))
            else:
                self.failures_in_a_row = 0
        self._close_sink()

    def _take(self) -> list[LaneEvent]:
        """Waits for events and takes all; an empty list means that the sink was closed."""
        with self._changed:
            while not self._buffer and not self._closing:
                self._changed.wait()
            batch = list(self._buffer)
            self._buffer.clear()
            self._in_hand = len(batch)
            return batch

    def _close_sink(self) -> None:
        try:
            self._sink.close()
        except Exception as error:  # it must not end the thread, or the queue's close, in a traceback
            _logger.warning("sink %s failed to close", type(self._sink).__name__, exc_info=error)

    def close(self) -> None:
        """Lets the thread empty the buffer, for `close_timeout` seconds at most; then drops and counts the rest."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is None:
            self._close_sink()
            return
        thread.join(self._close_timeout)
        with self._changed:
            self._drop("closed", len(self._buffer) + (self._in_hand if thread.is_alive() else 0))
            self._buffer.clear()
