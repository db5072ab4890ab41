"""The smallest forms of what the machines here have found: each was a fault once."""

from __future__ import annotations

import asyncio

import pytest

from lane_obs import LaneConfig, QueueManager, RetryPolicy, ShutdownInProgress, State, VirtualClock
from lane_obs.testing import sleep
from tests.property.bench import running


@pytest.mark.both_loops
async def test_a_submitter_whose_place_comes_free_as_the_queue_closes_is_refused(clock: VirtualClock) -> None:
    async def work() -> None:
        raise AssertionError("it never runs")

    manager = QueueManager({"a": LaneConfig(0, 1, max_pending=1)}, clock=clock)
    await manager.start()
    manager.pause("a")
    first = manager.submit_nowait("a", work)
    waiting = asyncio.ensure_future(manager.submit("a", work))
    await asyncio.sleep(0)

    async def end() -> None:
        first.cancel()
        await manager.close()

    await clock.run(end())
    await clock.advance(1.0)
    assert isinstance(waiting.exception(), ShutdownInProgress)
    stats = manager.stats()
    assert (stats.submitted, stats.total_pending, stats.total_active) == (1, 0, 0)


@pytest.mark.both_loops
async def test_commands_cancelled_before_their_first_step_give_their_slots_back(clock: VirtualClock) -> None:
    """Also where two rounds of the dispatcher fall into one turn of the loop."""

    async def work() -> None:
        await sleep(clock, 1.0)

    lanes = {"a": LaneConfig(0, 2, max_pending=1, overflow="drop_oldest")}
    async with running(clock, lanes) as manager:
        for turns in range(4):
            handles = [manager.submit_nowait("a", work) for _ in range(2)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for handle in handles:
                handle.cancel()
            await clock.advance(0)
            assert [handle.state for handle in handles] == [State.CANCELLED] * 2
        assert manager.stats().total_active == 0


async def test_a_drain_without_limit_goes_on_when_work_comes_in_as_it_is_done(clock: VirtualClock) -> None:
    async with running(clock, {"a": LaneConfig(0, 1)}) as manager:
        draining = asyncio.ensure_future(manager.drain())
        await asyncio.sleep(0)
        handle = manager.submit_nowait("a", sleep, clock, 3.0)
        report = await clock.run(draining)
        assert report.total_left == 0
        assert handle.done() or manager.stats().total_active + manager.stats().total_pending == 1
        await clock.run(handle)


async def test_lanes_of_equal_priority_take_turns_also_when_one_has_reserved_slots(clock: VirtualClock) -> None:
    started = []

    async def work(name: str) -> None:
        started.append(name)

    lanes = {"a": LaneConfig(2, 2), "b": LaneConfig(0, 4)}
    async with running(clock, lanes, max_concurrency=6) as manager:
        for name in ("a 1", "b 2", "a 3"):
            manager.submit_nowait(name[0], work, name)
        await clock.run(manager.drain())
    assert started == ["a 1", "b 2", "a 3"]


async def test_commands_that_submit_to_their_own_full_lane_do_not_recurse(clock: VirtualClock) -> None:
    done = 0

    async def work() -> None:
        nonlocal done
        done += 1
        if done < 1_500:
            manager.submit_nowait("a", work)
            manager.submit_nowait("a", work)

    async with running(clock, {"a": LaneConfig(0, 10_000, max_pending=1)}) as manager:
        manager.submit_nowait("a", work)
        await clock.run(manager.drain())
        ended = manager.stats().lanes["a"].ended
        assert ended["succeeded"] == done == 2_999
        assert sum(ended.values()) == done


@pytest.mark.both_loops
async def test_a_submitter_that_is_cancelled_with_a_place_in_hand_passes_it_on(clock: VirtualClock) -> None:
    async def work() -> str:
        return "done"

    async with running(clock, {"a": LaneConfig(0, 1, max_pending=1)}) as manager:
        manager.pause("a")
        first = manager.submit_nowait("a", work)
        waiting = [asyncio.ensure_future(manager.submit("a", work)) for _ in range(2)]
        await clock.advance(0)
        first.cancel()
        await asyncio.sleep(0)  # the dispatcher gives the place to the first in line, who has not seen it yet
        assert manager.stats().lanes["a"].waiting_submitters == 1
        waiting[0].cancel()
        await clock.advance(0)
        assert waiting[0].cancelled()
        assert manager.stats().lanes["a"].waiting_submitters == 0
        manager.resume("a")
        assert await clock.run(waiting[1].result()) == "done"


async def test_a_lane_that_drops_the_oldest_is_within_its_bound_again_after_a_submit(clock: VirtualClock) -> None:
    """Attempts that fail come back whatever the bound says: nobody can refuse them."""

    async def work() -> None:
        await sleep(clock, 1.0)
        raise ValueError

    lanes = {"a": LaneConfig(0, 3, max_pending=1, overflow="drop_oldest", retry=RetryPolicy.fixed(1, 0.0))}
    async with running(clock, lanes) as manager:
        for _ in range(4):
            manager.submit_nowait("a", work)
        await clock.advance(0.5)
        manager.pause("a")
        await clock.advance(1.0)
        assert manager.stats().lanes["a"].pending == 4
        newest = manager.submit_nowait("a", work)
        assert manager.stats().lanes["a"].pending == 1
        assert newest.state is State.READY
        assert len(manager.dead_letters) == 4
