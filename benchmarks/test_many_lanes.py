"""What do many lanes cost a command?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.workload import LIMIT, LOOPS
from lane_obs import LaneConfig

if TYPE_CHECKING:
    from benchmarks.conftest import Opener

COUNT = 20_000


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("lane_count", [1, 6, 1_000, 10_000])
def test_many_lanes(benchmark: Any, open_queue: Opener, lane_count: int, loop: str) -> None:
    benchmark.group = f"{COUNT:,} commands spread evenly, {loop}"
    lanes = {f"lane-{number}": LaneConfig(0, LIMIT, priority=number % 6) for number in range(lane_count)}
    names = [f"lane-{number % lane_count}" for number in range(COUNT)]
    queue = open_queue(loop, lanes, max_concurrency=LIMIT)
    benchmark.pedantic(queue.run, (queue.submit_and_wait, names), rounds=5)
    submitted = queue.manager.stats().submitted
    assert submitted >= COUNT
    assert submitted % COUNT == 0
