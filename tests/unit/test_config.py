"""Configuration values: what is taken, what is refused and with which words."""

from __future__ import annotations

import dataclasses
import math
from datetime import timedelta
from typing import Any

import pytest

from lane_obs import (
    DEFAULT_LANES,
    ConfigError,
    Jitter,
    LaneConfig,
    MonitorConfig,
    Overflow,
    QueueConfig,
    QueueManager,
    RetryAfter,
    RetryPolicy,
)
from lane_obs.runtime.options import make_options

COUNT = "whole number of {} or more"
SECONDS_ABOVE_ZERO = "seconds above zero"
SECONDS = "seconds of zero or more"

BAD_LANES: list[tuple[dict[str, Any], str, object, str]] = [
    ({"min_concurrency": 5, "max_concurrency": 4}, "min_concurrency", 5, "give at most max_concurrency, which is 4"),
    ({"min_concurrency": -1}, "min_concurrency", -1, COUNT.format(0)),
    ({"min_concurrency": True}, "min_concurrency", True, COUNT.format(0)),
    ({"min_concurrency": 1.0}, "min_concurrency", 1.0, COUNT.format(0)),
    ({"min_concurrency": "1"}, "min_concurrency", "1", COUNT.format(0)),
    ({"min_concurrency": None}, "min_concurrency", None, COUNT.format(0)),
    ({"max_concurrency": 0}, "max_concurrency", 0, COUNT.format(1)),
    ({"max_concurrency": -3}, "max_concurrency", -3, COUNT.format(1)),
    ({"max_concurrency": True}, "max_concurrency", True, COUNT.format(1)),
    ({"max_concurrency": 2.0}, "max_concurrency", 2.0, COUNT.format(1)),
    ({"max_concurrency": None}, "max_concurrency", None, COUNT.format(1)),
    ({"priority": 1.5}, "priority", 1.5, "whole number"),
    ({"priority": True}, "priority", True, "whole number"),
    ({"priority": "high"}, "priority", "high", "whole number"),
    ({"timeout": 0}, "timeout", 0, SECONDS_ABOVE_ZERO),
    ({"timeout": -1.0}, "timeout", -1.0, SECONDS_ABOVE_ZERO),
    ({"timeout": math.inf}, "timeout", math.inf, SECONDS_ABOVE_ZERO),
    ({"timeout": True}, "timeout", True, SECONDS_ABOVE_ZERO),
    ({"timeout": "30"}, "timeout", "30", SECONDS_ABOVE_ZERO),
    ({"timeout": timedelta(seconds=-1)}, "timeout", timedelta(seconds=-1), SECONDS_ABOVE_ZERO),
    ({"timeout": 10**400}, "timeout", 10**400, SECONDS_ABOVE_ZERO),
    ({"timeout": 3.2e9}, "timeout", 3.2e9, SECONDS_ABOVE_ZERO),
    ({"retry": 3}, "retry", 3, "RetryPolicy"),
    ({"retry": None}, "retry", None, "RetryPolicy"),
    ({"max_pending": 0}, "max_pending", 0, COUNT.format(1)),
    ({"max_pending": -1}, "max_pending", -1, COUNT.format(1)),
    ({"max_pending": False}, "max_pending", False, COUNT.format(1)),
    ({"max_pending": 10.0}, "max_pending", 10.0, COUNT.format(1)),
    ({"pressure_threshold": 0}, "pressure_threshold", 0, COUNT.format(1)),
    ({"pressure_threshold": 1.5}, "pressure_threshold", 1.5, COUNT.format(1)),
    ({"overflow": "drop"}, "overflow", "drop", "'wait', 'reject', 'drop_oldest'"),
    ({"overflow": None}, "overflow", None, "'wait', 'reject', 'drop_oldest'"),
    ({"overflow": "reject"}, "overflow", "reject", "give max_pending too"),
    ({"overflow": Overflow.DROP_OLDEST}, "overflow", "drop_oldest", "give max_pending too"),
    ({"overflow": "reject", "max_pending": None}, "overflow", "reject", "give max_pending too"),
]

