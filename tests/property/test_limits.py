"""Limiters against what a limit means, worked out anew in exact fractions for each start.

A start of cost c may happen at the earliest time at which no window that ends with it holds more than it may. For a
bucket: no window of T seconds more than burst + rate * T. For a sliding window: none of its length more than its
amount. Neither needs to know how a limiter works. Commands wait in one line for one of a few slots; the limiter is
asked as a dispatcher does it, once before it waits and once when the time has come, and now and then in between.
"""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lane_obs import RateLimit
from lane_obs.core.limit import SlidingWindow, TokenBucket, make_limiter

SAME = Fraction(2, 10**9)
"""Two times closer than this are one: the limiter's own nanosecond, and the rounding of a few floats."""


class Take:
    """A start: when, and what it costs as far as is known."""

    def __init__(self, at: float, cost: Fraction) -> None:
        self.at = Fraction(at)
        self.cost = self.taken = cost


def exact_of(limit: RateLimit) -> tuple[Fraction, Fraction, Fraction | None]:
    # Amounts are what they are written as: 44.799, and not the float next to it.
    burst = None if limit.burst is None else Fraction(repr(limit.burst))
    return Fraction(repr(limit.amount)), Fraction(limit.seconds), burst


def earliest(limit: RateLimit, takes: list[Take], cost: Fraction) -> Fraction:
    """When the limit allows a start of this cost after these, by definition."""
    amount, seconds, burst = exact_of(limit)
    least = Fraction(0)
    held = cost
    if not cost:
        return least
    pace = seconds / amount
    for take in reversed(takes):
        held += take.cost
        if burst is not None:
            if held > burst:  # else this window is no limit at any time
                least = max(least, take.at + (held - burst) * pace)
        elif held > amount:
            return take.at + seconds
    return least


def assert_within(limit: RateLimit, takes: list[Take]) -> None:
    """No window, from any take to any other, holds more than the limit gives it."""
    amount, seconds, burst = exact_of(limit)
    for first, begin in enumerate(takes):
        held = Fraction(0)
        for take in takes[first:]:
            length = take.at - begin.at
            if burst is None and length >= seconds - SAME:
                break
            held += take.cost
            if take.cost:
                assert held <= (amount if burst is None else burst + (length + SAME) * amount / seconds)


