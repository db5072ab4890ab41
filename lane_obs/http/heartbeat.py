"""The event loop's heartbeat, seen from other threads. It beats only when asked: an idle loop is left asleep."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import msgspec

from lane_obs.clock import SystemClock
from lane_obs.config import to_seconds

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from lane_obs.clock import Clock
    from lane_obs.config import Duration

_PATIENCE: Final = 0.1


class Pulse(msgspec.Struct, frozen=True):
    """What a check has found.

    Attributes:
        alive: whether the loop runs, as far as can be told.
        status: `alive`, `late` (it has not answered yet), `stale` (for too long), `not_started` or `loop_closed`.
        age_seconds: how long the loop has owed its answer, or took for it; `None` when it could not be asked.
    """

    alive: bool
    status: str
    age_seconds: float | None


class Heartbeat:
    """Tells whether an event loop still turns. For use by any number of other threads.

    A check asks the loop for a sign of life and waits a tenth of a second for it. While that one is outstanding no
    other is asked for, and its age is what counts.

    Args:
        find_loop: returns the loop, or `None` while there is none.
        stale_after: age in seconds of an unanswered beat from which the loop counts as dead.
        clock: real time; for tests.

    Raises:
        ConfigError: a bad `stale_after`.
    """

    def __init__(
        self,
        find_loop: Callable[[], asyncio.AbstractEventLoop | None],
        stale_after: Duration = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self._find_loop = find_loop
        self._stale_after = to_seconds("stale_after", stale_after)
        self._now = (clock or SystemClock()).now
        self._lock = threading.Lock()
        self._beat: _Beat | None = None

    def check(self) -> Pulse:
        """Asks for a beat, unless one is outstanding, and waits a little for it."""
        loop = self._find_loop()
        if loop is None:
            return Pulse(alive=True, status="not_started", age_seconds=None)
        try:
            beat = self._ask(loop)
        except RuntimeError:  # only a closed loop refuses
            return Pulse(alive=False, status="loop_closed", age_seconds=None)
        if beat.answered.wait(_PATIENCE):
            return Pulse(alive=True, status="alive", age_seconds=beat.answered_at - beat.asked_at)
        age = self._now() - beat.asked_at
        alive = age < self._stale_after
        return Pulse(alive=alive, status="late" if alive else "stale", age_seconds=age)

    def _ask(self, loop: asyncio.AbstractEventLoop) -> _Beat:
        with self._lock:
            beat = self._beat
            if beat is None or beat.answered.is_set() or loop.is_closed():
                beat = _Beat(self._now)
                loop.call_soon_threadsafe(beat.answer)
                self._beat = beat
            return beat


class _Beat:
    """One question to the loop, and its answer."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.asked_at = self.answered_at = now()
        self.answered = threading.Event()

    def answer(self) -> None:
        self.answered_at = self._now()
        self.answered.set()
