"""Which command starts next: priority, turns, order, limits and reservations, in a running queue."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from lane_obs import LaneConfig, MemorySink, QueueManager, RetryPolicy, VirtualClock
from lane_obs.clock import sleep
from tests.unit.runtime.support import Gate, noop, running


class Log:
    """Work that notes when it starts and ends and how many run at once."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.starts: list[Any] = []
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def __call__(self, name: str, seconds: float = 1.0) -> None:
        self.starts.append(name)
        self.now[name] += 1
        self.now["all"] += 1
        for key in (name, "all"):
            self.most[key] = max(self.most[key], self.now[key])
        await sleep(self._clock, seconds)
        self.now[name] -= 1
        self.now["all"] -= 1


async def test_within_a_lane_first_come_is_first_served(clock: VirtualClock) -> None:
    log = Log(clock)
    async with running(clock) as manager:
        await manager.submit_many("a", [(log, str(number)) for number in range(1_000)])
        await clock.run(manager.drain())
        assert log.starts == [str(number) for number in range(1_000)]


async def test_the_lower_priority_number_goes_first(clock: VirtualClock) -> None:
    log = Log(clock)
    lanes = {name: LaneConfig(0, 1, priority=number) for number, name in enumerate("cba")}
    async with running(clock, lanes, max_concurrency=1) as manager:
        for name in "abcabc":
            await manager.submit(name, log, name)
        await clock.run(manager.drain())
        assert "".join(log.starts) == "ccbbaa"


async def test_equal_lanes_alternate(clock: VirtualClock) -> None:
    log = Log(clock)
    lanes = {"a": LaneConfig(0, 1), "b": LaneConfig(0, 1)}
    async with running(clock, lanes, max_concurrency=1) as manager:
        await manager.submit_many("a", [(log, "a")] * 60)
        await manager.submit_many("b", [(log, "b")] * 60)
        await clock.run(manager.drain())
        assert "".join(log.starts) == "ab" * 60


async def test_a_lanes_max_is_never_exceeded(clock: VirtualClock) -> None:
    log, draw = Log(clock), random.Random(3)
    lanes = {"a": LaneConfig(0, 3), "b": LaneConfig(0, 5)}
    async with running(clock, lanes, max_concurrency=6) as manager:
        for _ in range(500):
            name = draw.choice("ab")
            await manager.submit(name, log, name, draw.random() * 3, delay=draw.random() * 50)
        await clock.run(manager.drain())
        assert (log.most["a"], log.most["b"], log.most["all"]) == (3, 5, 6)
        assert len(log.starts) == 500


async def test_every_free_slot_is_filled_at_once(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 500)) as manager:
        await manager.submit_many("a", [(sleep, clock, 1)] * 600)
        await clock.advance(0)
        assert manager.stats().lanes["a"].running == 500
        began = clock.now()
        await clock.run(manager.drain())
        assert clock.now() - began == 2.0


async def test_reserved_slots_are_kept_for_their_lane(clock: VirtualClock) -> None:
    log = Log(clock)
    lanes = {"high": LaneConfig(0, 10, priority=0), "low": LaneConfig(2, 10, priority=9)}
    async with running(clock, lanes, max_concurrency=5) as manager:
        await manager.submit_many("high", [(log, "high")] * 50)
        await clock.advance(0)
        assert manager.stats().lanes["high"].running == 3
        await manager.submit_many("low", [(log, "low")] * 60)
        await clock.advance(0)
        assert manager.stats().lanes["low"].running == 2
        await clock.run(manager.drain())
        assert (log.most["high"], log.most["low"], log.most["all"]) == (3, 5, 5)


async def test_without_a_whole_limit_a_minimum_has_no_effect(clock: VirtualClock) -> None:
    lanes = {"a": LaneConfig(4, 4), "b": LaneConfig(0, 4, priority=9)}
    async with running(clock, lanes) as manager:
        await manager.submit_many("b", [(sleep, clock, 1)] * 4)
        await clock.advance(0)
        assert manager.stats().lanes["b"].running == 4


async def test_a_low_lane_with_a_reservation_goes_on_under_constant_load(clock: VirtualClock) -> None:
    done: Counter[str] = Counter()

    async def work(manager: QueueManager, lane: str) -> None:
        await sleep(clock, 1)
        done[lane] += 1
        if clock.now() < end:
            await manager.submit(lane, work, manager, lane)

    end = clock.now() + 100
    lanes = {"high": LaneConfig(0, 4, priority=0), "low": LaneConfig(1, 4, priority=9)}
    async with running(clock, lanes, max_concurrency=4) as manager:
        for lane in ("high", "low"):
            await manager.submit_many(lane, [(work, manager, lane)] * 8)
        await clock.run(manager.drain())
    assert done["low"] >= 100
    assert done["high"] >= 250


