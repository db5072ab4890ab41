"""Time-outs of attempts, and deadlines of whole lives."""

from __future__ import annotations

import asyncio

import pytest

from lane_obs import (
    CommandExpired,
    CommandTimeout,
    LaneConfig,
    MemorySink,
    RetryAfter,
    RetryPolicy,
    State,
    VirtualClock,
)
from lane_obs.clock import sleep
from tests.unit.runtime.support import Attempts, Gate, noop, outcome, running, stubborn


async def test_an_attempt_that_takes_too_long_times_out_to_the_second(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1, timeout=30)) as manager:
        handle = await manager.submit("a", sleep, clock, 31)
        assert type(await clock.run(outcome(handle))) is CommandTimeout
        assert (handle.state, handle.run_seconds) == (State.TIMED_OUT, 30.0)


async def test_time_in_the_queue_does_not_count_against_the_timeout(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1, timeout=30)) as manager:
        await manager.submit("a", sleep, clock, 29)
        handle = await manager.submit("a", sleep, clock, 29, delay=5)
        await clock.run(handle)
        assert (handle.state, handle.wait_seconds) == (State.SUCCEEDED, 29.0)


@pytest.mark.parametrize(("own", "seconds"), [(5, 5.0), (None, 50.0), (60, 50.0)])
async def test_a_commands_own_timeout_takes_the_place_of_the_lanes(
    clock: VirtualClock, own: float | None, seconds: float
) -> None:
    async with running(clock, LaneConfig(0, 1, timeout=30)) as manager:
        handle = await manager.submit("a", sleep, clock, 50, timeout=own)
        await clock.run(outcome(handle))
        assert handle.run_seconds == seconds


async def test_every_attempt_has_the_whole_timeout(clock: VirtualClock) -> None:
    policy = RetryPolicy.fixed(2, 10, jitter="none")
    async with running(clock, LaneConfig(0, 1, timeout=3, retry=policy)) as manager:
        work = Attempts(clock, "never", seconds=100)
        handle = await manager.submit("a", work)
        assert type(await clock.run(outcome(handle))) is CommandTimeout
        assert work.gaps == [13.0, 13.0]
        assert (handle.attempt, handle.run_seconds) == (3, pytest.approx(9.0))


async def test_the_slot_is_free_again_at_the_timeout(clock: VirtualClock) -> None:
    began = clock.now()
    async with running(clock, LaneConfig(0, 1, timeout=2)) as manager:
        await manager.submit("a", sleep, clock, 100)
        handle = await manager.submit("a", noop)
        await clock.run(handle)
        assert handle.started_at == began + 2


async def test_a_value_that_comes_after_the_timeout_is_too_late(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", stubborn, clock, 10, "late", timeout=2)
        assert type(await clock.run(outcome(handle))) is CommandTimeout
        assert (handle.state, handle.run_seconds) == (State.TIMED_OUT, 10.0)


async def test_a_late_attempt_is_retried_only_once_it_has_really_ended(clock: VirtualClock) -> None:
    starts: list[float] = []

    async def work() -> str:
        starts.append(clock.now())
        return await stubborn(clock, 10) if len(starts) == 1 else "ok"

    policy = RetryPolicy.fixed(1, 5, jitter="none")
    async with running(clock, LaneConfig(0, 2, timeout=2, retry=policy)) as manager:
        assert await clock.run(await manager.submit("a", work)) == "ok"
        assert starts[1] - starts[0] == 15.0


async def test_a_command_that_ignores_its_timeout_is_reported_stuck(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, sinks=[sink], stuck_after=5) as manager:
        await manager.submit("a", stubborn, clock, 20, timeout=2)
        await clock.advance(7.5)
        assert manager.stats().lanes["a"].stuck == 1
        assert len(sink.of("queue.command.stuck")) == 1
        await clock.run(manager.drain())
        assert manager.stats().lanes["a"].stuck == 0


async def test_a_finished_command_leaves_no_timer(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 5, timeout=30)) as manager:
        for _ in range(20):
            await manager.submit("a", noop, deadline=300)
        await clock.run(manager.drain())
        await clock.advance(0)
        assert clock.pending == 0


