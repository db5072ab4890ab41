from __future__ import annotations

import random

import pytest
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from tests.conftest import run_clean
from tests.property.bench import Bench
from tests.property.scenario import Scenario, some_scenario

NO_SHRINKING = [Phase.explicit, Phase.reuse, Phase.generate]
"""A seed that fails does not become clearer by being smaller; fewer steps are clearer, and are tried first."""


async def play(scenario: Scenario) -> None:
    assert await Bench(scenario).run()


@pytest.mark.parametrize(("steps", "examples"), [(4, 80), (15, 150), (60, 60), (150, 15)])
def test_the_queue_keeps_its_promises_whatever_is_done_to_it(steps: int, examples: int) -> None:
    @given(seed=st.integers(0, 2**32))
    @settings(max_examples=examples, deadline=None, phases=NO_SHRINKING)
    def run(seed: int) -> None:
        scenario = some_scenario(random.Random(seed), steps)
        note(str(scenario))
        run_clean(play, scenario=scenario)

    run()
