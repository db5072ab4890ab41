"""Clocks: real time that is never early, virtual time that is exact."""

from __future__ import annotations

import asyncio
import gc
import math
import time
from typing import Any

import pytest

from lane_obs import ConfigError, SystemClock, VirtualClock
from lane_obs.clock import sleep, sleep_until
from lane_obs.errors import ClockDeadlock


@pytest.mark.both_loops
async def test_the_system_clock_never_fires_early() -> None:
    clock = SystemClock()  # uvloop's own timers do: uvloop#739
    loop = asyncio.get_running_loop()
    early = []
    for step in range(12):
        fired = loop.create_future()
        when = clock.now() + 0.0005 * step + 0.0002
        clock.call_at(when, lambda fired=fired, when=when: fired.set_result(clock.now() - when))
        early.append(await fired)
    assert min(early) >= 0.0


@pytest.mark.both_loops
async def test_a_blocked_loop_does_not_make_a_timer_early() -> None:
    clock = SystemClock()
    time.sleep(0.03)  # uvloop#29: the loop's own idea of the time grew stale while it was blocked
    began = clock.now()
    await sleep(clock, 0.01)
    assert clock.now() - began >= 0.01


@pytest.mark.both_loops
async def test_a_time_in_the_past_fires_in_the_next_turn_of_the_loop() -> None:
    clock, fired = SystemClock(), []
    clock.call_at(clock.now() - 5, fired.append, 1)
    assert fired == []
    await sleep(clock, 0)
    assert fired == [1]


@pytest.mark.both_loops
async def test_a_cancelled_system_timer_never_fires() -> None:
    clock, fired = SystemClock(), []
    timer = clock.call_at(clock.now() + 0.001, fired.append, 1)
    timer.cancel()
    timer.cancel()
    await sleep(clock, 0.005)
    assert fired == []


@pytest.mark.both_loops
async def test_a_timer_a_century_away_can_be_set_and_cancelled() -> None:
    clock = SystemClock()
    timer = clock.call_at(clock.now() + 3.0e9, print)
    await asyncio.sleep(0)
    timer.cancel()
    assert clock.now() > 0


async def test_a_fast_clock_runs_faster_by_its_speed() -> None:
    fast = SystemClock(speed=200)
    began, wall, real = fast.now(), fast.wall(), time.monotonic()
    await sleep(fast, 2.0)
    passed = fast.now() - began
    assert passed >= 2.0
    assert time.monotonic() - real >= 0.01
    assert fast.wall() - wall == pytest.approx(fast.now() - began, abs=1.0)


@pytest.mark.parametrize(
    "speed", [0, -1, 5e-324, 9e-7, 1_000_001, 1e308, 10**400, math.inf, math.nan, True, "2", None], ids=str
)
def test_a_speed_out_of_range_is_refused_with_the_range(speed: Any) -> None:
    with pytest.raises(ConfigError, match=r"^speed: .* give a number from 1e-06 to 1,000,000$"):
        SystemClock(speed=speed)


@pytest.mark.parametrize("speed", [1e-6, 1_000_000])
async def test_times_can_be_read_and_waited_for_at_the_ends_of_the_range_of_speeds(speed: float) -> None:
    clock = SystemClock(speed=speed)
    began = clock.now()
    await sleep(clock, speed / 1000)
    assert clock.now() - began >= speed / 1000
    clock.call_at(clock.now() + 3.0e9, print).cancel()


