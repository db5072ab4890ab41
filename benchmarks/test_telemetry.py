"""What does each telemetry sink cost a command, and what do the same instruments cost by hand?"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.rows.telemetry import FULL
from benchmarks.telemetry import SINKS, Outside, Spent, by_hand, by_lane_obs, missing
from benchmarks.workload import LOOPS, on_loop

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not installed: {missing()}")

COUNT = 5_000
RUNS: dict[str, tuple[Any, ...]] = {
    "no sinks": (by_lane_obs, ()),
    **{name: (by_lane_obs, (name,)) for name in SINKS},
    "metrics, logs, traces": (by_lane_obs, FULL),
    "by hand": (by_hand,),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", RUNS)
def test_telemetry(benchmark: Any, name: str, loop: str) -> None:
    benchmark.group = f"{COUNT:,} commands, submit to close, {loop}"
    work, *args = RUNS[name]

    def run() -> int:
        with Outside(COUNT) as outside:
            spent: Spent = on_loop(loop, work, outside, *args)
        return spent.spans

    spans = benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    traced = "traces" in name or name == "by hand"
    assert (spans >= 2 * COUNT) is traced
