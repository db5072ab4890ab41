"""One partition as one member sees it: asked for work and told of ends, one call at a time."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lane_obs.clock import sleep
from lane_obs.distributed.denial import delay_after_denial
from lane_obs.errors import BrokerError, BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from lane_obs.clock import Clock
    from lane_obs.distributed.port import Broker
    from lane_obs.distributed.record import Claimed, End, Progress, Turn

_logger: Final = logging.getLogger("lane_obs.broker")
_PATIENCE: Final = 5.0
"""Seconds after which nobody waits for a partition whose link is broken."""


class Branch:
    """One partition of a queue.

    Tokens are told apart by the partition they come from: outside, each is `token * count + number`.

    Args:
        number: its number, from 0.
        count: how many there are.
        broker: holds it.
        clock: all its time.
        on_change: is called when it can be reached no more.

    Attributes:
        is_hungry: whether it may have work.
        is_called: whether it counts on this member to come for work.
        has_rested: whether it was told, since it was last asked, that this member does not come.
    """

    def __init__(self, number: int, count: int, broker: Broker, clock: Clock, on_change: Callable[[], None]) -> None:
        self.number = number
        self.broker = broker
        self.is_hungry = True
        self.is_called = self.has_rested = False
        self._count = count
        self._clock = clock
        self._on_change = on_change
        self._lock = asyncio.Lock()
        self._ends: list[End] = []
        self._progress: list[Progress] = []
        self._tasks: set[asyncio.Task[Turn]] = set()
        self._waiting = 0
        """How many exchanges have not begun."""
        self._denied = ""
        self._down_since: float | None = None
        self._is_closed = False

    # --- how it is ----------------------------------------------------------------------------------------------

    @property
    def error(self) -> str:
        """Why it cannot be asked; empty when it can."""
        health = self.broker.health()
        return self._denied if health.ready else health.error or "it is not ready"

    @property
    def is_lost(self) -> bool:
        """Whether its link has been broken for so long that nobody is to wait for it."""
        since = self._down_since
        return since is not None and self._clock.now() - since > _PATIENCE

    def note_state(self) -> bool:
        """Its link has broken or works again; tells whether it was broken and works again."""
        was_down = self._down_since is not None
        is_up = self.broker.health().ready
        if is_up:
            self._down_since = None
        elif not was_down:
            self._down_since = self._clock.now()
        self._on_change()
        return is_up and was_down

    async def reach(self, call: Callable[[Broker], Coroutine[Any, Any, Any]]) -> Any:
        """Asks its broker something.

        Raises:
            BrokerUnavailable: it cannot be reached, or could not for long.
        """
        if self.is_lost:
            raise BrokerUnavailable(f"partition {self.number}: {self.error}")
        return await call(self.broker)

    # --- exchanges ----------------------------------------------------------------------------------------------

    def begin(self, ends: Sequence[End], want: int, progress: Sequence[Progress]) -> asyncio.Task[Turn]:
        """Begins an exchange, after those that have begun before; without anything it says that nobody comes."""
        self._ends += ends
        self._progress += progress
        if want:
            self.is_hungry = self.is_called = self.has_rested = False
        self._waiting += 1
        task = asyncio.get_running_loop().create_task(self._exchange(want), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def keep(self, ends: Sequence[End], progress: Sequence[Progress] = ()) -> asyncio.Task[Turn] | None:
        """Has it told later what it cannot be told now; gives the exchange, unless one that is to come takes it."""
        if not self._waiting:
            return self.begin(ends, 0, progress)
        self._ends += ends
        self._progress += progress
        return None

    async def _exchange(self, want: int) -> Turn:
        async with self._lock:
            self._waiting -= 1
            tries = 0
            while True:
                ends, self._ends = self._ends, []
                progress, self._progress = self._progress, []
                try:
                    turn = await self.broker.turn(self._inner(ends), want, self._inner(progress))
                except BrokerError as error:
                    self._ends[:0], self._progress[:0] = ends, progress
                    if self._is_closed:
                        raise
                    tries += 1
                    self._deny(error, tries)
                    await sleep(self._clock, delay_after_denial(tries, error))
                else:
                    self._denied = ""
                    return self._outer(turn)

    def _deny(self, error: BrokerError, tries: int) -> None:
        if tries == 1:
            _logger.error("partition %d denies its work; it is asked again: %s", self.number, error)
        self._denied = str(error) or type(error).__name__
        self._on_change()

    def _inner(self, told: Sequence[Any]) -> list[Any]:
        if self._count == 1:
            return list(told)
        return [msgspec.structs.replace(one, token=one.token // self._count) for one in told]

    def _outer(self, turn: Turn) -> Turn:
        if self._count == 1 or not turn.claimed:
            return turn
        return msgspec.structs.replace(turn, claimed=self.outer(turn.claimed))

    def outer(self, claimed: Sequence[Claimed]) -> list[Claimed]:
        """Claims as they are known outside."""
        return [msgspec.structs.replace(one, token=one.token * self._count + self.number) for one in claimed]

    # --- its end ------------------------------------------------------------------------------------------------

    @property
    def tasks(self) -> Iterable[asyncio.Task[Turn]]:
        """The exchanges that are under way."""
        return set(self._tasks)

    def close(self) -> None:
        """Tries nothing again."""
        self._is_closed = True

    def leave(self) -> Iterable[asyncio.Task[Turn]]:
        """Gives up what is left, once its broker is closed."""
        for task in self._tasks:
            task.cancel()
        if self._ends:
            text = "%d ends did not reach partition %d, which has them run again"
            _logger.warning(text, len(self._ends), self.number)
        return self.tasks
