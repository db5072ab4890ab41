"""The event bus: `emit` appends one record and returns; sinks get batches, once each turn of the event loop.

A sink that raises harms nobody: its failures are counted, the first is logged and reported as an event, and one
that fails `MAX_FAILURES` times in a row is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import logging
import threading
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import msgspec

from lane_obs.errors import ConfigError, error_text
from lane_obs.events import LaneEvent, SinkDisabled, SinkFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from lane_obs.clock import Clock

MAX_FAILURES: Final = 10
"""A sink that fails this many batches in a row gets no more."""

_MAX_BATCH = 8_192
_logger = logging.getLogger("lane_obs.bus")


@runtime_checkable
class Sink(Protocol):
    """Whatever takes events: two methods.

    `handle` runs on the event loop and must be quick; wrap what may block in a `BackgroundSink`. A sink that
    drops events says so in a mapping `dropped` of counts by reason, which statistics then show.
    """

    def handle(self, events: Sequence[LaneEvent]) -> None:
        """Takes a batch in order of `seq`; the batch is not changed afterwards and may be kept."""

    def close(self) -> None:
        """Lets go of everything; called once, after the last batch."""


@runtime_checkable
class ThreadedSink(Sink, Protocol):
    """A sink that works in a thread: its `close` waits for it, and its failures show later.

    Attributes:
        failures_in_a_row: batches failed since the last that did not.
    """

    failures_in_a_row: int

    def take_failure(self) -> Exception | None:
        """What a batch failed with, if one did since this was last asked."""


class SinkStats(msgspec.Struct, frozen=True):
    """What became of the events handed to one sink.

    Attributes:
        name: class name of the sink.
        events: events it took.
        errors: batches at which it raised.
        dropped: events lost, by reason: `error` (its batch raised), `disabled` (it was cut off), and its own.
        disabled: whether it was cut off.
    """

    name: str
    events: int
    errors: int
    dropped: Mapping[str, int]
    disabled: bool


class _Outlet:
    """One sink and its record of success."""

    __slots__ = ("disabled", "dropped", "errors", "events", "failures_in_a_row", "name", "sink")

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.name = type(sink).__name__
        self.events = 0
        self.errors = 0
        self.failures_in_a_row = 0
        self.disabled = False
        self.dropped: dict[str, int] = {}

    def drop(self, reason: str, count: int) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def close(self) -> None:
        try:
            self.sink.close()
        except Exception as error:  # a sink must not keep the queue from closing
            self.errors += 1
            _logger.warning("sink %s failed to close", self.name, exc_info=error)

    def stats(self) -> SinkStats:
        own: Mapping[str, int] = getattr(self.sink, "dropped", {})
        dropped = {**self.dropped, **own}
        return SinkStats(self.name, self.events, self.errors, dropped, self.disabled)


class Bus:
    """Takes events from one queue and hands them to its sinks.

    Args:
        clock: gives each event its times.
        sinks: whatever takes events.

    Raises:
        ConfigError: something in `sinks` has no `handle` and `close`.
    """

    def __init__(self, clock: Clock, sinks: Iterable[Sink] = ()) -> None:
        self._clock = clock
        self._outlets = [_Outlet(_checked(sink)) for sink in sinks]
        self._pending: list[LaneEvent] = []
        self.next_seq: Callable[[], int] = itertools.count(1).__next__
        """Gives the number of the next event."""
        self.wall = clock.wall
        """Gives the wall time of the next event."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = contextvars.Context()
        self._scheduled = False
        self._flushing = False
        self.active = bool(self._outlets)
        """Whether anyone listens; without, the queue builds no events."""

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Names the loop whose turns make the batches; what was emitted before goes out on its next turn."""
        self._loop = loop
        if self._pending:
            self._schedule(loop)

    def emit(self, kind: Callable[..., LaneEvent], *fields: object, at: float | None = None) -> None:
        """Makes one event and appends it; never blocks and never raises.

        Args:
            kind: the event's type.
            fields: its fields after the header, in order.
            at: when it happened on the clock, if not now.
        """
        if self.active:
            self.append(kind(self.next_seq(), self._clock.now() if at is None else at, self.wall(), *fields))

    def append(self, event: LaneEvent) -> None:
        """Appends an event made by the caller, who has seen that the bus is `active`."""
        pending = self._pending
        pending.append(event)
        if not self._scheduled:
            if self._loop is not None:
                self._schedule(self._loop)
        elif len(pending) >= _MAX_BATCH:
            self.flush()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = True
        # In a context of its own: what the emitting code has bound must not reach the sinks.
        loop.call_soon(self._flush_scheduled, context=self._context)

    def _flush_scheduled(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Hands over what is pending. A sink that emits while it handles a batch is served in the next one."""
        if self._flushing or not self._pending:
            return
        self._flushing = True
        batch, self._pending = self._pending, []
        try:
            for outlet in self._outlets:
                self._hand_over(outlet, batch)
        finally:
            self._flushing = False

    def _hand_over(self, outlet: _Outlet, batch: Sequence[LaneEvent]) -> None:
        if outlet.disabled:
            outlet.drop("disabled", len(batch))
            return
        try:
            outlet.sink.handle(batch)
        except (Exception, asyncio.CancelledError) as error:  # whatever a sink raises is its own affair
            outlet.drop("error", len(batch))
            outlet.failures_in_a_row += 1
            self._note_failure(outlet, error, outlet.failures_in_a_row)
        else:
            outlet.events += len(batch)
            outlet.failures_in_a_row = 0
            self._ask_for_failure(outlet)

    def _ask_for_failure(self, outlet: _Outlet) -> None:
        """Notes what a sink that works in a thread has failed at meanwhile."""
        sink = outlet.sink
        if isinstance(sink, ThreadedSink) and (error := sink.take_failure()) is not None:
            self._note_failure(outlet, error, sink.failures_in_a_row)

    def _note_failure(self, outlet: _Outlet, error: BaseException, in_a_row: int) -> None:
        outlet.errors += 1
        if outlet.errors == 1:
            _logger.warning("sink %s failed; further failures are only counted", outlet.name, exc_info=error)
            self.emit(SinkFailed, outlet.name, type(error).__name__, error_text(error))
        if in_a_row >= MAX_FAILURES:
            outlet.disabled = True
            _logger.error("sink %s failed %d times in a row and is cut off", outlet.name, in_a_row)
            self.emit(SinkDisabled, outlet.name, outlet.errors)

    def stats(self) -> tuple[SinkStats, ...]:
        """What became of the events, by sink in the order given."""
        return tuple(outlet.stats() for outlet in self._outlets)

    async def close(self) -> None:
        """Hands over what is pending and closes every sink, one that works in a thread without blocking the loop."""
        self.flush()
        self.flush()  # what the first flush itself had to report
        self.active = False
        for outlet in self._outlets:
            if isinstance(outlet.sink, ThreadedSink):
                await _in_thread(outlet.close)
                self._ask_for_failure(outlet)
            else:
                outlet.close()


async def _in_thread(call: Callable[[], None]) -> None:
    """Runs `call` in a daemon thread that is gone when this returns."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        try:
            call()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_end, ended)

    thread = threading.Thread(target=run, name="lane-obs-close", daemon=True)
    thread.start()
    await ended
    thread.join()


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _checked(sink: object) -> Sink:
    if isinstance(sink, type) or not isinstance(sink, Sink):
        raise ConfigError("sinks", sink, "give objects with handle(events) and close()")
    return sink
