"""Notices from a thread when the event loop does not turn, and says what holds it up.

Reads the loop thread's frames; it steers nothing, so a fault here costs a report and never a command.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import queue
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lane_obs.clock import SystemClock
from lane_obs.config import to_seconds
from lane_obs.core.fact import traced
from lane_obs.core.histogram import QUICK_BOUNDS, Histogram
from lane_obs.errors import ConfigError
from lane_obs.events import LoopBlocked

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from types import CodeType, FrameType

    from lane_obs.bus import Bus
    from lane_obs.config import Duration
    from lane_obs.events import LaneEvent, TraceIds

_logger = logging.getLogger("lane_obs.watchdog")

# Where a command starts in a stack, and what it is called there. Sinks know nothing of the runtime, so the frame is
# known by its names and not by its code object; tests/unit/sinks/test_watchdog.py fails when they change.
_ATTEMPT: Final = ("lane_obs.runtime.attempt", "Attempts._attempt")
_HANDLE: Final = "handle"
_CURRENT: Final = "lane_obs_current"

_ENDLESS: Final = 10  # thresholds
_OUTER_FRAMES: Final = 8
_INNER_FRAMES: Final = 32
_MAX_TEXT: Final = 200
_CLOSE_TIMEOUT: Final = 5.0
_SHORTEST_WAIT: Final = 0.001


class LoopWatchdog:
    """A sink that takes no events and emits one: `LoopBlocked`, once for each time the event loop was blocked.

    A thread sends the loop a heartbeat every `interval` and measures how late it runs, in real time. When it is
    later than `threshold` the thread looks at what the loop's thread does; once the loop is free the event follows.
    A block ten times as long is also logged (`lane_obs.watchdog`) while it lasts, as it may never end. Every block
    longer than `threshold + interval` is seen, those in between by chance.

    Args:
        interval: seconds between heartbeats. Each wakes an idle loop for some microseconds.
        threshold: seconds from which a late heartbeat counts as a block.

    Attributes:
        loop_lag: how late each heartbeat ran, in seconds. Its bounds reach from the 0.1 ms that waking an idle loop
            takes, over the 10 to 250 ms that users begin to notice, to 10 s, at which a loop is as good as dead.

    Raises:
        ConfigError: a bad duration.
    """

    wants: Collection[type[LaneEvent]] = ()

    def __init__(self, interval: Duration = 0.1, threshold: Duration = 0.25) -> None:
        self._interval = to_seconds("interval", interval)
        self._threshold = to_seconds("threshold", threshold)
        self.loop_lag = Histogram(QUICK_BOUNDS)
        self.failures_in_a_row = 0
        self._bus: Bus | None = None
        self._watch: _Watch | None = None

    def attach(self, queue: Any) -> None:
        """Learns where to emit.

        Raises:
            ConfigError: it belongs to another queue already.
        """
        if self._bus is not None:
            raise ConfigError("sinks", self, "give each queue a LoopWatchdog of its own")
        self._bus = queue.bus

    def start(self) -> None:
        """Begins to watch the running event loop."""
        if self._watch is None:
            self._watch = _Watch(self._interval, self._threshold, self.loop_lag, self._bus)
            self._watch.thread.start()

    def handle(self, events: Sequence[LaneEvent]) -> None:
        """Takes nothing."""

    def take_failure(self) -> Exception | None:
        """Never has one to show: what fails here is logged."""
        return None

    def close(self) -> None:
        """Ends the thread."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.end()


class _Sight(NamedTuple):
    """What the loop's thread was seen to do. Texts only: frames and handles must not outlive the look."""

    at: float
    stack: tuple[str, ...] = ()
    command_id: str | None = None
    lane: str | None = None
    command_type: str | None = None
    trace: TraceIds | None = None


_UNSEEN: Final = _Sight(0.0)
"""Of a block that was over before anyone could look, as when C code held the interpreter's lock all the time."""


class _Beat:
    """One heartbeat that is under way."""

    __slots__ = ("logged", "sent", "sight", "void")

    def __init__(self, sent: float) -> None:
        self.sent = sent
        self.sight: _Sight | None = None
        self.logged = False
        self.void = False
        """The loop was seen not to run at all, between two of its runs: that is no block."""


