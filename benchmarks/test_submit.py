"""What does a submit cost, without the run?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.workload import LANE, LOOPS, OpenQueue, no_op

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from benchmarks.conftest import Opener
    from lane_obs import QueueManager

COUNT = 10_000


async def submit(manager: QueueManager) -> int:
    return len([await manager.submit(LANE, no_op) for _ in range(COUNT)])


async def submit_nowait(manager: QueueManager) -> int:
    return len([manager.submit_nowait(LANE, no_op) for _ in range(COUNT)])


async def submit_many(manager: QueueManager) -> int:
    return len(await manager.submit_many(LANE, [no_op] * COUNT))


async def submit_with_options(manager: QueueManager) -> int:
    return len([await manager.submit(LANE, no_op, timeout=30, deadline=60) for _ in range(COUNT)])


WAYS = [submit, submit_nowait, submit_many, submit_with_options]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("way", WAYS)
def test_submit(
    benchmark: Any, open_queue: Opener, way: Callable[[QueueManager], Coroutine[Any, Any, int]], loop: str
) -> None:
    benchmark.group = f"{COUNT:,} submits to a paused lane, {loop}"

    def paused_queue() -> tuple[tuple[OpenQueue], dict[str, Any]]:
        queue = open_queue(loop)
        queue.run(queue.pause)
        return (queue,), {}

    submitted = benchmark.pedantic(lambda queue: queue.run(way, queue.manager), setup=paused_queue, rounds=5)
    assert submitted == COUNT
