"""Keeps a connection up: opens it, and opens another one whenever it breaks, for ever."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Final

from lane_obs.clock import sleep_until
from lane_obs.config import RetryPolicy
from lane_obs.core.retry import delay_before_retry
from lane_obs.distributed.redis.route import Unreachable
from lane_obs.errors import error_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from lane_obs.clock import Clock
    from lane_obs.distributed.redis.wire import Wire

_PACE: Final = RetryPolicy(initial_delay=0.05, max_delay=2.0)
"""Spread over all of the delay: the members of a queue lose their server at the same moment."""
_FAULT: Final = ConnectionError()


class Backoff:
    """Rests between tries, longer each time up to 2 s."""

    def __init__(self, clock: Clock, rng: Random) -> None:
        self.tries = 0
        self._clock = clock
        self._rng = rng

    async def rest(self, until: float | None = None) -> None:
        """Waits before the next try, not beyond `until`."""
        self.tries += 1
        due = self._clock.now() + delay_before_retry(_PACE, self.tries, _FAULT, self._rng.random())
        await sleep_until(self._clock, due if until is None else min(due, until))


class Keeper:
    """One connection at a time, as long as it is open.

    Args:
        dial: opens a connection.
        clock: times the tries.
        rng: spreads them.
        on_up: is called with each new connection.
        on_down: is called with the reason, when one broke and after each try that failed.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[Wire]],
        clock: Clock,
        rng: Random,
        on_up: Callable[[Wire], None],
        on_down: Callable[[str], None],
    ) -> None:
        self.wire: Wire | None = None
        """The connection while it is up."""
        self.reason = "it was never reached"
        """Why it is not."""
        self.denied = False
        """Whether that is since the server does not let us in."""
        self._dial = dial
        self._clock = clock
        self._backoff = Backoff(clock, rng)
        self._on_up = on_up
        self._on_down = on_down
        self._waiting: dict[asyncio.Future[None], bool] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begins, where it has not."""
        if self._task is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._run(), context=contextvars.Context(), name="lane-obs-redis")

    async def close(self) -> None:
        """Ends it: who waits for a connection gets none."""
        self._closed = True
        self.reason, self.denied = "it is closed", False
        task, wire = self._task, self.wire
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if wire is not None:
            await wire.end("it is closed")
        self.wire = None
        self._wake(denied=True)

    @property
    def is_up(self) -> bool:
        """Whether there is a connection that works."""
        return self.wire is not None and not self.wire.broken

    async def wait_up(self, until: float | None, *, patient: bool = True) -> Wire | None:
        """The connection once it is up; `None` when it is not by `until`, or never will be.

        Args:
            until: by the clock; `None` for ever.
            patient: whether to go on waiting for a server that does not let us in.
        """
        self.start()
        while not self.is_up and not self._closed and (patient or not self.denied):
            if until is not None and self._clock.now() >= until:
                return None
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[waiter] = patient
            timer = None if until is None else self._clock.call_at(until, _wake, waiter)
            try:
                await waiter
            finally:
                self._waiting.pop(waiter, None)
                if timer is not None:
                    timer.cancel()
        return self.wire if self.is_up else None

    async def _run(self) -> None:
        while True:
            try:
                await self._keep(await self._dial())
            except Unreachable as fault:
                self._fall(str(fault), denied=fault.denied)
            except Exception as fault:  # whatever it is, a process without its connection is worse
                self._fall(f"{type(fault).__name__}: {error_text(fault)}", denied=False)
            await self._backoff.rest()

    async def _keep(self, wire: Wire) -> None:
        self.wire, self.denied = wire, False
        self._on_up(wire)
        self._wake(denied=False)
        reason = await asyncio.shield(wire.lost)
        self.wire = None
        if wire.proved:
            self._backoff.tries = 0
        self._fall(f"{wire.address}: {reason}", denied=False)

    def _fall(self, reason: str, *, denied: bool) -> None:
        self.reason, self.denied = reason, denied
        self._on_down(reason)
        if denied:
            self._wake(denied=True)

    def _wake(self, *, denied: bool) -> None:
        """Wakes who waits, in the order of their coming; of those that wait in spite of a denial, none for one."""
        for waiter, patient in self._waiting.items():
            if not denied or not patient or self._closed:
                _wake(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