class _Watch:
    """The thread that watches the loop it was made on."""

    def __init__(self, interval: float, threshold: float, lag: Histogram, bus: Bus | None) -> None:
        self._interval = interval
        self._threshold = threshold
        self._lag = lag
        self._bus = bus
        self._now = SystemClock().now
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        # Empty, and not a copy of what happens to be bound where the queue is started.
        self._context = contextvars.Context()
        self._below: CodeType | None = None
        # A beat's answer is the time at which it ran; None tells the thread to end. Its `put` never blocks.
        self._inbox: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="lane-obs-watchdog", daemon=True)

    def end(self) -> None:
        self._inbox.put(None)
        self.thread.join(_CLOSE_TIMEOUT)

    def _answer(self) -> None:
        """The heartbeat; it and `_emit` run on the loop, all the rest in the thread."""
        below = sys._getframe().f_back  # noqa: SLF001 - the frame of the loop itself, under any callback's
        self._below = below and below.f_code
        self._inbox.put(self._now())

    def _emit(self, seconds: float, sight: _Sight) -> None:
        bus = self._bus
        if bus is not None and bus.active:
            bus.emit(traced, None, LoopBlocked, sight.trace, seconds, *sight[2:5], sight.stack)
        else:  # nobody listens, or no longer
            _logger.warning("%s", _describe("was blocked for", seconds, sight))

    def _call(self, callback: Callable[..., object], *args: object) -> bool:
        """Has the loop call something; False when it is closed."""
        try:
            self._loop.call_soon_threadsafe(callback, *args, context=self._context)
        except RuntimeError:
            return False
        return True

    def _run(self) -> None:
        try:
            while self._beat() and self._rest():
                pass
        except Exception:  # a bug of ours; a thread that ends unnoticed would look like a loop that is never late
            _logger.exception("the loop watchdog failed and watches no more")

    def _rest(self) -> bool:
        try:
            self._inbox.get(timeout=self._interval)
        except queue.Empty:
            return True
        return False  # only the order to end comes when no beat is under way

    def _beat(self) -> bool:
        """Sends one heartbeat and waits until it has run; False when it never will, or the watch is over."""
        beat = _Beat(self._now())
        if not self._call(self._answer):
            return False
        while True:
            try:
                at = self._inbox.get(timeout=self._patience(beat))
            except queue.Empty:
                self._look(beat)
                if not self._loop.is_closed():
                    continue
                at = None
            if at is None:
                self._give_up(beat)
                return False
            self._settle(beat, at)
            return True

    def _patience(self, beat: _Beat) -> float:
        left = beat.sent + self._threshold - self._now()
        return max(min(left, self._interval), _SHORTEST_WAIT) if beat.sight is None else self._interval

    def _look(self, beat: _Beat) -> None:
        late = self._now() - beat.sent
        if not self._loop.is_running():
            beat.void = True
        if beat.void or late < self._threshold:
            return
        if beat.sight is None:
            beat.sight = self._see()
        if late >= _ENDLESS * self._threshold and not beat.logged:
            beat.logged = True
            _logger.error("%s", _describe("has been blocked for", late, beat.sight))

    def _see(self) -> _Sight:
        try:
            stack, handle = _look_into(sys._current_frames().get(self._loop_thread), self._below)  # noqa: SLF001
            if handle is None:
                handle = _current_of(self._loop)
            named = () if handle is None else (handle.id, handle.lane, handle.command_type, handle.trace)
            return _Sight(self._now(), stack, *named)
        except Exception:  # what runs may change under the eyes of whoever looks
            _logger.warning("the blocked event loop could not be looked at", exc_info=True)
            return _Sight(self._now())

    def _settle(self, beat: _Beat, at: float) -> None:
        if beat.void:
            return
        late = at - beat.sent
        self._lag.observe(late)
        if late >= self._threshold:
            # What was seen after the beat had run was something else.
            sight = beat.sight if beat.sight is not None and beat.sight.at <= at else _UNSEEN
            if not self._call(self._emit, late, sight):
                _logger.warning("%s", _describe("was blocked for", late, sight))

    def _give_up(self, beat: _Beat) -> None:
        if beat.sight is not None and not beat.logged:
            late = self._now() - beat.sent
            _logger.warning("%s", _describe("was last seen blocked, after", late, beat.sight))


def _look_into(frame: FrameType | None, below: CodeType | None) -> tuple[tuple[str, ...], Any]:
    """The frames above the running command's first or the loop's own, outermost first; and the command's handle."""
    handle, places = None, []
    while frame is not None and frame.f_code is not below:
        code = frame.f_code
        if (frame.f_globals.get("__name__"), code.co_qualname) == _ATTEMPT:
            handle = _take_handle(frame)
            break
        places.append((code, frame.f_lineno or 0))
        frame = frame.f_back
    lines = [_line(*place) for place in places[:_INNER_FRAMES]]
    if (left_out := len(places) - _INNER_FRAMES - _OUTER_FRAMES) > 0:
        lines.append(f"... {left_out} frames left out")
    lines += [_line(*place) for place in places[_INNER_FRAMES:][-_OUTER_FRAMES:]]
    return tuple(reversed(lines)), handle


def _take_handle(frame: FrameType) -> Any:
    names = frame.f_locals
    handle = names.get(_HANDLE)
    if type(names) is dict:
        # Up to Python 3.12 it is a copy that the frame keeps: a traceback would then hold the handle that holds it.
        names.clear()
    return handle


def _current_of(loop: asyncio.AbstractEventLoop) -> Any:
    """The command in whose context the running task is, as those are that a command has started."""
    # Python 3.11 has no Task.get_context(), but the collector knows what a task holds.
    for context in gc.get_referents(asyncio.current_task(loop)):
        if type(context) is contextvars.Context:
            return next((value for variable, value in context.items() if variable.name == _CURRENT), None)
    return None


def _line(code: CodeType, number: int) -> str:
    # What names a file need not be valid text; the event must be.
    file = code.co_filename.encode("utf-8", "backslashreplace").decode()
    return f"{file[-_MAX_TEXT:]}:{number} in {code.co_qualname[:_MAX_TEXT]}"


def _describe(what: str, seconds: float, sight: _Sight) -> str:
    command = f"command {sight.command_id!r} of lane {sight.lane!r} ({sight.command_type})"
    who = "no command known" if sight.command_id is None else command
    return f"the event loop {what} {seconds:.3f} s: {who}" + "".join(f"\n  {line}" for line in sight.stack)
