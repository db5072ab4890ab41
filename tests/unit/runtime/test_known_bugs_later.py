"""Faults that others reported in public, and that are not ours: memory, order, context and clocks."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from typing import Any

import pytest

from lane_obs import (
    CommandHandle,
    DuplicateId,
    LaneConfig,
    MemorySink,
    QueueManager,
    RetryPolicy,
    State,
    VirtualClock,
)
from lane_obs.clock import sleep
from tests.unit.runtime.support import Attempts, Gate, fail, noop, outcome, running

PATIENCE = 30.0


def live_handles() -> int:
    gc.collect()
    return sum(isinstance(found, CommandHandle) for found in gc.get_objects())


# --- memory --------------------------------------------------------------------------------------------------------


async def test_a_hundred_thousand_commands_nobody_asks_about_leave_nothing(clock: VirtualClock) -> None:
    """celery#4707: a subscription for every result, also of callers that never fetch it, grew without end."""
    before = live_handles()
    async with running(clock, LaneConfig(0, 100)) as manager:
        for number in range(100_000):
            if number % 10:
                manager.submit_nowait("a", noop)
            else:
                manager.submit_nowait("a", noop, timeout=60, deadline=600, id=f"i{number}", key=f"k{number}")
        assert live_handles() >= before + 100_000  # what is counted here can be seen
        await clock.run(manager.drain())
        await clock.advance(0)
        assert manager.stats().lanes["a"].ended["succeeded"] == 100_000
        assert live_handles() <= before + 1
        assert clock.pending == 0
        directory, timers = manager._dispatcher.directory, manager._dispatcher.timers
        assert [len(found) for found in (directory.by_seq, directory.by_id, directory.by_key, timers)] == [0, 0, 0, 0]


async def test_commands_that_fail_are_kept_up_to_the_bound_of_the_dead_letters(clock: VirtualClock) -> None:
    """celery#4707, sidekiq#5009: what is kept of the dead must have a bound."""
    before = live_handles()
    async with running(clock, LaneConfig(0, 100), dead_letters=10) as manager:
        for _ in range(5_000):
            manager.submit_nowait("a", fail, ValueError("x"))
        await clock.run(manager.drain())
        assert len(manager.dead_letters) == 10
        assert live_handles() <= before + 10


async def test_cancelled_waiters_leave_nothing_with_the_command(clock: VirtualClock) -> None:
    """celery#4707: waiters are made by awaiting only, and are gone once the wait is over."""
    gate = Gate()
    async with running(clock) as manager:
        handle = await manager.submit("a", gate)
        for _ in range(20):
            waiters = [asyncio.ensure_future(outcome(handle)) for _ in range(100)]
            await clock.advance(0)
            for waiter in waiters:
                waiter.cancel()
            await asyncio.wait(waiters)
        gc.collect()
        futures = [found for found in gc.get_objects() if isinstance(found, asyncio.Future) and not found.done()]
        assert len(futures) < 20
        gate.open()
        await clock.run(manager.drain())


async def test_a_chain_of_commands_that_submit_the_next_one_keeps_none_of_them(clock: VirtualClock) -> None:
    """celery#3436: memory of a producer that lives long must not grow with what it has produced."""
    before = live_handles()

    async def link(manager: QueueManager, left: int) -> None:
        if left:
            await manager.submit("a", link, manager, left - 1)

    async with running(clock) as manager:
        await manager.submit("a", link, manager, 2_000)
        await clock.run(manager.drain())
        assert manager.stats().submitted == 2_001
        assert live_handles() <= before + 3


