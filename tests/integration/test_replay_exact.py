"""A replay in virtual time equals an independent simulation, to the nanosecond."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lane_obs import LaneConfig, QueueConfig, RetryPolicy, VirtualClock
from lane_obs.simulation.replay import replay
from lane_obs.simulation.trace import read_trace
from tests.conftest import run_clean
from tests.integration.cserver import Job, LaneState, Times, simulate

if TYPE_CHECKING:
    from pathlib import Path

    from lane_obs.simulation.record import CommandRecord

NS = 1_000_000_000

ONE_LANE = QueueConfig({"prompt": LaneConfig(0, 8)})
THREE_LANES = QueueConfig(
    {
        "batch": LaneConfig(0, 8, priority=9),
        "interactive": LaneConfig(0, 8, priority=0),
        "agent": LaneConfig(0, 8, priority=4),
    },
    max_concurrency=8,
)
RESERVATIONS = QueueConfig(
    {
        "batch": LaneConfig(2, 6, priority=9),
        "interactive": LaneConfig(1, 5, priority=0),
        "agent": LaneConfig(1, 8, priority=4),
    },
    max_concurrency=8,
)
CONFIGURATIONS = {
    "one lane with max 8": ONE_LANE,
    "three lanes under a limit of 8": THREE_LANES,
    "three lanes with reservations": RESERVATIONS,
}


def write_trace(path: Path, jobs: list[Job]) -> Path:
    """A trace of these jobs, in the order given."""
    rows = (f"{seconds(job.at)},{job.lane},{seconds(job.work)},{job.failures}\n" for job in jobs)
    path.write_text("timestamp,lane,duration,fail_attempts\n" + "".join(rows))
    return path


def seconds(ns: int) -> str:
    return f"{ns // NS}.{ns % NS:09}"


def replayed(path: Path, config: QueueConfig, loop_kind: str = "uvloop") -> tuple[CommandRecord, ...]:
    """The records of a replay in virtual time."""

    async def main() -> tuple[CommandRecord, ...]:
        clock = VirtualClock(start=0.0)
        result = await clock.run(replay(read_trace(path), config, clock))
        assert clock.pending == 0
        return result.records

    return run_clean(main, kind=loop_kind)


def expected(jobs: list[Job], config: QueueConfig) -> list[tuple[Job, Times]]:
    """What the independent simulation says, in the trace's order and its time."""
    lanes = {
        name: LaneState(
            lane.priority,
            lane.max_concurrency,
            lane.min_concurrency,
            lane.retry.max_retries,
            round(lane.retry.initial_delay * NS),
        )
        for name, lane in config.lanes.items()
    }
    ordered = sorted(jobs, key=lambda job: job.at)
    first = ordered[0].at
    ordered = [dataclasses.replace(job, at=job.at - first) for job in ordered]
    return list(zip(ordered, simulate(ordered, lanes, config.max_concurrency), strict=True))


def assert_same(records: tuple[CommandRecord, ...], reference: list[tuple[Job, Times]]) -> None:
    assert len(records) == len(reference)
    for record, (job, times) in zip(records, reference, strict=True):
        found = (record.lane, record.submitted_at, record.started_at, record.finished_at)
        assert found == (job.lane, job.at / NS, times.start / NS, times.end / NS)
        assert (record.outcome, record.attempts) == ("succeeded" if times.succeeded else "failed", times.runs)
        wait = times.end - job.at - times.runs * job.work
        assert abs(record.wait_seconds * NS - wait) < 1_000
        assert abs(record.wait_by_cause.total * NS - wait) < 1_000


def bursty(lanes: list[str], rows: int, seed: int) -> list[Job]:
    """Bursts with pauses between them: many arrivals in one instant, long queues and idle times."""
    rng = random.Random(seed)
    at, jobs = 0, []
    while len(jobs) < rows:
        at += round(rng.expovariate(1 / 3) * NS)
        for _ in range(rng.choice((1, 3, 10, 60))):
            at += rng.choice((0, 0, 1, 1_000, 250_000_000))
            work = rng.choice((0, 1, 500_000_000, round(rng.lognormvariate(0.7, 1) * NS)))
            jobs.append(Job(at, rng.choice(lanes), work))
    rng.shuffle(jobs)  # rows need not be sorted; equal times keep the order of the file
    return jobs


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_bursty_trace_runs_as_the_independent_simulation_says(tmp_path: Path, name: str) -> None:
    config = CONFIGURATIONS[name]
    jobs = bursty(list(config.lanes), 2_000, seed=2023)
    path = write_trace(tmp_path / "trace.csv", jobs)
    records = replayed(path, config)
    assert_same(records, expected(jobs, config))
    assert max(record.wait_seconds for record in records) > 5  # the trace does queue
    assert any(record.wait_seconds == 0 for record in records)


def test_both_event_loops_give_the_same_records(tmp_path: Path) -> None:
    jobs = bursty(list(RESERVATIONS.lanes), 500, seed=7)
    path = write_trace(tmp_path / "trace.csv", jobs)
    assert replayed(path, RESERVATIONS, "uvloop") == replayed(path, RESERVATIONS, "asyncio")


def test_what_is_due_and_what_arrives_at_one_instant_is_taken_in_before_anything_starts(tmp_path: Path) -> None:
    retry = RetryPolicy.fixed(1, 2.0, jitter="none")
    config = QueueConfig({"low": LaneConfig(0, 1, priority=5, retry=retry), "high": LaneConfig(0, 1)}, 1)
    jobs = [Job(0, "low", NS, failures=1), Job(3 * NS, "high", 5 * NS)]  # the retry is due at 3 s as well
    records = replayed(write_trace(tmp_path / "trace.csv", jobs), config)
    assert_same(records, expected(jobs, config))
    assert [record.finished_at for record in records] == [9.0, 8.0]


TICK = NS // 512  # a grid, so that many things happen at one instant; exact in floats, as retries are due in floats


@st.composite
def queues(draw: st.DrawFn) -> tuple[QueueConfig, list[Job]]:
    names = ["a", "b", "c"][: draw(st.integers(1, 3))]
    lanes, reserved = {}, 0
    for name in names:
        most = draw(st.integers(1, 3))
        least = draw(st.integers(0, most))
        reserved += least
        retry = RetryPolicy.fixed(draw(st.integers(0, 2)), draw(st.integers(0, 3)) * TICK / NS, jitter="none")
        lanes[name] = LaneConfig(least, most, priority=draw(st.integers(0, 2)), retry=retry)
    # One slot more than is reserved: a lane without a reservation might never run otherwise.
    limit = draw(st.none() | st.integers(reserved + 1, reserved + 4))
    jobs = st.builds(
        Job,
        at=st.integers(0, 12).map(lambda tick: tick * TICK),
        lane=st.sampled_from(names),
        work=st.integers(0, 5).map(lambda tick: tick * TICK),
        failures=st.sampled_from([0, 0, 0, 1, 3]),
    )
    return QueueConfig(lanes, limit), draw(st.lists(jobs, min_size=1, max_size=30))


@settings(max_examples=100, deadline=None)
@given(queue=queues())
def test_any_small_trace_runs_as_the_independent_simulation_says(
    tmp_path_factory: pytest.TempPathFactory, queue: tuple[QueueConfig, list[Job]]
) -> None:
    config, jobs = queue
    path = write_trace(tmp_path_factory.getbasetemp() / "small.csv", jobs)
    assert_same(replayed(path, config), expected(jobs, config))
