"""Start, shutdown and drain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import (
    DrainTimeout,
    LaneConfig,
    MemorySink,
    QueueManager,
    RetryPolicy,
    ShutdownInProgress,
    State,
    VirtualClock,
)
from lane_obs.clock import sleep
from tests.unit.runtime.support import Attempts, Gate, noop, outcome, running, stubborn

if TYPE_CHECKING:
    from collections.abc import Coroutine

BACKOFF = RetryPolicy.fixed(1, 20, jitter="none")


def spawn(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.ensure_future(work)


async def test_start_can_be_called_again(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, LaneConfig(0, 1), sinks=[sink]) as manager:
        for _ in range(100):
            await manager.start()
        await manager.submit_many("a", [(sleep, clock, 1)] * 5)
        began = clock.now()
        await clock.run(manager.drain())
        assert clock.now() - began == 5.0  # one scheduler, one slot
        assert sink.keys().count("queue.started") == 1


async def test_commands_submitted_before_the_start_run_after_it(clock: VirtualClock) -> None:
    manager = QueueManager({"a": LaneConfig(0, 1)}, clock=clock)
    handle = await manager.submit("a", noop, 1)
    late = await manager.submit("a", noop, 2, delay=15)
    expiring = await manager.submit("a", noop, deadline=5)
    await clock.advance(10)
    assert (handle.state, late.state, expiring.state) == (State.READY, State.DELAYED, State.EXPIRED)
    await manager.start()
    assert await clock.run(handle) == 1
    assert await clock.run(late) == 2
    assert (handle.wait_seconds, late.wait_seconds) == (10.0, 15.0)
    await clock.run(manager.close())


async def test_shutdown_refuses_new_work_and_runs_what_it_has(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        handles = await manager.submit_many("a", [(sleep, clock, 1)] * 5)
        assert not manager.is_shutting_down()
        await manager.shutdown()
        await manager.shutdown()
        assert manager.is_shutting_down()
        with pytest.raises(ShutdownInProgress):
            await manager.submit("a", noop)
        await clock.run(manager.drain())
        assert [handle.state for handle in handles] == [State.SUCCEEDED] * 5


async def test_shutdown_refuses_those_who_wait_for_room(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1, max_pending=1)) as manager:
        await manager.submit("a", sleep, clock, 1)
        await clock.advance(0)
        await manager.submit("a", sleep, clock, 1)
        waiting = [spawn(manager.submit("a", noop)) for _ in range(5)]
        many = spawn(manager.submit_many("a", [noop] * 3))
        await clock.advance(0)
        await manager.shutdown()
        results = await clock.run(asyncio.gather(*waiting, many, return_exceptions=True))
        assert [type(result) for result in results] == [ShutdownInProgress] * 6
        assert manager.stats().lanes["a"].waiting_submitters == 0
        await clock.run(manager.drain())
        assert manager.stats().submitted == 2


@pytest.mark.both_loops
async def test_nothing_is_taken_after_the_shutdown_whatever_the_moment(clock: VirtualClock) -> None:
    for moment in range(12):
        async with running(clock, LaneConfig(0, 1, max_pending=1)) as manager:
            gate = Gate()
            await manager.submit("a", gate, 0)
            await clock.advance(0)
            waiting = spawn(manager.submit_many("a", [noop] * 4))
            await clock.advance(0)
            gate.open(0)
            for _ in range(moment):
                await asyncio.sleep(0)
            await manager.shutdown()
            taken = manager.stats().submitted
            await clock.run(outcome(waiting))
            await clock.run(manager.drain())
            assert manager.stats().submitted == taken


async def test_a_queue_that_was_shut_down_cannot_be_started(clock: VirtualClock) -> None:
    manager = QueueManager({"a": LaneConfig(0, 1)}, clock=clock)
    await manager.shutdown()
    with pytest.raises(ShutdownInProgress):
        await manager.start()
    await manager.close()
    assert clock.pending == 0


async def test_drain_waits_for_ready_running_delayed_and_backing_off_work(clock: VirtualClock) -> None:
    began = clock.now()
    async with running(clock, LaneConfig(0, 1, retry=BACKOFF)) as manager:
        handles = [
            await manager.submit("a", Attempts(clock, ValueError("x"), "ok", seconds=1)),
            await manager.submit("a", sleep, clock, 2),
            await manager.submit("a", sleep, clock, 3),
            await manager.submit("a", sleep, clock, 4, delay=30),
        ]
        await clock.advance(1.5)
        states = [handle.state for handle in handles]
        assert states == [State.BACKOFF, State.RUNNING, State.READY, State.DELAYED]
        report = await clock.run(manager.drain())
        assert [handle.state for handle in handles] == [State.SUCCEEDED] * 4
        assert clock.now() - began == 34.0
        assert report.seconds == 32.5
        assert (report.ended["succeeded"], sum(report.ended.values())) == (4, 4)
        assert (report.left, report.total_left) == ({}, 0)


async def test_a_drain_that_times_out_tells_what_is_left_by_lane_and_state(clock: VirtualClock) -> None:
    lanes = {"a": LaneConfig(0, 1, retry=BACKOFF), "b": LaneConfig(0, 1), "c": LaneConfig(0, 1)}
    async with running(clock, lanes) as manager:
        await manager.submit("a", Attempts(clock, ValueError("x"), "ok"))
        await manager.submit("a", sleep, clock, 15)
        await manager.submit("a", sleep, clock, 5)
        await manager.submit("a", noop, delay=60)
        await manager.submit("b", sleep, clock, 4)
        await manager.submit("b", sleep, clock, 50)
        with pytest.raises(DrainTimeout, match=r"5 commands are left after 10\.0 s") as caught:
            await clock.run(manager.drain(10))
        report = caught.value.report
        assert report.left == {
            "a": {"backoff": 1, "running": 1, "ready": 1, "delayed": 1},
            "b": {"running": 1},
        }
        assert (report.total_left, report.seconds, report.ended["succeeded"]) == (5, 10.0, 1)
        assert isinstance(caught.value, TimeoutError)
        assert not manager.is_shutting_down()  # the queue runs on
        assert (await clock.run(manager.drain())).ended["succeeded"] == 5


async def test_a_drain_of_no_time_at_all_only_looks(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        assert (await clock.run(manager.drain(0))).seconds == 0.0
        await manager.submit("a", sleep, clock, 5)
        with pytest.raises(DrainTimeout):
            await clock.run(manager.drain(0))
        await clock.run(manager.drain(5))


async def test_several_drains_and_a_cancelled_one_do_not_disturb_each_other(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        await manager.submit("a", sleep, clock, 5)
        drains = [spawn(manager.drain()) for _ in range(3)]
        short = spawn(manager.drain(1))
        await clock.advance(0)
        drains[0].cancel()
        results = await clock.run(asyncio.gather(*drains, short, return_exceptions=True))
        kinds = [type(result).__name__ for result in results]
        assert kinds == ["CancelledError", "DrainReport", "DrainReport", "DrainTimeout"]
        assert clock.pending == 0


async def test_work_submitted_during_a_drain_is_drained_too(clock: VirtualClock) -> None:
    async def parent(manager: QueueManager) -> None:
        await sleep(clock, 1)
        await manager.submit("a", sleep, clock, 5)

    async with running(clock) as manager:
        await manager.submit("a", parent, manager)
        report = await clock.run(manager.drain())
        assert (report.seconds, report.ended["succeeded"]) == (6.0, 2)


async def test_the_end_of_a_shutdown_is_an_event_once(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, sinks=[sink]) as manager:
        await manager.submit("a", sleep, clock, 5)
        await manager.submit("a", noop)
        await clock.run(manager.drain())
        await manager.submit("a", sleep, clock, 5)
        await clock.advance(0)
        await manager.submit("a", noop)
        assert sink.of("queue.shutdown.complete") == []
        await manager.shutdown()
        await clock.run(manager.drain())
        await clock.run(manager.drain())
        await clock.run(manager.stop())
        assert sink.keys().count("queue.shutdown.complete") == 1
        (started,) = sink.of("queue.shutdown.started")
        assert started.payload == {"pending": 1, "running": 1}
        assert sink.keys().index("queue.shutdown.started") < sink.keys().index("queue.shutdown.complete")


async def test_cancelling_still_works_while_a_queue_drains(clock: VirtualClock) -> None:
    async with running(clock) as manager:  # procrastinate#1598: abort requests were not read while draining
        handle = await manager.submit("a", sleep, clock, 100)
        await manager.shutdown()
        drain = spawn(manager.drain())
        await clock.advance(1)
        assert manager.cancel(handle.id)
        assert (await clock.run(drain)).seconds == 1.0


async def test_a_drain_waits_for_a_command_that_ignores_its_timeout(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        await manager.submit("a", stubborn, clock, 30, timeout=5)
        assert (await clock.run(manager.drain())).seconds == 30.0


async def test_an_empty_queue_drains_at_once(clock: VirtualClock) -> None:
    async with running(clock) as manager:
        report = await clock.run(manager.drain(5))
        assert (report.seconds, sum(report.ended.values())) == (0.0, 0)
