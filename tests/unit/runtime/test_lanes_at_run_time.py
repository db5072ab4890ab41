"""Lanes that come and go while the queue works."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any

import pytest

from lane_obs import (
    ConfigError,
    LaneConfig,
    LaneNotEmpty,
    LaneRemoved,
    MemorySink,
    NotStarted,
    QueueManager,
    RetryPolicy,
    ShutdownInProgress,
    State,
    UnknownLane,
    VirtualClock,
    WrongLoop,
)
from lane_obs.clock import sleep
from tests.unit.runtime.support import Gate, fail, noop, outcome, running, stubborn

LANE = LaneConfig(0, 1)


async def removing(manager: QueueManager, name: str = "b", **how: Any) -> asyncio.Task[None]:
    """A removal that has begun."""
    task = asyncio.ensure_future(manager.remove_lane(name, **how))
    await asyncio.sleep(0)
    return task


# --- add --------------------------------------------------------------------------------------------------------


async def test_a_lane_added_while_the_queue_works_runs_commands(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, sinks=[sink]) as manager:
        manager.add_lane("b", LaneConfig(0, 2, priority=-1))
        assert await clock.run(await manager.submit("b", noop, 7)) == 7
        assert manager.lanes == {"a": LaneConfig(0, 1), "b": LaneConfig(0, 2, priority=-1)}
        assert manager.stats().lanes["b"].ended["succeeded"] == 1
        added = next(event for event in sink.events if event.key == "queue.lane.added")
        assert added.payload == {
            "lane": "b",
            "pending": 0,
            "policies": {"min_concurrency": "0", "max_concurrency": "2", "priority": "-1"},
        }


async def test_a_lane_added_without_policies_has_the_default_ones(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        manager.add_lane("b")
        assert manager.lanes["b"] == LaneConfig()


def test_a_lane_can_be_added_before_there_is_a_loop() -> None:
    manager = QueueManager({"a": LANE}, clock=VirtualClock())
    manager.add_lane("b", LANE)
    assert list(manager.stats().lanes) == ["a", "b"]


async def test_an_added_lane_goes_by_its_priority_at_once(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock, LaneConfig(0, 4), max_concurrency=1) as manager:
        await manager.submit("a", gate, "first")
        await manager.submit("a", gate, "second")
        await clock.advance(0)
        manager.add_lane("b", LaneConfig(0, 1, priority=-1))
        await manager.submit("b", gate, "urgent")
        for name in ("first", "urgent", "second"):
            gate.open(name)
            await clock.advance(0)
        assert gate.started == ["first", "urgent", "second"]


async def test_an_added_reservation_holds_from_then_on(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock, LaneConfig(0, 4), max_concurrency=3) as manager:
        manager.add_lane("b", LaneConfig(1, 1))
        await manager.submit_many("a", [(gate, number) for number in range(4)])
        await clock.advance(0)
        assert gate.inside == [0, 1]
        await manager.submit("b", gate, "b")
        await clock.advance(0)
        assert gate.inside == [0, 1, "b"]
        for name in (0, 1, "b"):
            gate.open(name)
        await clock.run(manager.remove_lane("b"))
        await manager.submit("a", gate, 4)
        await clock.advance(0)
        assert gate.inside == [2, 3, 4]  # what it had reserved is everyone's
        for name in (2, 3, 4):
            gate.open(name)


@pytest.mark.parametrize(
    ("name", "config", "text"),
    [
        ("a", LANE, "no lane has"),
        ("", LANE, "printable"),
        ("\n", LANE, "printable"),
        (7, LANE, "printable"),
        ("b", 7, "LaneConfig"),
        ("b", LaneConfig(3, 3), "the lanes reserve 5 slots"),
        ("b", LaneConfig(2, 2), "all its slots are reserved"),
        ("b", LaneConfig(0, 1, durable=True), "storage"),
    ],
)
async def test_a_bad_lane_is_refused_and_changes_nothing(
    clock: VirtualClock, name: Any, config: Any, text: str
) -> None:
    lanes = {"a": LaneConfig(0, 4), "c": LaneConfig(2, 2)}
    async with running(clock, lanes, max_concurrency=4) as manager:
        before = manager.stats()
        with pytest.raises(ConfigError, match=text):
            manager.add_lane(name, config)
        assert manager.stats() == before
        manager.add_lane("b", LaneConfig(1, 1))  # three of four: what was refused was not counted


async def test_reservations_are_checked_with_those_of_lanes_that_came_went_and_changed(clock: VirtualClock) -> None:
    async with running(clock, LANE, max_concurrency=3) as manager:
        manager.add_lane("b", LaneConfig(2, 2))
        with pytest.raises(ConfigError, match="reserved"):
            manager.add_lane("c", LaneConfig(1, 1))
        manager.set_lane("b", min_concurrency=1)
        manager.add_lane("c", LaneConfig(1, 1))
        with pytest.raises(ConfigError, match="reserve"):
            manager.set_lane("b", min_concurrency=2)
        await clock.run(manager.remove_lane("c"))
        manager.set_lane("b", min_concurrency=2)
        await clock.run(manager.remove_lane("a"))
        manager.set_lane("b", LaneConfig(3, 3))  # nobody is left who could starve


async def test_no_lane_is_added_to_a_queue_that_shuts_down(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        await manager.shutdown()
        with pytest.raises(ShutdownInProgress):
            manager.add_lane("b", LANE)


async def test_lanes_are_added_and_removed_on_the_queues_own_loop_only(clock: VirtualClock) -> None:
    async with running(clock, {"a": LANE, "b": LANE}) as manager:

        def elsewhere() -> None:
            with pytest.raises(WrongLoop):
                manager.add_lane("c", LANE)
            with pytest.raises(WrongLoop):
                asyncio.run(manager.remove_lane("b"))

        await asyncio.to_thread(elsewhere)
        assert list(manager.lanes) == ["a", "b"]


# --- remove -----------------------------------------------------------------------------------------------------


async def test_an_empty_lane_is_removed_at_once_and_its_totals_stay(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, {"a": LANE, "b": LANE}, sinks=[sink]) as manager:
        await clock.run(await manager.submit("b", noop))
        await outcome(await manager.submit("b", fail, ValueError("x")))
        await manager.remove_lane("b")
        stats = manager.stats()
        assert list(stats.lanes) == list(manager.lanes) == ["a"]
        assert stats.submitted == 2
        assert (stats.removed.lanes, stats.removed.ended["succeeded"], stats.removed.ended["failed"]) == (1, 1, 1)
        assert stats.dead_letters == 1
        with pytest.raises(UnknownLane, match="known lanes: 'a'"):
            manager.submit_nowait("b", noop)
        with pytest.raises(UnknownLane):
            manager.dead_letters.requeue(manager.dead_letters.list()[0].id)
        with pytest.raises(UnknownLane):
            await manager.remove_lane("b")
        await clock.advance(0)
        removed = next(event for event in sink.events if event.key == "queue.lane.removed")
        assert removed.payload["ended"] == {"succeeded": 1, "failed": 1, "timed_out": 0, "cancelled": 0, "expired": 0}


async def test_a_removal_waits_for_all_that_is_in_the_lane_and_takes_nothing_more(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, {"a": LANE, "b": LANE}, sinks=[sink]) as manager:
        retry = RetryPolicy.fixed(1, 20, jitter="none")
        ends = [
            await manager.submit("b", sleep, clock, 5),
            await manager.submit("b", fail, ValueError("x"), retry=retry),
            await manager.submit("b", noop, delay=40),
        ]
        task = await removing(manager)
        with pytest.raises(LaneRemoved, match="'b' is being removed"):
            await manager.submit("b", noop)
        with pytest.raises(LaneRemoved):
            await manager.submit_many("b", [noop])
        with pytest.raises(LaneRemoved):
            manager.submit_nowait("b", noop)
        for seconds, done in ((5, 1), (20, 2), (14.9, 2)):
            await clock.advance(seconds)
            assert [handle.done() for handle in ends] == [True] * done + [False] * (3 - done)
            assert not task.done()
        assert "b" in manager.stats().lanes
        await clock.advance(0.2)
        await task
        assert list(manager.lanes) == ["a"]
        await clock.advance(0)
        rejected = [event.payload for event in sink.events if event.key == "queue.command.rejected"]
        assert {(event["lane"], event["reason"]) for event in rejected} == {("b", "removed")}


async def test_submitters_that_wait_for_room_get_in_before_the_lane_goes(clock: VirtualClock) -> None:
    async with running(clock, {"a": LANE, "b": LaneConfig(0, 1, max_pending=1)}) as manager:
        waiting = [asyncio.ensure_future(manager.submit("b", sleep, clock, 1)) for _ in range(5)]
        await clock.advance(0)
        assert manager.stats().lanes["b"].waiting_submitters == 3
        task = await removing(manager)
        await clock.advance(4.5)
        assert not task.done()
        await clock.advance(1)
        await task
        assert [(await handle).state for handle in waiting] == [State.SUCCEEDED] * 5


async def test_a_submitter_that_gives_up_while_the_lane_waits_for_it_lets_the_lane_go(clock: VirtualClock) -> None:
    gate = Gate()
    async with running(clock, {"a": LANE, "b": LaneConfig(0, 1, max_pending=1)}) as manager:
        waiting = [asyncio.ensure_future(manager.submit("b", gate, number)) for number in range(3)]
        await clock.advance(0)
        task = await removing(manager)
        gate.open(0)
        await clock.advance(0)
        gate.open(1)
        waiting[2].cancel()
        await clock.advance(0)
        assert task.done() == (not manager.stats().lanes.get("b"))
        for name in gate.inside:
            gate.open(name)
        await clock.run(task)


async def test_a_removal_that_takes_too_long_leaves_the_lane_open_again(clock: VirtualClock) -> None:
    async with running(clock, {"a": LANE, "b": LANE}) as manager:
        await manager.submit_many("b", [(sleep, clock, 10)] * 3)
        with pytest.raises(LaneNotEmpty, match="'b' was not removed, it is not empty: 2 ready, 1 running") as caught:
            await clock.run(manager.remove_lane("b", timeout=5))
        assert (caught.value.lane, caught.value.left) == ("b", {"ready": 2, "running": 1})
        assert isinstance(caught.value, TimeoutError)
        await manager.submit("b", noop)
        await clock.run(manager.remove_lane("b", timeout=26))
        assert list(manager.lanes) == ["a"]


async def test_a_timeout_of_zero_only_looks(clock: VirtualClock) -> None:
    async with running(clock, {"a": LANE, "b": LANE}) as manager:
        handle = await manager.submit("b", noop)
        with pytest.raises(LaneNotEmpty):
            await manager.remove_lane("b", timeout=0)
        await clock.run(handle)
        await manager.remove_lane("b", timeout=0)


async def test_a_removal_that_is_cancelled_leaves_the_lane_open_again(clock: VirtualClock) -> None:
    async with running(clock, {"a": LANE, "b": LANE}) as manager:
        await manager.submit("b", sleep, clock, 10)
        task = await removing(manager)
        task.cancel()
        await asyncio.wait([task])
        assert await clock.run(await manager.submit("b", noop, 3)) == 3


async def test_two_removals_of_one_lane_wait_together_and_it_opens_when_both_gave_up(clock: VirtualClock) -> None:
    async with running(clock, {"a": LANE, "b": LANE}) as manager:
        await manager.submit("b", sleep, clock, 10)
        short, long = await removing(manager, timeout=1), await removing(manager, timeout=20)
        await clock.advance(2)
        assert isinstance(short.exception(), LaneNotEmpty)
        with pytest.raises(LaneRemoved):
            manager.submit_nowait("b", noop)
        third = await removing(manager)
        await clock.advance(9)
        await asyncio.gather(long, third)
        assert manager.stats().removed.lanes == 1


async def test_a_removal_that_cancels_ends_everything_in_the_lane(clock: VirtualClock) -> None:
    async with running(clock, {"a": LANE, "b": LaneConfig(0, 1, max_pending=4)}) as manager:
        retry = RetryPolicy.fixed(1, 100, jitter="none")
        backing_off = await manager.submit("b", fail, ValueError("x"), retry=retry)
        await clock.advance(0)
        others = [await manager.submit("b", sleep, clock, 99) for _ in range(3)]
        others.append(await manager.submit("b", noop, delay=50))
        waiting = asyncio.ensure_future(manager.submit("b", noop))
        untouched = await manager.submit("a", sleep, clock, 1)
        await clock.advance(0)
        assert not waiting.done()
        await clock.run(manager.remove_lane("b", cancel=True))
        assert {handle.state for handle in [backing_off, *others]} == {State.CANCELLED}
        with pytest.raises(LaneRemoved):
            await waiting
        await clock.run(untouched)
        assert manager.stats().removed.ended["cancelled"] == 5


async def test_a_cancelling_removal_cancels_each_command_once_and_waits_for_the_stubborn(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, {"a": LANE, "b": LaneConfig(0, 2)}, sinks=[sink]) as manager:
        slow = await manager.submit("b", stubborn, clock, 30)
        await clock.advance(0)
        with pytest.raises(LaneNotEmpty, match="1 running"):
            await clock.run(manager.remove_lane("b", timeout=10, cancel=True))
        await clock.run(manager.remove_lane("b", cancel=True))
        assert await slow == "late"
        assert sink.keys().count("queue.command.cancel_requested") == 1


async def test_a_cancelling_removal_ends_what_times_out_and_would_be_tried_again(clock: VirtualClock) -> None:
    async with running(clock, {"a": LANE, "b": LaneConfig(0, 1, timeout=5, retry=RetryPolicy.fixed(9, 1))}) as manager:
        handle = await manager.submit("b", stubborn, clock, 8, fails := "late")
        await clock.advance(6)  # told to stop for want of time, and does not listen
        await clock.run(manager.remove_lane("b", cancel=True))
        assert handle.done()
        assert fails not in manager.lanes


async def test_a_paused_lane_is_removed_once_it_is_resumed(clock: VirtualClock) -> None:
    async with running(clock, {"a": LANE, "b": LANE}) as manager:
        manager.pause("b")
        handle = await manager.submit("b", noop, 1)
        task = await removing(manager)
        await clock.advance(5)
        assert not task.done()
        manager.resume("b")
        assert await clock.run(handle) == 1
        await clock.run(task)
        assert manager.stats().removed.blocked["pause"] == 5.0


async def test_the_last_lane_may_go_and_another_come(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        await manager.remove_lane("a")
        assert manager.stats().lanes == {}
        with pytest.raises(UnknownLane, match="known lanes: none"):
            await manager.submit("a", noop)
        manager.add_lane("a", LANE)
        assert await clock.run(await manager.submit("a", noop, 5)) == 5


async def test_a_lane_of_the_same_name_begins_anew(clock: VirtualClock) -> None:
    async with running(clock, {"a": LANE, "b": LANE}) as manager:
        manager.pause("b")
        await manager.remove_lane("b")
        manager.add_lane("b", LANE)
        assert await clock.run(await manager.submit("b", noop, 5)) == 5
        assert manager.stats().lanes["b"].ended["succeeded"] == 1


async def test_what_waits_in_a_queue_that_is_not_started_keeps_its_lane(clock: VirtualClock) -> None:
    manager = QueueManager({"a": LANE, "b": LANE}, clock=clock)
    manager.add_lane("c", LANE)
    await manager.remove_lane("c")
    handle = await manager.submit("b", noop)
    with pytest.raises(NotStarted):
        await manager.remove_lane("b")
    with pytest.raises(LaneNotEmpty):
        await clock.run(manager.remove_lane("b", timeout=1))
    await clock.run(manager.remove_lane("b", cancel=True))
    assert handle.state is State.CANCELLED
    await clock.run(manager.close())


async def test_a_removal_ends_with_the_queue(clock: VirtualClock) -> None:
    async with running(clock, {"a": LANE, "b": LANE}) as manager:
        await manager.submit("b", sleep, clock, 1_000)
        task = await removing(manager)
        await clock.run(manager.close())
        await clock.run(task)


async def test_a_drain_counts_what_ended_in_a_lane_that_goes_meanwhile(clock: VirtualClock) -> None:
    async with running(clock, {"a": LANE, "b": LANE}) as manager:
        for name in "ab":
            await manager.submit_many(name, [(sleep, clock, 5)] * 2)
        task = await removing(manager)
        report = await clock.run(manager.drain())
        await clock.run(task)
        assert report.ended["succeeded"] == 4


async def test_a_lane_under_pressure_is_idle_before_it_goes(clock: VirtualClock) -> None:
    sink = MemorySink()
    lanes = {"a": LANE, "b": LaneConfig(0, 1, pressure_threshold=1)}
    async with running(clock, lanes, sinks=[sink]) as manager:
        manager.pause("b")
        await manager.submit("b", noop)
        await clock.run(manager.remove_lane("b", cancel=True))
        await clock.advance(0)
        told = [
            event.key
            for event in sink.events
            if event.key.startswith("queue.lane") and event.key != "queue.lane.paused"
        ]
        assert told == ["queue.lane.pressure", "queue.lane.idle", "queue.lane.removed"]


def test_an_unknown_lane_among_very_many_is_told_in_a_few_words() -> None:
    error = UnknownLane("x", [f"lane{number}" for number in range(10_000)])
    assert str(error).endswith("'lane18', 'lane19' and 9980 more")
    assert len(str(error)) < 400


# --- what it costs ----------------------------------------------------------------------------------------------


class Counted(dict[str, Any]):
    """Lanes by name that count how often all of them are looked at."""

    looks = 0

    def values(self) -> Any:
        type(self).looks += 1
        return super().values()

    def items(self) -> Any:
        type(self).looks += 1
        return super().items()

    def __iter__(self) -> Any:
        type(self).looks += 1
        return super().__iter__()


async def test_to_add_use_and_remove_a_lane_looks_at_no_other(clock: VirtualClock) -> None:
    many = {f"lane{number}": LaneConfig(0, 1, priority=number % 9) for number in range(1_000)}
    async with running(clock, many, max_concurrency=50) as manager:
        engine = manager._engine
        counted = Counted(engine.lanes)
        engine.lanes = manager._intake.pressure._lanes = counted
        for number in range(20):
            manager.add_lane("new", LaneConfig(0, 1, priority=number % 9, max_pending=2, pressure_threshold=1))
            await clock.run(await manager.submit("new", noop))
            await manager.remove_lane("new")
        assert Counted.looks == 0
        assert len(engine.lanes) == 1_000


async def test_thousands_of_lanes_one_after_the_other_leave_no_memory(clock: VirtualClock) -> None:
    async with running(clock, max_concurrency=50) as manager:

        async def use(names: range) -> int:
            for number in names:
                name = f"conversation {number}"
                manager.add_lane(name, LaneConfig(0, 1, priority=number, max_pending=1, pressure_threshold=1))
                await clock.run(await manager.submit(name, noop))
                await manager.remove_lane(name)
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        await use(range(500))
        tracemalloc.start()
        try:
            before = await use(range(500, 1_000))
            after = await use(range(1_000, 4_000))
        finally:
            tracemalloc.stop()
        assert after - before < 100_000
        assert manager.stats().removed.lanes == 4_000
        assert manager.stats().removed.ended["succeeded"] == manager.stats().submitted == 4_000
