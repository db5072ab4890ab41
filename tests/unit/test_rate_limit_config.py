"""Rate limits as configuration: what is taken, what is refused and with which words, in Python and TOML."""

from __future__ import annotations

import dataclasses
import math
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from lane_obs import ConfigError, RateLimit
from lane_obs.config import check_shared, to_cost, to_rate_limits
from lane_obs.config.table import rate_limit_from_table

ABOVE_ZERO = "number above zero"
FROM_ONE = "number from 1"


def values(limit: RateLimit) -> tuple[float, float, float | None, str | None]:
    return limit.amount, limit.seconds, limit.burst, limit.name


def refused(build: Any, *arguments: Any, **named: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        build(*arguments, **named)
    return caught.value


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [
        (RateLimit.per_second(50, burst=100), (50, 1, 100, None)),
        (RateLimit.per_second(50), (50, 1, 50, None)),
        (RateLimit.per_second(0.5), (0.5, 1, 1, None)),
        (RateLimit.per_minute(500), (500, 60, 500, None)),
        (RateLimit.per_minute(0.1, 3), (0.1, 60, 3, None)),
        (RateLimit.per_hour(1), (1, 3600, 1, None)),
        (RateLimit.sliding_window(100, 60), (100, 60, None, None)),
        (RateLimit.sliding_window(100, timedelta(minutes=2)), (100, 120, None, None)),
        (RateLimit.shared("openai", RateLimit.per_minute(500)), (500, 60, 500, "openai")),
    ],
)
def test_a_limit_has_amount_time_burst_and_name(limit: RateLimit, wanted: tuple[Any, ...]) -> None:
    assert values(limit) == wanted
    assert {type(value) for value in (limit.amount, limit.seconds)} == {float}
    with pytest.raises(dataclasses.FrozenInstanceError):
        limit.amount = 1.0  # type: ignore[misc]
    assert dataclasses.replace(limit) == limit


@pytest.mark.parametrize("value", [0, -1, -0.5, math.inf, math.nan, True, "6", None, 10**400, 1e16, 5e-324])
@pytest.mark.parametrize("kind", ["per_second", "per_minute", "per_hour", "sliding_window"])
def test_a_bad_amount_is_named_with_what_is_allowed(kind: str, value: Any) -> None:
    arguments = (value, 60) if kind == "sliding_window" else (value,)
    error = refused(getattr(RateLimit, kind), *arguments)
    assert error.field == f"rate_limit.{kind}"
    assert error.value is value
    assert (FROM_ONE if kind == "sliding_window" else ABOVE_ZERO) in error.allowed
    assert "at most 1e+15" in error.allowed or "to 1e+15" in error.allowed


@pytest.mark.parametrize("value", [0, 0.5, -1, math.inf, math.nan, True, "20", 1e16])
def test_a_bad_burst_is_named_with_what_is_allowed(value: Any) -> None:
    error = refused(RateLimit.per_second, 6, burst=value)
    assert (error.field, error.value) == ("rate_limit.burst", value) or math.isnan(value)
    assert "give a number from 1, which is what a command costs" in error.allowed


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, True, "60", None, timedelta(0), 1e10])
def test_a_bad_length_is_named_with_what_is_allowed(value: Any) -> None:
    error = refused(RateLimit.sliding_window, 100, value)
    assert error.field == "rate_limit.seconds"
    assert error.value is value
    assert "seconds above zero" in error.allowed


def test_a_window_below_one_would_let_nothing_through() -> None:
    assert FROM_ONE in refused(RateLimit.sliding_window, 0.5, 60).allowed
    assert FROM_ONE in refused(RateLimit, 0.5, 60.0).allowed


@pytest.mark.parametrize("fields", [{"amount": 0}, {"burst": 0}, {"seconds": 0}, {"name": ""}])
def test_a_changed_copy_is_checked_as_well(fields: dict[str, Any]) -> None:
    error = refused(dataclasses.replace, RateLimit.per_second(6), **fields)
    assert error.field == f"rate_limit.{'shared' if 'name' in fields else next(iter(fields))}"


def test_a_rate_of_less_than_one_in_a_century_is_refused() -> None:
    assert "one in 100 years" in refused(RateLimit.per_hour, 1e-6 / 1000).allowed
    assert RateLimit.per_hour(2e-6).amount == 2e-6


@pytest.mark.parametrize("name", ["", "  ", 3, None, "a\nb", "x" * 201])
def test_a_shared_limit_needs_a_name(name: Any) -> None:
    error = refused(RateLimit.shared, name, RateLimit.per_second(6))
    assert (error.field, error.value) == ("rate_limit.shared", name)
    assert "printable characters" in error.allowed


@pytest.mark.parametrize("limit", [6, None, RateLimit.shared("a", RateLimit.per_second(6))])
def test_what_is_shared_is_a_limit_that_is_not(limit: Any) -> None:
    error = refused(RateLimit.shared, "b", limit)
    assert (error.field, error.value) == ("rate_limit.shared", limit)
    assert "not shared yet" in error.allowed


