"""The loop: starts what the core chooses, ends what has ended, and tells the bus.

It is woken by a submit, an end, a due time or a change of a lane, at most once each turn of the event loop, and one
wake fills every free slot. Nothing polls: an idle dispatcher has no callback and no timer scheduled.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import math
import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lane_obs import events
from lane_obs.core import timer
from lane_obs.core.retry import delay_before_retry, may_retry
from lane_obs.core.state import FINAL, State
from lane_obs.core.timer import Timers
from lane_obs.errors import WrongLoop
from lane_obs.runtime.handle import current_handle
from lane_obs.runtime.options import NO_OPTIONS
from lane_obs.runtime.outcome import cancel_error, error_text, expiry_error, timeout_error
from lane_obs.runtime.work import discard, runs_once

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from lane_obs.bus import Bus
    from lane_obs.clock import Clock, Timer
    from lane_obs.config import RetryPolicy
    from lane_obs.core.engine import Engine
    from lane_obs.events import WaitByCause
    from lane_obs.runtime.handle import CommandHandle

TIMED_OUT: Final = "timeout"
CANCELLED: Final = "cancel"
EXPIRED: Final = "deadline"

# With eager tasks a command may end within its start and free its slot at once, so a wake has a bound of its own:
# other callbacks of the loop get their turn after this many starts.
_STARTS_PER_WAKE = 256
_EAGER = sys.version_info >= (3, 12)

_RUNNING, _SUCCEEDED = State.RUNNING, State.SUCCEEDED
_UNSET = msgspec.UNSET


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
        self.id_prefix = f"{rng.getrandbits(48):012x}"
        self.by_seq: dict[int, CommandHandle[Any]] = {}
        self.by_id: dict[str, CommandHandle[Any]] = {}
        self.by_key: dict[str, CommandHandle[Any]] = {}
        self.stuck: set[int] = set()
        self.on_wake: list[Callable[[], None]] = []
        self._rng = rng
        self._stuck_after = stuck_after
        self._on_unsuccessful = on_unsuccessful
        self._timers = Timers()
        self._armed: Timer | None = None
        self._armed_at = math.inf
        self._context = contextvars.Context()
        self._woken = False
        self._open = False
        self._idle: list[asyncio.Future[None]] = []
        self._eager = False
        self._spawn: Callable[..., asyncio.Task[None]] = asyncio.Task

    # --- life ---------------------------------------------------------------------------------------------------

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ties the dispatcher to its event loop."""
        self.loop = loop
        self.bus.bind(loop)
        if loop.get_task_factory() is not None:
            self._spawn = loop.create_task  # the user's own kind of task
        else:
            eager: dict[str, Any] = {"eager_start": True} if _EAGER else {}
            self._spawn = functools.partial(asyncio.Task, loop=loop, **eager)
            self._eager = _EAGER

    @property
    def is_open(self) -> bool:
        """Whether commands are started."""
        return self._open

    def open(self) -> None:
        """Starts to start commands."""
        self._open = True
        self.wake()

    def close(self) -> None:
        """Starts nothing any more and gives up its timer."""
        self._open = False
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None

    def wake(self) -> None:
        """Has the dispatcher look for work in the next turn of the loop."""
        if not self._woken and self.loop is not None:
            self._woken = True
            # In a context of its own: a submitter's variables must not reach what runs later (cpython#140947).
            self.loop.call_soon(self._run, context=self._context)

    def run_now(self) -> None:
        """Fills the free slots at once, without waiting for the next turn of the loop."""
        if self._open:
            self._run()

    def _run(self) -> None:
        self._woken = False
        if not self._open:
            return
        now = self._now()
        for kind, handle in self._timers.pop_due(now):
            self._on_timer(kind, handle, now)
        start_next, left = self.engine.start_next, _STARTS_PER_WAKE
        while left and (record := start_next(now)) is not None:
            self._start(record, now)  # type: ignore[arg-type]  # every record it has is a handle
            left -= 1
        if not left:
            self.wake()
        for callback in self.on_wake:
            callback()
        self._arm()

    def _arm(self) -> None:
        """Has the clock call at the next due time, if that is earlier than it would anyway."""
        when = self._timers.next_at()
        if when >= self._armed_at or not self._open:
            return
        if self._armed is not None:
            self._armed.cancel()
        self._armed_at = when
        # A new context, as in `wake`; not the kept one, which may be the one that runs now.
        self._armed = contextvars.Context().run(self.clock.call_at, when, self._on_clock)

    def _on_clock(self) -> None:
        self._armed = None
        self._armed_at = math.inf
        self._run()

    # --- in -----------------------------------------------------------------------------------------------------

    def admit(self, handle: CommandHandle[Any], now: float, *, requeued: bool = False) -> None:
        """Takes in a command whose handle is complete."""
        options = handle._options
        delay = options.delay
        self.by_seq[handle.seq] = handle
        self.engine.submit(handle, now, delayed=delay > 0, returning=requeued)
        if self.bus.active:
            self._emit(events.CommandSubmitted, handle, now, delay, options.deadline, requeued)
        if options is not NO_OPTIONS:
            self._admit_options(handle, now)
        if not self._woken:
            self.wake()

    def _admit_options(self, handle: CommandHandle[Any], now: float) -> None:
        options = handle._options
        if options.id is not None:
            self.by_id[options.id] = handle
        if options.key is not None:
            self.by_key[options.key] = handle
        if options.delay > 0:
            handle.timer = self._timers.set(now + options.delay, timer.DUE, handle)
        if options.deadline is not None:
            handle.deadline_timer = self._timers.set(now + options.deadline, timer.DEADLINE, handle)
        if self.loop is not None:
            self._arm()

    def find(self, command_id: str) -> CommandHandle[Any] | None:
        """The live command of this id."""
        found = self.by_id.get(command_id)
        if found is None:
            prefix, _, number = command_id.rpartition("-")
            if prefix == self.id_prefix and number.isdecimal():
                found = self.by_seq.get(int(number))
                if found is not None and found._options.id is not None:
                    return None
        return found

    # --- one attempt --------------------------------------------------------------------------------------------

    def _start(self, handle: CommandHandle[Any], now: float) -> None:
        options = handle._options
        timeout = handle.home.config.timeout if options.timeout is _UNSET else options.timeout
        if timeout is not None:
            handle.timer = self._timers.set(now + timeout, timer.TIMEOUT, handle)
        if self.bus.active:
            wait = handle.fold_wait()
            self._emit(events.CommandStarted, handle, now, wait.total, wait)
        context = handle._context
        assert context is not None
        task = self._spawn(self._attempt(handle), context=context.copy())
        if handle.state is not _RUNNING:  # it ended within its eager first step
            return
        handle._task = task
        if not self._eager:
            task.add_done_callback(handle._task_done)
        elif handle._stop is not None:  # it asked for its own end within its eager first step
            task.cancel()

    async def _attempt(self, handle: CommandHandle[Any]) -> None:
        current_handle.set(handle)
        try:
            value = await handle._call(*handle._args)
        except GeneratorExit:
            raise  # the loop is gone; nothing can be told to anyone
        except BaseException as error:
            self._ended(handle, None, error)
            del handle  # the traceback holds this frame; without this it would be a cycle
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            self._ended(handle, value, None)

    def attempt_vanished(self, handle: CommandHandle[Any]) -> None:
        """Ends an attempt whose task was cancelled before its first step."""
        self._ended(handle, None, asyncio.CancelledError())

    def _ended(self, handle: CommandHandle[Any], value: Any, error: BaseException | None) -> None:
        if handle.state is not _RUNNING:
            return  # it was given up by `abandon`
        now = self._now()
        handle._task = None
        if handle.timer is not None:
            self._timers.cancel(handle.timer)
            handle.timer = None
        if error is None and handle._stop is None:
            self._finish(handle, _SUCCEEDED, value, now)
        else:
            self._ended_otherwise(handle, value, error, now)
        if not self._woken:
            self.wake()

    def _ended_otherwise(self, handle: CommandHandle[Any], value: Any, error: BaseException | None, now: float) -> None:
        """Decides what an attempt that raised or was told to stop has come to. Our own flag decides, not the type."""
        stop = handle._stop
        handle._stop = None
        self.stuck.discard(handle.seq)
        if stop == TIMED_OUT:
            self._failed(handle, State.TIMED_OUT, timeout_error(handle, error), now)
        elif stop == EXPIRED:
            self._finish_unsuccessfully(handle, State.EXPIRED, expiry_error(handle, error), now)
        elif error is None:
            self._finish(handle, _SUCCEEDED, value, now)
        elif isinstance(error, asyncio.CancelledError):
            self._finish_unsuccessfully(handle, State.CANCELLED, cancel_error(handle, error), now)
        elif stop == CANCELLED:
            self._finish_unsuccessfully(handle, State.FAILED, error, now)
        else:
            self._failed(handle, State.FAILED, error, now)

    def _failed(self, handle: CommandHandle[Any], state: State, error: BaseException, now: float) -> None:
        policy: RetryPolicy = handle._options.retry or handle.home.config.retry
        if runs_once(handle._work) or not may_retry(policy, handle.attempt, error):
            self._finish_unsuccessfully(handle, state, error, now)
            return
        delay = delay_before_retry(policy, handle.attempt, error, self._rng.random())
        run_seconds = now - handle.started_at
        self.engine.back_off(handle, now)
        handle.timer = self._timers.set(now + delay, timer.DUE, handle)
        if self.bus.active:
            reason = "timeout" if state is State.TIMED_OUT else "error"
            kind, text = type(error).__name__, error_text(error)
            self._emit(events.CommandRetry, handle, now, reason, delay, run_seconds, kind, text, error)

    # --- out ----------------------------------------------------------------------------------------------------

    def _finish(self, handle: CommandHandle[Any], state: State, value: Any, now: float) -> None:
        self.engine.finish(handle, state, now)
        handle._value = value
        handle._call = handle._context = None
        handle._args = ()
        del self.by_seq[handle.seq]
        if handle._options is not NO_OPTIONS:
            self._forget_options(handle)
        if handle.deadline_timer is not None:
            self._timers.cancel(handle.deadline_timer)
            handle.deadline_timer = None
        if handle._waiters is not None:
            self._resolve(handle)
        if state is _SUCCEEDED and self.bus.active:
            self._emit(events.CommandCompleted, handle, now, *_times(handle))
        if not self.engine.live and self._idle:
            self._tell_idle()

    def _forget_options(self, handle: CommandHandle[Any]) -> None:
        options = handle._options
        if options.id is not None:
            del self.by_id[options.id]
        if options.key is not None:
            del self.by_key[options.key]

    @staticmethod
    def _resolve(handle: CommandHandle[Any]) -> None:
        waiters, handle._waiters = handle._waiters, None
        for future in waiters or ():
            if not future.done():
                future.set_result(None)

    def _finish_unsuccessfully(
        self, handle: CommandHandle[Any], state: State, error: BaseException, now: float
    ) -> None:
        rerun = (handle._call, handle._args)
        self._finish(handle, state, (error, error.__traceback__), now)
        if self.bus.active:
            named = (type(error).__name__, error_text(error), error)
            self._emit(_ENDINGS[state], handle, now, *_times(handle), *named)
        if state is State.CANCELLED:
            discard(handle._work)
        else:
            self._on_unsuccessful(handle, error, rerun)

    def drop(self, handle: CommandHandle[Any], error: BaseException) -> None:
        """Ends a ready command that gives way in a full lane."""
        self._finish_unsuccessfully(handle, State.FAILED, error, self.clock.now())

    def cancel(self, handle: CommandHandle[Any]) -> bool:
        """Cancels a command; see `CommandHandle.cancel`."""
        self.check_loop()
        if handle.state in FINAL:
            return False
        now = self.clock.now()
        if handle.state is not _RUNNING:
            self._end_waiting(handle, State.CANCELLED, cancel_error(handle, None), now)
        else:
            self._emit(events.CommandCancelRequested, handle, now)
            self._stop_attempt(handle, CANCELLED, now)
        return True

    def _end_waiting(self, handle: CommandHandle[Any], state: State, error: BaseException, now: float) -> None:
        if handle.timer is not None:
            self._timers.cancel(handle.timer)
            handle.timer = None
        self._finish_unsuccessfully(handle, state, error, now)
        self.wake()  # room in a bounded lane, or the last work of a drain

    def _stop_attempt(self, handle: CommandHandle[Any], reason: str, now: float) -> None:
        handle._stop = reason
        if handle.timer is not None:
            self._timers.cancel(handle.timer)
        handle.timer = self._timers.set(now + self._stuck_after, timer.STUCK, handle)
        self._arm()
        if handle._task is not None:
            handle._task.cancel()

    def abandon(self, handle: CommandHandle[Any]) -> None:
        """Gives up a command that ignores its cancellation: it counts as cancelled, and its task is left alone."""
        if handle.state is _RUNNING:
            handle._task = None
            self._finish_unsuccessfully(handle, State.CANCELLED, cancel_error(handle, None), self.clock.now())

    def _on_timer(self, kind: str, handle: CommandHandle[Any], now: float) -> None:
        if kind is timer.DEADLINE:
            handle.deadline_timer = None
            self._expire(handle, now)
            return
        handle.timer = None
        if kind is timer.DUE:
            self.engine.make_ready(handle, now)
            self._emit(events.CommandReady, handle, now)
        elif kind is timer.TIMEOUT:
            self._stop_attempt(handle, TIMED_OUT, now)
        else:
            self.stuck.add(handle.seq)
            self._emit(events.CommandStuck, handle, now, self._stuck_after)

    def _expire(self, handle: CommandHandle[Any], now: float) -> None:
        if handle.state is not _RUNNING:
            self._end_waiting(handle, State.EXPIRED, expiry_error(handle, None), now)
        elif handle._stop != CANCELLED:
            self._stop_attempt(handle, EXPIRED, now)

    # --- questions ----------------------------------------------------------------------------------------------

    def check_loop(self) -> None:
        """Checks that the call comes from the dispatcher's own loop.

        Raises:
            WrongLoop: it comes from another loop or thread.
        """
        if asyncio._get_running_loop() is not self.loop:
            raise WrongLoop("the queue belongs to another event loop or thread; use submit_threadsafe from threads")

    def count_stuck(self, lane: str) -> int:
        """How many running commands of a lane ignore their cancellation."""
        return sum(1 for seq in self.stuck if self.by_seq[seq].home.name == lane) if self.stuck else 0

    async def idle(self) -> None:
        """Returns once no command lives."""
        while self.engine.live:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(future)
            try:
                await future
            finally:
                if future in self._idle:
                    self._idle.remove(future)

    def _tell_idle(self) -> None:
        waiting, self._idle = self._idle, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def wait_so_far(self, handle: CommandHandle[Any]) -> WaitByCause:
        """All the waiting of a command until now, by cause."""
        return self.engine.wait_so_far(handle, self.clock.now())

    def deadline_left(self, handle: CommandHandle[Any]) -> float | None:
        """Seconds until the command's deadline; `None` without one."""
        deadline = handle._options.deadline
        return None if deadline is None else handle.submitted_at + deadline - self.clock.now()

    # --- telling ------------------------------------------------------------------------------------------------

    def _emit(self, kind: Callable[..., Any], handle: CommandHandle[Any], now: float, *fields: object) -> None:
        bus = self.bus
        if bus.active:
            about = (handle.id, handle.home.name, handle.command_type, handle.attempt)
            bus.append(kind(bus.next_seq(), now, bus.wall(), *about, *fields))


_ENDINGS: Final = {
    State.FAILED: events.CommandFailed,
    State.TIMED_OUT: events.CommandTimedOut,
    State.CANCELLED: events.CommandCancelled,
    State.EXPIRED: events.CommandExpired,
}


def _times(handle: CommandHandle[Any]) -> tuple[float, float, float]:
    return handle.wait.total, handle.ran, handle.finished_at - handle.submitted_at
