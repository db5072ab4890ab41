"""Statistics: every command is in exactly one place, and the figures say which."""

from __future__ import annotations

import pytest

from lane_obs import LaneConfig, Partitions, QueueManager, RetryPolicy, State, VirtualClock
from lane_obs.clock import sleep
from tests.unit.runtime.support import Attempts, fail, noop, running

ENDS = ("succeeded", "failed", "timed_out", "cancelled", "expired")


async def test_the_sum_of_all_states_is_what_was_submitted_at_every_moment(clock: VirtualClock) -> None:
    lanes = {"a": LaneConfig(0, 2, retry=RetryPolicy.fixed(1, 3, jitter="none")), "b": LaneConfig(0, 1, timeout=2)}
    async with running(clock, lanes, max_concurrency=2) as manager:
        for number in range(60):
            lane, options = "ab"[number % 2], {"delay": number % 4, "deadline": 1 + number % 9}
            work = Attempts(clock, ValueError("x"), "ok", seconds=number % 5)
            handle = await manager.submit(lane, work, **options)
            if number % 7 == 0:
                handle.cancel()
            await clock.advance(0.25)
            stats = manager.stats()
            counted = sum(lane.pending + lane.running + sum(lane.ended.values()) for lane in stats.lanes.values())
            assert counted == stats.submitted == number + 1
            assert stats.total_active == sum(lane.running for lane in stats.lanes.values()) <= 2
        await clock.run(manager.drain())
        stats = manager.stats()
        assert (stats.total_pending, stats.total_active) == (0, 0)
        assert sum(sum(lane.ended.values()) for lane in stats.lanes.values()) == 60


async def test_a_lane_shows_its_commands_by_state_and_its_limits(clock: VirtualClock) -> None:
    lane = LaneConfig(1, 2, priority=3, max_pending=50, retry=RetryPolicy.fixed(1, 60, jitter="none"))
    async with running(clock, lane, max_concurrency=7) as manager:
        await manager.submit("a", fail, ValueError("x"))
        await manager.submit_many("a", [(sleep, clock, 30)] * 2)
        await manager.submit("a", noop, delay=40)
        await clock.advance(1)
        await manager.submit_many("a", [noop] * 4)
        found = manager.stats().lanes["a"]
        assert (found.ready, found.delayed, found.backoff, found.running, found.pending) == (4, 1, 1, 2, 6)
        assert (found.priority, found.min_concurrency, found.max_concurrency) == (3, 1, 2)
        assert (found.max_pending, found.paused, found.waiting_submitters, found.stuck) == (50, False, 0, 0)
        assert (manager.stats().max_concurrency, manager.stats().submitted) == (7, 8)


async def test_every_end_is_counted_under_its_name(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1)) as manager:
        await manager.submit("a", noop)
        await manager.submit("a", fail, ValueError("x"))
        await manager.submit("a", sleep, clock, 9, timeout=1)
        await manager.submit("a", noop, delay=9, deadline=1)
        (await manager.submit("a", noop)).cancel()
        await clock.run(manager.drain())
        stats = manager.stats().lanes["a"]
        assert stats.ended == dict.fromkeys(ENDS, 1)
        assert (stats.dead, manager.stats().dead_letters) == (3, 3)


async def test_the_oldest_ready_age_is_that_of_the_longest_ready_command(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        manager.pause("a")
        await manager.submit("a", noop, delay=10)
        assert manager.stats().lanes["a"].oldest_ready_age is None
        await clock.advance(4)
        first = await manager.submit("a", noop)
        await clock.advance(8)
        assert manager.stats().lanes["a"].oldest_ready_age == 8.0
        first.cancel()
        assert manager.stats().lanes["a"].oldest_ready_age == 2.0
        manager.resume("a")
        await clock.run(manager.drain())
        assert manager.stats().lanes["a"].oldest_ready_age is None


async def test_statistics_are_a_snapshot_that_does_not_change(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handle = await manager.submit("a", noop)
        before = manager.stats()
        await clock.run(handle)
        assert before.lanes["a"].ready == 1
        assert sum(before.lanes["a"].ended.values()) == 0
        with pytest.raises(AttributeError):
            before.submitted = 5  # type: ignore[misc]
        assert manager.stats().lanes["a"].ended[State.SUCCEEDED] == 1


async def test_explaining_changes_nothing(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handles = await manager.submit_many("a", [(sleep, clock, 1)] * 5)
        await clock.advance(0.5)
        before = manager.stats()
        for _ in range(3):
            told = [manager.explain(handle.id) for handle in handles]
        assert manager.stats() == before
        assert [found.ahead_in_lane for found in told] == [0, 0, 1, 2, 3]
        assert [found.state for found in told] == [State.RUNNING, *[State.READY] * 4]
        assert told[1].wait_by_cause.slots == told[1].wait_by_cause.total == 0.5


async def test_explaining_before_the_start_says_that_the_queue_is_not_started(clock: VirtualClock) -> None:
    manager = QueueManager({"a": LaneConfig(0, 1), "paused": LaneConfig(0, 1)}, clock=clock)
    ready, delayed = await manager.submit("a", noop), await manager.submit("a", noop, delay=5)
    behind, paused = await manager.submit("a", noop), await manager.submit("paused", noop)
    manager.pause("paused")
    texts = [manager.explain(handle.id).text for handle in (ready, behind, paused, delayed)]
    assert texts[0].startswith("waits in lane 'a': the queue is not started; 0 ahead in its lane")
    assert texts[1].startswith("waits in lane 'a': the queue is not started; 1 ahead in its lane")
    assert texts[2].startswith("waits in lane 'paused': the queue is not started; ")
    assert texts[3] == "waits in lane 'a': its delay is not over, and the queue is not started"
    await manager.start()
    assert manager.explain(ready.id).text.startswith("waits in lane 'a': nothing blocks it; it starts in the next turn")
    assert manager.explain(delayed.id).text == "waits in lane 'a': its delay is not over"
    assert "its lane is paused" in manager.explain(paused.id).text
    await clock.run(manager.close())


async def test_a_lane_shows_depth_and_wait_of_ten_partitions(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(1, 1, partitions=Partitions.per_key())) as manager:
        for number in range(12):  # the first one runs, and the second waits for it
            for _ in range(1 + number // 10):
                await manager.submit("a", sleep, clock, 60, partition_key=f"k{number}")
            await clock.advance(1)
        await manager.submit("a", noop, partition_key="k0")
        await clock.advance(1)
        found = manager.stats().lanes["a"]
        assert (found.partitions, found.ready) == (12, 14)
        assert {name: found.largest_partitions[name] for name in ("k10", "k11")} == {"k10": 2, "k11": 2}
        assert found.partition_ages == {f"k{number}": 13.0 - number for number in range(1, 11)}
        await manager.remove_lane("a", cancel=True)


async def test_the_wait_of_a_partition_is_that_of_its_next_command(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(1, 4, partitions=Partitions.per_key())) as manager:
        assert manager.stats().lanes["a"].partition_ages == {}
        await manager.submit("a", sleep, clock, 10, partition_key="x")
        assert manager.stats().lanes["a"].partition_ages == {"x": 0.0}
        await clock.advance(1)
        assert manager.stats().lanes["a"].partition_ages == {}
        await manager.submit("a", sleep, clock, 10, partition_key="x")
        await clock.advance(5)
        assert manager.stats().lanes["a"].partition_ages == {"x": 5.0}
        await clock.run(manager.drain())
        assert manager.stats().lanes["a"].partition_ages == {}
