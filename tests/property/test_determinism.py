from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.property.scenario import some_scenario
from tests.property.trace import trace_of

ROOT = Path(__file__).parents[2]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_the_same_operations_give_the_same_events_on_every_loop_and_every_run(seed: int) -> None:
    scenario = some_scenario(random.Random(seed), 80)
    first = trace_of(scenario)
    assert first
    assert trace_of(scenario) == first
    assert trace_of(scenario, "asyncio") == first


def test_the_same_operations_give_the_same_events_in_every_process() -> None:
    """Whatever order sets of strings come in: that differs from process to process."""
    command = [sys.executable, "-m", "tests.property.trace", "25"]
    runs = [
        subprocess.Popen(command, cwd=ROOT, env={"PYTHONHASHSEED": str(seed)}, stdout=subprocess.PIPE, text=True)
        for seed in range(3)
    ]
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(outputs[0].splitlines()) == 25
    assert outputs[1:] == outputs[:1] * 2