BAD_POLICIES: list[tuple[dict[str, Any], str, object, str]] = [
    ({"max_retries": -1}, "retry.max_retries", -1, COUNT.format(0)),
    ({"max_retries": True}, "retry.max_retries", True, COUNT.format(0)),
    ({"max_retries": 2.0}, "retry.max_retries", 2.0, COUNT.format(0)),
    ({"initial_delay": -0.1}, "retry.initial_delay", -0.1, SECONDS),
    ({"initial_delay": math.inf}, "retry.initial_delay", math.inf, SECONDS),
    ({"max_delay": -1}, "retry.max_delay", -1, SECONDS),
    ({"max_delay": False}, "retry.max_delay", False, SECONDS),
    ({"max_delay": 10**400}, "retry.max_delay", 10**400, SECONDS),
    ({"multiplier": 0.5}, "retry.multiplier", 0.5, "finite number of 1 or more"),
    ({"multiplier": math.inf}, "retry.multiplier", math.inf, "finite number of 1 or more"),
    ({"multiplier": True}, "retry.multiplier", True, "finite number of 1 or more"),
    ({"multiplier": "2"}, "retry.multiplier", "2", "finite number of 1 or more"),
    ({"jitter": "some"}, "retry.jitter", "some", "'full', 'none'"),
    ({"retry_on": (ValueError, 3)}, "retry.retry_on", 3, "tuple of exception types"),
    ({"retry_on": [ValueError]}, "retry.retry_on", [ValueError], "tuple of exception types"),
    ({"give_up_on": (int,)}, "retry.give_up_on", int, "tuple of exception types"),
    ({"give_up_on": "ValueError"}, "retry.give_up_on", "ValueError", "tuple of exception types"),
]


def short(value: object) -> str:
    return repr(value)[:40]


def assert_says(error: ConfigError, field: str, value: object, allowed: str) -> None:
    assert error.field == field
    assert error.value is value or error.value == value
    assert allowed in error.allowed
    assert str(error) == f"{field}: {value!r} is not allowed; {error.allowed}"


@pytest.mark.parametrize(("fields", "field", "value", "allowed"), BAD_LANES, ids=short)
def test_a_bad_lane_value_is_named_with_what_is_allowed(
    fields: dict[str, Any], field: str, value: object, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        LaneConfig(**fields)
    assert_says(caught.value, field, value, allowed)


@pytest.mark.parametrize(("fields", "field", "value", "allowed"), BAD_POLICIES, ids=short)
def test_a_bad_retry_value_is_named_with_what_is_allowed(
    fields: dict[str, Any], field: str, value: object, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        RetryPolicy(**fields)
    assert_says(caught.value, field, value, allowed)


@pytest.mark.parametrize("build", [lambda nan: LaneConfig(timeout=nan), lambda nan: RetryPolicy(1, initial_delay=nan)])
def test_nan_is_no_duration(build: Any) -> None:
    with pytest.raises(ConfigError, match=r"nan is not allowed; give .*seconds"):
        build(math.nan)


def test_a_bad_configuration_is_also_a_value_error() -> None:
    with pytest.raises(ValueError, match="max_concurrency: 0 is not allowed"):
        LaneConfig(0, 0)


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan, True, "3", None, 10**400], ids=short)
def test_retry_after_takes_finite_seconds_only(seconds: Any) -> None:
    with pytest.raises(ConfigError, match=r"^seconds: "):
        RetryAfter(seconds)


@pytest.mark.parametrize("overflow", ["reject", "drop_oldest"])
def test_a_bound_cannot_be_taken_away_from_under_its_overflow(overflow: str) -> None:
    lane = LaneConfig().with_max_pending(5, overflow)
    assert lane.with_priority(2).with_timeout(1).with_pressure_threshold(3).overflow == overflow
    with pytest.raises(ConfigError, match=rf"^overflow: '{overflow}' .* give max_pending too"):
        dataclasses.replace(lane, max_pending=None)
    assert dataclasses.replace(lane, max_pending=None, overflow="wait").max_pending is None


@pytest.mark.parametrize(
    "build",
    [
        lambda value: LaneConfig(timeout=value).timeout,
        lambda value: LaneConfig().with_timeout(value).timeout,
        lambda value: RetryPolicy(1, initial_delay=value).initial_delay,
        lambda value: RetryPolicy(1, max_delay=value).max_delay,
        lambda value: RetryPolicy.fixed(1, value).initial_delay,
        lambda value: RetryPolicy(1).with_initial_delay(value).initial_delay,
        lambda value: RetryPolicy(1).with_max_delay(value).max_delay,
        lambda value: RetryAfter(value).seconds,
        lambda value: MonitorConfig(interval=value).interval,
        lambda value: QueueManager(drain_timeout=value).drain_timeout,
        lambda value: make_options({"timeout": value}).timeout,
        lambda value: make_options({"deadline": value}).deadline,
        lambda value: make_options({"delay": value}).delay,
    ],
)
def test_every_duration_may_be_a_timedelta_and_is_kept_as_seconds(build: Any) -> None:
    assert build(timedelta(minutes=1, milliseconds=5)) == build(60.005) == 60.005
    for bad in (timedelta(seconds=-1), timedelta(days=40_000), math.nan):
        with pytest.raises(ConfigError) as caught:
            build(bad)
        assert caught.value.value is bad
        assert "or a timedelta" in caught.value.allowed


def test_retry_after_says_how_long_in_seconds() -> None:
    assert str(RetryAfter(timedelta(minutes=2))) == "retry after 120.0 s"


def test_a_lane_without_a_reservation_is_allowed() -> None:
    assert LaneConfig(0, 1).min_concurrency == 0


