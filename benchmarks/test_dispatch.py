"""What does it cost to start and end commands that wait, without the submit?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.workload import LANE, LIMIT, LOOPS, OpenQueue
from lane_obs import LaneConfig, RetryPolicy

if TYPE_CHECKING:
    from benchmarks.conftest import Opener

COUNT = 10_000
PLAIN = LaneConfig(0, LIMIT)
LANES = {
    "plain": PLAIN,
    "reserved": LaneConfig(LIMIT // 2, LIMIT),
    "timeout": PLAIN.with_timeout(30),
    "retry": PLAIN.with_retry_policy(RetryPolicy.exponential(3)),
    "bounded": PLAIN.with_max_pending(2 * COUNT),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("policy", LANES)
def test_dispatch(benchmark: Any, open_queue: Opener, policy: str, loop: str) -> None:
    benchmark.group = f"{COUNT:,} waiting commands run, {loop}"

    def full_queue() -> tuple[tuple[OpenQueue], dict[str, Any]]:
        queue = open_queue(loop, {LANE: LANES[policy]}, max_concurrency=2 * LIMIT)
        queue.run(queue.pause, COUNT)
        return (queue,), {}

    def run(queue: OpenQueue) -> int:
        queue.run(queue.resume_and_wait)
        return queue.manager.stats().total_pending

    assert benchmark.pedantic(run, setup=full_queue, rounds=5) == 0
