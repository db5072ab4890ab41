"""Lanes are added and removed at random among submits: nothing is lost, counted twice, or held for ever."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from typing import Any

from hypothesis import given, note, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from lane_obs import (
    ConfigError,
    LaneConfig,
    LaneFullError,
    LaneNotEmpty,
    MonitorConfig,
    QueueManager,
    QueueMonitor,
    RetryPolicy,
    UnknownLane,
    VirtualClock,
)
from lane_obs.clock import sleep
from lane_obs.sinks.prometheus import PrometheusSink
from tests.conftest import run_clean
from tests.property.test_queue_machine import NO_SHRINKING

NAMES = [f"lane{number}" for number in range(6)]
LIMIT = 4


def some_lane(rng: random.Random) -> LaneConfig:
    least = rng.choice([0, 0, 0, 1])
    bounded = rng.random() < 0.3
    return LaneConfig(
        least,
        rng.randint(1, 3),
        priority=rng.randint(0, 3),
        retry=RetryPolicy.fixed(rng.randint(0, 1), 2.0, jitter="none"),
        max_pending=rng.randint(1, 3) if bounded else None,
        overflow=rng.choice(["wait", "reject"]) if bounded else "wait",
        pressure_threshold=rng.choice([None, 1, 2]),
    )


class Play:
    """One random run."""

    def __init__(self, seed: int, clock: VirtualClock) -> None:
        self.rng = random.Random(seed)
        self.clock = clock
        self.registry = CollectorRegistry()
        self.sink = PrometheusSink(self.registry)
        self.manager = QueueManager({"lane0": LaneConfig(0, 1)}, max_concurrency=LIMIT, clock=clock, sinks=[self.sink])
        self.monitor = QueueMonitor(self.manager, MonitorConfig(interval=3))
        self.tasks: list[asyncio.Task[Any]] = []
        self.reservations = {"lane0": 0}

    async def work(self) -> None:
        await sleep(self.clock, self.rng.choice([0.0, 0.5, 3.0]))
        if self.rng.random() < 0.3:
            raise ValueError

    async def submit(self) -> None:
        name = self.rng.choice(NAMES)
        options: Any = self.rng.choice([{}, {}, {"delay": 2.0}, {"timeout": 1.0}, {"deadline": 4.0}])
        self.tasks.append(asyncio.ensure_future(self.quietly(self.manager.submit(name, self.work, **options))))

    async def stream(self) -> None:
        items = iter([self.work] * self.rng.randint(1, 5))
        self.tasks.append(asyncio.ensure_future(self.quietly(self.manager.submit_many(self.rng.choice(NAMES), items))))

    async def add(self) -> None:
        with contextlib.suppress(ConfigError):
            self.manager.add_lane(self.rng.choice(NAMES), some_lane(self.rng))

    async def remove(self) -> None:
        timeout, cancel = self.rng.choice([None, None, 0, 1.5]), self.rng.random() < 0.4
        removal = self.manager.remove_lane(self.rng.choice(NAMES), timeout=timeout, cancel=cancel)
        self.tasks.append(asyncio.ensure_future(self.quietly(removal)))

    async def wait(self) -> None:
        await self.clock.advance(self.rng.choice([0.0, 0.0, 0.5, 2.0]))

    @staticmethod
    async def quietly(doing: Any) -> None:
        with contextlib.suppress(UnknownLane, LaneNotEmpty, LaneFullError):
            await doing

    def check(self) -> None:
        stats, counted = self.manager.stats(), Counter[str]()
        for name, lane in stats.lanes.items():
            counted.update(lane.ended)
            counted["live"] += lane.pending + lane.running
            assert lane.running <= lane.max_concurrency, name
        counted.update(stats.removed.ended)
        assert sum(counted.values()) == stats.submitted
        assert counted["live"] == self.manager._engine.live
        assert stats.total_active <= LIMIT
        reserved = sum(lane.min_concurrency for lane in stats.lanes.values())
        assert reserved <= LIMIT
        held = sum(max(lane.running, lane.min_concurrency) for lane in stats.lanes.values())
        assert self.manager._engine.schedule._held == held

    def check_series(self) -> None:
        self.manager.bus.flush()
        stats, tally = self.manager.stats(), self.sink.tally
        shown = {
            sample.labels["lane"] for family in self.registry.collect() for sample in family.samples
            if sample.labels.get("lane")
        }  # fmt: skip
        assert shown == {*stats.lanes, "unknown"}
        for name, lane in stats.lanes.items():
            assert tally.lanes[name].completed == lane.ended["succeeded"]
            assert tally.lanes[name].submitted == sum(lane.ended.values()) + lane.pending + lane.running
        assert sum(removed.submitted for removed in tally.removed.values()) == sum(stats.removed.ended.values())
        assert all(lane in {"", *stats.lanes} for _, lane in tally.alerts)

    async def run(self, steps: int) -> None:
        await self.manager.start()
        await self.monitor.start()
        ways = [self.submit] * 8 + [self.stream] + [self.add] * 3 + [self.remove] * 3 + [self.wait] * 6
        for _ in range(steps):
            await self.rng.choice(ways)()
            self.check()
        for task in self.tasks:
            await self.clock.run(task)
        await self.clock.run(self.manager.drain())
        self.check()
        self.check_series()
        await self.clock.advance(3)
        assert {alert.lane for alert in self.monitor.alerts} <= {None, *self.manager.lanes}
        for name in self.manager.lanes:
            await self.manager.remove_lane(name)
        self.check_series()
        assert self.manager.stats().submitted == sum(self.manager.stats().removed.ended.values())
        await self.clock.run(self.manager.close())


async def play(seed: int, steps: int) -> None:
    await Play(seed, VirtualClock()).run(steps)


@given(seed=st.integers(0, 2**32), steps=st.sampled_from([10, 40, 120]))
@settings(max_examples=120, deadline=None, phases=NO_SHRINKING)
def test_sums_hold_whatever_lanes_come_and_go(seed: int, steps: int) -> None:
    note(f"seed {seed}, {steps} steps")
    run_clean(play, seed=seed, steps=steps)
