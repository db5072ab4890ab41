"""How long does one command take through an idle queue, from submit to result, against a bare task?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.workload import LANE, LOOPS, no_op

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from benchmarks.conftest import Opener
    from lane_obs import QueueManager

COUNT = 200


async def one_by_one(manager: QueueManager) -> int:
    return sum([await (await manager.submit(LANE, no_op)) for _ in range(COUNT)])


async def bare_tasks(manager: QueueManager) -> int:
    return sum([await asyncio.create_task(no_op()) for _ in range(COUNT)])


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("way", [one_by_one, bare_tasks])
def test_idle_latency(
    benchmark: Any, open_queue: Opener, way: Callable[[QueueManager], Coroutine[Any, Any, int]], loop: str
) -> None:
    benchmark.group = f"{COUNT} commands, each after the one before it, {loop}"
    queue = open_queue(loop)
    assert benchmark.pedantic(queue.run, (way, queue.manager), rounds=20, warmup_rounds=1) == COUNT
