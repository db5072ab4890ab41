"""Retries: when, how often, and visible all the while."""

from __future__ import annotations

from typing import Any

import pytest

from lane_obs import CommandTimeout, LaneConfig, MemorySink, RetryAfter, RetryPolicy, State, VirtualClock
from tests.unit.runtime.support import Attempts, Gate, noop, outcome, running

EXACT = RetryPolicy.exponential(3, jitter="none")


async def test_without_jitter_the_attempts_start_at_exact_times(clock: VirtualClock) -> None:
    work = Attempts(clock, ValueError("x"))
    async with running(clock, LaneConfig(0, 1, retry=EXACT)) as manager:
        handle = await manager.submit("a", work)
        await clock.run(outcome(handle))
        assert work.gaps == [1.0, 2.0, 4.0]
        assert (handle.state, handle.attempt) == (State.FAILED, 4)


async def test_the_first_success_ends_the_retries(clock: VirtualClock) -> None:
    work = Attempts(clock, ValueError("x"), OSError("y"), "ok")
    async with running(clock, LaneConfig(0, 1, retry=EXACT)) as manager:
        handle = await manager.submit("a", work)
        assert await clock.run(handle) == "ok"
        assert handle.attempt == 3
        assert len(manager.dead_letters) == 0


async def test_the_last_error_is_the_commands_error(clock: VirtualClock) -> None:
    errors = [ValueError(str(number)) for number in range(4)]
    async with running(clock, LaneConfig(0, 1, retry=EXACT)) as manager:
        handle = await manager.submit("a", Attempts(clock, *errors))
        assert await clock.run(outcome(handle)) is errors[3]


async def test_a_commands_own_policy_takes_the_place_of_the_lanes(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1, retry=EXACT)) as manager:
        never = await manager.submit("a", Attempts(clock, ValueError("x")), retry=RetryPolicy.none())
        more = await manager.submit("a", Attempts(clock, ValueError("x")), retry=RetryPolicy.fixed(7, 1))
        lanes = await manager.submit("a", Attempts(clock, ValueError("x")), retry=None)
        await clock.run(manager.drain())
        assert [handle.attempt for handle in (never, more, lanes)] == [1, 8, 4]


async def test_full_jitter_stays_within_its_bounds(clock: VirtualClock) -> None:
    policy = RetryPolicy(6, initial_delay=1, max_delay=8)
    works = [Attempts(clock, ValueError("x")) for _ in range(200)]
    async with running(clock, LaneConfig(0, 200, retry=policy), seed=7) as manager:
        for work in works:
            await manager.submit("a", work)
        await clock.run(manager.drain())
    for number, bound in enumerate([1, 2, 4, 8, 8, 8]):
        gaps = [work.gaps[number] for work in works]
        assert 0 <= min(gaps) < 0.1 * bound
        assert 0.9 * bound < max(gaps) <= bound


async def gaps_with(seed: int | None) -> tuple[list[list[float]], list[str]]:
    clock = VirtualClock()
    works = [Attempts(clock, ValueError("x")) for _ in range(20)]
    async with running(clock, LaneConfig(0, 3, retry=RetryPolicy.exponential(4)), seed=seed) as manager:
        ids = [(await manager.submit("a", work)).id for work in works]
        await clock.run(manager.drain())
    return [work.gaps for work in works], ids


async def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    assert await gaps_with(5) == await gaps_with(5)
    assert (await gaps_with(5))[0] != (await gaps_with(6))[0]
    assert (await gaps_with(None))[0] != (await gaps_with(None))[0]


async def test_retry_after_sets_the_delay(clock: VirtualClock) -> None:
    work = Attempts(clock, RetryAfter(30, "busy"), RetryAfter(0.5), "ok")
    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy(2, retry_on=()))) as manager:
        assert await clock.run(await manager.submit("a", work)) == "ok"
        assert work.gaps == [30.0, 0.5]


async def test_retry_after_is_the_final_error_once_the_retries_are_used_up(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy(2))) as manager:
        handle = await manager.submit("a", Attempts(clock, RetryAfter(1)))
        assert isinstance(await clock.run(outcome(handle)), RetryAfter)
        assert (handle.state, handle.attempt) == (State.FAILED, 3)


