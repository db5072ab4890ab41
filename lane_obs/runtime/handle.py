"""What a submitter holds, and what a command sees of itself."""

from __future__ import annotations

import asyncio
import math
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lane_obs.command import type_name
from lane_obs.config import to_cost
from lane_obs.core.record import Record
from lane_obs.core.state import FINAL, State
from lane_obs.errors import NotEnded, WrongLoop
from lane_obs.events import TraceIds  # noqa: TC001 - msgspec reads the annotation
from lane_obs.runtime.options import NO_OPTIONS, Options

if TYPE_CHECKING:
    from collections.abc import Generator

    from lane_obs.events import WaitByCause
    from lane_obs.runtime.dispatcher import Dispatcher

T = TypeVar("T")

# Bound once: both run for every command that is awaited.
_SUCCEEDED = State.SUCCEEDED
_running_loop = asyncio._get_running_loop


class CommandHandle(Record, Generic[T], eq=False):
    """One submitted command: await it for its result.

    `await handle` returns the command's value or raises: its own exception untouched, `CommandTimeout`,
    `CommandCancelled`, `CommandExpired` or `CommandDropped`. Cancelling the one who waits never cancels the
    command; `cancel()` does. A result that nobody awaits makes no noise. Made by the queue, never by users.

    Attributes:
        state: where it is in its life, a `State`.
        attempt: number of the latest attempt, from 1; 0 before the first.
        submitted_at, started_at, finished_at: clock seconds of the submit, the latest start and the end; NaN before.
        trace: the span of its latest attempt, before the first that of its submit; `None` when nobody traces.
        span: what the tracing sink keeps with it.
    """

    # Always set; it has a default only because the fields before it have one.
    if TYPE_CHECKING:
        _owner: Dispatcher = None  # type: ignore[assignment]
    else:
        _owner: Any = None
    _call: Any = None
    _args: tuple[Any, ...] = ()
    _work: Any = None
    _options: Options = NO_OPTIONS
    _context: Context | None = None
    _task: asyncio.Task[None] | None = None
    _stop: str | None = None
    """Why the running attempt was told to stop: one of the reasons in `runtime.stop`."""
    _value: Any = None
    """The result; or the error and its traceback."""
    _waiters: list[asyncio.Future[None]] | None = None
    _id: str | None = None
    """Worked out when first asked for; waiting commands that nobody asks about do without."""
    _type: str | None = None
    """Likewise."""
    trace: TraceIds | None = None
    span: Any = None
    _durable: bool = False
    """Whether a storage keeps it."""
    _traceparent: str | None = None
    """The span that submitted it, as it is stored."""
    _ending: bool = False
    """Whether it has ended and that is not committed yet: whoever awaits it is told afterwards."""

    @property
    def id(self) -> str:
        """The command's id, unique among live commands."""
        known = self._id
        if known is None:
            known = self._id = self._options.id or self._owner.directory.id_of(self.seq)
        return known

    @property
    def deadline(self) -> float | None:
        """Seconds from submit to its deadline; `None` without one."""
        return self._options.deadline

    @property
    def lane(self) -> str:
        """Name of its lane."""
        return str(self.home.name)

    @property
    def command_type(self) -> str:
        """Its name for logs and metrics."""
        known = self._type
        if known is None:
            known = self._type = type_name(self._work)
        return known

    @property
    def progress(self) -> Any:
        """What the command last told of how far its attempt is (`CommandContext.report`); `None` once it has ended."""
        return None if self.done() else self._value

    def done(self) -> bool:
        """Whether it has ended."""
        return self.state in FINAL

    def cancel(self) -> bool:
        """Cancels it: at once while it waits, by request while it runs.

        A running command sees `asyncio.CancelledError` and may still end in another way. A synchronous one runs
        to its end.

        Returns:
            False when it has ended already.

        Raises:
            WrongLoop: called from another thread or loop.
        """
        return self._owner.stops.cancel(self)

    @property
    def wait_by_cause(self) -> WaitByCause:
        """Seconds waited so far, by cause."""
        return self._owner.engine.wait_so_far(self, self._owner.clock.now())

    @property
    def wait_seconds(self) -> float:
        """Seconds waited so far, delay and back-off included."""
        return self.wait_by_cause.total

    @property
    def run_seconds(self) -> float:
        """Seconds run in all attempts that are over."""
        return self.ran

    @property
    def end_to_end_seconds(self) -> float | None:
        """Seconds from submit to end; `None` while it lives."""
        return None if math.isnan(self.finished_at) else self.finished_at - self.submitted_at

    def exception(self) -> BaseException | None:
        """The error it ended with; `None` after success.

        Raises:
            NotEnded: it has not ended.
        """
        if not self.done():
            raise NotEnded(f"command {self.id} has not ended: it is {self.state}")
        return None if self.state is State.SUCCEEDED else self._value[0]

    def result(self) -> T:
        """Its value, or raises its error.

        Raises:
            NotEnded: it has not ended.
        """
        error = self.exception()
        if error is not None:
            # As it was raised: each caller would add its own frames to the traceback otherwise.
            raise error.with_traceback(self._value[1])
        value: T = self._value
        return value

    def __await__(self) -> Generator[Any, None, T]:
        loop = _running_loop()
        if loop is None or loop is not self._owner.loop:
            raise WrongLoop(f"command {self.id} belongs to another event loop")
        if self.state not in FINAL or self._ending:
            future: asyncio.Future[None] = loop.create_future()
            if self._waiters is None:
                self._waiters = [future]
            else:
                self._waiters.append(future)
            try:
                yield from future
            finally:
                if not future.done() or future.cancelled():
                    self._forget_waiter(future)
        if self.state is _SUCCEEDED:
            value: T = self._value
            return value
        return self.result()

    def tell_waiters(self) -> None:
        """Lets those go on who await it; the queue calls this once."""
        waiters, self._waiters = self._waiters, None
        for future in waiters or ():
            if not future.done():
                future.set_result(None)

    def _forget_waiter(self, future: asyncio.Future[None]) -> None:
        if self._waiters is not None and future in self._waiters:
            self._waiters.remove(future)

    def __repr__(self) -> str:
        return f"<CommandHandle {self.id} lane={self.lane!r} state={self.state} attempt={self.attempt}>"


