"""What do many pending commands cost those that run, and what does it cost to cancel some of them?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.workload import LANE, LIMIT, LOOPS, OpenQueue
from lane_obs import LaneConfig

if TYPE_CHECKING:
    from benchmarks.conftest import Opener

COUNT = 10_000
CANCELLED = 1_000
LANES = {LANE: LaneConfig(0, 1, priority=5), "front": LaneConfig(0, LIMIT)}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("depth", [0, 1_000, 100_000])
def test_many_pending(benchmark: Any, open_queue: Opener, depth: int, loop: str) -> None:
    benchmark.group = f"{COUNT:,} commands in front of many that wait, {loop}"
    queue = open_queue(loop, LANES)
    queue.run(queue.pause, depth)
    benchmark.pedantic(queue.run, (queue.submit_and_wait, ["front"] * COUNT), rounds=5)
    assert queue.manager.stats().total_pending == depth


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_cancel_among_many(benchmark: Any, open_queue: Opener, depth: int, loop: str) -> None:
    benchmark.group = f"{CANCELLED:,} of many waiting commands cancelled, {loop}"

    async def ids(queue: OpenQueue) -> list[str]:
        handles = await queue.manager.submit_many(LANE, [print] * CANCELLED)
        return [handle.id for handle in handles]

    async def cancel(queue: OpenQueue, chosen: list[str]) -> int:
        return sum(queue.manager.cancel(command_id) for command_id in chosen)

    def full_queue() -> tuple[tuple[OpenQueue, list[str]], dict[str, Any]]:
        queue = open_queue(loop)
        queue.run(queue.pause, depth - CANCELLED)
        return (queue, queue.run(ids, queue)), {}

    cancelled = benchmark.pedantic(lambda queue, chosen: queue.run(cancel, queue, chosen), setup=full_queue, rounds=5)
    assert cancelled == CANCELLED
