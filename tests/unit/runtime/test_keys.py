"""Own ids and idempotency keys."""

from __future__ import annotations

import asyncio

import pytest

from lane_obs import DuplicateId, LaneConfig, MemorySink, RetryPolicy, State, VirtualClock
from lane_obs.clock import sleep
from tests.unit.runtime.support import Attempts, Gate, fail, noop, outcome, running


async def test_a_second_submit_with_a_live_key_returns_the_same_handle(clock: VirtualClock) -> None:
    sink, gate = MemorySink(), Gate()
    async with running(clock, sinks=[sink]) as manager:
        first = await manager.submit("a", gate, "once", key="order-7")
        await clock.advance(0)
        assert await manager.submit("a", gate, "twice", key="order-7") is first
        assert manager.submit_nowait("a", noop, key="order-7", delay=5, timeout=1) is first
        gate.open("once", "value")
        assert await clock.run(first) == "value"
        assert gate.started == ["once"]
        assert manager.stats().submitted == 1
        assert len(sink.of("queue.command.submitted")) == 1


async def test_a_key_holds_over_all_lanes(clock: VirtualClock) -> None:
    async with running(clock, {"a": LaneConfig(0, 1), "b": LaneConfig(0, 1)}) as manager:
        first = await manager.submit("a", sleep, clock, 1, key="k")
        assert await manager.submit("b", noop, key="k") is first


@pytest.mark.parametrize("options", [{"delay": 10}, {"retry": RetryPolicy.fixed(1, 10, jitter="none")}])
async def test_a_key_lives_while_its_command_waits(clock: VirtualClock, options: dict[str, object]) -> None:
    async with running(clock) as manager:
        first = await manager.submit("a", Attempts(clock, ValueError("x")), key="k", **options)
        await clock.advance(5)
        assert first.state in {State.DELAYED, State.BACKOFF}
        assert await manager.submit("a", noop, key="k") is first


@pytest.mark.parametrize("end", ["succeed", "fail", "cancel", "expire"])
async def test_a_key_and_an_id_are_free_again_once_the_command_has_ended(clock: VirtualClock, end: str) -> None:
    async with running(clock) as manager:
        work = fail if end == "fail" else sleep
        args = (ValueError("x"),) if end == "fail" else (clock, 5)
        options = {"deadline": 1} if end == "expire" else {}
        first = await manager.submit("a", work, *args, id="i", key="k", **options)
        await clock.advance(0)
        if end == "cancel":
            first.cancel()
        await clock.run(outcome(first))
        second = await manager.submit("a", noop, 2, id="i", key="k")
        assert second is not first
        assert await clock.run(second) == 2


async def test_a_second_submit_with_a_live_key_closes_its_coroutine_object(clock: VirtualClock) -> None:
    async with running(clock) as manager:  # the frame of these tests fails on "never awaited"
        first = await manager.submit("a", sleep, clock, 1, key="k")
        assert await manager.submit("a", noop(), key="k") is first


async def test_submitters_that_wait_for_room_with_one_key_get_one_command(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock, LaneConfig(0, 1, max_pending=1)) as manager:
        await manager.submit("a", sleep, clock, 1)
        await clock.advance(0)
        await manager.submit("a", sleep, clock, 1)
        tasks = [asyncio.ensure_future(manager.submit("a", gate, number, key="k")) for number in range(5)]
        handles = await clock.run(asyncio.gather(*tasks))
        await clock.advance(2)
        assert len({id(handle) for handle in handles}) == 1
        assert gate.started == [0]
        gate.open(0)
        await clock.run(manager.drain())
        assert manager.stats().submitted == 3


async def test_a_submitter_that_waits_for_room_may_find_its_id_taken(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1, max_pending=1)) as manager:
        await manager.submit("a", sleep, clock, 1)
        await clock.advance(0)
        await manager.submit("a", sleep, clock, 1)
        tasks = [asyncio.ensure_future(manager.submit("a", sleep, clock, 5, id="one")) for _ in range(2)]
        results = await clock.run(asyncio.gather(*tasks, return_exceptions=True))
        assert isinstance(results[1], DuplicateId)
        third = asyncio.ensure_future(manager.submit("a", noop, 3))  # the place it had is not lost
        await clock.run(manager.drain())
        assert (await clock.run(third)).state is State.SUCCEEDED


async def test_an_own_id_is_used_everywhere(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, sinks=[sink]) as manager:
        handle = await manager.submit("a", sleep, clock, 5, id="job-7")
        await clock.advance(0)
        assert manager.get("job-7") is handle
        assert manager.explain("job-7").id == "job-7"
        assert manager.cancel("job-7")
        await clock.run(outcome(handle))
        about = {event.payload.get("command_id") for event in sink.events if event.key.startswith("queue.command")}
        assert about == {"job-7"}
