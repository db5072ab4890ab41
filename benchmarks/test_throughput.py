"""How long do no-op commands take from submit to result, here and through the peers?"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from benchmarks.workload import LOOPS, THROUGHPUT, runner

COUNT = 10_000


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", THROUGHPUT)
def test_throughput(benchmark: Any, name: str, loop: str) -> None:
    benchmark.group = f"{COUNT:,} commands, submit to result, {loop}"
    with runner(loop) as made:

        def run() -> float:
            return made.run(THROUGHPUT[name](COUNT))

        seconds = benchmark.pedantic(run, setup=lambda: gc.collect() and None, rounds=5)
        assert not asyncio.all_tasks(made.get_loop())
    assert seconds > 0
