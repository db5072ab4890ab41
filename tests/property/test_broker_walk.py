"""Random walks over brokers: submits, claims, ends, cancels, lost members, against a plain model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from lane_obs.clock import VirtualClock
from lane_obs.distributed import LocalBroker
from lane_obs.testing.broker.trial import Trial
from tests.property.broker_walk import Walk

if TYPE_CHECKING:
    from tests.property.broker_walk import Step

LEASE, TTL = 0.5, 10_000.0
steps = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 420), st.integers(0, 420)), min_size=10, max_size=120)


async def walk(taken: list[Step]) -> None:
    clock = VirtualClock()
    first = LocalBroker(lease=LEASE, result_ttl=TTL, clock=clock)
    trial = Trial(lambda _: first.join(), clock, lease=LEASE, result_ttl=TTL)
    await clock.run(Walk(trial).run(taken))
    await trial.close()
    assert clock.pending == 0


@given(steps)
@settings(max_examples=150, deadline=None)
def test_a_local_broker_does_what_the_model_says(taken: list[Step]) -> None:
    asyncio.run(walk(taken))
