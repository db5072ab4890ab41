"""Who waits for the end of a command that others may run: asked of the broker once someone does, and told by it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Any, Final

from lane_obs.core.state import State
from lane_obs.distributed.denial import delay_after_denial
from lane_obs.errors import (
    BrokerError,
    CommandCancelled,
    CommandDropped,
    CommandExpired,
    CommandTimeout,
    RemoteError,
    ResultLost,
    error_text,
)
from lane_obs.runtime.brokered.body import decode_outcome
from lane_obs.runtime.codec import decode_value

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from lane_obs.clock import Clock, Timer
    from lane_obs.distributed import Broker
    from lane_obs.distributed.record import Progress, Result
    from lane_obs.runtime.brokered.body import Outcome
    from lane_obs.runtime.brokered.handle import SharedHandle

_logger: Final = logging.getLogger("lane_obs.broker")
_STATES: Final = {str(state): state for state in State}
_KINDS: Final = {
    State.TIMED_OUT: (CommandTimeout, "ran longer than its timeout"),
    State.EXPIRED: (CommandExpired, "was not done when its deadline passed"),
    State.CANCELLED: (CommandCancelled, "was cancelled"),
}


class Watches:
    """The commands of one member that someone waits for here.

    Args:
        broker: says how they end.
        clock: gives the time of their ends as they are seen here.
    """

    def __init__(self, broker: Broker, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self._watched: dict[str, list[SharedHandle[Any]]] = {}
        self._new: list[str] = []
        self._gone: list[str] = []
        self._is_due = self._closed = False
        self._tries = 0
        """How often in a row the broker could not be asked."""
        self._again: Timer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._cancels: set[asyncio.Task[None]] = set()

    def add(self, handle: SharedHandle[Any]) -> None:
        """Someone waits for a command; the broker is asked at the end of this turn of the loop."""
        if self._closed:
            _leave(handle, self._clock.now())
            return
        known = self._watched.setdefault(handle.id, [])
        if not known:
            self._new.append(handle.id)
            self._flush_soon()
        if handle not in known:
            known.append(handle)

    def remove(self, handle: SharedHandle[Any]) -> None:
        """Nobody waits for it any more by this handle."""
        known = self._watched.get(handle.id)
        if known is not None and handle in known:
            known.remove(handle)
            if not known:
                del self._watched[handle.id]
                self._gone.append(handle.id)
                self._flush_soon()

    def renew(self) -> None:
        """Asks again for all: what the broker told while the link was broken is lost."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._new = list(self._watched)
        if self._new:
            self._flush_soon()

    def cancel(self, command_id: str) -> None:
        """Has the broker cancel a command."""
        self._start(self._cancel(command_id), self._cancels)

    async def _cancel(self, command_id: str) -> None:
        try:
            await self._broker.cancel(command_id)
        except BrokerError as error:
            _logger.warning("command %s was not cancelled: %s", command_id, error)

    def _flush_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._start(self._flush(), self._tasks)

    async def _flush(self) -> None:
        self._is_due = False
        new, self._new = [key for key in self._new if key in self._watched], []
        await self._watch(new)
        gone, self._gone = [key for key in self._gone if key not in self._watched], []
        if gone:
            await self._unwatch(gone)
            # Someone may wait again by now, and the broker have heard of that before it heard of the end.
            await self._watch([key for key in gone if key in self._watched])

    @staticmethod
    def _start(call: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(call, context=contextvars.Context())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _watch(self, ids: Sequence[str]) -> None:
        if not ids:
            return
        try:
            results = await self._broker.watch(ids)
        except BrokerError as error:
            self._ask_later(error)
            return
        self._tries = 0
        self.take(results)

    def _ask_later(self, error: BrokerError) -> None:
        """The broker has denied a watch, or did not answer: not always does a broken link say when to ask again."""
        if self._again is None:
            self._tries += 1
            when = self._clock.now() + delay_after_denial(self._tries, error)
            self._again = contextvars.Context().run(self._clock.call_at, when, self.renew)

    async def _unwatch(self, ids: Sequence[str]) -> None:
        try:
            await self._broker.unwatch(ids)
        except BrokerError as error:  # what it tells of them is not heard, and they end by themselves
            _logger.debug("watches were not ended: %s", error)

    def take(self, results: Sequence[Result]) -> None:
        """Takes what commands came to, and tells those who wait for them."""
        now = self._clock.now()
        for result in results:
            handles = self._watched.pop(result.id, ())
            if handles:
                outcome = decode_outcome(result.data)
                for handle in handles:
                    state, value, error = _came_to(handle, result.state, outcome)
                    if outcome is not None:
                        handle.attempt, handle.ran = outcome.attempt, outcome.run
                    handle.take(state, value, error, now)

    def take_progress(self, progress: Progress) -> None:
        """Takes what a command tells of how far it is."""
        for handle in self._watched.get(progress.id, ()):
            handle.progress = decode_value(None, progress.data)

    async def close(self) -> None:
        """Sees cancels through, and ends all else; those who still wait are told that the result is not known."""
        self._closed = True
        if self._cancels:
            await asyncio.wait(self._cancels)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._again is not None:
            self._again.cancel()
        now = self._clock.now()
        watched, self._watched = self._watched, {}
        for handles in watched.values():
            for handle in handles:
                _leave(handle, now)


def _leave(handle: SharedHandle[Any], now: float) -> None:
    text = f"command {handle.id} may go on: this process has left its broker"
    handle.take(State.FAILED, None, ResultLost(text, handle.id, handle.lane), now)


def _came_to(handle: SharedHandle[Any], name: str, outcome: Outcome | None) -> tuple[State, Any, BaseException | None]:
    """What a command came to: its state, its value, and the error that its waiters get."""
    named = f"command {handle.id} in lane {handle.lane!r}"
    state = _STATES.get(name, State.FAILED)
    place = handle.id, handle.lane
    if state is State.SUCCEEDED:
        if outcome is None or outcome.value is None:
            why = "its result was not kept" if outcome is None else outcome.error
            return state, None, ResultLost(f"{named} succeeded, but {why}", *place)
        try:
            return state, decode_value(handle._work, outcome.value), None
        except Exception as error:  # a type of the user's may raise anything while it is made
            return (
                state,
                None,
                ResultLost(f"{named} succeeded, but its result does not fit: {error_text(error)}", *place),
            )
    if state in _KINDS:
        kind, text = _KINDS[state]
        return state, None, kind(f"{named} {text}", *place)
    if name not in _STATES:
        return state, None, ResultLost(f"{named} is not there: it ended and its result is not kept any more", *place)
    if outcome is None:
        return state, None, CommandDropped(f"{named} was ended by its broker", *place)
    text = f"{named} failed in attempt {outcome.attempt}: {outcome.error_type}: {outcome.error}"
    told = {"kind": outcome.error_type, "error": outcome.error, "traceback": outcome.traceback}
    return state, None, RemoteError(text, *place, **told)
