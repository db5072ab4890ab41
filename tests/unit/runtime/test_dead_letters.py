"""Dead letters: what is kept, what makes way, and another try."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lane_obs import (
    DeadLetter,
    DeadLetterQueue,
    DuplicateId,
    LaneConfig,
    LaneFullError,
    LaneObsError,
    MemorySink,
    RetryPolicy,
    ShutdownInProgress,
    State,
    UnknownCommand,
    VirtualClock,
)
from lane_obs.clock import sleep
from tests.unit.runtime.support import Attempts, Gate, fail, noop, outcome, running


def letter(number: int, lane: str = "a") -> DeadLetter:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    return DeadLetter(str(number), lane, "work", State.FAILED, "ValueError", "x", 1, when)


async def test_a_letter_says_who_failed_why_how_often_and_when(clock: VirtualClock) -> None:
    error = ValueError("no good")
    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(2, 1, jitter="none"))) as manager:
        handle = await manager.submit("a", fail, error, id="job-1")
        await clock.run(outcome(handle))
        (found,) = manager.dead_letters.list()
        assert (found.id, found.lane, found.command_type) == ("job-1", "a", "fail")
        assert (found.reason, found.error_type, found.error) == (State.FAILED, "ValueError", "no good")
        assert (found.attempts, found.exception) == (3, error)
        assert found.failed_at == datetime.fromtimestamp(clock.wall(), UTC)
        assert manager.stats().lanes["a"].dead == manager.stats().dead_letters == 1


async def test_every_end_without_a_value_but_a_cancel_is_a_letter(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        await manager.submit("a", fail, ValueError("x"))
        await manager.submit("a", sleep, clock, 9, timeout=1)
        await manager.submit("a", noop, delay=9, deadline=1)
        (await manager.submit("a", noop)).cancel()
        await manager.submit("a", noop)
        await clock.run(manager.drain())
        assert sorted(str(found.reason) for found in manager.dead_letters) == ["expired", "failed", "timed_out"]


async def test_an_error_text_is_cut_and_one_that_cannot_be_made_is_told() -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    clock = VirtualClock()
    async with running(clock) as manager:
        await manager.submit("a", fail, ValueError("x" * 5_000))
        await manager.submit("a", fail, Rude())
        await clock.run(manager.drain())
        long, rude = manager.dead_letters.list()
        assert len(long.error) == 1_000
        assert rude.error == "<message unavailable: RuntimeError>"


async def test_a_full_queue_of_letters_lets_the_oldest_go_and_says_so(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, dead_letters=3, sinks=[sink]) as manager:
        for number in range(10):
            await manager.submit("a", fail, ValueError(number), id=f"job-{number}")
        await clock.run(manager.drain())
        assert [found.id for found in manager.dead_letters] == ["job-7", "job-8", "job-9"]
        stats = manager.stats()
        assert (stats.dead_letters, stats.dead_letters_evicted, stats.lanes["a"].dead) == (3, 7, 3)
        assert manager.dead_letters.evicted == 7
        evicted = sink.of("queue.dead_letter.evicted")
        assert [event.payload["command_id"] for event in evicted] == [f"job-{number}" for number in range(7)]
        assert len(sink.of("queue.command.dead_lettered")) == 10


def test_letters_can_be_looked_at_taken_and_cleared() -> None:
    letters = DeadLetterQueue(5)
    for number in range(4):
        letters.push(letter(number, "ab"[number % 2]))
    assert len(letters) == 4
    assert "2" in letters
    assert letters.get("2") == letter(2)
    assert letters.get("9") is None
    assert [found.id for found in letters] == ["0", "1", "2", "3"]
    assert (letters.count("a"), letters.count("b"), letters.count("c")) == (2, 2, 0)
    assert letters.pop() == letter(0)
    assert letters.count("a") == 1
    assert letters.clear() == 3
    assert letters.pop() is None
    assert (len(letters), letters.count("b"), letters.evicted) == (0, 0, 0)


def test_a_newer_letter_of_the_same_id_takes_the_place_of_the_older() -> None:
    letters = DeadLetterQueue(2)
    for number in (1, 2, 1):
        letters.push(letter(number))
    assert [found.id for found in letters] == ["2", "1"]
    assert (letters.evicted, letters.count("a")) == (0, 2)


# --- requeue -------------------------------------------------------------------------------------------------------


async def test_a_requeued_command_has_its_old_id_and_fresh_attempts(clock: VirtualClock) -> None:
    sink = MemorySink()
    work = Attempts(clock, *[ValueError("x")] * 3, "ok")
    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(2, 1)), sinks=[sink]) as manager:
        first = await manager.submit("a", work, id="job-1")
        await clock.run(outcome(first))
        again = manager.dead_letters.requeue("job-1")
        assert (again.id, again.attempt, again.state, again is first) == ("job-1", 0, State.READY, False)
        assert "job-1" not in manager.dead_letters
        assert manager.get("job-1") is again
        assert await clock.run(again) == "ok"
        assert again.attempt == 1
        assert first.state is State.FAILED
        (requeued,) = sink.of("queue.dead_letter.requeued")
        assert requeued.payload == {"command_id": "job-1", "lane": "a", "command_type": "Attempts"}
        assert sink.of("queue.command.submitted")[1].payload["requeued"] is True


async def test_a_requeued_command_takes_its_old_place(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock) as manager:
        failed = await manager.submit("a", fail, ValueError("x"))
        await clock.run(outcome(failed))
        await manager.submit("a", gate, "blocker")
        later = await manager.submit("a", gate, "later")
        await clock.advance(0)
        again = manager.dead_letters.requeue(failed.id)
        assert manager.explain(again.id).ahead_in_lane == 0
        gate.open("blocker")
        await clock.run(outcome(again))
        assert again.started_at <= later.started_at or later.state is State.READY
        await clock.advance(0)
        gate.open("later")
        await clock.run(manager.drain())


async def test_a_requeued_command_has_no_delay_any_more_and_a_fresh_deadline(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", sleep, clock, 9, delay=5, deadline=10)
        await clock.run(outcome(handle))
        assert handle.state is State.EXPIRED
        again = manager.dead_letters.requeue(handle.id)
        await clock.run(outcome(again))
        assert (again.state, again.wait_seconds, again.run_seconds) == (State.SUCCEEDED, 0.0, 9.0)


async def test_a_requeued_failure_is_a_letter_again(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", fail, ValueError("x"))
        await clock.run(outcome(handle))
        for _ in range(3):
            await clock.run(outcome(manager.dead_letters.requeue(handle.id)))
        assert [found.id for found in manager.dead_letters] == [handle.id]


async def test_a_full_lane_does_not_take_the_letter_and_does_not_lose_it(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1, max_pending=1)) as manager:
        handle = await manager.submit("a", fail, ValueError("x"))
        await clock.run(outcome(handle))
        await manager.submit("a", sleep, clock, 10)
        await clock.advance(0)
        await manager.submit("a", noop)
        before = manager.stats()
        with pytest.raises(LaneFullError):
            manager.dead_letters.requeue(handle.id)
        assert manager.stats() == before
        await clock.run(manager.drain())
        assert manager.dead_letters.requeue(handle.id).id == handle.id


@pytest.mark.parametrize("end", ["shutdown", "close"])
async def test_a_queue_that_shuts_down_does_not_take_the_letter_and_does_not_lose_it(
    clock: VirtualClock, end: str
) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", fail, ValueError("x"))
        await clock.run(outcome(handle))
        await clock.run(getattr(manager, end)())
        with pytest.raises(ShutdownInProgress):
            manager.dead_letters.requeue(handle.id)
        assert handle.id in manager.dead_letters


@pytest.mark.parametrize("taken", [{"id": "job"}, {"key": "only one"}])
async def test_an_id_or_key_that_lives_again_is_not_doubled(clock: VirtualClock, taken: dict[str, str]) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", fail, ValueError("x"), id="job", key="only one")
        await clock.run(outcome(handle))
        await manager.submit("a", sleep, clock, 1, **taken)
        with pytest.raises(DuplicateId):
            manager.dead_letters.requeue("job")
        assert "job" in manager.dead_letters


async def test_a_letter_made_by_hand_cannot_run(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        manager.dead_letters.push(letter(1))
        with pytest.raises(UnknownCommand, match="nothing that could run again"):
            manager.dead_letters.requeue("1")
        assert "1" in manager.dead_letters


async def test_a_dropped_command_can_be_requeued(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1, max_pending=1, overflow="drop_oldest")) as manager:
        await manager.submit("a", sleep, clock, 1)
        await clock.advance(0)
        dropped = await manager.submit("a", noop, "late but here")
        await manager.submit("a", noop)
        assert isinstance(await clock.run(outcome(dropped)), LaneObsError)
        await clock.run(manager.drain())
        assert await clock.run(manager.dead_letters.requeue(dropped.id)) == "late but here"