async def test_collecting_at_every_allocation_hangs_nothing() -> None:
    """celery#10477: a finaliser ran in the middle of a publish and took a lock that was already held."""
    threshold = gc.get_threshold()
    async with QueueManager({"a": LaneConfig(0, 50)}, drain_timeout=PATIENCE) as manager:
        done: list[int] = []

        def work(count: int) -> None:
            futures = [manager.submit_threadsafe("a", noop, number) for number in range(count)]
            done.append(sum(future.result(PATIENCE) for future in futures[::100]))

        gc.collect()
        gc.freeze()
        gc.set_threshold(1, 10_000, 10_000)
        try:
            threads = [threading.Thread(target=work, args=(2_000,)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for _ in range(2_000):
                manager.submit_nowait("a", noop)
                await asyncio.sleep(0)
            for thread in threads:
                await asyncio.to_thread(thread.join, PATIENCE)
        finally:
            gc.set_threshold(*threshold)
            gc.unfreeze()
        assert len(done) == 2
        await manager.drain(PATIENCE)
        assert manager.stats().lanes["a"].ended["succeeded"] == 6_000


# --- order and fairness --------------------------------------------------------------------------------------------


async def test_equal_commands_run_in_the_order_of_their_submit_also_after_retries(clock: VirtualClock) -> None:
    """networking-nsx-t PR 144: a heap keyed on priority alone gives equal jobs out in any order."""
    order: list[int] = []

    async def work(number: int) -> None:
        order.append(number)

    async with running(clock) as manager:
        manager.pause("a")
        for number in range(1_000):
            await manager.submit("a", work, number, delay=number % 3)
        await clock.advance(5)
        manager.resume("a")
        await clock.run(manager.drain())
    assert order == list(range(1_000))


async def test_an_urgent_command_is_the_next_to_start_whatever_was_queued_before(clock: VirtualClock) -> None:
    """kitsune PR 4415, celery#6067: work already fetched by a worker went before later, more urgent work."""
    gate = Gate()
    lanes = {"low": LaneConfig(0, 4, priority=9), "high": LaneConfig(0, 4)}
    async with running(clock, lanes, max_concurrency=4) as manager:
        await manager.submit_many("low", [(gate, number) for number in range(500)])
        await clock.advance(0)
        await manager.submit("high", gate, "urgent")
        gate.open(0)
        await clock.advance(0)
        assert gate.started == [0, 1, 2, 3, "urgent"]


@pytest.mark.parametrize("way", ["delay", "retry", "requeue"])
async def test_no_way_back_into_a_lane_forgets_the_priority(clock: VirtualClock, way: str) -> None:
    """bull#881, bull#1755, bull#1925: the priority was forgotten after a delay, a retry or a stall."""
    high_lane = LaneConfig(0, 1, retry=RetryPolicy.fixed(1, 5, jitter="none"))
    lanes = {"high": high_lane, "low": LaneConfig(0, 1, priority=1)}
    async with running(clock, lanes, max_concurrency=1) as manager:
        policy = RetryPolicy.none() if way == "requeue" else None
        work = Attempts(clock, *([] if way == "delay" else [ValueError("x")]), "ok")
        high = await manager.submit("high", work, retry=policy, delay=5 if way == "delay" else 0)
        await clock.advance(0)
        low = await manager.submit_many("low", [(sleep, clock, 4)] * 5)
        await clock.advance(6)
        if way == "requeue":
            high = manager.dead_letters.requeue(high.id)
        await clock.run(high)
        assert high.state is State.SUCCEEDED
        assert [handle.state for handle in low].count(State.SUCCEEDED) == 2
        await clock.run(manager.drain())


async def test_a_lane_under_constant_load_leaves_the_low_lane_its_bound(clock: VirtualClock) -> None:
    """taskcluster#9131: strict service by priority on a small pool; the low work never ran."""
    lanes = {"high": LaneConfig(0, 2, priority=0), "low": LaneConfig(1, 1, priority=9)}
    async with running(clock, lanes, max_concurrency=2) as manager:
        await manager.submit_many("high", [(sleep, clock, 1)] * 200)
        low = [await manager.submit("low", sleep, clock, 1) for _ in range(10)]
        await clock.advance(0)
        assert [handle.wait_seconds for handle in low] == [0.0] * 10
        await clock.run(asyncio.gather(*map(outcome, low)))
        assert [handle.wait_seconds for handle in low] == [float(number) for number in range(10)]


async def test_ids_of_live_commands_are_never_doubled_by_races(clock: VirtualClock) -> None:
    """arq#394, arq#485: a flag left for one id hit the next job of that id."""
    async with running(clock, LaneConfig(0, 1, max_pending=1)) as manager:
        gate = Gate()
        await manager.submit("a", gate, "first", id="one")
        await clock.advance(0)
        await manager.submit("a", gate, "second", id="two")
        waiting = [asyncio.ensure_future(outcome(manager.submit("a", noop, id="two"))) for _ in range(3)]
        await clock.advance(0)
        manager.cancel("two")
        await clock.advance(0)
        gate.open("first")
        results = await clock.run(asyncio.gather(*waiting))
        assert all(result is None or isinstance(result, DuplicateId) for result in results)
        await clock.run(manager.drain())


# --- context and clocks --------------------------------------------------------------------------------------------

request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


@pytest.mark.both_loops
async def test_a_queue_woken_in_a_request_keeps_nothing_of_it(clock: VirtualClock) -> None:
    """cpython#140947: callbacks keep the context they were made in, which then leaks into unrelated tasks."""
    seen: list[str] = []

    class Reader(MemorySink):
        def handle(self, events: Any) -> None:
            seen.append(request.get())

    async def read() -> None:
        seen.append(request.get())

    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(1, 1)), sinks=[Reader()]) as manager:

        async def handle_request() -> None:
            request.set("x")
            await manager.submit("a", Attempts(clock, ValueError("x")), timeout=5)
            await manager.submit("a", noop, delay=3, deadline=9)
            manager.pause("a")
            manager.resume("a")

        await clock.run(handle_request())
        for _ in range(5):
            await clock.advance(1)
            contextvars.Context().run(manager.submit_nowait, "a", read)
        await clock.run(manager.drain())
    assert set(seen) == {"none"}


class JumpingClock(VirtualClock):
    """A clock whose wall time can be set, as by an operator or a time server."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = 0.0

    def wall(self) -> float:
        return super().wall() + self.offset


@pytest.mark.parametrize("jump", [-3_600.0, 3_600.0])
async def test_a_step_of_the_wall_clock_moves_no_timer(jump: float) -> None:
    """celery#6742, celery#6438: the clock stepped back and the scheduler slept for hours."""
    clock, sink = JumpingClock(), MemorySink()
    policy = RetryPolicy.fixed(1, 10, jitter="none")
    async with running(clock, LaneConfig(0, 9, retry=policy), sinks=[sink]) as manager:
        began = clock.now()
        delayed = await manager.submit("a", noop, delay=20)
        late = await manager.submit("a", noop, delay=90, deadline=30)
        slow = await manager.submit("a", sleep, clock, 90, timeout=15, retry=RetryPolicy.none())
        retried = await manager.submit("a", Attempts(clock, ValueError("x"), "ok"))
        await clock.advance(5)
        clock.offset = jump
        await clock.run(manager.drain())
        ends = {handle: handle.finished_at - began for handle in (retried, slow, delayed, late)}
        assert list(ends.values()) == [10.0, 15.0, 20.0, 30.0]
        assert delayed.wait_seconds == 20.0
        assert [event.at for event in sink.events] == sorted(event.at for event in sink.events)
        stamps = [event.wall - event.at for event in sink.events]
        assert stamps[-1] - stamps[0] == pytest.approx(jump)
