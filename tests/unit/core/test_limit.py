"""Token buckets and sliding windows: small cases worked out by hand."""

from __future__ import annotations

import copy
import math

import pytest

from lane_obs import RateLimit
from lane_obs.core.limit import Limiter, SlidingWindow, TokenBucket, make_limiter


def starts(limiter: Limiter, count: int, cost: float = 1.0, now: float = 0.0) -> list[float]:
    """When so many commands start that wait from `now` on."""
    times = []
    for _ in range(count):
        now = limiter.due(cost, now)
        limiter.take(cost, now)
        times.append(now)
    return times


def test_a_bucket_starts_full_and_refills_evenly() -> None:
    bucket = TokenBucket(4.0, 3.0, 0.0)
    assert starts(bucket, 6) == [0, 0, 0, 0.25, 0.5, 0.75]
    assert bucket.left(0.75) == 0
    assert bucket.left(1.0) == 1
    assert bucket.left(100.0) == 3


def test_a_bucket_waits_for_a_large_cost_and_takes_it_whole() -> None:
    bucket = TokenBucket(100.0, 2000.0, 0.0)
    bucket.take(1200.0, 0.0)
    assert bucket.due(800.0, 0.0) == 0
    assert bucket.due(1200.0, 0.0) == 4
    assert bucket.due(1200.0, 7.0) == 7
    assert bucket.due(2000.0, 7.0) == 12


def test_a_window_lets_go_exactly_its_length_later() -> None:
    window = SlidingWindow(2.0, 10.0, 0.0)
    for now in (1.0, 4.0):
        assert window.due(1.0, now) == now
        window.take(1.0, now)
    assert window.due(1.0, 5.0) == 11
    assert window.due(2.0, 5.0) == 14
    assert window.left(5.0) == 0
    assert window.left(11.0) == 1
    assert window.due(1.0, 11.0) == 11
    assert window.left(14.0) == 2


@pytest.mark.parametrize("limiter", [TokenBucket(1.0, 5.0, 0.0), SlidingWindow(5.0, 5.0, 0.0)])
def test_more_than_the_most_is_never_due_and_nothing_always_is(limiter: Limiter) -> None:
    assert limiter.most == 5
    assert limiter.due(5.5, 0.0) == math.inf
    limiter.take(5.0, 0.0)
    limiter.settle(5.0, 50.0, 0.0, 0.0)
    assert limiter.due(0.0, 1.0) == 1
    assert limiter.due(1.0, 1.0) > 1
    limiter.take(0.0, 1.0)
    assert limiter.left(1.0) == -44 if isinstance(limiter, TokenBucket) else -45


@pytest.mark.parametrize("limiter", [TokenBucket(10.0, 1.0, 0.0), SlidingWindow(1.0, 10.0, 0.0)])
def test_tenths_add_up_to_one(limiter: Limiter) -> None:
    assert starts(limiter, 10, 0.1) == [0.0] * 10
    assert limiter.left(0.0) == 0
    assert limiter.due(0.1, 0.0) > 0


def test_a_bucket_of_one_that_rested_gives_one() -> None:
    bucket = TokenBucket(0.1, 1.0, 0.0)
    assert starts(bucket, 2, now=600.0) == [600, 610]


def test_asking_each_millisecond_costs_nothing() -> None:
    bucket = TokenBucket(3.0, 5.0, 0.0)
    granted = 0
    for step in range(100_000):
        now = step / 1000
        while bucket.due(1.0, now) <= now:
            bucket.take(1.0, now)
            granted += 1
    assert granted == 5 + 299


@pytest.mark.parametrize("limiter", [TokenBucket(1.0, 5.0, 0.0), SlidingWindow(5.0, 10.0, 0.0)])
def test_asking_what_is_left_changes_nothing_so_that_any_thread_may(limiter: TokenBucket | SlidingWindow) -> None:
    """Also where what was taken has left meanwhile: another thread that lets it go as well would count it twice."""
    for at in range(5):
        limiter.take(1.0, float(at))
    before = {name: copy.copy(getattr(limiter, name)) for name in type(limiter).__slots__}
    assert [limiter.left(now) for now in (13.0, 11.0, 1000.0)][2] == 5.0
    assert {name: getattr(limiter, name) for name in type(limiter).__slots__} == before


def test_asking_for_what_never_starts_takes_nothing() -> None:
    bucket, window = TokenBucket(10.0, 1.0, 0.0), SlidingWindow(1.0, 0.1, 0.0)
    for limiter in (bucket, window):
        for _ in range(1000):
            assert limiter.due(1.0, 0.0) == 0
        assert starts(limiter, 10) == pytest.approx([index / 10 for index in range(10)])


def test_thirds_of_a_second_do_not_drift() -> None:
    bucket = TokenBucket(3.0, 1.0, 1_000_000.0)
    assert starts(bucket, 300_001, now=1_000_000.0)[-1] == 1_100_000


# --- true costs ---------------------------------------------------------------------------------------------------


def test_a_bucket_gets_back_what_was_taken_too_much() -> None:
    bucket = TokenBucket(1.0, 10.0, 0.0)
    bucket.take(10.0, 0.0)
    bucket.settle(10.0, 4.0, 0.0, 2.0)
    assert bucket.left(2.0) == 8
    assert bucket.due(10.0, 2.0) == 4


def test_a_refund_is_worth_nothing_once_the_bucket_has_been_full() -> None:
    bucket = TokenBucket(1.0, 10.0, 0.0)
    bucket.take(10.0, 0.0)
    bucket.take(10.0, 11.0)
    bucket.settle(10.0, 0.0, 0.0, 11.0)
    assert bucket.left(11.0) == 0
    bucket.settle(10.0, 3.0, 11.0, 11.0)
    assert bucket.left(11.0) == 7


