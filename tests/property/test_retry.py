from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lane_obs import ConfigError, LaneConfig, MemorySink, RetryAfter, RetryPolicy, VirtualClock
from lane_obs.core.retry import delay_before_retry, may_retry
from tests.conftest import run_clean
from tests.property.bench import running

CENTURY = 100 * 365.25 * 86_400
"""What a duration may be at most."""
DURATIONS = st.one_of(st.just(0.0), st.floats(0, CENTURY), st.floats(0, 100), st.just(5e-324), st.just(CENTURY))
MULTIPLIERS = st.one_of(st.just(1.0), st.floats(1, 10), st.floats(1, 1e308))
ATTEMPTS = st.one_of(st.integers(1, 64), st.integers(1, 10**6))
SPREADS = st.floats(0, 1, exclude_max=True)


@st.composite
def policies(draw: st.DrawFn, jitter: str | None = None) -> RetryPolicy:
    return RetryPolicy(
        draw(st.integers(0, 10**6)),
        draw(DURATIONS),
        draw(DURATIONS),
        draw(MULTIPLIERS),
        jitter or draw(st.sampled_from(["full", "none"])),
    )


@given(policies(), ATTEMPTS, SPREADS)
def test_a_delay_is_finite_and_within_the_policys_bounds(policy: RetryPolicy, attempt: int, spread: float) -> None:
    delay = delay_before_retry(policy, attempt, ValueError(), spread)
    assert isinstance(delay, float)
    assert math.isfinite(delay)
    assert 0 <= delay <= policy.max_delay


@given(policies("none"), ATTEMPTS, st.integers(1, 1000))
def test_delays_without_jitter_never_shrink(policy: RetryPolicy, attempt: int, more: int) -> None:
    earlier = delay_before_retry(policy, attempt, ValueError(), 0.5)
    later = delay_before_retry(policy, attempt + more, ValueError(), 0.5)
    assert earlier <= later * (1 + 1e-12)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e6), st.floats(1, 8), st.integers(1, 40))
def test_a_delay_without_jitter_is_the_power_it_is_said_to_be(
    first: float, cap: float, multiplier: float, attempt: int
) -> None:
    policy = RetryPolicy(50, first, cap, multiplier, "none")
    wanted = min(cap, first * multiplier ** (attempt - 1))
    assert delay_before_retry(policy, attempt, ValueError(), 0.9) == pytest.approx(wanted, rel=1e-9)


@given(policies("full"), ATTEMPTS, SPREADS)
def test_full_jitter_spreads_evenly_up_to_the_policys_delay(policy: RetryPolicy, attempt: int, spread: float) -> None:
    whole = delay_before_retry(policy.with_jitter("none"), attempt, ValueError(), spread)
    assert delay_before_retry(policy, attempt, ValueError(), spread) == pytest.approx(whole * spread, rel=1e-12)
    assert delay_before_retry(policy, attempt, ValueError(), 0.0) == 0


@given(policies(), ATTEMPTS, SPREADS, st.floats(0, CENTURY))
def test_a_retry_after_sets_the_delay_itself(policy: RetryPolicy, attempt: int, spread: float, seconds: float) -> None:
    assert delay_before_retry(policy, attempt, RetryAfter(seconds), spread) == seconds


@given(st.one_of(st.floats(max_value=-1e-300), st.just(math.nan), st.just(math.inf)))
def test_a_retry_after_is_finite_and_not_negative(seconds: float) -> None:
    with pytest.raises(ConfigError):
        RetryAfter(seconds)


@given(st.integers(0, 10**6), ATTEMPTS)
def test_a_policy_retries_exactly_as_often_as_it_says(retries: int, attempt: int) -> None:
    assert may_retry(RetryPolicy(retries), attempt, ValueError()) is (attempt <= retries)


KINDS = [Exception, ValueError, UnicodeError, KeyError, OSError, TimeoutError, RetryAfter]


@given(
    st.lists(st.sampled_from(KINDS), max_size=3).map(tuple),
    st.lists(st.sampled_from(KINDS), max_size=3).map(tuple),
    st.sampled_from([kind for kind in KINDS if kind is not RetryAfter]),
)
def test_giving_up_goes_before_retrying(
    retry_on: tuple[type[Exception], ...], give_up_on: tuple[type[Exception], ...], kind: type[Exception]
) -> None:
    policy = RetryPolicy(5, retry_on=retry_on, give_up_on=give_up_on)
    assert may_retry(policy, 1, kind()) is (issubclass(kind, retry_on) and not issubclass(kind, give_up_on))


@given(
    fails=st.lists(st.integers(0, 3), min_size=2, max_size=8),
    delay=st.sampled_from([0.0, 1.0, 2.0]),
    slots=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None)
def test_commands_that_come_back_from_a_retry_start_before_younger_ones(
    fails: list[int], delay: float, slots: int
) -> None:
    async def play() -> None:
        clock, sink = VirtualClock(), MemorySink()
        policy = RetryPolicy.fixed(3, delay, jitter="none")

        left = dict(enumerate(fails))

        async def flaky(number: int) -> int:
            if left[number]:
                left[number] -= 1
                raise ValueError(number)
            return number

        async with running(clock, {"a": LaneConfig(0, slots, retry=policy)}, sinks=[sink]) as manager:
            handles = [manager.submit_nowait("a", flaky, number) for number in range(len(fails))]
            seqs = {handle.id: handle.seq for handle in handles}
            await clock.run(manager.drain())
            assert [await handle for handle in handles] == list(range(len(fails)))
            assert [handle.attempt for handle in handles] == [count + 1 for count in fails]
        ready: set[int] = set()
        for event in sink.events:
            if event.key in {"queue.command.submitted", "queue.command.ready"}:
                ready.add(seqs[event.payload["command_id"]])
            elif event.key == "queue.command.started":
                assert seqs[event.payload["command_id"]] == min(ready)
                ready.remove(min(ready))
        assert not ready

    run_clean(play)
