"""The policies of a queue in memory: each member that joins puts its own in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lane_obs.config import check_lanes
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs.config import LaneConfig, RateLimit
    from lane_obs.core.engine import Engine


def check_policies(
    engine: Engine, lanes: Mapping[str, LaneConfig], max_concurrency: int | None, rate_limits: Sequence[RateLimit]
) -> None:
    """Checks policies against the lanes that are there and that they leave as they are.

    Raises:
        ConfigError: they do not fit together, or change what is fixed for a lane's life.
    """
    check_lanes({**{name: lane.config for name, lane in engine.lanes.items()}, **lanes}, max_concurrency, rate_limits)
    for name, config in lanes.items():
        home = engine.lanes.get(name)
        if home is None:
            continue
        if home.config.boost != config.boost:
            raise ConfigError(
                "boost", config.boost, "it is fixed for the lane's life; give what the other members give"
            )
        if _kind(home.config) != _kind(config):
            wanted = "it is fixed for the lane's life; give what the other members give"
            raise ConfigError("partitions", config.partitions, wanted)


def _kind(config: LaneConfig) -> tuple[bool, bool]:
    """What the order of a lane follows from; which partition a command gets is decided where it is submitted."""
    return config.partitions is not None, config.partitions is not None and config.partitions.fair


def put_in_force(
    engine: Engine,
    lanes: Mapping[str, LaneConfig],
    max_concurrency: int | None,
    rate_limits: Sequence[RateLimit] | None,
    now: float,
) -> None:
    """Gives a queue policies that are checked; `None` for the rate limits that it has."""
    if rate_limits is not None:
        _replace_rate_limits(engine, rate_limits, now)
    schedule = engine.schedule
    if schedule.limit != max_concurrency:
        schedule.limit = max_concurrency
        for lane in engine.lanes.values():
            schedule.update(lane, now)
    for name, config in lanes.items():
        home = engine.lanes.get(name)
        if home is None:
            engine.add_lane(name, config, now)
        elif home.config != config:
            engine.configure(home, config, now)
    schedule.settle(now)


def _replace_rate_limits(engine: Engine, rate_limits: Sequence[RateLimit], now: float) -> None:
    """Gives the whole queue other rate limits. What was taken of those of its lanes is forgotten."""
    gates = engine.gates
    for lane in engine.lanes.values():
        gates.leave(lane, now)
        gates.detach(lane)
    gates.for_all(rate_limits, now)
    for lane in engine.lanes.values():
        gates.attach(lane, now)