current_handle: ContextVar[CommandHandle[Any] | None] = ContextVar("lane_obs_current", default=None)
"""The handle of the command that runs in this context."""


class CommandContext:
    """What a running command may know of itself. Cheap to make; reads live values."""

    __slots__ = ("_handle",)

    def __init__(self, handle: CommandHandle[Any]) -> None:
        self._handle = handle

    @property
    def id(self) -> str:
        """The command's id."""
        return self._handle.id

    @property
    def lane(self) -> str:
        """Its lane's name."""
        return self._handle.lane

    @property
    def command_type(self) -> str:
        """Its name for logs and metrics."""
        return self._handle.command_type

    @property
    def attempt(self) -> int:
        """Number of this attempt, from 1."""
        return self._handle.attempt

    @property
    def deadline_left(self) -> float | None:
        """Seconds until the deadline, negative once it has passed; `None` without one."""
        handle = self._handle
        deadline = handle._options.deadline
        return None if deadline is None else handle.submitted_at + deadline - handle._owner.clock.now()

    @property
    def cancel_requested(self) -> bool:
        """Whether the command was told to stop: cancelled, timed out or past its deadline.

        Synchronous commands, which cannot be interrupted, look at this.
        """
        return self._handle._stop is not None

    def settle(self, cost: float) -> None:
        """Corrects what this attempt has taken of its lane's rate limits, once its true cost is known.

        What was taken too much is given back, and what was taken too little delays what follows. It may be called
        more than once, also from the thread of a synchronous command; the latest cost counts. A retry takes the cost
        of its submit again. Once the attempt has ended it does nothing.

        Args:
            cost: the true cost, zero or more, in the unit of `submit(cost=...)`.

        Raises:
            ConfigError: the cost is no number, or negative.
        """
        self._handle._owner.attempts.settle(self._handle, to_cost("cost", cost))

    def report(self, progress: Any) -> None:
        """Tells how far this attempt is: `progress` of the handle has it from now on. From any thread.

        With a broker it goes to those processes that await the command, the latest of several that come at once.

        Args:
            progress: whatever says it, a share or a text for example; JSON types where there is a broker.

        Raises:
            InvalidCommand: it has to be sent to other processes, and is no JSON.
        """
        self._handle._owner.attempts.report(self._handle, progress)


def current() -> CommandContext:
    """The context of the command that runs here: in its task, in tasks it starts, in its thread.

    Raises:
        LookupError: no command runs here.
    """
    handle = current_handle.get()
    if handle is None:
        raise LookupError("no command runs here: current() works inside a command")
    return CommandContext(handle)