def test_the_two_positional_values_of_a_lane_are_min_and_max_concurrency() -> None:
    lane = LaneConfig(2, 7)
    assert (lane.min_concurrency, lane.max_concurrency) == (2, 7)
    with pytest.raises(TypeError):
        LaneConfig(2, 7, 1)  # type: ignore[misc]


def test_durations_may_be_timedeltas_and_are_kept_as_seconds() -> None:
    lane = LaneConfig(timeout=timedelta(minutes=1), retry=RetryPolicy(1, initial_delay=timedelta(milliseconds=500)))
    assert (lane.timeout, lane.retry.initial_delay) == (60.0, 0.5)
    assert RetryPolicy.fixed(1, timedelta(seconds=3)).max_delay == 3.0


def test_the_six_default_lanes_have_the_priorities_and_limits_of_the_reference() -> None:
    assert [(name, lane.priority, lane.max_concurrency) for name, lane in DEFAULT_LANES.items()] == [
        ("system", 0, 5),
        ("control", 1, 3),
        ("query", 2, 10),
        ("session", 3, 5),
        ("skill", 4, 3),
        ("prompt", 5, 2),
    ]


def test_default_lanes_and_configurations_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        DEFAULT_LANES["system"] = LaneConfig()  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULT_LANES["system"].priority = 9  # type: ignore[misc]
    assert DEFAULT_LANES["system"].priority == 0


def test_with_methods_of_a_lane_change_one_thing_in_a_copy() -> None:
    lane = LaneConfig(1, 5)
    policy = RetryPolicy.fixed(2, 1.0)
    assert lane.with_timeout(30).timeout == 30.0
    assert lane.with_retry_policy(policy).retry is policy
    assert lane.with_priority(-3).priority == -3
    assert lane.with_max_pending(10, "reject") == LaneConfig(1, 5, max_pending=10, overflow=Overflow.REJECT)
    assert lane.with_pressure_threshold(4).pressure_threshold == 4
    assert lane == LaneConfig(1, 5)


def test_with_methods_of_a_policy_change_one_thing_in_a_copy() -> None:
    policy = RetryPolicy.exponential(3)
    assert policy.with_max_retries(5).max_retries == 5
    assert policy.with_initial_delay(2).initial_delay == 2.0
    assert policy.with_max_delay(10).max_delay == 10.0
    assert policy.with_multiplier(3).multiplier == 3
    assert policy.with_jitter("none").jitter is Jitter.NONE
    assert policy.with_retry_on(OSError, ValueError).retry_on == (OSError, ValueError)
    assert policy.with_give_up_on(KeyError).give_up_on == (KeyError,)
    assert policy == RetryPolicy(3, 1.0, 60.0, 2.0)


def test_a_with_method_checks_like_the_constructor() -> None:
    with pytest.raises(ConfigError, match=r"timeout: -1 .* above zero"):
        LaneConfig().with_timeout(-1)
    with pytest.raises(ConfigError, match=r"retry\.multiplier: 0 "):
        RetryPolicy.exponential(1).with_multiplier(0)


def test_a_fixed_policy_waits_the_same_time_and_none_never_retries() -> None:
    fixed = RetryPolicy.fixed(4, 2.5)
    assert (fixed.max_retries, fixed.initial_delay, fixed.max_delay, fixed.multiplier) == (4, 2.5, 2.5, 1.0)
    assert RetryPolicy.none().max_retries == 0


def test_one_exception_type_stands_for_a_tuple_of_one() -> None:
    assert RetryPolicy(1, retry_on=ValueError).retry_on == (ValueError,)  # type: ignore[arg-type]


def test_a_queue_configuration_refuses_reservations_above_the_whole() -> None:
    lanes = {"a": LaneConfig(3, 4), "b": LaneConfig(2, 4), "c": LaneConfig(0, 4)}
    with pytest.raises(ConfigError) as caught:
        QueueConfig(lanes, max_concurrency=4)
    assert_says(caught.value, "max_concurrency", 4, "the lanes reserve 5 slots (min_concurrency: a 3 + b 2)")
    assert QueueConfig(lanes, max_concurrency=6).max_concurrency == 6


def test_reservations_must_leave_a_slot_to_lanes_that_reserve_none() -> None:
    with pytest.raises(ConfigError, match=r"max_concurrency: 3 .* lane 'b' could never start"):
        QueueConfig({"a": LaneConfig(3, 4), "b": LaneConfig(0, 4)}, max_concurrency=3)
    assert QueueConfig({"a": LaneConfig(3, 4)}, max_concurrency=3).max_concurrency == 3


@pytest.mark.parametrize(
    "field", ["min_concurrency", "max_concurrency", "max_pending", "pressure_threshold", "max_crashes"]
)
def test_a_count_that_a_float_could_not_hold_is_refused(field: str) -> None:
    with pytest.raises(ConfigError, match="give a whole number of 9007199254740992 or less"):
        LaneConfig(**{field: 10**20})