def test_a_lane_has_no_limit_or_one_or_several() -> None:
    one, two = RateLimit.per_second(6), RateLimit.sliding_window(100, 60)
    assert to_rate_limits("rate_limit", None) == ()
    assert to_rate_limits("rate_limit", one) == (one,)
    assert to_rate_limits("rate_limit", [one, two]) == to_rate_limits("rate_limit", (one, two)) == (one, two)
    for bad in (6, "6/s", [one, 6], {"per_second": 6}):
        assert "give a RateLimit" in refused(to_rate_limits, "rate_limit", bad).allowed
    shared = RateLimit.shared("a", one)
    assert "once" in refused(to_rate_limits, "rate_limit", [shared, shared]).allowed


def test_lanes_that_share_a_limit_give_it_the_same_values() -> None:
    first, other = RateLimit.per_minute(500), RateLimit.sliding_window(100, 60)
    shared = RateLimit.shared("openai", first)
    check_shared([first, other, shared, RateLimit.shared("openai", first), RateLimit.shared("b", other)])
    error = refused(check_shared, [shared, first, RateLimit.shared("openai", other)])
    assert (error.field, error.value) == ("rate_limit.shared", "openai")
    assert "100 in 60 s, elsewhere 500 in 60 s with burst 500" in error.allowed


@pytest.mark.parametrize("value", [-1, math.inf, math.nan, True, "3", None, 1e16, 10**400])
def test_a_bad_cost_is_named_with_what_is_allowed(value: Any) -> None:
    error = refused(to_cost, "cost", value)
    assert error.field == "cost"
    assert error.value is value
    assert "number of tokens from 0 to" in error.allowed


def test_a_cost_may_be_nothing_or_a_fraction() -> None:
    assert [to_cost("cost", value) for value in (0, 0.25, 1200)] == [0.0, 0.25, 1200.0]


# --- TOML -----------------------------------------------------------------------------------------------------------


def read(text: str) -> tuple[RateLimit, ...]:
    return rate_limit_from_table("rate_limit", msgspec.toml.decode(f"rate_limit = {text}")["rate_limit"])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{ per_second = 6, burst = 20 }", [RateLimit.per_second(6, 20)]),
        ("{ per_minute = 0.5 }", [RateLimit.per_minute(0.5)]),
        ("{ per_hour = 10 }", [RateLimit.per_hour(10)]),
        ("{ sliding_window = 100, seconds = 60 }", [RateLimit.sliding_window(100, 60)]),
        ('{ shared = "openai", per_minute = 500 }', [RateLimit.shared("openai", RateLimit.per_minute(500))]),
        (
            "[{ per_second = 6 }, { sliding_window = 100, seconds = 60.5 }]",
            [RateLimit.per_second(6), RateLimit.sliding_window(100, 60.5)],
        ),
        ("[]", []),
    ],
)
def test_a_file_says_it_in_a_table_or_several(text: str, wanted: list[RateLimit]) -> None:
    assert list(read(text)) == wanted


@pytest.mark.parametrize(
    ("text", "field", "allowed"),
    [
        ("6", "rate_limit", "give a table"),
        ("[6]", "rate_limit[0]", "give a table"),
        ("{}", "rate_limit", "one of per_second, per_minute, per_hour and sliding_window"),
        ("{ burst = 3 }", "rate_limit", "one of per_second"),
        ('{ shared = "openai" }', "rate_limit", "one of per_second"),
        ("{ per_second = 6, per_minute = 60 }", "rate_limit", "one of per_second"),
        ("{ per_second = 6, sliding_window = 60, seconds = 3 }", "rate_limit", "one of per_second"),
        ("{ per_secnd = 6 }", "rate_limit.per_secnd", "did you mean 'per_second'?"),
        ("{ zzz = 6 }", "rate_limit.zzz", "known keys: per_second"),
        ("{ per_second = 6, seconds = 3 }", "rate_limit.seconds", "does not go with per_second"),
        ("{ sliding_window = 6, seconds = 3, burst = 9 }", "rate_limit.burst", "does not go with sliding_window"),
        ("{ sliding_window = 6 }", "rate_limit.seconds", "seconds above zero"),
        ('{ sliding_window = 6, seconds = "3" }', "rate_limit.seconds", "seconds above zero"),
        ("{ per_second = 0 }", "rate_limit.per_second", ABOVE_ZERO),
        ("{ per_second = nan }", "rate_limit.per_second", ABOVE_ZERO),
        ("{ per_second = 6, burst = 0 }", "rate_limit.burst", FROM_ONE),
        ('{ shared = "", per_second = 6 }', "rate_limit.shared", "printable characters"),
        ("[{ per_second = 6 }, { per_second = -6 }]", "rate_limit[1].per_second", ABOVE_ZERO),
        ('[{ shared = "a", per_second = 6 }, { shared = "a", per_second = 6 }]', "rate_limit", "once"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_what_is_allowed(text: str, field: str, allowed: str) -> None:
    error = refused(read, text)
    assert error.field == field
    assert allowed in error.allowed
