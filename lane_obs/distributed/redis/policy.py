"""Policies of lanes, as scripts read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lane_obs.config import OnExpiry
from lane_obs.config.lane import OnCrash
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs.config import LaneConfig, RateLimit

_LIMITED, _BOOSTED, _AGEING, _RUNS_LATE = 1, 2, 4, 8
_MOST: Final = 2**31 - 1


def pack_lanes(lanes: Mapping[str, LaneConfig], rate_limits: Sequence[RateLimit]) -> list[list[Any]]:
    """Lanes as `declare.lua` takes them.

    Args:
        lanes: by name.
        rate_limits: those of the whole queue.

    Raises:
        ConfigError: one asks for what this broker cannot do.
    """
    return [_pack_lane(name, lane, rate_limits) for name, lane in lanes.items()]


def _pack_lane(name: str, lane: LaneConfig, rate_limits: Sequence[RateLimit]) -> list[Any]:
    if lane.partitions is not None and lane.partitions.fair:
        raise ConfigError(
            f"lanes.{name}.partitions.fair", lane.partitions.fair, "give False: a RedisBroker has no fair partitions"
        )
    if abs(lane.priority) > _MOST:
        raise ConfigError(f"lanes.{name}.priority", lane.priority, f"give at most {_MOST} with a RedisBroker")
    flags = _RUNS_LATE if lane.on_expiry is OnExpiry.RUN else 0
    most = -1 if lane.max_pending is None else lane.max_pending
    rest = {
        "overflow": str(lane.overflow),
        "dies": lane.on_crash is OnCrash.DEAD_LETTER,
        "deaths": lane.max_crashes,
    }
    return [name, lane.priority, lane.min_concurrency, lane.max_concurrency, most, flags, rest]


def pack_limits(rate_limits: Sequence[RateLimit]) -> list[Any]:
    """The rate limits of the whole queue."""
    return []
