"""The random walks over brokers, at real servers."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from lane_obs.clock import SystemClock
from lane_obs.testing.broker.trial import Trial
from tests.integration.test_redis_broker import OnTrial
from tests.property.broker_walk import Walk

if TYPE_CHECKING:
    from tests.integration.servers.server import Server

LEASE, TTL = 1.0, 600.0
STEPS = 120


@pytest.mark.parametrize("seed", range(6))
async def test_a_redis_broker_does_what_the_model_says(server: Server, seed: int) -> None:
    rng = random.Random(seed)
    steps = [(rng.randrange(21), rng.randrange(420), rng.randrange(420)) for _ in range(STEPS)]

    def make(queue: str) -> OnTrial:
        return OnTrial(server.url, queue=queue, lease=LEASE, result_ttl=TTL)

    trial = Trial(make, SystemClock(), lease=LEASE, result_ttl=TTL)
    try:
        await Walk(trial).run(steps)
    finally:
        await trial.close()
