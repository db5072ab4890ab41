"""When something that failed is tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lane_obs.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs.clock import Clock, Timer

_FIRST: Final = 0.1
_LAST: Final = 5.0
_GROWTH: Final = 2.0
"""Seconds to the first try, the longest between two, and by how much it grows."""


class Again:
    """Calls `do` on the event loop, each time later than before.

    Args:
        clock: `None` for real time.
        do: tries it.
    """

    def __init__(self, clock: Clock | None, do: Callable[[], object]) -> None:
        self._clock = clock or SystemClock()
        self._do = do
        self._timer: Timer | None = None
        self._delay = _FIRST

    def later(self) -> None:
        """Has it tried, unless it will be anyway."""
        if self._timer is None:
            self._timer = self._clock.call_at(self._clock.now() + self._delay, self._call)
            self._delay = min(self._delay * _GROWTH, _LAST)

    def stop(self) -> None:
        """Has it not tried. The next time begins with the shortest wait again."""
        timer, self._timer = self._timer, None
        self._delay = _FIRST
        if timer is not None:
            timer.cancel()

    def _call(self) -> None:
        self._timer = None
        self._do()
