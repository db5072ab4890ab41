"""A histogram of plain numbers: one bisection and two additions a value."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.events import TraceIds

Exemplar: TypeAlias = "tuple[float, TraceIds, float]"
"""A value in seconds, the span it belongs to, and the Unix time."""

QUICK_BOUNDS: Final = (0.00001, 0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds in seconds for what should take microseconds: work of sinks, lateness of the event loop."""


class Histogram:
    """Counts by bucket, and the sum.

    Args:
        bounds: upper bounds in seconds, rising; values above all of them have a last bucket of their own.

    Attributes:
        bounds: the same.
        counts: values in each bucket, not cumulated; one more than there are bounds.
        total: sum of all values.
        exemplars: the latest value of each bucket that has a trace to show for it.
    """

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0
        self.exemplars: list[Exemplar | None] = [None] * (len(self.bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Counts one value."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def observe_traced(self, seconds: float, trace: TraceIds, wall: float) -> None:
        """Counts one value, and keeps the span it belongs to as its bucket's example."""
        bucket = bisect_left(self.bounds, seconds)
        self.counts[bucket] += 1
        self.total += seconds
        self.exemplars[bucket] = (seconds, trace, wall)

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)
