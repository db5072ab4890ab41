"""A clock that a test sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class _NoTimer:
    def cancel(self) -> None:
        """There is nothing to cancel."""


class HandClock:
    """A clock in whole microseconds. It calls nobody: what is due is seen to when somebody asks.

    Args:
        on_set: is told each time.
    """

    def __init__(self, on_set: Callable[[int], object] = lambda _: None) -> None:
        self._on_set = on_set
        self.micros = 0
        self.set(1_000_000_000_000)

    def set(self, micros: int) -> None:
        """From now on it is so late."""
        self.micros = micros
        self._on_set(micros)

    def now(self) -> float:
        return self.micros / 1e6

    def wall(self) -> float:
        return self.micros / 1e6

    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> _NoTimer:
        return _NoTimer()