class Play:
    """One random schedule on one limiter, in virtual time."""

    def __init__(self, rng: random.Random, limit: RateLimit, *, settling: str = "none", asking: bool = False) -> None:
        self.rng = rng
        self.limit = limit
        self.settling = settling
        self.asking = asking
        self.now = rng.choice([0.0, 1.0, 1e6]) + rng.random()
        self.limiter = make_limiter(limit, self.now)
        self.takes: list[Take] = []
        self.ends: list[tuple[float, Take | None, float]] = []
        self.debts: list[Take] = []
        self.changed_at = self.now

    def run(self, commands: int) -> Play:
        rng, seconds = self.rng, self.limit.seconds
        slots = rng.choice([1, 2, 3, commands])
        pace = rng.choice([0.0, 0.3, 1.0, 3.0]) * seconds / self.limit.amount
        length = rng.choice([0.0, 1.0, 4.0]) * seconds / self.limit.amount
        arrival = self.now
        for _ in range(commands):
            arrival += rng.expovariate(1 / pace) if pace and rng.random() < 0.7 else 0.0
            if rng.random() < 0.03:
                arrival += rng.choice([1, 10, 1000]) * seconds
            self.end_until(arrival)
            while len(self.ends) >= slots:
                self.end_until(min(self.ends, key=lambda end: end[0])[0])
            self.start(self.a_cost(), length)
        return self

    def a_cost(self) -> Fraction:
        most = Fraction(repr(self.limiter.most))
        kind = self.rng.random()
        if kind < 0.5:
            return Fraction(1)
        if kind < 0.6:
            return self.rng.choice([Fraction(0), most])
        return min(Fraction(self.rng.randint(1, 4000), 1000), most)

    def start(self, cost: Fraction, length: float) -> None:
        """Starts the head of the line as soon as it may, whatever ends until then."""
        self.changed_at = self.now
        while (due := self.ask(float(cost))) > self.now:
            until = min([due, *(end[0] for end in self.ends)])
            if self.asking and self.rng.random() < 0.5:
                until = min(until, self.now + self.rng.random() * (due - self.now))
            self.end_until(until)
        assert due == self.now
        self.compare(cost)
        self.limiter.take(float(cost), self.now)
        self.takes.append(Take(self.now, cost))
        self.ends.append((self.now + self.rng.random() * length, self.takes[-1], float(cost)))

    def compare(self, cost: Fraction) -> None:
        """The start that is about to happen is neither too early nor too late."""
        now = Fraction(self.now)
        wanted = earliest(self.limit, self.takes, cost)
        assert wanted <= now + SAME, "above the limit"
        if self.limit.burst is not None and self.settling == "both":
            return
        if self.debts:
            settled_late = [Take(take.at, min(take.taken, take.cost)) for take in self.takes]
            wanted = earliest(self.limit, sorted(settled_late + self.debts, key=lambda take: take.at), cost)
        assert now <= max(Fraction(self.changed_at), wanted) + SAME, "later than needed"

    def ask(self, cost: float) -> float:
        for _ in range(self.rng.randint(0, 2) if self.asking else 0):
            self.limiter.due(cost, self.now)
            self.limiter.left(self.now)
        return self.limiter.due(cost, self.now)

    def end_until(self, when: float) -> None:
        """Moves time on; what ends meanwhile gives its slot back, and may tell its true cost."""
        for end in sorted(self.ends, key=lambda end: end[0]):
            if end[0] <= when:
                self.now = max(self.now, end[0])
                self.ends.remove(end)
                self.settle(end[1], end[2])
        self.now = max(self.now, when)

    def settle(self, take: Take, cost: float) -> None:
        up = self.settling == "up" or (self.settling == "both" and self.rng.random() < 0.4)
        if self.settling == "none" or self.rng.random() < 0.3:
            return
        quarters = self.rng.randint(4, 12) if up else self.rng.randint(0, 4)
        true = Fraction(round(take.cost * 250 * quarters), 1000)
        self.limiter.settle(cost, float(true), float(take.at), self.now)
        self.changed_at = self.now
        if true > cost and self.limit.burst is not None:
            # A bucket may count what was missing from any time between the start and now.
            self.debts.append(Take(self.now, true - take.cost))
        take.cost = true


def a_limit(rng: random.Random) -> RateLimit:
    amount = rng.choice([1, 1, 2, 3, 7, 10, 2.5, 100, 1000, round(rng.uniform(1, 50), 3)])
    if rng.random() < 0.4:
        return RateLimit.sliding_window(amount, rng.choice([1, 0.1, 1 / 3, 60, rng.uniform(0.01, 100)]))
    make = rng.choice([RateLimit.per_second, RateLimit.per_minute, RateLimit.per_hour])
    return make(amount * rng.choice([1, 1, 0.1]), rng.choice([None, 1, 2, 5, amount]))


@pytest.mark.parametrize("settling", ["none", "down", "up", "both"])
def test_starts_are_at_the_earliest_time_that_the_limit_allows(settling: str) -> None:
    for number in range(2_500):
        rng = random.Random(f"{settling} {number}")
        play = Play(rng, a_limit(rng), settling=settling, asking=number % 2 == 0)
        play.run(rng.choice([3, 4, 6, 10]) if number % 50 else 40)
        if settling in {"none", "down"} and number % 4 == 0:
            assert_within(play.limit, play.takes)