@pytest.mark.parametrize("limit", [1, None])
async def test_a_control_command_behind_a_hundred_thousand_prompts_starts_next(
    clock: VirtualClock, limit: int | None
) -> None:
    gate = Gate()
    lanes = {"control": LaneConfig(0, 1, priority=1), "prompt": LaneConfig(0, 1, priority=5)}
    async with running(clock, lanes, max_concurrency=limit) as manager:
        await manager.submit("prompt", gate, "first")
        await clock.advance(0)
        for _ in range(100_000):
            manager.submit_nowait("prompt", noop)
        urgent = manager.submit_nowait("control", gate, "urgent")
        if limit:
            assert manager.explain(urgent.id).ahead_in_lane == 0
            gate.open("first")
        await clock.advance(0)
        assert gate.started[:2] == ["first", "urgent"]
        gate.open("urgent")
        assert await clock.run(urgent) is None


async def test_the_last_command_sees_how_many_are_ahead_of_it(clock: VirtualClock) -> None:
    lanes = {"high": LaneConfig(0, 1), "low": LaneConfig(0, 1, priority=1)}
    async with running(clock, lanes, max_concurrency=1) as manager:
        manager.pause("high")
        await manager.submit_many("high", [noop] * 3)
        handles = await manager.submit_many("low", [(sleep, clock, 1)] * 5)
        await clock.advance(0)
        told = manager.explain(handles[4].id)
        assert (told.cause, told.ahead_in_lane, told.ahead_in_other_lanes) == ("slots", 3, 3)
        assert "3 ahead in its lane, 3 ready in more important lanes" in told.text
        assert manager.explain(handles[0].id).cause is None


async def test_why_a_command_waits_is_told_by_cause(clock: VirtualClock) -> None:
    lanes = {"high": LaneConfig(0, 2), "low": LaneConfig(0, 2, priority=1), "off": LaneConfig(0, 1, priority=2)}
    async with running(clock, lanes, max_concurrency=1) as manager:
        manager.pause("off")
        runs = await manager.submit("high", sleep, clock, 10)
        await clock.advance(0)
        high, low, off = [await manager.submit(name, noop) for name in ("high", "low", "off")]
        await clock.advance(4)
        told = {handle.lane: manager.explain(handle.id) for handle in (high, low, off)}
        assert [told[name].cause for name in ("high", "low", "off")] == ["slots", "priority", "pause"]
        assert told["low"].wait_by_cause.priority == 4.0
        assert "is running" in manager.explain(runs.id).text
        assert "more important lanes go first" in told["low"].text
        manager.resume("off")


async def test_delayed_and_retried_work_keeps_its_place_among_its_peers(clock: VirtualClock) -> None:
    order: list[str] = []

    async def work(name: str, *, fails: bool = False) -> None:
        first = name not in order
        order.append(name)
        if fails and first:
            raise ValueError

    async def failing(name: str) -> None:
        await work(name, fails=True)

    async with running(clock, LaneConfig(0, 1, retry=RetryPolicy.fixed(1, 1, jitter="none"))) as manager:
        blocker = await manager.submit("a", sleep, clock, 5)
        await manager.submit("a", work, "1: delayed", delay=2)
        await manager.submit("a", failing, "2: fails first")
        await manager.submit("a", sleep, clock, 3)
        await manager.submit("a", work, "4")
        await clock.run(blocker)
        await clock.run(manager.drain())
        assert order == ["1: delayed", "2: fails first", "2: fails first", "4"]


async def test_the_same_input_gives_the_same_trace() -> None:
    async def trace() -> list[tuple[Any, ...]]:
        clock, draw, sink = VirtualClock(), random.Random(11), MemorySink()
        lanes = {name: LaneConfig(0, 2, priority=number // 2) for number, name in enumerate("abcd")}
        async with running(clock, lanes, max_concurrency=5, sinks=[sink], seed=3) as manager:
            for _ in range(300):
                name = draw.choice("abcd")
                await manager.submit(name, sleep, clock, draw.random(), delay=draw.choice([0, draw.random()]))
            await clock.run(manager.drain())
        return [(event.key, event.seq, event.at, *event.payload.values()) for event in sink.events]

    first = await trace()
    assert len(first) > 900
    assert str(first) == str(await trace())
