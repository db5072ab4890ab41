"""Configuration: frozen values, checked once when they are built, varied with `replace` or `with_*`."""

from lane_obs.config.boost import PriorityBoost
from lane_obs.config.check import (
    Duration,
    check_clock,
    check_keys,
    check_methods,
    check_name,
    to_choice,
    to_count,
    to_seconds,
    to_seed,
)
from lane_obs.config.file import load_lanes
from lane_obs.config.lane import DEFAULT_LANES, LaneConfig, OnCrash, OnExpiry, Overflow, QueueConfig, check_lanes
from lane_obs.config.partitions import Partitions
from lane_obs.config.rate_limit import RateLimit, check_shared, to_cost, to_rate_limits
from lane_obs.config.retry import Jitter, RetryPolicy

__all__ = [
    "DEFAULT_LANES",
    "Duration",
    "Jitter",
    "LaneConfig",
    "OnCrash",
    "OnExpiry",
    "Overflow",
    "Partitions",
    "PriorityBoost",
    "QueueConfig",
    "RateLimit",
    "RetryPolicy",
    "check_clock",
    "check_keys",
    "check_lanes",
    "check_methods",
    "check_name",
    "check_shared",
    "load_lanes",
    "to_choice",
    "to_cost",
    "to_count",
    "to_rate_limits",
    "to_seconds",
    "to_seed",
]
