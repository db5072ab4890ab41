"""Four processes start commands in the order that an independent simulation says: that of the tests of one process."""

from __future__ import annotations

import contextlib
import fcntl
import random
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.cserver import LaneState, choose
from tests.integration.faults import ordered
from tests.integration.faults.driver import Field
from tests.integration.faults.seed import SEED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tests.integration.servers.server import Server

WORKERS = 4
JOBS = 400


def draw(rng: random.Random) -> tuple[dict[str, tuple[int, int, int]], int | None]:
    """Lanes as priority, most and least; and the bound on all."""
    lanes = {}
    for number in range(rng.randrange(2, 9)):
        most = rng.randrange(1, 6)
        lanes[f"lane-{number}"] = (rng.randrange(4), most, rng.randrange(min(most, 2) + 1))
    reserved = sum(least for _, _, least in lanes.values())
    return lanes, None if rng.random() < 0.2 else reserved + rng.randrange(1, 7)


def replay(lines: Iterable[dict[str, Any]], jobs: list[str], lanes: dict[str, LaneState], limit: int | None) -> int:
    """Goes through the exchanges in their order, and asks the simulation at each start; returns how many there were."""
    for number, lane in enumerate(jobs):
        heappush(lanes[lane].waiting, number)
    starts = 0
    for line in lines:
        if line["what"] != "turn":
            continue
        assert not line["stale"]
        for job in line["ended"]:
            lanes[jobs[int(job)]].running -= 1
        for job in line["claimed"]:
            lane = choose(lanes, limit)
            assert lane is not None, f"start {starts} of {job}: nothing may start"
            number = heappop(lane.waiting)
            assert int(job) == number, f"start {starts}: it is the turn of {number} ({jobs[number]}), not of {job}"
            starts += 1
            lane.served = starts
            lane.running += 1
        left = choose(lanes, limit) if len(line["claimed"]) < line["want"] else None
        assert left is None, f"after start {starts}: {left} had work, and there was a free slot"
    return starts


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the lock that every exchange needs."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("case", range(3))
def test_order_of_starts(start_server: Callable[..., Server], tmp_path: Path, case: int) -> None:
    print(f"LANE_OBS_FAULT_SEED={SEED}, case {case}, ledger in {tmp_path}")
    rng = random.Random(SEED * 10 + case)
    lanes, limit = draw(rng)
    at_once = min(sum(most for _, most, _ in lanes.values()), limit or JOBS)
    concurrency = rng.randrange(1, max(2, at_once // WORKERS + 2))
    jobs = rng.choices(list(lanes), k=JOBS)
    server = start_server()
    with Field(server.url, tmp_path, SEED) as field:
        order = {
            "main": ordered.main, "lanes": lanes, "limit": limit, "concurrency": concurrency,
            "lock": str(tmp_path / "lock"),
        }  # fmt: skip
        assert field.start("single", jobs=jobs, **order).end() == 0, field.troubles()
        with held(tmp_path / "lock"):  # nobody begins before all are there
            workers = [field.start("worker", wait=False, **order) for _ in range(WORKERS)]
            field.wait_up(workers)
        field.finish()
        assert all(worker.end() == 0 for worker in workers)
        states = {name: LaneState(*lane) for name, lane in lanes.items()}
        assert replay(field.lines(), jobs, states, limit) == JOBS
        takers = {line["who"] for line in field.lines() if line.get("claimed")}
        assert len(takers) >= min(WORKERS, at_once // concurrency)