async def test_retry_after_without_retries_left_by_policy_is_a_failure(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", Attempts(clock, RetryAfter(1)))
        assert isinstance(await clock.run(outcome(handle)), RetryAfter)
        assert handle.attempt == 1


@pytest.mark.parametrize(
    ("policy", "attempts"),
    [
        ({"retry_on": (OSError,)}, 1),
        ({"retry_on": (ValueError,)}, 3),
        ({"give_up_on": (ValueError,)}, 1),
        ({"give_up_on": (UnicodeError,)}, 3),
    ],
)
async def test_types_decide_what_is_retried(clock: VirtualClock, policy: dict[str, Any], attempts: int) -> None:
    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy(2, **policy))) as manager:
        handle = await manager.submit("a", Attempts(clock, ValueError("x")))
        await clock.run(outcome(handle))
        assert handle.attempt == attempts


@pytest.mark.parametrize(("retry_on", "attempts"), [((CommandTimeout,), 3), ((TimeoutError,), 3), ((OSError,), 3)])
async def test_time_outs_are_retried_by_type_too(
    clock: VirtualClock, retry_on: tuple[type[BaseException], ...], attempts: int
) -> None:
    policy = RetryPolicy(2, retry_on=retry_on)  # TimeoutError is an OSError
    async with running(clock, LaneConfig(0, 1, timeout=1, retry=policy)) as manager:
        handle = await manager.submit("a", Attempts(clock, "never", seconds=5))
        assert isinstance(await clock.run(outcome(handle)), CommandTimeout)
        assert handle.attempt == attempts


async def test_a_command_that_backs_off_is_counted_explained_and_holds_no_slot(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(1, 10, jitter="none"))) as manager:
        handle = await manager.submit("a", Attempts(clock, ValueError("x")))
        await clock.advance(4)
        stats = manager.stats()
        lane = stats.lanes["a"]
        assert (lane.backoff, lane.running, lane.ready, lane.pending, stats.total_pending) == (1, 0, 0, 1, 1)
        told = manager.explain(handle.id)
        assert (told.state, told.cause, told.due_in_seconds, told.attempt) == (State.BACKOFF, "backoff", 6.0, 1)
        assert "not due yet" in told.text
        assert await clock.run(await manager.submit("a", noop, "slot")) == "slot"


async def test_a_retry_takes_its_old_place_before_later_commands(clock: VirtualClock) -> None:
    gate = Gate()
    failed: list[int] = []

    async def first() -> None:
        gate.started.append("first")
        if not failed:
            failed.append(1)
            raise ValueError

    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(1, 1, jitter="none"))) as manager:
        await manager.submit("a", first)
        await manager.submit("a", gate, "second")
        await manager.submit("a", gate, "third")
        await clock.advance(2)
        gate.open("second")
        await clock.advance(0)
        assert gate.started == ["first", "second", "first", "third"]
        gate.open("third")
        await clock.run(manager.drain())


async def test_each_failed_attempt_is_an_event_with_its_error_and_delay(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, LaneConfig(0, 1, retry=EXACT, timeout=5), sinks=[sink]) as manager:
        work = Attempts(clock, ValueError("no"), "slow", "ok")
        handle = await manager.submit("a", work)
        work._seconds = 0.5
        await clock.advance(1)
        work._seconds = 6
        await clock.advance(3)
        work._seconds = 0
        await clock.run(handle)
        first, second = sink.of("queue.command.retry")
        assert first.payload | {"command_id": ""} == {
            "command_id": "",
            "lane": "a",
            "command_type": "Attempts",
            "attempt": 1,
            "reason": "error",
            "delay_seconds": 1.0,
            "wait_seconds": 0.0,
            "run_seconds": 0.5,
            "error_type": "ValueError",
            "error": "no",
        }
        assert isinstance(first.exception, ValueError)
        assert (second.payload["reason"], second.payload["delay_seconds"]) == ("timeout", 2.0)
        assert (second.payload["error_type"], second.payload["run_seconds"]) == ("CommandTimeout", 5.0)


async def test_a_policy_with_very_many_retries_never_overflows(clock: VirtualClock) -> None:
    work = Attempts(clock, ValueError("x"))
    policy = RetryPolicy(3_000, initial_delay=1, max_delay=60, multiplier=10, jitter="none")
    async with running(clock, LaneConfig(0, 1, retry=policy)) as manager:
        handle = await manager.submit("a", work)
        await clock.run(outcome(handle))
        assert handle.attempt == 3_001
        assert set(work.gaps[2:]) == {60.0}
