"""Bounded lanes: waiting for room, rejecting, dropping the oldest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import (
    CommandDropped,
    LaneConfig,
    LaneFullError,
    MemorySink,
    QueueManager,
    RetryPolicy,
    State,
    VirtualClock,
)
from lane_obs.clock import sleep
from tests.unit.runtime.support import Attempts, Gate, noop, outcome, running

if TYPE_CHECKING:
    from collections.abc import Coroutine


def spawn(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.ensure_future(work)


async def fill(clock: VirtualClock, manager: QueueManager, gate: Gate, count: int) -> list[Any]:
    """One command that runs and `count` that wait, named 0, 1, 2, ..."""
    handles = []
    for name in range(count + 1):
        handles.append(await manager.submit("a", gate, name))
        await clock.advance(0)
    return handles


# --- wait ----------------------------------------------------------------------------------------------------------


async def test_submit_waits_for_room_and_submitters_are_served_in_order(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock, LaneConfig(0, 1, max_pending=2)) as manager:
        await fill(clock, manager, gate, 2)
        tasks = [spawn(manager.submit("a", gate, name)) for name in range(3, 8)]
        await clock.advance(0)
        stats = manager.stats().lanes["a"]
        assert (stats.pending, stats.waiting_submitters, stats.max_pending) == (2, 5, 2)
        for name in range(8):
            gate.open(name)
            await clock.advance(0)
            assert manager.stats().lanes["a"].pending <= 2
            assert [task.done() for task in tasks].count(True) == min(name + 1, 5)
        assert gate.started == list(range(8))


async def test_nobody_overtakes_a_submitter_that_waits(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock, LaneConfig(0, 1, max_pending=1)) as manager:
        await fill(clock, manager, gate, 1)
        first = spawn(manager.submit("a", gate, "first"))
        await clock.advance(0)
        gate.open(0)
        while manager.stats().lanes["a"].pending:  # until the very moment at which there is room
            await asyncio.sleep(0)
        with pytest.raises(LaneFullError):
            manager.submit_nowait("a", gate, "pushy")
        second = spawn(manager.submit("a", gate, "second"))
        await clock.advance(0)
        for name in (1, "first", "second"):
            gate.open(name)
            await clock.advance(0)
        assert gate.started == [0, 1, "first", "second"]
        assert first.done()
        assert second.done()


async def test_of_a_hundred_blocked_submitters_fifty_are_cancelled_and_the_rest_proceed(clock: VirtualClock) -> None:
    gate, ran = Gate(), []  # aiojobs#97: a cancelled spawner left a counted job behind

    async def work(name: int) -> None:
        ran.append(name)

    async with running(clock, LaneConfig(0, 1, max_pending=3)) as manager:
        await fill(clock, manager, gate, 3)
        tasks = [spawn(manager.submit("a", work, name)) for name in range(100)]
        await clock.advance(0)
        for task in tasks[::2]:
            task.cancel()
        await clock.advance(0)
        assert manager.stats().lanes["a"].waiting_submitters == 50
        for name in range(4):
            gate.open(name)
            await clock.advance(0)
        await clock.run(manager.drain())
        assert ran == list(range(1, 100, 2))
        stats = manager.stats()
        assert (stats.submitted, stats.total_pending, stats.lanes["a"].waiting_submitters) == (54, 0, 0)
        await asyncio.wait(tasks)


@pytest.mark.both_loops
async def test_a_submitter_cancelled_as_it_gets_its_place_passes_it_on(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock, LaneConfig(0, 1, max_pending=1)) as manager:
        await fill(clock, manager, gate, 1)
        for number in range(100):
            tasks = [spawn(manager.submit("a", gate, (number, name))) for name in range(2)]
            await clock.advance(0)
            gate.open(gate.inside[0])
            for _ in range(number % 6):
                await asyncio.sleep(0)
            tasks[0].cancel()
            await clock.advance(0)
            assert manager.stats().lanes["a"].waiting_submitters <= 1
            while not tasks[1].done():
                gate.open(gate.inside[0])
                await clock.advance(0)
            assert manager.stats().lanes["a"].pending <= 1
        while gate.inside:
            gate.open(gate.inside[0])
            await clock.advance(0)
        stats = manager.stats()
        assert (stats.total_pending, stats.lanes["a"].waiting_submitters) == (0, 0)
        assert manager.submit_nowait("a", noop).state is State.READY


async def test_submit_nowait_does_not_wait(clock: VirtualClock) -> None:
    gate, sink = Gate(), MemorySink()
    async with running(clock, LaneConfig(0, 1, max_pending=1), sinks=[sink]) as manager:
        await fill(clock, manager, gate, 1)
        before = manager.stats().lanes
        with pytest.raises(LaneFullError, match=r"lane 'a' is full: 1 commands are pending \(max_pending\)") as caught:
            manager.submit_nowait("a", gate)
        assert (caught.value.lane, caught.value.max_pending) == ("a", 1)
        assert manager.stats().lanes == before
        rejected = await clock.run(sink.wait_for("queue.command.rejected"))
        assert rejected.payload == {"lane": "a", "command_type": "Gate", "reason": "full"}


async def test_submit_many_waits_item_by_item(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1, max_pending=2)) as manager:
        handles = await clock.run(manager.submit_many("a", [(sleep, clock, 1)] * 20))
        assert manager.stats().lanes["a"].pending <= 2
        await clock.run(manager.drain())
        assert [handle.state for handle in handles] == [State.SUCCEEDED] * 20


# --- what counts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["wait", "reject", "drop_oldest"])
async def test_free_slots_are_used_before_a_lane_counts_as_full(clock: VirtualClock, overflow: str) -> None:
    gate = Gate()
    async with running(clock, LaneConfig(0, 5, max_pending=1, overflow=overflow)) as manager:
        handles = [manager.submit_nowait("a", gate, name) for name in range(6)]  # in one turn of the loop
        assert len(handles) == 6
        await clock.advance(0)
        stats = manager.stats().lanes["a"]
        assert (stats.running, stats.ready) == (5, 1)


async def test_delayed_and_backing_off_commands_count_as_pending(clock: VirtualClock) -> None:
    lane = LaneConfig(0, 5, max_pending=2, overflow="reject", retry=RetryPolicy.fixed(1, 10, jitter="none"))
    async with running(clock, lane) as manager:
        await manager.submit("a", noop, delay=10)
        await manager.submit("a", Attempts(clock, ValueError("x")))
        await clock.advance(1)
        with pytest.raises(LaneFullError):
            await manager.submit("a", noop)
        await clock.advance(10)
        assert (await manager.submit("a", noop)).state is State.READY


async def test_lanes_have_room_of_their_own(clock: VirtualClock) -> None:
    lanes = {"a": LaneConfig(0, 1, max_pending=1, overflow="reject"), "b": LaneConfig(0, 1)}
    async with running(clock, lanes) as manager:
        await fill(clock, manager, Gate(), 1)
        with pytest.raises(LaneFullError):
            await manager.submit("a", noop)
        assert await clock.run(await manager.submit("b", noop, 1)) == 1


# --- reject and drop -----------------------------------------------------------------------------------------------


async def test_a_rejecting_lane_takes_work_again_once_there_is_room(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock, LaneConfig(0, 1, max_pending=1, overflow="reject")) as manager:
        await fill(clock, manager, gate, 1)
        for _ in range(3):
            with pytest.raises(LaneFullError):
                await manager.submit("a", gate)
        gate.open(0)
        await clock.advance(0)
        await manager.submit("a", gate, 2)
        assert manager.stats().submitted == 3


async def test_the_oldest_waiting_command_makes_room_and_is_a_dead_letter(clock: VirtualClock) -> None:
    gate, sink = Gate(), MemorySink()
    lane = LaneConfig(0, 1, max_pending=3, overflow="drop_oldest")
    async with running(clock, lane, sinks=[sink]) as manager:
        handles = await fill(clock, manager, gate, 3)
        newest = await manager.submit("a", gate, 4)
        assert [handle.state for handle in handles] == [State.RUNNING, State.FAILED, State.READY, State.READY]
        assert type(await outcome(handles[1])) is CommandDropped
        (letter,) = manager.dead_letters
        assert (letter.id, letter.error_type, letter.attempts) == (handles[1].id, "CommandDropped", 0)
        failed = await clock.run(sink.wait_for("queue.command.failed"))
        assert failed.payload["error_type"] == "CommandDropped"
        for name in (0, 2, 3, 4):
            gate.open(name)
            await clock.advance(0)
        assert newest.state is State.SUCCEEDED
        assert gate.started == [0, 2, 3, 4]


async def test_with_nothing_to_drop_a_dropping_lane_rejects(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1, max_pending=2, overflow="drop_oldest")) as manager:
        for _ in range(2):
            await manager.submit("a", noop, delay=10)
        with pytest.raises(LaneFullError):
            await manager.submit("a", noop)
        assert manager.stats().lanes["a"].delayed == 2


async def test_a_lane_that_begins_to_drop_while_submitters_wait_drops_no_more_than_it_must(
    clock: VirtualClock,
) -> None:
    gate = Gate()
    async with running(clock, LaneConfig(0, 1, max_pending=3)) as manager:
        await fill(clock, manager, gate, 3)
        waiting = spawn(manager.submit("a", gate, 4))
        await clock.advance(0)
        manager.set_lane("a", overflow="drop_oldest")
        manager.submit_nowait("a", gate, 5)
        assert len(manager.dead_letters) <= 2
        await clock.advance(0)
        assert manager.stats().lanes["a"].pending <= 3
        while gate.inside:
            gate.open(gate.inside[0])
            await clock.advance(0)
        assert waiting.done()
        assert {4, 5} <= set(gate.started)