def test_of_a_refund_counts_no_more_than_was_missing_since() -> None:
    bucket = TokenBucket(1.0, 10.0, 0.0)
    bucket.take(10.0, 0.0)
    bucket.take(9.0, 9.0)
    # Without the first ten the bucket would have been full at 9, so 9 and then at most 1 more.
    bucket.settle(10.0, 0.0, 0.0, 9.0)
    assert bucket.left(9.0) == 1
    bucket.settle(9.0, 0.0, 9.0, 9.0)
    assert bucket.left(9.0) == 10


def test_corrections_in_any_order_come_to_the_same() -> None:
    takes = [(10.0, 0.0, 2.0), (6.0, 7.0, 1.0), (3.0, 9.0, 3.0)]
    found = set()
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]):
        bucket = TokenBucket(1.0, 10.0, 0.0)
        for cost, at, _ in takes:
            bucket.take(cost, at)
        for index in order:
            cost, at, true = takes[index]
            bucket.settle(cost, true, at, 9.0)
        found.add(bucket.left(9.0))
    assert found == {7.0}


def test_what_was_missing_delays_what_follows() -> None:
    bucket = TokenBucket(1.0, 10.0, 0.0)
    bucket.take(5.0, 0.0)
    bucket.settle(5.0, 25.0, 0.0, 2.0)
    assert bucket.left(2.0) == -13
    assert bucket.due(1.0, 2.0) == 16


def test_what_was_missing_has_come_back_by_the_time_it_is_known() -> None:
    bucket = TokenBucket(1.0, 10.0, 0.0)
    bucket.take(5.0, 0.0)
    bucket.settle(5.0, 8.0, 0.0, 60.0)
    assert bucket.left(60.0) == 10


def test_what_was_missing_before_the_bucket_was_full_counts_from_the_present_run_on() -> None:
    bucket = TokenBucket(1.0, 10.0, 0.0)
    bucket.take(5.0, 0.0)
    bucket.take(5.0, 60.0)
    bucket.settle(5.0, 8.0, 0.0, 61.0)
    assert bucket.left(61.0) == 3


def test_what_was_for_nothing_and_cost_something_counts_from_its_start() -> None:
    """Though it has taken nothing: from a bucket that was full, or a window that was empty."""
    bucket = TokenBucket(1.0, 5.0, 0.0)
    bucket.settle(0.0, 3.0, 100.0, 101.0)
    assert bucket.left(101.0) == 3
    window = SlidingWindow(5.0, 10.0, 0.0)
    window.settle(0.0, 3.0, 100.0, 101.0)
    window.take(1.0, 104.0)
    assert window.left(104.0) == 1
    assert window.due(2.0, 104.0) == 110


def test_a_window_corrects_the_take_where_it_was() -> None:
    window = SlidingWindow(10.0, 10.0, 0.0)
    window.take(4.0, 0.0)
    window.take(6.0, 5.0)
    assert window.due(5.0, 5.0) == 15
    window.settle(6.0, 5.0, 5.0, 6.0)
    assert window.due(5.0, 6.0) == 10
    window.settle(4.0, 14.0, 0.0, 7.0)
    assert window.left(7.0) == -9
    assert window.due(5.0, 7.0) == 10
    assert window.left(10.0) == 5


def test_a_window_forgets_corrections_of_what_has_left_or_was_never_its_own() -> None:
    window = SlidingWindow(10.0, 10.0, 100.0)
    window.take(4.0, 100.0)
    window.settle(5.0, 0.0, 95.0, 101.0)
    assert window.left(101.0) == 6
    window.settle(4.0, 0.0, 100.0, 110.0)
    window.settle(4.0, 0.0, 105.0, 110.0)
    assert window.left(110.0) == 10


def test_costs_far_below_one_share_entries_and_leave_no_earlier() -> None:
    window = SlidingWindow(1.0, 1024.0, 0.0)
    for step in range(4096):
        window.take(1 / 8192, step / 4)
    assert len(window._times) <= 2049
    assert window.left(1023.75) == pytest.approx(0.5, abs=1e-6)
    assert window.due(0.75, 1023.75) == pytest.approx(1536, abs=1)
    window.settle(1 / 8192, 1.0, 1000.25, 1023.75)
    assert window.left(1023.75) == pytest.approx(-0.5, abs=1e-3)
    assert window.left(1000.0 + 1024) < 0
    assert window.left(1003.0 + 1024) > 0


# --- from the configuration ---------------------------------------------------------------------------------------


def test_a_limiter_is_made_of_a_limit() -> None:
    bucket = make_limiter(RateLimit.per_minute(500, burst=20), 5.0)
    assert isinstance(bucket, TokenBucket)
    assert (bucket.rate, bucket.most, bucket.left(5.0)) == (500 / 60, 20, 20)
    window = make_limiter(RateLimit.shared("openai", RateLimit.sliding_window(100, 60)), 5.0)
    assert isinstance(window, SlidingWindow)
    assert (window.most, window.seconds, window.left(5.0)) == (100, 60, 100)


@pytest.mark.parametrize("limiter", [TokenBucket(2, 5, 0.0), SlidingWindow(5, 10, 0.0)], ids=["bucket", "window"])
def test_to_look_at_what_is_left_changes_nothing(limiter: TokenBucket | SlidingWindow) -> None:
    """Scrapes look from a thread of their own, while the event loop takes."""
    for second in range(4):
        limiter.take(1, float(second))
    before = copy.deepcopy({name: getattr(limiter, name) for name in type(limiter).__slots__})
    assert limiter.left(50.0) == 5
    assert {name: getattr(limiter, name) for name in type(limiter).__slots__} == before
    assert limiter.left(11.5) == (5 if isinstance(limiter, TokenBucket) else 3)
