"""Bounds of histograms as users give them: for all lanes, or by lane."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from lane_obs.config import check_keys
from lane_obs.errors import ConfigError
from lane_obs.metrics.catalogue import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Iterable

Buckets: TypeAlias = "Sequence[float] | Mapping[str, Sequence[float]]"
"""Bounds in seconds for all lanes, or by lane name, where other lanes have the default ones."""


class Bounds:
    """Checked bounds.

    Args:
        buckets: what the user gave.

    Raises:
        ConfigError: bounds that do not rise from above zero, or an infinite one.
    """

    def __init__(self, buckets: Buckets) -> None:
        by_lane = buckets if isinstance(buckets, Mapping) else {}
        self._by_lane = {lane: _checked(f"buckets.{lane}", bounds) for lane, bounds in by_lane.items()}
        self._others = BUCKETS if isinstance(buckets, Mapping) else _checked("buckets", buckets)

    def of(self, lane: str) -> tuple[float, ...]:
        """The bounds of one lane."""
        return self._by_lane.get(lane, self._others)

    def of_lanes(self, lanes: Iterable[str]) -> dict[str, tuple[float, ...]]:
        """The bounds by lane.

        Raises:
            ConfigError: there are bounds for a lane that is none of these.
        """
        names = tuple(lanes)
        check_keys("buckets.", self._by_lane, names, "lane")
        return {lane: self.of(lane) for lane in names}


def _checked(field: str, bounds: Sequence[float]) -> tuple[float, ...]:
    given = list(bounds) if isinstance(bounds, Sequence) else []
    rising = [float(bound) for bound in given if isinstance(bound, int | float) and 0 < bound < math.inf]
    if not rising or rising != given or any(low >= high for low, high in pairwise(rising)):
        raise ConfigError(field, bounds, "give rising seconds above zero, without the infinite one")
    return tuple(rising)
