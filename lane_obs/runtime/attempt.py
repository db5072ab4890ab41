"""One execution of a command, from the task that runs it to what its end has come to."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from lane_obs import events
from lane_obs.core import timer
from lane_obs.core.fact import started
from lane_obs.core.retry import delay_before_retry, may_retry
from lane_obs.core.state import State
from lane_obs.errors import error_text
from lane_obs.runtime.handle import current_handle
from lane_obs.runtime.outcome import cancel_error, expiry_error, timeout_error
from lane_obs.runtime.stop import CANCELLED, EXPIRED, TIMED_OUT
from lane_obs.runtime.work import runs_once

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine, Iterator

    from lane_obs.config import RetryPolicy
    from lane_obs.runtime.dispatcher import Dispatcher
    from lane_obs.runtime.handle import CommandHandle

_EAGER = sys.version_info >= (3, 12)
_RUNNING = State.RUNNING
_UNSET = msgspec.UNSET


class Attempts:
    """Runs attempts for one dispatcher.

    Args:
        owner: the dispatcher.
        rng: jitter.
    """

    def __init__(self, owner: Dispatcher, rng: random.Random) -> None:
        self._owner = owner
        self._engine = owner.engine
        self._bus = owner.bus
        self._now = owner.clock.now
        self._rng = rng
        self._loop: asyncio.AbstractEventLoop
        self._has_factory = False
        self._eager = _EAGER
        self.is_eager = _EAGER
        """Whether `start` may run a command's first step; a task factory of the user's may do so too."""
        self._begun: list[CommandHandle[Any]] = []
        self._context = contextvars.Context()

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Chooses how tasks are made on this loop: as its user says, else as fast as may be."""
        self._loop = loop
        self._has_factory = loop.get_task_factory() is not None
        self._eager = _EAGER and not self._has_factory
        self.is_eager = self._eager or self._has_factory

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """Lets no attempt take its first step within `start`, whatever the Python version."""
        before, self._eager = self._eager, False
        try:
            yield
        finally:
            self._eager = before

    def start(self, handle: CommandHandle[Any], now: float) -> None:
        """Starts an attempt of a command that the engine has just started."""
        options = handle._options
        timeout = handle.home.config.timeout if options.timeout is _UNSET else options.timeout
        if timeout is not None:
            handle.timer = self._owner.timers.set(now + timeout, timer.TIMEOUT, handle)
        bus = self._bus
        if bus.at_start:
            bus.call(bus.at_start, handle)
        if bus.active:
            marks = handle.ready_mark, handle.since, handle.start_mark, handle.waited
            bus.append((started, now, handle, handle.attempt, handle.trace, *marks))
        marked = self._owner.journal.started(handle) if handle._durable else None
        context = handle._context
        assert context is not None
        attempt = self._attempt(handle) if marked is None else self._marked_attempt(handle, marked)
        try:
            task = self._spawn(attempt, context.copy(), handle.home.name)
        except Exception as error:  # the user's own task factory
            attempt.close()
            self._ended(handle, None, error)
            return
        if handle.state is not _RUNNING:  # it ended within its eager first step
            return
        handle._task = task
        if not self._eager:
            self._begun.append(handle)
        if handle._stop is not None:  # it asked for its own end within its eager first step
            task.cancel()

    def _spawn(self, attempt: Coroutine[Any, Any, None], context: contextvars.Context, name: str) -> asyncio.Task[None]:
        # The name is free of cost: without one Python 3.11 formats "Task-n" for every task.
        if self._has_factory:
            return self._loop.create_task(attempt, context=context, name=name)
        if self._eager:
            return asyncio.Task(attempt, loop=self._loop, context=context, name=name, eager_start=True)  # type: ignore[call-arg]
        return asyncio.Task(attempt, loop=self._loop, context=context, name=name)

    def check_begun(self) -> None:
        """Has the attempts that were just started looked at once each has taken its first step.

        A task that is cancelled before that never runs any of our code. One callback a round finds those; it comes
        after the first steps, as the loop keeps the order. A done callback for each task would cost far more.
        """
        if self._begun:
            # Each round's own: a later round of the same turn has first steps that come after this callback.
            begun, self._begun = self._begun, []
            self._loop.call_soon(self._find_vanished, begun, context=self._context)

    def _find_vanished(self, begun: list[CommandHandle[Any]]) -> None:
        for handle in begun:
            if handle._task is not None and handle._task.done():
                self._ended(handle, None, asyncio.CancelledError())

    async def _attempt(self, handle: CommandHandle[Any]) -> None:
        current_handle.set(handle)
        try:
            if self._bus.in_attempt:
                self._bus.call(self._bus.in_attempt, handle)
            value = await handle._call(*handle._args)
        except BaseException as error:
            if isinstance(error, GeneratorExit) and self._loop.is_closed():
                raise  # the task is being collected after its loop: nothing can be told to anyone
            self._ended(handle, None, error)
            del handle  # the traceback holds this frame; without this it would be a cycle
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            if handle._stop is None and handle.state is _RUNNING:
                self._succeeded(handle, value)
            else:
                self._ended(handle, value, None)

    async def _marked_attempt(self, handle: CommandHandle[Any], marked: asyncio.Future[None]) -> None:
        """The same, once the storage knows that it runs, or has failed to be told.

        Raises:
            CancelledError: the attempt was told to stop meanwhile.
        """
        try:
            if not marked.done():
                await asyncio.wait([marked])
        except asyncio.CancelledError as error:
            self._ended(handle, None, error)
            raise
        await self._attempt(handle)

    def _succeeded(self, handle: CommandHandle[Any], value: Any) -> None:
        owner = self._owner
        handle._task = None
        if handle.timer is not None:
            owner.timers.cancel(handle.timer)
            handle.timer = None
        owner.succeed(handle, value, self._now())
        if not owner.woken:
            owner.wake()

    def settle(self, handle: CommandHandle[Any], cost: float) -> None:
        """Corrects what a running command has taken of its lane's rate limits; from any thread.

        From a thread it comes into force in the next turn of the loop, before the end of the attempt does.
        """
        self._in_loop(self._correct, handle, handle.attempt, cost)

    def report(self, handle: CommandHandle[Any], progress: Any) -> None:
        """Notes how far a running command is, likewise.

        Raises:
            InvalidCommand: it has to be sent, and cannot be.
        """
        data = self._owner.journal.written(progress) if handle._durable else None
        self._in_loop(self._note, handle, handle.attempt, progress, data)

    def _in_loop(self, call: Callable[..., None], *args: Any) -> None:
        loop = self._loop
        if asyncio._get_running_loop() is loop:
            call(*args)
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(call, *args, context=self._context)

    def _note(self, handle: CommandHandle[Any], attempt: int, progress: Any, data: bytes | None) -> None:
        if handle.state is _RUNNING and handle.attempt == attempt:  # else whoever tells it was left behind
            handle._value = progress  # its result takes the place once there is one
            if data is not None:
                self._owner.journal.report(handle, data)

    def _correct(self, handle: CommandHandle[Any], attempt: int, cost: float) -> None:
        if handle.state is _RUNNING and handle.attempt == attempt:  # else whoever tells it was left behind
            taken, handle.cost = handle.cost, cost
            self._engine.gates.settle(handle.home, taken, cost, handle.started_at, self._now())
            self._owner.wake()

    def _ended(self, handle: CommandHandle[Any], value: Any, error: BaseException | None) -> None:
        """Decides what an attempt that raised or was told to stop has come to. Our own flag decides, not the type."""
        if handle.state is not _RUNNING:
            return  # it was given up by `Stops.abandon`
        now = self._now()
        handle._task = None
        try:
            self._settle(handle, value, error, now)
        except Exception as fault:  # an error that cannot be read, or a bug of ours: the slot comes back all the same
            if handle.state is not _RUNNING:
                raise
            self._owner.fail(handle, State.FAILED, fault, now)
        self._owner.wake()

    def _settle(self, handle: CommandHandle[Any], value: Any, error: BaseException | None, now: float) -> None:
        stop = self._owner.stops.stopped(handle)
        if stop == TIMED_OUT:
            self._failed(handle, State.TIMED_OUT, timeout_error(handle, error), now)
        elif stop == EXPIRED:
            self._owner.fail(handle, State.EXPIRED, expiry_error(handle, error), now)
        elif error is None:
            self._owner.succeed(handle, value, now)
        elif isinstance(error, asyncio.CancelledError):
            self._owner.fail(handle, State.CANCELLED, cancel_error(handle, error), now)
        elif stop == CANCELLED:
            self._owner.fail(handle, State.FAILED, error, now)
        else:
            self._failed(handle, State.FAILED, error, now)

    def _failed(self, handle: CommandHandle[Any], state: State, error: BaseException, now: float) -> None:
        policy: RetryPolicy = handle._options.retry or handle.home.config.retry
        if runs_once(handle._work) or not may_retry(policy, handle.attempt, error):
            self._owner.fail(handle, state, error, now)
            return
        delay = delay_before_retry(policy, handle.attempt, error, self._rng.random())
        run_seconds = now - handle.started_at
        self._engine.back_off(handle, now)
        leaves = handle._durable and self._owner.journal.backs_off(handle, delay, error)
        handle.cost = handle._options.cost  # what was settled was the true cost of this attempt only
        if not leaves:
            handle.timer = self._owner.timers.set(now + delay, timer.DUE, handle)
        if self._bus.active:
            reason = "timeout" if state is State.TIMED_OUT else "error"
            kind, text = type(error).__name__, error_text(error)
            self._owner.emit(
                events.CommandRetry, handle, now, reason, delay, run_seconds, kind, text, error, handle.wait.total
            )
        if leaves:
            self._owner.journal.leave(handle)
        else:
            self._owner.on_back_off(handle.home)
