"""The loop: starts what the core chooses, ends what has ended, and tells the bus.

It is woken by a submit, an end, a due time or a change of a lane, at most once each turn of the event loop, and one
wake fills every free slot. Nothing polls: an idle dispatcher has no callback and no timer scheduled.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from typing import TYPE_CHECKING, Any, Final

from lane_obs import events
from lane_obs.config import OnExpiry
from lane_obs.core import timer
from lane_obs.core.fact import completed, submitted, told
from lane_obs.core.gate import INSTANT
from lane_obs.core.state import State
from lane_obs.errors import WrongLoop, error_text
from lane_obs.runtime.attempt import Attempts
from lane_obs.runtime.directory import Directory
from lane_obs.runtime.idle import Idle
from lane_obs.runtime.notices import Notices
from lane_obs.runtime.options import NO_OPTIONS
from lane_obs.runtime.stop import Stops
from lane_obs.runtime.work import discard

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from lane_obs.bus import Bus
    from lane_obs.clock import Clock, Timer
    from lane_obs.core.engine import Engine
    from lane_obs.core.lane import Lane
    from lane_obs.events import WaitByCause
    from lane_obs.runtime.handle import CommandHandle

# With eager tasks a command may end within its start and free its slot at once, so a wake has a bound of its own:
# other callbacks of the loop get their turn after this many starts.
_STARTS_PER_WAKE = 256


class Dispatcher:
    """Runs the commands of one engine on one event loop.

    Args:
        engine: decides.
        clock: all its time.
        bus: takes its events.
        rng: jitter and the prefix of ids.
        stuck_after: seconds after which a command that ignores its cancellation is reported.
        on_unsuccessful: called with each command that ended as failed, timed out or expired.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        bus: Bus,
        rng: random.Random,
        *,
        stuck_after: float,
        on_unsuccessful: Callable[[CommandHandle[Any], BaseException, Any], None],
    ) -> None:
        self.engine = engine
        self.clock = clock
        self._now = clock.now
        self.bus = bus
        self.loop: asyncio.AbstractEventLoop | None = None
        self.directory = Directory(f"{rng.getrandbits(48):012x}")
        self._by_seq = self.directory.by_seq  # reached directly where a command has no options: one call fewer
        self.on_wake: Callable[[], None] = lambda: None
        """Called after each look for work."""
        self.on_back_off: Callable[[Lane], None] = lambda _lane: None
        """Called with the lane of each command that begins to back off."""
        self._on_unsuccessful = on_unsuccessful
        self.timers = engine.timers
        self._notices = Notices(self)
        self._armed: Timer | None = None
        self._armed_at = math.inf
        self._context = contextvars.Context()
        self.woken = False
        """Whether a look for work is due in this turn of the loop, or under way."""
        self.is_open = False
        """Whether commands are started."""
        self._closed = False
        self.idle = Idle(engine)
        self.journal: Any = None  # the `Journal` of durable commands, where there is a storage
        self.attempts = Attempts(self, rng)
        self.stops = Stops(self, stuck_after)

    # --- life ---------------------------------------------------------------------------------------------------

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ties the dispatcher to its event loop."""
        self.loop = loop
        self.bus.bind(loop)
        self.attempts.bind(loop)

    def open(self) -> None:
        """Starts to start commands."""
        self.is_open = True
        self.wake()

    def close(self) -> None:
        """Starts nothing any more and gives up its timer."""
        self.is_open = False
        self._closed = True
        self._disarm()

    def wake(self) -> None:
        """Has the dispatcher look for work in the next turn of the loop."""
        if not self.woken and self.loop is not None:
            self.woken = True
            # In a context of its own: a submitter's variables must not reach what runs later (cpython#140947).
            self.loop.call_soon(self._run, context=self._context)

    def run_now(self) -> None:
        """Fills the free slots at once; no command takes its first step before the next turn of the loop."""
        if self.is_open:
            with self.attempts.patient():
                self._run()

    def _run(self) -> None:
        self.woken = False
        try:
            if not self._closed:
                self._dispatch()
        finally:  # whatever happens, the queue goes on to wake
            self.on_wake()
            self.arm()

    def _dispatch(self) -> None:
        now = self._now()
        for kind, handle in self.timers.pop_due(now + INSTANT):
            if kind in timer.OF_ENGINE:
                self.engine.order.on_timer(kind, handle, now)
            else:
                self.stops.on_timer(kind, handle, now)
        if not self.is_open:
            return
        self.woken = True  # what ends within its eager first step frees its slot for this very round
        start_next, start, left = self.engine.start_next, self.attempts.start, _STARTS_PER_WAKE
        eager = self.attempts.is_eager
        try:
            while left and (record := start_next(now)) is not None:
                start(record, now)  # type: ignore[arg-type]  # every record it has is a handle
                left -= 1
                if eager:  # its first step took time, and may have submitted
                    now = self._now()
        finally:
            self.woken = False
            self.attempts.check_begun()
        if not left:
            self.wake()

    def arm(self) -> None:
        """Has the clock call at the next due time, if that is earlier than it would anyway; or not at all."""
        when = self.timers.next_at()
        if when >= self._armed_at and when != math.inf:
            return
        self._disarm()
        if when == math.inf or self._closed:
            return
        self._armed_at = when
        # A new context, as in `wake`; not the kept one, which may be the one that runs now.
        self._armed = contextvars.Context().run(self.clock.call_at, when, self._on_clock)

    def _disarm(self) -> None:
        if self._armed is not None:
            self._armed.cancel()
        self._armed = None
        self._armed_at = math.inf

    def _on_clock(self) -> None:
        self._armed, self._armed_at = None, math.inf
        # Not at once: a submit or an end due at the same instant is taken in before anything starts.
        assert self.loop is not None
        self.loop.call_soon(self.wake, context=self._context)

    # --- in -----------------------------------------------------------------------------------------------------

    def admit(self, handle: CommandHandle[Any], now: float, *, requeued: bool = False, recovered: bool = False) -> None:
        """Takes in a command whose handle is complete; one that is recovered was submitted in an earlier process."""
        options = handle._options
        if options is NO_OPTIONS:
            self._by_seq[handle.seq] = handle
            self.engine.submit(handle, now, returning=requeued)
        else:
            self.directory.add(handle)
            self.engine.submit(handle, now, delayed=options.delay > 0, returning=requeued)
            if options.delay > 0 or options.deadline is not None:
                self._set_timers(handle, now)
        if recovered:
            return
        bus = self.bus
        if bus.at_submit:
            bus.call(bus.at_submit, handle)
        if bus.active:
            bus.append((submitted, now, handle, options.delay, options.deadline, requeued, handle.trace))
        if not self.woken:
            self.wake()

    def _set_timers(self, handle: CommandHandle[Any], now: float) -> None:
        delay, deadline = handle._options.delay, handle._options.deadline
        if delay > 0:
            handle.timer = self.timers.set(now + delay, timer.DUE, handle)
        if deadline is not None and handle.home.config.on_expiry is OnExpiry.EXPIRE:
            handle.deadline_timer = self.timers.set(handle.submitted_at + deadline, timer.DEADLINE, handle)
        if self.loop is not None:
            self.arm()

    # --- out ----------------------------------------------------------------------------------------------------

    def succeed(self, handle: CommandHandle[Any], value: Any, now: float) -> None:
        """Ends a running command with its value."""
        self.engine.succeed(handle, now)
        if handle._durable:
            handle._value = value
            self._write_end(handle, None, None, ran=True)
        self._let_go(handle, value)
        if self.bus.active:
            self.bus.append((completed, now, handle))

    def _let_go(self, handle: CommandHandle[Any], value: Any) -> None:
        """Keeps the value of a command that has ended, tells those who wait for it, and forgets the rest."""
        handle._value = value
        handle._call = handle._context = None
        handle._args = ()
        if handle._options is NO_OPTIONS:
            del self._by_seq[handle.seq]
        else:
            self.directory.remove(handle)
            if handle.deadline_timer is not None:
                self.timers.cancel(handle.deadline_timer)
                handle.deadline_timer = None
        if handle._waiters is not None and not handle._ending:
            handle.tell_waiters()
        if self.idle.waiting:
            self.idle.check(handle.home)

    def _write_end(self, handle: CommandHandle[Any], error: BaseException | None, rerun: Any, *, ran: bool) -> None:
        """Has the end of a durable command committed; those who wait for its result are told then."""
        handle._ending = self.journal.ended(handle, error, rerun, ran=ran)
        self.idle.unsettled += handle._ending

    def settle_ends(self, handles: Sequence[CommandHandle[Any]]) -> None:
        """The ends of these durable commands are committed, or have failed to be: those who wait are told."""
        for handle in handles:
            handle._ending = False
            if handle._waiters is not None:
                handle.tell_waiters()
        self.idle.settled(len(handles))

    def fail(self, handle: CommandHandle[Any], state: State, error: BaseException, now: float) -> None:
        """Ends a command with an error: tells the bus, and the dead letters unless it was cancelled."""
        rerun, ran = (handle._call, handle._args), handle.state is State.RUNNING
        self.engine.finish(handle, state, now)
        if handle._durable:
            self._write_end(handle, error, rerun, ran=ran)
        self._let_go(handle, (error, error.__traceback__))
        if self.bus.active:
            named = (type(error).__name__, error_text(error), error)
            self.emit(_ENDINGS[state], handle, now, *_times(handle, ran=ran), *named)
        discard(handle._work)
        if state is not State.CANCELLED:
            self._on_unsuccessful(handle, error, rerun)

    # --- questions ----------------------------------------------------------------------------------------------

    def check_loop(self) -> None:
        """Checks that the call comes from the dispatcher's own loop.

        Raises:
            WrongLoop: it comes from another loop or thread.
        """
        if asyncio._get_running_loop() is not self.loop:
            raise WrongLoop("the queue belongs to another event loop or thread; use submit_threadsafe from threads")

    # --- telling ------------------------------------------------------------------------------------------------

    def emit(self, kind: Callable[..., Any], handle: CommandHandle[Any], now: float, *fields: object) -> None:
        """Appends an event about a command; does nothing when nobody listens."""
        if self.bus.active:
            self.bus.append((told, now, handle, kind, handle.attempt, handle.trace, *fields))


_ENDINGS: Final = {
    State.FAILED: events.CommandFailed,
    State.TIMED_OUT: events.CommandTimedOut,
    State.CANCELLED: events.CommandCancelled,
    State.EXPIRED: events.CommandExpired,
}


def _times(handle: CommandHandle[Any], *, ran: bool) -> tuple[float, float, float, WaitByCause, float | None]:
    wait, ended = handle.wait, handle.finished_at
    return wait.total, handle.ran, ended - handle.submitted_at, wait, ended - handle.started_at if ran else None
