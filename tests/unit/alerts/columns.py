"""Samples as plain numbers, and their making of series: what expressions are worked out of in these tests."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lane_obs.alerts.expression import Leaf, Per
    from lane_obs.alerts.series import Moves, Series


class Columns:
    """Samples that are given: for each leaf the present, and the past with its age."""

    def __init__(
        self, now: dict[Leaf, list[Any]], past: dict[Leaf, tuple[list[Any] | None, float]] | None = None
    ) -> None:
        self._now = now
        self._past = past or {}

    def now(self, leaf: Leaf, per: Per) -> list[Any]:
        return self._now[leaf]

    def before(self, leaf: Leaf, per: Per, seconds: float) -> tuple[list[Any] | None, float]:
        return self._past[leaf]


class FromSeries:
    """Samples of one lane, or of the queue, of series that have risen for a whole window."""

    def __init__(self, moves: Moves) -> None:
        self._moves = moves

    def now(self, leaf: Leaf, per: Per) -> list[Any]:
        return [self._value(leaf, 3_600.0)]

    def before(self, leaf: Leaf, per: Per, seconds: float) -> tuple[list[Any], float]:
        return [self._value(leaf, 3_600.0 - seconds)], seconds

    def _value(self, leaf: Leaf, at: float) -> Any:
        if leaf.metric.kind == "histogram":
            return self._histogram(leaf, at)
        return sum(amount * (at if series.rises else 1) for series, amount in self._mine(leaf).items())

    def _mine(self, leaf: Leaf) -> dict[Series, float]:
        return {
            series: amount
            for series, amount in self._moves.items()
            if series.name == leaf.metric.name
            and all(dict(series.labels)[name] in values for name, values in leaf.labels)
        }

    def _histogram(self, leaf: Leaf, at: float) -> tuple[tuple[float, ...], list[float]]:
        reached = defaultdict(float)
        for series, amount in self._moves.items():
            if series.name == f"{leaf.metric.name}_bucket":
                reached[float(dict(series.labels)["le"].replace("+Inf", "inf"))] += amount * at
        bounds = sorted(reached)
        assert bounds[-1] == math.inf
        counts = [
            reached[bound] - (reached[before] if before else 0.0)
            for before, bound in zip([0.0, *bounds], bounds, strict=False)
        ]
        return tuple(bounds[:-1]), counts
