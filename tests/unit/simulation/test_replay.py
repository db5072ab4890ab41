"""A replay in virtual time: what each kind of row comes to, back-pressure, stopping, and what is recorded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lane_obs import CAUSES, LaneConfig, MemorySink, QueueConfig, RetryPolicy, SystemClock, VirtualClock
from lane_obs.errors import TraceError
from lane_obs.simulation.replay import Replay, ReplayResult, replay
from lane_obs.simulation.trace import Trace, TraceCommand
from lane_obs.simulation.work import ReplayFailure

if TYPE_CHECKING:
    from lane_obs.simulation.record import CommandRecord

NS = 1_000_000_000


def row(at: float, duration: float = 1.0, *, line: int, lane: str = "a", **fields: object) -> TraceCommand:
    deadline = fields.pop("deadline", None)
    values = {"command_type": "work", "outcome": "ok", "fail_attempts": 0, "cost": 1.0, "partition_key": None} | fields
    return TraceCommand(
        at_ns=round(at * NS),
        lane=lane,
        duration_ns=round(duration * NS),
        deadline_ns=None if deadline is None else round(deadline * NS),
        line=line,
        **values,
    )


def trace(*rows: TraceCommand) -> Trace:
    return Trace(commands=rows, skipped=(), path="trace.csv")


def lanes(max_concurrency: int | None = None, **configs: LaneConfig) -> QueueConfig:
    return QueueConfig(configs or {"a": LaneConfig(0, 1)}, max_concurrency)


async def run(clock: VirtualClock, rows: Trace, config: QueueConfig, seed: int = 0) -> ReplayResult:
    return await clock.run(replay(rows, config, clock, seed=seed))


def times(record: CommandRecord) -> tuple[float, float | None, float]:
    return record.submitted_at, record.started_at, record.finished_at


def causes(record: CommandRecord) -> dict[str, float]:
    return {cause: seconds for cause, seconds in record.wait_by_cause.as_dict().items() if seconds}


# --- what a row comes to


@pytest.mark.both_loops
async def test_commands_are_sent_at_their_times_and_recorded_in_the_order_of_the_trace(clock: VirtualClock) -> None:
    config = lanes(a=LaneConfig(0, 1), b=LaneConfig(0, 1))
    rows = trace(
        row(0, 2, line=4), row(0.5, 1.25, line=2, command_type="embed"), row(0.5, 0.000000001, line=3, lane="b")
    )
    result = await run(clock, rows, config)
    first, second, third = result.records
    assert (first.id, first.lane, first.command_type, first.outcome, first.attempts) == (
        "4",
        "a",
        "work",
        "succeeded",
        1,
    )
    assert times(first) == (0.0, 0.0, 2.0)
    assert (second.id, second.command_type) == ("2", "embed")
    assert times(second) == (0.5, 2.0, 3.25)
    assert (second.wait_seconds, causes(second)) == (1.5, {"slots": 1.5})
    assert (third.id, third.lane) == ("3", "b")
    assert times(third) == (0.5, 0.5, 0.500000001)
    assert (third.wait_seconds, causes(third)) == (0.0, {})
    assert result.not_submitted == 0


async def test_the_first_attempts_fail_and_the_next_succeeds(clock: VirtualClock) -> None:
    config = lanes(a=LaneConfig(0, 1, retry=RetryPolicy(3, 10.0, jitter="none")))
    (record,) = (await run(clock, trace(row(0, 1, line=2, fail_attempts=2)), config)).records
    assert (record.outcome, record.attempts) == ("succeeded", 3)
    assert times(record) == (0.0, 0.0, 1 + 10 + 1 + 20 + 1)
    assert causes(record) == {"backoff": 30.0}


async def test_more_failures_than_retries_are_a_failure_for_good(clock: VirtualClock) -> None:
    config = lanes(a=LaneConfig(0, 1, retry=RetryPolicy(1, 1.0, jitter="none")))
    (record,) = (await run(clock, trace(row(0, 1, line=2, fail_attempts=2)), config)).records
    assert (record.outcome, record.attempts, record.finished_at) == ("failed", 2, 3.0)


async def test_a_row_that_fails_does_so_in_every_attempt(clock: VirtualClock) -> None:
    config = lanes(a=LaneConfig(0, 1, retry=RetryPolicy(4, 1.0, multiplier=1, jitter="none")))
    sink = MemorySink()
    job = Replay(trace(row(0, 1, line=7, outcome="fail")), config, clock, sinks=[sink])
    (record,) = (await clock.run(job.run())).records
    assert (record.outcome, record.attempts, record.finished_at) == ("failed", 5, 9.0)
    (failed,) = sink.of("queue.command.failed")
    assert isinstance(failed.exception, ReplayFailure)
    assert failed.error == "line 7 fails in attempt 5"


async def test_a_row_that_hangs_ends_by_its_lanes_timeout(clock: VirtualClock) -> None:
    config = lanes(a=LaneConfig(0, 1, timeout=4.0))
    (record,) = (await run(clock, trace(row(0, 1, line=2, outcome="hang")), config)).records
    assert (record.outcome, record.attempts) == ("timed_out", 1)
    assert times(record) == (0.0, 0.0, 4.0)


async def test_a_row_that_hangs_ends_by_its_deadline(clock: VirtualClock) -> None:
    (record,) = (await run(clock, trace(row(0, 1, line=2, outcome="hang", deadline=2.5)), lanes())).records
    assert (record.outcome, record.attempts) == ("expired", 1)
    assert times(record) == (0.0, 0.0, 2.5)


async def test_the_first_attempts_of_a_row_that_hangs_may_fail(clock: VirtualClock) -> None:
    config = lanes(a=LaneConfig(0, 1, timeout=4.0, retry=RetryPolicy(1, 1.0, jitter="none")))
    (record,) = (await run(clock, trace(row(0, 2, line=2, outcome="hang", fail_attempts=1)), config)).records
    assert (record.outcome, record.attempts, record.finished_at) == ("timed_out", 2, 2 + 1 + 4)


async def test_a_command_whose_deadline_passes_while_it_waits_never_starts(clock: VirtualClock) -> None:
    rows = trace(row(0, 10, line=2), row(1, 1, line=3, deadline=4))
    record = (await run(clock, rows, lanes())).records[1]
    assert (record.outcome, record.attempts) == ("expired", 0)
    assert times(record) == (1.0, None, 5.0)
    assert (record.wait_seconds, causes(record)) == (4.0, {"slots": 4.0})


async def test_a_command_that_expires_in_its_back_off_keeps_its_first_start(clock: VirtualClock) -> None:
    config = lanes(a=LaneConfig(0, 1, retry=RetryPolicy(1, 10.0, jitter="none")))
    (record,) = (await run(clock, trace(row(0, 1, line=2, fail_attempts=1, deadline=5)), config)).records
    assert (record.outcome, record.attempts) == ("expired", 1)
    assert times(record) == (0.0, 0.0, 5.0)
    assert causes(record) == {"backoff": 4.0}


async def test_a_replay_may_start_at_any_time_of_its_clock(clock: VirtualClock) -> None:
    await clock.advance(0.1)
    job = Replay(trace(row(0, 1.1, line=2), row(0.7, 0.3, line=3)), lanes(), clock)
    await clock.advance(0.2)
    records = (await clock.run(job.run())).records
    assert [times(record) for record in records] == [(0.0, 0.0, 1.1), (0.7, 1.1, 1.4)]


async def test_a_trace_without_commands_ends_at_once(clock: VirtualClock) -> None:
    before = clock.now()
    result = await run(clock, trace(), lanes())
    assert (result.records, result.not_submitted, clock.now()) == ((), 0, before)


@pytest.mark.both_loops
async def test_in_real_time_nothing_is_early() -> None:
    rows = trace(row(0, 3, line=2), row(1, 2, line=3), row(7, 1, line=4))
    result = await replay(rows, lanes(), SystemClock(speed=100))
    first, second, third = result.records
    assert [record.outcome for record in result.records] == ["succeeded"] * 3
    assert first.finished_at >= 3
    assert second.submitted_at >= 1
    assert second.started_at is not None
    assert second.started_at >= first.finished_at
    assert second.finished_at >= second.started_at + 2
    assert third.submitted_at >= 7


# --- seeds


def jittered(rows: int = 20) -> tuple[Trace, QueueConfig]:
    config = lanes(a=LaneConfig(0, 2, retry=RetryPolicy(3, 5.0)))
    return trace(*(row(number, 1, line=number + 2, fail_attempts=2) for number in range(rows))), config


@pytest.mark.both_loops
async def test_the_same_seed_gives_the_same_result() -> None:
    assert await run(VirtualClock(), *jittered(), seed=3) == await run(VirtualClock(), *jittered(), seed=3)


async def test_the_seed_spreads_the_retries() -> None:
    first, second = [await run(VirtualClock(), *jittered(), seed=seed) for seed in (3, 4)]
    assert first.records != second.records


# --- full lanes


async def test_a_full_lane_makes_the_sender_wait(clock: VirtualClock) -> None:
    config = lanes(a=LaneConfig(0, 1, max_pending=1), b=LaneConfig(0, 1))
    rows = trace(*(row(0, 10, line=line) for line in (2, 3, 4)), row(1, 1, line=5, lane="b"))
    records = (await run(clock, rows, config)).records
    assert [times(record) for record in records] == [
        (0.0, 0.0, 10.0),
        (0.0, 10.0, 20.0),
        (10.0, 20.0, 30.0),  # let in when the second one started
        (10.0, 10.0, 11.0),  # behind it
    ]
    assert [record.outcome for record in records] == ["succeeded"] * 4


async def test_what_a_full_lane_rejects_is_recorded_and_counted(clock: VirtualClock) -> None:
    config = lanes(a=LaneConfig(0, 1, max_pending=1, overflow="reject"))
    rows = trace(row(0, 10, line=2), row(0, 10, line=3), row(2, 10, line=4, command_type="late"))
    result = await run(clock, rows, config)
    record = result.records[2]
    assert (record.id, record.lane, record.command_type) == ("4", "a", "late")
    assert (record.outcome, record.attempts, record.wait_seconds, causes(record)) == ("rejected", 0, 0.0, {})
    assert times(record) == (2.0, None, 2.0)
    assert result.lanes["a"].outcomes["rejected"] == result.total.outcomes["rejected"] == 1
    assert result.total.submitted == 2
    assert result.not_submitted == 0


async def test_what_a_full_lane_drops_has_failed(clock: VirtualClock) -> None:
    config = lanes(a=LaneConfig(0, 1, max_pending=1, overflow="drop_oldest"))
    rows = trace(row(0, 10, line=2), row(1, 10, line=3), row(2, 10, line=4))
    dropped = (await run(clock, rows, config)).records[1]
    assert (dropped.outcome, dropped.attempts) == ("failed", 0)
    assert times(dropped) == (1.0, None, 2.0)
    assert causes(dropped) == {"slots": 1.0}


# --- counts


async def test_depths_and_run_times_are_counted_by_lane_and_in_total(clock: VirtualClock) -> None:
    config = lanes(a=LaneConfig(0, 1, retry=RetryPolicy(1, 1.0, jitter="none")), b=LaneConfig(0, 2))
    rows = trace(
        *(row(0, 4, line=line) for line in (2, 3, 4)),
        row(1, 2, line=5, lane="b", outcome="fail"),
        row(1, 3, line=6, fail_attempts=1),
    )
    result = await run(clock, rows, config)
    a, b, total = result.lanes["a"], result.lanes["b"], result.total
    assert (a.submitted, b.submitted, total.submitted) == (4, 1, 5)
    assert (a.peak_depth, b.peak_depth, total.peak_depth) == (3, 1, 4)
    assert (a.run_seconds, b.run_seconds, total.run_seconds) == (18.0, 2.0, 20.0)
    assert (a.retries, b.retries, total.retries) == (1, 0, 1)
    assert (a.waiting, a.running, total.waiting, total.running) == (0, 0, 0, 0)
    assert (a.outcomes["succeeded"], b.outcomes["failed"], total.ended) == (4, 1, 5)


async def test_progress_can_be_read_while_it_runs(clock: VirtualClock) -> None:
    job = Replay(trace(row(0, 10, line=2), row(1, 10, line=3), row(30, 1, line=4)), lanes(), clock)
    running = asyncio.ensure_future(job.run())
    await clock.advance(5)
    lane = job.recorder.lanes["a"]
    assert (job.elapsed_seconds, lane.submitted, lane.running, lane.waiting, lane.ended) == (5.0, 2, 1, 1, 0)
    await clock.advance(10)
    assert (job.elapsed_seconds, lane.submitted, lane.running, lane.waiting, lane.ended) == (15.0, 2, 1, 0, 1)
    assert len((await clock.run(running)).records) == 3


async def test_the_waits_by_cause_make_up_the_waits(clock: VirtualClock) -> None:
    config = lanes(
        2, a=LaneConfig(0, 2, priority=1, retry=RetryPolicy(2, 3.0)), b=LaneConfig(1, 1, priority=0, timeout=2.0)
    )
    rows = trace(
        *(
            row(number / 3, (number % 5) / 2, line=number, lane="ab"[number % 2], fail_attempts=number % 3, deadline=20)
            for number in range(60)
        )
    )
    records = (await run(clock, rows, config)).records
    assert len(records) == 60
    for record in records:
        assert record.wait_by_cause.total == pytest.approx(record.wait_seconds, abs=1e-6)
        assert set(record.wait_by_cause.as_dict()) == set(CAUSES)
        if record.attempts == 0:
            assert record.wait_seconds == pytest.approx(record.finished_at - record.submitted_at, abs=1e-6)
        else:
            assert record.started_at is not None
            assert record.wait_seconds >= record.started_at - record.submitted_at - 1e-6


# --- early ends


async def test_a_stopped_replay_sends_nothing_more_and_finishes_what_it_sent(clock: VirtualClock) -> None:
    job = Replay(trace(row(0, 10, line=2), row(1, 10, line=3), row(7, 1, line=4)), lanes(), clock)
    running = asyncio.ensure_future(job.run())
    await clock.advance(2)
    job.stop()
    job.stop()
    result = await clock.run(running)
    assert [(record.id, record.outcome, record.finished_at) for record in result.records] == [
        ("2", "succeeded", 10.0),
        ("3", "succeeded", 20.0),
    ]
    assert result.not_submitted == 1


async def test_a_sender_that_waits_for_room_can_be_stopped(clock: VirtualClock) -> None:
    config = lanes(a=LaneConfig(0, 1, max_pending=1))
    job = Replay(trace(*(row(0, 10, line=line) for line in (2, 3, 4, 5))), config, clock)
    running = asyncio.ensure_future(job.run())
    await clock.advance(1)
    job.stop()
    result = await clock.run(running)
    assert [record.id for record in result.records] == ["2", "3"]
    assert result.not_submitted == 2


async def test_a_replay_that_was_stopped_before_it_ran_sends_nothing(clock: VirtualClock) -> None:
    job = Replay(trace(row(0, 10, line=2)), lanes(), clock)
    job.stop()
    job.cancel()
    result = await clock.run(job.run())
    assert (result.records, result.not_submitted) == ((), 1)


async def test_a_cancelled_replay_cancels_what_waits_and_runs(clock: VirtualClock) -> None:
    job = Replay(trace(row(0, 10, line=2), row(1, 10, line=3), row(7, 1, line=4)), lanes(), clock)
    running = asyncio.ensure_future(job.run())
    await clock.advance(2)
    job.stop()
    await clock.advance(1)
    job.cancel()
    job.cancel()
    result = await running
    assert [(record.outcome, *times(record)) for record in result.records] == [
        ("cancelled", 0.0, 0.0, 3.0),
        ("cancelled", 1.0, None, 3.0),
    ]
    assert result.not_submitted == 1
    assert clock.now() == 1_000_003.0


async def test_cancelling_the_task_that_runs_it_leaves_nothing_behind(clock: VirtualClock) -> None:
    job = Replay(trace(row(0, 10, line=2), row(7, 1, line=3)), lanes(), clock)
    running = asyncio.ensure_future(job.run())
    await clock.advance(2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert job.recorder.total.outcomes["cancelled"] == 1
    assert (job.recorder.total.running, clock.now()) == (0, 1_000_002.0)


async def test_a_command_that_does_not_fit_is_refused_before_anything_runs(clock: VirtualClock) -> None:
    sink = MemorySink()
    with pytest.raises(TraceError) as raised:
        Replay(trace(row(0, 1, line=2), row(1, 1, line=3, lane="nope")), lanes(), clock, sinks=[sink])
    assert (raised.value.line, raised.value.column, raised.value.value) == (3, "lane", "nope")
    assert sink.events == []
