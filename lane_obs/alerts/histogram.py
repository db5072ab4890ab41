"""Expressions over what a histogram has counted in a window."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from typing import TYPE_CHECKING

from lane_obs.alerts.expression import NONE, Expression, Leaf, duration, exact

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lane_obs.alerts.expression import Per, Samples


@dataclasses.dataclass(frozen=True, slots=True)
class Quantile(Expression):
    """A quantile over a window, as `histogram_quantile` has it: linear within a bucket, at most the last bound."""

    leaf: Leaf
    quantile: float
    window: float

    def promql(self, per: Per) -> str:
        """See `Expression`."""
        series = f"rate({self.leaf.selector('_bucket', window=f'[{duration(self.window)}]')})"
        return f"histogram_quantile({self.quantile:g}, {self.leaf.added_up(series, per)})"

    def values(self, samples: Samples, per: Per) -> Sequence[float]:
        """See `Expression`."""
        now = samples.now(self.leaf, per)
        before, _ = samples.before(self.leaf, per, self.window)
        if before is None:
            return [NONE] * len(now)
        return [
            NONE if counts == old else self._of(bounds, counts, old)
            for (bounds, counts), (_, old) in zip(now, before, strict=True)
        ]

    def _of(self, bounds: Sequence[float], counts: Sequence[int], old: Sequence[int]) -> float:
        # From above, as most of what is asked for lies there: all buckets would take twice as long.
        reached, bucket = sum(counts) - sum(old), len(bounds)
        rank = self.quantile * reached
        while (below := reached - (counts[bucket] - old[bucket])) >= rank:
            reached = below
            bucket -= 1
        if bucket == len(bounds):
            return bounds[-1]
        low = bounds[bucket - 1] if bucket else 0.0
        return low + (bounds[bucket] - low) * (rank - below) / (reached - below)

    def parts(self) -> Iterator[tuple[Leaf, float]]:
        """See `Expression`."""
        yield self.leaf, self.window


@dataclasses.dataclass(frozen=True, slots=True)
class ShareAbove(Expression):
    """The share of a window's values that lie above a limit; no value where `least` or fewer come each second.

    Args:
        leaf: the histogram.
        limit: the limit in seconds. Between two bounds of the histogram the values of the bucket are taken to lie
            evenly, as `histogram_quantile` does.
        bounds: the histogram's bounds; the last one is at least the limit.
        window: in seconds.
        least: how many values a second there must be more than.
    """

    leaf: Leaf
    limit: float
    bounds: tuple[float, ...]
    window: float
    least: float = 0.0

    def promql(self, per: Per) -> str:
        """See `Expression`."""
        window = f"[{duration(self.window)}]"
        count = self.leaf.added_up(f"rate({self.leaf.selector('_count', window=window)})", per)
        within = " + ".join(self._up_to(bound, share, per) for bound, share in self._weights(self.bounds).items())
        return f"1 - ({within}) / ({count} > {exact(self.least)})"

    def _up_to(self, bound: float, share: float, per: Per) -> str:
        # The exporter writes a bound as Python does, `10.0` and not `10`.
        series = self.leaf.selector("_bucket", f'le="{float(bound)!r}"', f"[{duration(self.window)}]")
        away = "lane, le" if per == "queue" and self.leaf.is_of_lanes else "le"
        rate = f"sum without ({away}) (rate({series}))"
        return rate if share == 1 else f"{exact(share)} * {rate}"

    def _weights(self, bounds: Sequence[float]) -> dict[float, float]:
        """Which cumulated buckets make up what is within the limit, and how much of each."""
        bucket = min(bisect_left(bounds, self.limit), len(bounds) - 1)
        high = bounds[bucket]
        low = bounds[bucket - 1] if bucket else 0.0
        share = min((self.limit - low) / (high - low), 1.0)
        return {low: 1 - share, high: share} if bucket and share < 1 else {high: share}

    def values(self, samples: Samples, per: Per) -> Sequence[float]:
        """See `Expression`."""
        now = samples.now(self.leaf, per)
        before, age = samples.before(self.leaf, per, self.window)
        values = [NONE] * len(now)
        least = self.least * age
        known: Sequence[float] | None = None
        weights: list[tuple[int, float]] = []
        for place, ((bounds, counts), (_, old)) in enumerate(zip(now, before or (), strict=False)):
            if counts == old:
                continue
            if bounds is not known:  # most lanes share theirs
                known = bounds
                weights = [(bisect_left(bounds, bound) + 1, share) for bound, share in self._weights(bounds).items()]
            whole = sum(counts) - sum(old)
            if whole > least:
                within = 0.0
                for end, share in weights:
                    within += share * (sum(counts[:end]) - sum(old[:end]))
                values[place] = 1 - within / whole
        return values

    def parts(self) -> Iterator[tuple[Leaf, float]]:
        """See `Expression`."""
        yield self.leaf, self.window
