"""Why and how commands are told to stop: cancelled, out of time, past their deadline; and who does not listen."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from lane_obs import events
from lane_obs.core import timer
from lane_obs.core.state import FINAL, State
from lane_obs.runtime.outcome import cancel_error, expiry_error

if TYPE_CHECKING:
    from lane_obs.runtime.dispatcher import Dispatcher
    from lane_obs.runtime.handle import CommandHandle

TIMED_OUT: Final = "timeout"
CANCELLED: Final = "cancel"
EXPIRED: Final = "deadline"

_RUNNING = State.RUNNING


class Stops:
    """Stops commands of one dispatcher.

    Args:
        owner: the dispatcher.
        stuck_after: seconds after which a command that was told to stop and still runs is reported.
    """

    def __init__(self, owner: Dispatcher, stuck_after: float) -> None:
        self._owner = owner
        self._timers = owner.timers
        self._stuck_after = stuck_after
        self._stuck: dict[int, CommandHandle[Any]] = {}

    def cancel(self, handle: CommandHandle[Any]) -> bool:
        """Cancels a command; see `CommandHandle.cancel`."""
        owner = self._owner
        owner.check_loop()
        if handle.state in FINAL:
            return False
        now = owner.clock.now()
        if handle.state is not _RUNNING:
            self._end_waiting(handle, State.CANCELLED, cancel_error(handle, None), now)
        else:
            owner.emit(events.CommandCancelRequested, handle, now)
            self._stop_attempt(handle, CANCELLED, now)
        return True

    def on_timer(self, kind: str, handle: CommandHandle[Any], now: float) -> None:
        """Does what is due for a command."""
        if kind is timer.DEADLINE:
            handle.deadline_timer = None
            self._expire(handle, now)
            return
        handle.timer = None
        if kind is timer.DUE:
            self._owner.engine.make_ready(handle, now)
            self._owner.emit(events.CommandReady, handle, now)
        elif kind is timer.TIMEOUT:
            self._stop_attempt(handle, TIMED_OUT, now)
        else:
            self._stuck[handle.seq] = handle
            self._owner.emit(events.CommandStuck, handle, now, self._stuck_after)

    def _expire(self, handle: CommandHandle[Any], now: float) -> None:
        if handle.state is not _RUNNING:
            self._end_waiting(handle, State.EXPIRED, expiry_error(handle, None), now)
        elif handle._stop != CANCELLED:
            self._stop_attempt(handle, EXPIRED, now)

    def _end_waiting(self, handle: CommandHandle[Any], state: State, error: BaseException, now: float) -> None:
        self._timers.forget(handle)
        self._owner.fail(handle, state, error, now)
        self._owner.wake()  # room in a bounded lane, or the last work of a drain

    def _stop_attempt(self, handle: CommandHandle[Any], reason: str, now: float) -> None:
        if handle._stop is None:
            self._timers.forget(handle)
            handle.timer = self._timers.set(now + self._stuck_after, timer.STUCK, handle)
            self._owner.arm()
        handle._stop = reason
        if handle._task is not None:
            handle._task.cancel()

    def stopped(self, handle: CommandHandle[Any]) -> str | None:
        """Notes that an attempt has ended; returns why it was told to stop, `None` if it was not."""
        self._timers.forget(handle)
        self._stuck.pop(handle.seq, None)
        reason, handle._stop = handle._stop, None
        return reason

    def abandon(self, handle: CommandHandle[Any]) -> None:
        """Gives up a command that ignores its cancellation: it counts as cancelled, whatever its task does."""
        if handle.state is _RUNNING:
            self._timers.forget(handle)
            self._stuck.pop(handle.seq, None)
            task, handle._task = handle._task, None
            error = cancel_error(handle, None)
            self._owner.fail(handle, State.CANCELLED, error, self._owner.clock.now())
            if task is not None:
                task.cancel()  # once more: the task of an abandoned thread ends at this one

    def stuck_by_lane(self) -> Counter[str]:
        """How many running commands do not listen, by lane; from any thread."""
        return Counter(handle.home.name for handle in list(self._stuck.values()))
