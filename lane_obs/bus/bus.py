"""The event bus: telling it something appends one fact; sinks get batches, once each turn of the event loop.

A fact is a tuple (see `core.fact`); the typed event is built of it only for sinks that want that kind. A sink that
raises harms nobody: its failures are counted, the first is logged and reported as an event, and one that fails
`MAX_FAILURES` times in a row is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from lane_obs.bus.outlet import MAX_FAILURES, Outlet, SinkStats, Timing
from lane_obs.core.histogram import Histogram
from lane_obs.errors import ConfigError, error_text
from lane_obs.events import LaneEvent, SinkDisabled, SinkFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from lane_obs.bus.sink import AnySink, ThreadedSink
    from lane_obs.clock import Clock
    from lane_obs.core.fact import Fact

_MAX_BATCH = 8_192
# Two clocks that are read one after the other differ by the time between; a smaller step is taken for that.
_STEP = 0.01
_logger = logging.getLogger("lane_obs.bus")

Hooks: TypeAlias = "tuple[tuple[Outlet, Callable[[Any], None]], ...]"
"""What sinks want called at one point of a command's life."""


class Bus:
    """Takes facts from one queue and hands them, or events made of them, to its sinks.

    Args:
        clock: gives each event its times.
        sinks: whatever takes events.

    Raises:
        ConfigError: `sinks` is no list, or something in it has no `handle` and `close`.
    """

    worker: str | None = None
    """The id of this process at its broker, `None` without one: sinks show it with whatever they write."""

    def __init__(self, clock: Clock, sinks: Iterable[AnySink] = ()) -> None:
        self._now = clock.now
        if not isinstance(sinks, Iterable):
            raise ConfigError("sinks", sinks, "give a list of sinks")
        self._outlets = [Outlet(sink) for sink in sinks]
        self._takers = [outlet for outlet in self._outlets if not outlet.is_idle]
        self._pending: list[Fact] = []
        self._seq = 1
        self._wall = clock.wall
        self.wall_offset = clock.wall() - clock.now()
        """What makes Unix seconds of the clock's seconds. It follows a wall clock that is set anew."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = contextvars.Context()
        self._scheduled = False
        self._flushing = False
        self.active = bool(self._takers)
        """Whether anyone listens; without, the queue tells nothing."""
        self.closed = False
        """Whether `close` was called."""
        self.histograms: dict[str, Histogram] = {}
        """What others measure and exporters show, by name."""
        self.closers: set[Callable[[], Awaitable[object] | None]] = set()
        """Called once, when `close` begins, and awaited: what works on the queue's behalf ends then."""
        self.at_submit, self.at_reject = self._hooks("at_submit"), self._hooks("at_reject")
        self.at_recover, self.at_claim = self._hooks("at_recover"), self._hooks("at_claim")
        self.at_start, self.in_attempt = self._hooks("at_start"), self._hooks("in_attempt")
        told = (getattr(outlet.sink, "traceparent", None) for outlet in self._outlets)
        self._traceparent: Callable[[], str | None] = next((call for call in told if call is not None), _no_trace)

    def _hooks(self, name: str) -> Hooks:
        found = ((outlet, getattr(outlet.sink, name, None)) for outlet in self._outlets)
        return tuple((outlet, call) for outlet, call in found if call is not None)

    def add(self, sink: AnySink) -> None:
        """Adds a sink that gets what happens from now on; `handle` and `close` are all that is called of it.

        Raises:
            ConfigError: it is no sink.
        """
        outlet = Outlet(sink)
        self._outlets = [*self._outlets, outlet]
        if not outlet.is_idle:
            self._takers = [*self._takers, outlet]
            self.active = not self.closed

    def histogram(self, name: str) -> Histogram | None:
        """What somebody measures under this name: in `histograms`, or as an attribute of a sink; the first found."""
        found = (self.histograms.get(name), *(getattr(outlet.sink, name, None) for outlet in self._outlets))
        return next((one for one in found if isinstance(one, Histogram)), None)

    def traceparent(self) -> str | None:
        """The W3C traceparent of the span that is current here, where a sink knows of such; `None` for none."""
        return self._traceparent()

    # --- life ---------------------------------------------------------------------------------------------------

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Names the loop whose turns make the batches; what was emitted before goes out on its next turn."""
        self._loop = loop
        if self._pending:
            self._schedule(loop)

    def attach(self, queue: object) -> None:
        """Shows the queue to the sinks that look at it; called once, when it is complete.

        When one refuses, those that were shown it before are closed.
        """
        self._call_each("attach", queue)

    def start(self) -> None:
        """Starts the sinks that have something to start. When one fails, those started before are closed."""
        self._call_each("start")

    def _call_each(self, name: str, *args: object) -> None:
        done: list[Outlet] = []
        for outlet in self._outlets:
            call = getattr(outlet.sink, name, None)
            if call is None:
                continue
            try:
                call(*args)
            except BaseException:
                for earlier in done:
                    earlier.close()
                raise
            done.append(outlet)

    # --- in -----------------------------------------------------------------------------------------------------

    def emit(self, kind: Callable[..., LaneEvent], *fields: object, at: float | None = None) -> None:
        """Tells of something; never blocks and never raises.

        Args:
            kind: the event's type.
            fields: its fields after the header, in order.
            at: when it happened on the clock, if not now.
        """
        if self.active:
            self.append((kind, self._now() if at is None else at, *fields))

    def append(self, fact: Fact) -> None:
        """Appends a fact made by the caller, who has seen that the bus is `active`."""
        pending = self._pending
        pending.append(fact)
        if not self._scheduled:
            if self._loop is not None:
                self._schedule(self._loop)
        elif len(pending) >= _MAX_BATCH:
            self.flush()

    def call(self, hooks: Hooks, command: object) -> None:
        """Calls what sinks have asked for at this point; what they raise is theirs, as ever."""
        for outlet, hook in hooks:
            if not outlet.disabled:
                try:
                    hook(command)
                except Exception as error:  # the command runs all the same
                    outlet.failures_in_a_row += 1
                    self._note_failure(outlet, error, outlet.failures_in_a_row)

    # --- out ----------------------------------------------------------------------------------------------------

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
        seq, self._seq = self._seq, self._seq + len(batch)
        built: dict[int, LaneEvent] = {}
        offset = self._wall() - self._now()
        if abs(offset - self.wall_offset) > _STEP:
            self.wall_offset = offset
        try:
            for outlet in self._takers:
                self._hand_over(outlet, batch, seq, built)
        finally:
            self._flushing = False

    def _hand_over(self, outlet: Outlet, batch: Sequence[Fact], seq: int, built: dict[int, LaneEvent]) -> None:
        if outlet.disabled:
            outlet.drop("disabled", len(batch))
            return
        began, oldest = self._now(), batch[0][1] if batch else 0.0  # a sink before may have changed it
        try:
            outlet.events += outlet.take(batch, seq, built, self.wall_offset)
        except (Exception, asyncio.CancelledError) as error:  # whatever a sink raises is its own affair
            outlet.drop("error", len(batch))
            outlet.failures_in_a_row += 1
            self._note_failure(outlet, error, outlet.failures_in_a_row)
        else:
            outlet.failures_in_a_row = 0
        outlet.batches += 1
        if outlet.threaded is not None:
            self._ask_for_failure(outlet, outlet.threaded)
        else:
            outlet.timing.note(oldest, began, self._now())

    def _ask_for_failure(self, outlet: Outlet, sink: ThreadedSink) -> None:
        """Notes what a sink that works in a thread has failed at meanwhile."""
        if (error := sink.take_failure()) is not None:
            self._note_failure(outlet, error, sink.failures_in_a_row)

    def _note_failure(self, outlet: Outlet, error: BaseException, in_a_row: int) -> None:
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

    @property
    def sinks(self) -> tuple[AnySink, ...]:
        """The sinks, in the order given."""
        return tuple(outlet.sink for outlet in self._outlets)

    def timings(self) -> list[tuple[str, Timing]]:
        """How long each sink takes, by name, in the order given."""
        return [(outlet.name, outlet.timing) for outlet in self._outlets]

    async def close(self) -> None:
        """Hands over what is pending and closes every sink, one that works in a thread without blocking the loop."""
        self.closed = True
        while self.closers:
            if (ending := self.closers.pop()()) is not None:
                await ending
        self.flush()
        self.flush()  # what the first flush itself had to report
        self.active = False
        for outlet in self._outlets:
            if outlet.threaded is not None:
                await _in_thread(outlet.close)
                self._ask_for_failure(outlet, outlet.threaded)
            else:
                outlet.close()


def _no_trace() -> None:
    """Stands in for a sink that traces."""


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
