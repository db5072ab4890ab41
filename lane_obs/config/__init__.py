"""Configuration: frozen values, checked once when they are built, varied with `replace` or `with_*`."""

from lane_obs.config.boost import PriorityBoost
from lane_obs.config.check import (
    MAX_COST,
    Duration,
    check_clock,
    check_keys,
    check_methods,
    check_name,
    to_choice,
    to_cost,
    to_count,
    to_seconds,
    to_seed,
)
from lane_obs.config.file import load_lanes
from lane_obs.config.lane import DEFAULT_LANES, LaneConfig, OnCrash, OnExpiry, Overflow, QueueConfig, check_lanes, to_rate_limits
from lane_obs.config.retry import Jitter, RetryPolicy

__all__ = [
    "DEFAULT_LANES",
    "Duration",
    "Jitter",
    "MAX_COST",
    "LaneConfig",
    "OnCrash",
    "OnExpiry",
    "Overflow",
    "PriorityBoost",
    "QueueConfig",
    "RetryPolicy",
    "check_clock",
    "check_keys",
    "check_lanes",
    "check_methods",
    "check_name",
    "load_lanes",
    "to_choice",
    "to_cost",
    "to_count",
    "to_rate_limits",
    "to_seconds",
    "to_seed",
]
