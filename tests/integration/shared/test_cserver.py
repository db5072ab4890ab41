"""Four managers that share a queue start commands as one queue would: when the independent simulation says."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from contextlib import AsyncExitStack

import pytest

from lane_obs import LaneConfig, QueueConfig, QueueManager, RetryPolicy, VirtualClock, command
from lane_obs.clock import sleep, sleep_until
from lane_obs.distributed import LocalBroker
from tests.integration.cserver import Job, LaneState, Times, simulate

NS = 1_000_000_000
WORKERS = 4
RETRY = RetryPolicy.fixed(2, 1.000000007, jitter="none")
CONFIGURATIONS = {
    "one lane": QueueConfig({"a": LaneConfig(0, 8)}),
    "priorities under a limit": QueueConfig(
        {"a": LaneConfig(0, 8, priority=9), "b": LaneConfig(0, 8), "c": LaneConfig(0, 8, priority=4, retry=RETRY)}, 8
    ),
    "equals with reservations": QueueConfig(
        {"a": LaneConfig(2, 6), "b": LaneConfig(1, 5), "c": LaneConfig(1, 8, retry=RETRY), "d": LaneConfig(0, 3)}, 8
    ),
}


@dataclasses.dataclass
class Seen:
    start: int
    runs: int = 0
    end: int = 0


class Play:
    """What the commands of this test do, and when they did it."""

    clock: VirtualClock
    jobs: list[Job]
    seen: dict[int, Seen]


@command("tests.cserver")
async def run(number: int) -> None:
    job, now = Play.jobs[number], round(Play.clock.now() * NS)
    mine = Play.seen.setdefault(number, Seen(now))
    mine.runs += 1
    await sleep(Play.clock, job.work / NS)
    mine.end = round(Play.clock.now() * NS)
    if mine.runs <= job.failures:
        raise OSError(number)


def some_jobs(lanes: list[str], count: int, rng: random.Random) -> list[Job]:
    """Bursts with pauses between them; no two things happen in one instant."""
    at, jobs = 0, []
    for _ in range(count):
        at += rng.randrange(1, 50_000_000) if rng.random() < 0.9 else rng.randrange(1, 10 * NS)
        jobs.append(Job(at, rng.choice(lanes), rng.randrange(1, 2 * NS), failures=rng.choice((0, 0, 0, 1, 3))))
    return jobs


async def play(config: QueueConfig) -> None:
    clock, lanes = Play.clock, config.lanes
    broker = LocalBroker(clock=clock, concurrency=3)
    handles = []
    async with AsyncExitStack() as stack:
        web = QueueManager(lanes, max_concurrency=config.max_concurrency, broker=broker, work=False, clock=clock)
        await stack.enter_async_context(web)
        for _ in range(WORKERS):
            worker = QueueManager(lanes, max_concurrency=config.max_concurrency, broker=broker.join(), clock=clock)
            await stack.enter_async_context(worker)
        for number, job in enumerate(Play.jobs):
            await sleep_until(clock, job.at / NS)
            handles.append(await web.submit(job.lane, run, number))
        await asyncio.gather(*handles, return_exceptions=True)


@pytest.mark.parametrize("name", CONFIGURATIONS)
async def test_starts_are_those_of_the_independent_simulation(name: str) -> None:
    config = CONFIGURATIONS[name]
    Play.jobs = some_jobs(list(config.lanes), 600, random.Random(name))
    Play.clock, Play.seen = VirtualClock(start=0.0), {}
    await Play.clock.run(play(config))
    assert Play.clock.pending == 0
    lanes = {
        name: LaneState(
            lane.priority, lane.max_concurrency, lane.min_concurrency, lane.retry.max_retries,
            round(lane.retry.initial_delay * NS),
        )
        for name, lane in config.lanes.items()
    }  # fmt: skip
    wanted = simulate(Play.jobs, lanes, config.max_concurrency)
    found = [Times(seen.start, seen.end, seen.runs) for _, seen in sorted(Play.seen.items())]
    assert found == [Times(times.start, times.end, times.runs) for times in wanted]
    assert sum(times.start > job.at for times, job in zip(wanted, Play.jobs, strict=True)) > 200  # it does queue
