"""Asks and steers a whole queue that many processes share, from any of them."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lane_obs.config.check import check_id, to_count
from lane_obs.errors import ConfigError, error_text
from lane_obs.runtime.brokered.body import Outcome, decode_outcome, read_body
from lane_obs.runtime.brokered.facts import why_ended
from lane_obs.runtime.brokered.handle import SharedHandle

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from lane_obs.distributed import Broker
    from lane_obs.distributed.view import BrokerStats, Found, Letter
    from lane_obs.runtime.brokered.watches import Watches
    from lane_obs.runtime.dispatcher import Dispatcher


_logger: Final = logging.getLogger("lane_obs.broker")


class SharedCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A live command of a shared queue.

    Attributes:
        id, lane, command_type: as it was submitted.
        payload: its arguments, as JSON.
        state: `ready`, `delayed`, `backoff` or `running`.
        attempt: attempts started so far.
        age: seconds since its submit.
        due: seconds until its delay or back-off is over; `None` when there is none.
        worker: the member that runs it; empty for nobody.
        ahead: how many commands of its lane go first, where it is ready; else 0.
    """

    id: str
    lane: str
    command_type: str
    payload: bytes
    state: str
    attempt: int
    age: float
    due: float | None
    worker: str
    ahead: int


class SharedLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter of a shared queue.

    Attributes:
        id, lane, command_type: of the command.
        payload: its arguments, as JSON.
        reason: the state it ended in.
        error_type, error, traceback: class name, message and place of its last error; empty where none is known.
        attempts: how many it had.
        failed_at: when it ended, Unix seconds of the broker's clock.
    """

    id: str
    lane: str
    command_type: str
    payload: bytes
    reason: str
    error_type: str
    error: str
    traceback: str
    attempts: int
    failed_at: float


class Cluster:
    """The whole queue, of all its members. Every method asks the broker; see `Broker` for what each may raise.

    An argument that is not allowed raises `ConfigError`.

    Args:
        broker: the broker.
        watches: waits for results.
        dispatcher: of this process's queue.
    """

    def __init__(self, broker: Broker, watches: Watches, dispatcher: Dispatcher) -> None:
        self._broker = broker
        self._watches = watches
        self._dispatcher = dispatcher
        self._tasks: set[asyncio.Task[Any]] = set()

    async def stats(self) -> BrokerStats:
        """Lanes and members, at this moment."""
        return await self._broker.stats()

    async def find(self, command_id: str) -> SharedCommand | None:
        """The live command of this id, whoever has it; `None` for none."""
        check_id("command_id", command_id)
        found = await self._broker.find(command_id)
        return None if found is None else _shown(found)

    async def result(self, command_id: str) -> Any:
        """Waits for the end of a command, whoever submitted it; the value comes as plain JSON types.

        Raises:
            CommandError: it ended without a value, or how it ended is not known any more (`ResultLost`).
        """
        check_id("command_id", command_id)
        home = next(iter(self._dispatcher.engine.lanes.values()))
        handle: SharedHandle[Any] = SharedHandle(
            0, home, math.nan, _owner=self._dispatcher, _id=command_id, _type="", _watches=self._watches
        )
        return await handle

    async def cancel(self, command_id: str) -> str:
        """Cancels a command, whoever has it.

        Returns:
            `cancelled` where it waited, `running` where whoever runs it is told, `unknown` where it does not live.
        """
        check_id("command_id", command_id)
        return await self._broker.cancel(command_id)

    async def pause(self, lane: str) -> bool:
        """Has no member start commands of a lane until `resume`; tells whether that changed anything."""
        return await self._broker.set_paused(lane, paused=True)

    async def resume(self, lane: str) -> bool:
        """Ends a pause; tells whether that changed anything."""
        return await self._broker.set_paused(lane, paused=False)

    async def letters(
        self, *, lane: str | None = None, limit: int = 100, after: str | None = None
    ) -> list[SharedLetter]:
        """Dead letters, oldest first: at most `limit`, those of `lane`, after the letter of id `after`."""
        to_count("limit", limit, minimum=1)
        return [shown_letter(letter) for letter in await self._broker.letters(lane=lane, limit=limit, after=after)]

    async def requeue(self, ids: Sequence[str]) -> list[str]:
        """Makes dead letters commands again; returns the ids of those that are: not of a lane that was removed."""
        return await self._broker.requeue(_checked_ids(ids))

    async def remove_letters(self, ids: Sequence[str] | None = None) -> int:
        """Forgets dead letters, `None` for all; returns how many there were."""
        return await self._broker.remove_letters(None if ids is None else _checked_ids(ids))

    def later(self, what: str, call: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        """Has something done that nobody waits for; `what` says it in the log if it fails."""
        task = asyncio.get_running_loop().create_task(call, context=contextvars.Context(), name=what)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("the broker could not %s: %s", task.get_name(), error_text(error), exc_info=error)

    async def close(self) -> None:
        """Waits for what nobody else waits for."""
        if self._tasks:
            await asyncio.wait(self._tasks)


def _checked_ids(ids: Iterable[str]) -> list[str]:
    if isinstance(ids, str | bytes):  # which is made of texts, too
        raise ConfigError("ids", ids, "give a list of ids")
    checked = list(ids)
    for value in checked:
        check_id("ids", value)
    return checked


def _shown(found: Found) -> SharedCommand:
    body = read_body(found.body)
    return SharedCommand(
        id=found.id, lane=found.lane, command_type=body.command_type, payload=body.payload, state=found.state,
        attempt=found.attempt, age=found.age, due=found.due, worker=found.member, ahead=found.ahead,
    )  # fmt: skip


def _by_broker(letter: Letter) -> Outcome:
    """What stands for the outcome of a command that the broker itself ended."""
    error_type, error = why_ended(letter.cause)
    return Outcome(None, letter.attempt, 0.0, 0.0, error_type, error)


def shown_letter(letter: Letter) -> SharedLetter:
    """A dead letter of a broker, to be looked at."""
    body, outcome = read_body(letter.body), decode_outcome(letter.letter) or _by_broker(letter)
    return SharedLetter(
        id=letter.id, lane=letter.lane, command_type=body.command_type, payload=body.payload, reason=letter.state,
        error_type=outcome.error_type, error=outcome.error, traceback=outcome.traceback,
        attempts=letter.attempt, failed_at=letter.failed_at,
    )  # fmt: skip
