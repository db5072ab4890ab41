"""Policies of lanes, as scripts read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lane_obs.config import OnExpiry
from lane_obs.config.lane import OnCrash
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs.config import LaneConfig, PriorityBoost, RateLimit

_LIMITED, _BOOSTED, _AGEING, _RUNS_LATE, _DIVIDED = 1, 2, 4, 8, 16
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


def check_lane(name: str, lane: LaneConfig) -> None:
    """Checks that this broker can do what a lane asks for.

    Raises:
        ConfigError: it cannot.
    """
    if lane.partitions is not None and lane.partitions.fair:
        raise ConfigError(
            f"lanes.{name}.partitions.fair", lane.partitions.fair, "give False: a RedisBroker has no fair partitions"
        )
    if abs(lane.priority) > _MOST:
        raise ConfigError(f"lanes.{name}.priority", lane.priority, f"give at most {_MOST} with a RedisBroker")


def _pack_lane(name: str, lane: LaneConfig, rate_limits: Sequence[RateLimit]) -> list[Any]:
    check_lane(name, lane)
    flags = _RUNS_LATE if lane.on_expiry is OnExpiry.RUN else 0
    limits = _pack_limits(lane, rate_limits)
    boost = lane.boost
    if limits:
        flags |= _LIMITED
    if boost is not None:
        flags |= _AGEING if boost.is_ageing else _BOOSTED
    if lane.partitions is not None:
        flags |= _DIVIDED
    most = -1 if lane.max_pending is None else lane.max_pending
    rest = {
        "overflow": str(lane.overflow),
        "dies": lane.on_crash is OnCrash.DEAD_LETTER,
        "deaths": lane.max_crashes,
        "limits": limits,
        "boost": None if boost is None else _pack_boost(boost),
    }
    return [name, lane.priority, lane.min_concurrency, lane.max_concurrency, most, flags, rest]


def _pack_limits(lane: LaneConfig, rate_limits: Sequence[RateLimit]) -> list[list[Any]]:
    """All rate limits of a lane: what each is kept by (after a dot where it is the lane's own), and what it allows."""
    of_all = {limit.name for limit in rate_limits} - {None}
    own = [limit for limit in lane.rate_limits if limit.name not in of_all]
    return [
        *(_pack_limit(limit, f"q{number}") for number, limit in enumerate(rate_limits)),
        # By its values, so that it stays the same one among others; the same values twice are two.
        *(
            _pack_limit(one, f".{own[:n].count(one)}:{one.amount}:{one.seconds}:{one.burst}")
            for n, one in enumerate(own)
        ),
    ]


def _pack_limit(limit: RateLimit, field: str) -> list[Any]:
    kept_by = field if limit.name is None else f"s{limit.name}"
    return [kept_by, limit.amount, limit.seconds, -1 if limit.burst is None else limit.burst]


def _pack_boost(boost: PriorityBoost) -> dict[str, Any]:
    """A boost, in microseconds. What is not there is left out: scripts would take a null for something."""
    packed: dict[str, Any] = {"floor": boost.floor, "by": boost.by}
    if boost.every is not None:
        packed["every"] = boost.every * 1e6
    else:
        packed["steps"] = [[1 - share, less] for share, less in boost.steps]
    if boost.deadline is not None:
        packed["deadline"] = boost.deadline * 1e6
    return packed
