"""The events of a scenario as plain data, to compare runs; as a program, the digests of many."""

from __future__ import annotations

import hashlib
import random
import sys
from typing import Any

from tests.conftest import run_clean
from tests.property.bench import Bench
from tests.property.scenario import Scenario, some_scenario


def trace_of(scenario: Scenario, kind: str = "uvloop") -> list[tuple[Any, ...]]:
    """Runs a scenario and gives everything its events say."""

    async def play() -> list[tuple[Any, ...]]:
        happened = await Bench(scenario).run()
        return [(event.key, event.seq, event.at, event.wall, event.payload) for event in happened]

    trace: list[tuple[Any, ...]] = run_clean(play, kind=kind)
    return trace


if __name__ == "__main__":
    for seed in range(int(sys.argv[1])):
        trace = trace_of(some_scenario(random.Random(seed), 60))
        print(seed, hashlib.sha256(repr(trace).encode()).hexdigest())
