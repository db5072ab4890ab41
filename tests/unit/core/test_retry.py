"""When a failed attempt is tried again, and after what delay: no overflow, no surprise."""

from __future__ import annotations

import itertools
import math

import pytest

from lane_obs import CommandTimeout, RetryAfter, RetryPolicy
from lane_obs.core.retry import delay_before_retry, may_retry

ERROR = ValueError("x")


def delays(policy: RetryPolicy, count: int) -> list[float]:
    return [delay_before_retry(policy, attempt, ERROR, 0.5) for attempt in range(1, count + 1)]


def test_exponential_delays_double_up_to_the_cap() -> None:
    policy = RetryPolicy.exponential(9, jitter="none")
    assert delays(policy, 9) == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])


def test_the_delays_of_the_references_sample() -> None:
    policy = RetryPolicy.exponential(3, jitter="none").with_initial_delay(1).with_max_delay(10)
    assert delays(policy, 3) == pytest.approx([1, 2, 4])


def test_fixed_delays_stay_the_same() -> None:
    assert delays(RetryPolicy.fixed(4, 2.5, jitter="none"), 4) == [2.5] * 4


@pytest.mark.parametrize("multiplier", [1, 1.1, 2, 10, 2.0, 10**30, 1e300])
def test_no_attempt_number_overflows(multiplier: float) -> None:
    # redis-py PR 4320, procrastinate#1462: the cap was applied to a power that had overflowed.
    policy = RetryPolicy(10**9, initial_delay=0.5, max_delay=60, multiplier=multiplier, jitter="none")
    found = [delay_before_retry(policy, attempt, ERROR, 0.5) for attempt in [*range(1, 5001), 10**9, 10**18]]
    assert all(0.5 <= delay <= 60 for delay in found)
    assert found == sorted(found)
    assert found[-1] == (0.5 if multiplier == 1 else 60)


def test_full_jitter_spreads_between_zero_and_the_delay() -> None:
    policy = RetryPolicy.exponential(5)
    assert [delay_before_retry(policy, 3, ERROR, spread) for spread in (0.0, 0.25, 0.999)] == pytest.approx(
        [0.0, 1.0, 3.996]
    )


@pytest.mark.parametrize(("first", "cap"), [(0, 60), (0, 0), (5, 0), (100, 60)])
def test_the_cap_holds_at_the_edges(first: float, cap: float) -> None:
    policy = RetryPolicy(5, initial_delay=first, max_delay=cap, jitter="none")
    assert delays(policy, 3) == [min(first, cap)] * 3


def test_retry_after_decides_the_delay_itself_jitter_and_cap_aside() -> None:
    policy = RetryPolicy.exponential(5)
    assert delay_before_retry(policy, 1, RetryAfter(3600), 0.01) == 3600.0
    assert delay_before_retry(policy, 1, RetryAfter(0), 0.99) == 0.0


def test_retries_are_counted_after_the_first_attempt() -> None:
    policy = RetryPolicy(2)
    assert [may_retry(policy, attempt, ERROR) for attempt in (1, 2, 3)] == [True, True, False]
    assert not may_retry(RetryPolicy.none(), 1, ERROR)


@pytest.mark.parametrize(
    ("retry_on", "give_up_on", "error", "again"),
    [
        ((Exception,), (), ValueError(), True),
        ((Exception,), (), KeyboardInterrupt(), False),
        ((Exception,), (), SystemExit(), False),
        ((OSError,), (), ConnectionResetError(), True),
        ((OSError,), (), ValueError(), False),
        ((Exception,), (ValueError,), UnicodeError(), False),
        ((ValueError,), (UnicodeError,), ValueError(), True),
        ((TimeoutError,), (), CommandTimeout("t", "1", "a"), True),
        ((CommandTimeout,), (), TimeoutError(), False),
        ((), (), ValueError(), False),
        ((), (), RetryAfter(1), True),
        ((OSError,), (), RetryAfter(1), True),
        ((OSError,), (RetryAfter,), RetryAfter(1), False),
        ((BaseException,), (), SystemExit(), True),
    ],
)
def test_types_decide_what_is_tried_again(
    retry_on: tuple[type[BaseException], ...],
    give_up_on: tuple[type[BaseException], ...],
    error: BaseException,
    again: bool,
) -> None:
    assert may_retry(RetryPolicy(1, retry_on=retry_on, give_up_on=give_up_on), 1, error) is again


def test_retry_after_counts_as_an_attempt() -> None:
    assert not may_retry(RetryPolicy(1), 2, RetryAfter(1))


def test_growth_is_never_below_the_first_delay_nor_shrinking() -> None:
    for multiplier, first in itertools.product((1.0, 1.0001, 1.5, 3), (1e-9, 0.1, 59.999)):
        policy = RetryPolicy(100, initial_delay=first, multiplier=multiplier, jitter="none")
        found = delays(policy, 100)
        assert all(earlier <= later or math.isclose(earlier, later) for earlier, later in itertools.pairwise(found))
        assert found[0] == pytest.approx(first)