@pytest.mark.both_loops
async def test_a_timeout_in_the_tick_of_completion_is_one_or_the_other(clock: VirtualClock) -> None:
    gate = Gate()  # cpython#86296, cpython#107547
    async with running(clock, LaneConfig(0, 2)) as manager:
        for number in range(1_000):
            if number % 2:  # opens before, else after the time-out
                clock.call_at(clock.now() + 1, gate.open, number, "value")
            handle = await manager.submit("a", gate, number, timeout=1)
            await clock.advance(0)
            if not number % 2:
                clock.call_at(clock.now() + 1, gate.open, number, "value")
            error = await clock.run(outcome(handle))
            assert (handle.state is State.SUCCEEDED) is (error is None)
            assert handle.state in {State.SUCCEEDED, State.TIMED_OUT}
        stats = manager.stats().lanes["a"]
        assert (stats.running, stats.stuck, sum(stats.ended.values())) == (0, 0, 1_000)
        assert clock.pending == 0


# --- deadlines -----------------------------------------------------------------------------------------------------


async def test_a_command_expires_while_it_is_ready(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock) as manager:
        await manager.submit("a", gate, "blocker")
        handle = await manager.submit("a", gate, "late", deadline=5)
        error = await clock.run(outcome(handle))
        assert type(error) is CommandExpired
        assert (handle.state, handle.end_to_end_seconds, handle.attempt) == (State.EXPIRED, 5.0, 0)
        gate.open("blocker")
        await clock.run(manager.drain())
        assert gate.started == ["blocker"]


async def test_a_command_expires_before_its_delay_is_over(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", noop, delay=10, deadline=5)
        await clock.run(outcome(handle))
        assert (handle.state, handle.end_to_end_seconds) == (State.EXPIRED, 5.0)


async def test_a_command_expires_while_it_backs_off(clock: VirtualClock) -> None:
    work = Attempts(clock, RetryAfter(100))
    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy(9))) as manager:
        handle = await manager.submit("a", work, deadline=5)
        await clock.run(outcome(handle))
        assert (handle.state, handle.attempt, handle.end_to_end_seconds) == (State.EXPIRED, 1, 5.0)


async def test_a_command_expires_while_it_runs_and_is_told_to_stop(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy(9))) as manager:
        await manager.submit("a", sleep, clock, 2)
        handle = await manager.submit("a", sleep, clock, 100, deadline=5)
        error = await clock.run(outcome(handle))
        assert type(error) is CommandExpired
        assert isinstance(error.__cause__, asyncio.CancelledError)
        assert (handle.state, handle.run_seconds, handle.attempt) == (State.EXPIRED, 3.0, 1)


async def test_a_running_command_that_ignores_its_deadline_has_expired_all_the_same(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", stubborn, clock, 10, deadline=5)
        assert type(await clock.run(outcome(handle))) is CommandExpired
        assert handle.run_seconds == 10.0


async def test_the_deadline_counts_over_all_attempts(clock: VirtualClock) -> None:
    policy = RetryPolicy.fixed(99, 1, jitter="none")
    async with running(clock, LaneConfig(0, 1, timeout=2, retry=policy)) as manager:
        handle = await manager.submit("a", sleep, clock, 100, deadline=10)
        await clock.run(outcome(handle))
        assert (handle.state, handle.attempt, handle.end_to_end_seconds) == (State.EXPIRED, 4, 10.0)


async def test_a_cancelled_command_stays_cancelled_when_its_deadline_passes_meanwhile(clock: VirtualClock) -> None:
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await sleep(clock, 10)

    async with running(clock) as manager:
        handle = await manager.submit("a", work, deadline=5)
        await clock.advance(4)
        handle.cancel()
        await clock.run(outcome(handle))
        assert (handle.state, handle.run_seconds) == (State.CANCELLED, 14.0)


async def test_an_expired_command_is_a_dead_letter_with_its_reason(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", noop, delay=10, deadline=5)
        await clock.run(outcome(handle))
        letter = manager.dead_letters.get(handle.id)
        assert letter is not None
        assert (letter.reason, letter.error_type, letter.attempts) == (State.EXPIRED, "CommandExpired", 0)


async def test_a_thousand_expired_commands_cost_the_live_ones_nothing(clock: VirtualClock) -> None:
    began = clock.now()
    async with running(clock) as manager:
        manager.pause("a")
        await manager.submit_many("a", [noop] * 1_000, deadline=1)
        alive = await manager.submit_many("a", [noop] * 10)
        await clock.advance(2)
        manager.resume("a")
        await clock.run(manager.drain())
        assert [handle.state for handle in alive] == [State.SUCCEEDED] * 10
        assert alive[-1].started_at == began + 2
        assert manager.stats().lanes["a"].ended["expired"] == 1_000
