"""Lanes changed while they work: pause, resume, limits, priority."""

from __future__ import annotations

import asyncio

import pytest

from lane_obs import LaneConfig, MemorySink, RetryPolicy, State, VirtualClock
from lane_obs.clock import sleep
from tests.unit.runtime.support import Gate, fail, noop, running

TWO = {"a": LaneConfig(0, 2), "b": LaneConfig(0, 2)}


async def test_a_paused_lane_starts_nothing_and_its_running_work_goes_on(clock: VirtualClock) -> None:
    async with running(clock, TWO) as manager:
        runs = await manager.submit("a", sleep, clock, 5)
        await clock.advance(0)
        manager.pause("a")
        waits = await manager.submit("a", noop, "later")
        other = await manager.submit("b", noop, "b")
        await clock.advance(10)
        assert (runs.state, waits.state, other.state) == (State.SUCCEEDED, State.READY, State.SUCCEEDED)
        assert manager.stats().lanes["a"].paused
        manager.resume("a")
        assert await clock.run(waits) == "later"
        assert waits.wait_by_cause.pause == 10.0
        assert not manager.stats().lanes["a"].paused


async def test_pausing_and_resuming_twice_changes_nothing(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, TWO, sinks=[sink]) as manager:
        for call in (manager.pause, manager.pause, manager.resume, manager.resume):
            call("a")
        await clock.advance(0)
        assert [event.key for event in sink.events if event.key.startswith("queue.lane")] == [
            "queue.lane.paused",
            "queue.lane.resumed",
        ]


async def test_a_lane_can_be_paused_before_the_start(clock: VirtualClock) -> None:
    async with running(clock, TWO) as manager:
        manager.pause("a")
        manager.pause("b")
        handles = [await manager.submit(name, noop) for name in "ab"]
        await clock.advance(5)
        assert {handle.state for handle in handles} == {State.READY}
        manager.resume("b")
        await clock.advance(0)
        assert [handle.state for handle in handles] == [State.READY, State.SUCCEEDED]


async def test_a_drain_waits_for_a_paused_lane_until_it_is_resumed(clock: VirtualClock) -> None:
    async with running(clock, TWO) as manager:
        manager.pause("a")
        await manager.submit("a", noop)
        clock.call_at(clock.now() + 7, manager.resume, "a")
        report = await clock.run(manager.drain())
        assert (report.seconds, report.ended["succeeded"]) == (7.0, 1)


async def test_a_paused_lane_frees_no_slot_of_others_reservations(clock: VirtualClock) -> None:
    lanes = {"a": LaneConfig(2, 2), "b": LaneConfig(0, 9)}
    async with running(clock, lanes, max_concurrency=3) as manager:
        manager.pause("a")
        await manager.submit_many("b", [(sleep, clock, 1)] * 9)
        await clock.advance(0)
        assert manager.stats().lanes["b"].running == 1


async def test_a_wider_lane_starts_more_at_once(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1)) as manager:
        await manager.submit_many("a", [(sleep, clock, 10)] * 5)
        await clock.advance(1)
        assert manager.set_lane("a", max_concurrency=4) == LaneConfig(0, 4)
        await clock.advance(0)
        assert manager.stats().lanes["a"].running == 4
        assert manager.lanes["a"].max_concurrency == 4


async def test_a_narrower_lane_interrupts_nothing_and_starts_less(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 4)) as manager:
        handles = await manager.submit_many("a", [(sleep, clock, 10)] * 8)
        await clock.advance(5)
        manager.set_lane("a", max_concurrency=1)
        await clock.advance(0)
        assert manager.stats().lanes["a"].running == 4
        await clock.advance(5)
        assert manager.stats().lanes["a"].running == 1
        await clock.run(manager.drain())
        assert all(handle.state is State.SUCCEEDED for handle in handles)
        assert handles[7].end_to_end_seconds == 50.0