@pytest.mark.parametrize("field", ["start", "wall_start"])
@pytest.mark.parametrize("value", [1e308, -1e13, 10**400, math.inf, -math.inf, math.nan, True, "0", None], ids=str)
def test_a_reading_out_of_range_is_refused_with_the_range(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{field}: .* give a number from -1,0{{2}}") as caught:
        VirtualClock(**{field: value})
    assert caught.value.value is value


@pytest.mark.parametrize("start", [-1e12, 0, 1e12])
async def test_virtual_time_moves_at_the_ends_of_its_range(start: float) -> None:
    clock = VirtualClock(start=start, wall_start=start)
    await clock.advance(5)
    assert (clock.now(), clock.wall()) == (start + 5, start + 5)


async def test_virtual_timers_fire_at_their_own_time_in_order(clock: VirtualClock) -> None:
    fired: list[tuple[str, float]] = []
    began = clock.now()

    def note(name: str) -> None:
        fired.append((name, clock.now() - began))

    for name, seconds in (("c", 2.0), ("a", 1.0), ("d", 2.0), ("b", 1.0), ("later", 9.0)):
        clock.call_at(began + seconds, note, name)
    await clock.advance(1.5)
    assert fired == [("a", 1.0), ("b", 1.0)]
    assert clock.now() - began == 1.5
    await clock.advance(0.5)
    assert [name for name, _ in fired] == ["a", "b", "c", "d"]
    assert clock.pending == 1
    await clock.advance(7)
    assert (fired[-1], clock.pending) == (("later", 9.0), 0)


async def test_what_a_timer_wakes_runs_before_the_next_timer_fires(clock: VirtualClock) -> None:
    seen: list[str] = []

    async def worker(name: str, seconds: float) -> None:
        await sleep(clock, seconds)
        for _ in range(5):
            await asyncio.sleep(0)
        seen.append(name)

    tasks = [asyncio.ensure_future(worker("first", 1.0)), asyncio.ensure_future(worker("second", 1.001))]
    await clock.advance(5)
    assert seen == ["first", "second"]
    await asyncio.wait(tasks)


async def test_a_timer_set_by_a_timer_fires_in_the_same_advance(clock: VirtualClock) -> None:
    fired: list[float] = []
    began = clock.now()

    def chain() -> None:
        fired.append(clock.now() - began)
        if len(fired) < 3:
            clock.call_at(clock.now() + 0.5, chain)

    clock.call_at(began + 0.5, chain)
    await clock.advance(10)
    assert fired == [0.5, 1.0, 1.5]


async def test_whoever_asked_never_finds_its_time_in_the_future(clock: VirtualClock) -> None:
    late: list[float] = []
    for step in range(2_000):  # sums of floats that lie a last digit above or below their nanosecond
        when = clock.now() + 0.1 + step * 1e-3
        clock.call_at(when, lambda when=when: late.append(clock.now() - when))
        await clock.advance(0.0017)
    await clock.advance(5)
    assert len(late) == 2_000
    assert min(late) >= 0.0
    assert max(late) < 1e-9


async def test_run_moves_time_until_the_result_is_there(clock: VirtualClock) -> None:
    began = clock.now()

    async def work() -> str:
        await sleep(clock, 3600)
        await sleep_until(clock, began + 7200)
        return "done"

    assert await clock.run(work()) == "done"
    assert clock.now() - began == 7200


async def test_run_passes_an_exception_on(clock: VirtualClock) -> None:
    async def work() -> None:
        await sleep(clock, 1)
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        await clock.run(work())


async def test_waiting_for_ever_is_a_deadlock_not_a_hang(clock: VirtualClock) -> None:
    with pytest.raises(ClockDeadlock, match="everything waits and no timer is due"):
        await clock.run(asyncio.Event().wait())


async def test_a_cancelled_virtual_timer_never_fires_and_does_not_count(clock: VirtualClock) -> None:
    fired: list[int] = []
    timer = clock.call_at(clock.now() + 1, fired.append, 1)
    kept = clock.call_at(clock.now() + 2, fired.append, 2)
    timer.cancel()
    timer.cancel()
    assert clock.pending == 1
    await clock.advance(5)
    kept.cancel()  # after it ran: nothing
    assert (fired, clock.pending) == ([2], 0)


async def test_cancelled_virtual_timers_leave_no_memory_behind(clock: VirtualClock) -> None:
    kept = clock.call_at(clock.now() + 50, print)
    for _ in range(10_000):
        clock.call_at(clock.now() + 100, print).cancel()
    assert clock.pending == 1
    assert len(gc.get_referents(clock._timers)) < 200
    kept.cancel()


async def test_never_is_a_time_at_which_nothing_fires(clock: VirtualClock) -> None:
    clock.call_at(math.inf, print).cancel()
    assert clock.pending == 0


@pytest.mark.parametrize("seconds", [-0.1, math.inf, math.nan])
async def test_virtual_time_moves_forward_by_a_finite_amount(clock: VirtualClock, seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"^seconds: "):
        await clock.advance(seconds)


async def test_virtual_wall_time_moves_with_virtual_time() -> None:
    clock = VirtualClock(start=10.0, wall_start=1000.0)
    await clock.advance(2.5)
    assert (clock.now(), clock.wall()) == (12.5, 1002.5)


async def test_a_cancelled_sleep_leaves_no_timer(clock: VirtualClock) -> None:
    task = asyncio.ensure_future(sleep(clock, 100))
    await clock.advance(1)
    assert clock.pending == 1
    task.cancel()
    await asyncio.wait([task])
    assert clock.pending == 0


async def test_the_private_part_of_tasks_that_virtual_time_reads_is_there(clock: VirtualClock) -> None:
    task = asyncio.ensure_future(sleep(clock, 1))
    await asyncio.sleep(0)
    assert isinstance(task._fut_waiter, asyncio.Future)  # type: ignore[attr-defined]
    await clock.advance(1)
    assert task.done()