def test_a_bucket_that_remembers_little_of_the_past_stays_within_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lane_obs.core.limit._MOST_DIPS", 2)
    for number in range(500):
        rng = random.Random(number)
        Play(rng, RateLimit.per_second(1, rng.choice([5, 20, 100])), settling="both").run(25)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_starts_do_not_depend_on_how_often_a_limiter_is_asked(seed: int) -> None:
    limit = a_limit(random.Random(seed))
    starts = []
    for asks in (0, 3, 50):
        rng, more = random.Random(seed), random.Random(asks)
        now = 1e6
        limiter = make_limiter(limit, now)
        times = []
        for _ in range(30):
            now += rng.expovariate(limit.amount / limit.seconds)
            cost = rng.choice([0.25, 0.5, 1.0])
            due = limiter.due(cost, now)
            for when in sorted(now + more.random() * (due - now) for _ in range(asks)):
                assert limiter.due(cost, when) == due
                limiter.left(when)
            now = limiter.due(cost, due)
            limiter.take(cost, now)
            times.append(now)
        starts.append(times)
    assert starts[0] == starts[1] == starts[2]


@given(
    rate=st.floats(1e-3, 1e6),
    burst=st.integers(1, 50),
    cost=st.sampled_from([1.0, 0.1, 0.3, 0.7]),
    begin=st.sampled_from([0.0, 1e6, 123.456]),
)
@settings(max_examples=40, deadline=None)
def test_a_bucket_that_never_rests_keeps_its_rate_without_drift(
    rate: float, burst: int, cost: float, begin: float
) -> None:
    bucket = TokenBucket(rate, float(burst), begin)
    now = begin
    count = 2_000
    for _ in range(count):
        now = bucket.due(cost, now)
        bucket.take(cost, now)
    wanted = begin + max(Fraction(0), count * Fraction(repr(cost)) - burst) / Fraction(rate)
    assert abs(Fraction(now) - wanted) <= SAME + Fraction(math.ulp(now))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.integers(1, 5))
def test_rest_is_worth_a_full_bucket_and_no_more(rests: list[float], burst: int) -> None:
    bucket = TokenBucket(0.1, float(burst), 0.0)
    now = 0.0
    for rest in rests:
        now = max(now + rest, bucket.due(burst, now))
        for _ in range(burst):
            assert bucket.due(1.0, now) == now
            bucket.take(1.0, now)
        assert bucket.due(1.0, now) == pytest.approx(now + 10)


@given(seed=st.integers(0, 2**32), costs=st.sampled_from(["whole", "small", "settled to nothing"]))
@settings(max_examples=10, deadline=None)
def test_a_sliding_window_keeps_no_more_than_it_may_and_stays_within_its_amount(seed: int, costs: str) -> None:
    rng = random.Random(seed)
    window = SlidingWindow(4.0, 10.0, 0.0)
    now, takes, most, last = 0.0, [], 0, Fraction(0)
    for _ in range(8_000):
        cost = 1.0 if costs == "whole" else 0.001
        now += rng.expovariate(4.0 if costs == "whole" else 4000.0)
        now = window.due(cost, now)
        window.take(cost, now)
        takes.append((now, Fraction(repr(cost))))
        most = max(most, len(window._times) - window._first)
        if costs == "settled to nothing":
            window.settle(cost, 0.0, now, now)
    assert most <= (4 if costs == "whole" else 2 * 1024 + 1)
    assert len(window._times) <= 2 * most + 65
    if costs != "settled to nothing":
        first = 0
        for at, cost in takes:
            last += cost
            while takes[first][0] + 10.0 - at < 1e-9:
                last -= takes[first][1]
                first += 1
            assert last <= 4


@given(seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_a_bucket_keeps_no_more_than_it_may(seed: int) -> None:
    rng = random.Random(seed)
    bucket = TokenBucket(1.0, 1e6, 0.0)
    now, running = 0.0, []
    for _ in range(3_000):
        now += rng.random()
        bucket.take(1 + rng.random(), now)
        running.append(now)
        if rng.random() < 0.5:
            bucket.settle(1.0, 0.5, running.pop(rng.randrange(len(running))), now)
        assert len(bucket._dips) <= 256
        assert bucket.left(now) <= bucket.most