async def test_a_new_priority_counts_at_the_next_start(clock: VirtualClock) -> None:
    gate = Gate()
    lanes = {"a": LaneConfig(0, 1, priority=0), "b": LaneConfig(0, 1, priority=1)}
    async with running(clock, lanes, max_concurrency=1) as manager:
        await manager.submit("a", gate, "first")
        await clock.advance(0)
        for name in "aabb":
            await manager.submit(name, gate, f"{name}{len(gate.started)}")
        manager.set_lane("b", priority=-1)
        gate.open("first")
        await clock.advance(0)
        assert gate.started[1].startswith("b")
        gate.open(gate.inside[0])
        await clock.advance(0)


async def test_a_new_reservation_is_honoured(clock: VirtualClock) -> None:
    lanes = {"a": LaneConfig(0, 4), "b": LaneConfig(0, 4, priority=9)}
    async with running(clock, lanes, max_concurrency=4) as manager:
        await manager.submit_many("a", [(sleep, clock, 1)] * 100)
        await clock.advance(0.5)
        await manager.submit_many("b", [(sleep, clock, 1)] * 4)
        manager.set_lane("b", min_concurrency=2)
        await clock.advance(1)
        stats = manager.stats().lanes
        assert (stats["a"].running, stats["b"].running) == (2, 2)
        manager.set_lane("b", min_concurrency=0)
        await clock.advance(1)
        stats = manager.stats().lanes
        assert (stats["a"].running, stats["b"].running) == (4, 0)


async def test_a_new_timeout_and_policy_count_from_the_next_attempt(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1)) as manager:
        first = await manager.submit("a", sleep, clock, 10)
        second = await manager.submit("a", sleep, clock, 10)
        third = await manager.submit("a", fail, ValueError("x"))
        await clock.advance(1)
        manager.set_lane("a", timeout=3, retry=RetryPolicy.fixed(2, 1))
        await clock.run(manager.drain())
        assert (first.state, second.state) == (State.SUCCEEDED, State.TIMED_OUT)
        assert (second.attempt, third.attempt) == (3, 3)


async def test_a_whole_new_configuration_can_be_given(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, LaneConfig(0, 1), sinks=[sink]) as manager:
        wanted = LaneConfig(0, 3, priority=2, timeout=9)
        assert manager.set_lane("a", wanted) is wanted or manager.lanes["a"] == wanted
        assert manager.set_lane("a", wanted, priority=5).priority == 5
        await clock.advance(0)
        first, second = sink.of("queue.lane.changed")
        assert first.payload["changes"] == {"max_concurrency": "3", "priority": "2", "timeout": "9.0"}
        assert second.payload["changes"] == {"priority": "5"}
        assert (first.payload["lane"], first.payload["pending"]) == ("a", 0)


async def test_more_room_lets_waiting_submitters_in(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1, max_pending=1)) as manager:
        await manager.submit("a", sleep, clock, 10)
        await clock.advance(0)
        await manager.submit("a", noop)
        waiting = [asyncio.ensure_future(manager.submit("a", noop)) for _ in range(5)]
        await clock.advance(0)
        assert manager.stats().lanes["a"].waiting_submitters == 5
        manager.set_lane("a", max_pending=3)
        await clock.advance(0)
        assert [task.done() for task in waiting] == [True, True, False, False, False]
        manager.set_lane("a", max_pending=None)
        await clock.advance(0)
        assert all(task.done() for task in waiting)


@pytest.mark.parametrize("limit", [None, 4])
async def test_any_series_of_changes_keeps_the_limits(clock: VirtualClock, limit: int | None) -> None:
    async with running(clock, TWO, max_concurrency=limit) as manager:
        for name in "ab":
            await manager.submit_many(name, [(sleep, clock, 1.5)] * 200)
        for step in range(60):
            manager.set_lane("ab"[step % 2], max_concurrency=1 + step % 3, priority=step % 4)
            before = {name: lane.running for name, lane in manager.stats().lanes.items()}
            await clock.advance(0.5)
            stats = manager.stats()
            for name, lane in stats.lanes.items():
                assert lane.running <= max(lane.max_concurrency, before[name])
            assert limit is None or stats.total_active <= limit
        await clock.run(manager.drain())
        assert sum(lane.ended["succeeded"] for lane in manager.stats().lanes.values()) == 400
