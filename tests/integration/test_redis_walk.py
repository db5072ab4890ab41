"""The random walks over brokers, at real servers."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs.clock import SystemClock
from lane_obs.testing.broker.trial import Trial
from tests.integration.test_redis_broker import OnTrial
from tests.property.broker_walk import Walk

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.servers.server import Server

LEASE, TTL = 1.0, 600.0
STEPS = 120


class Late(OnTrial):
    """A member whose heartbeat is late half of the time, so that it may not begin what it is given unasked."""

    def __init__(self, url: str, rng: random.Random, **options: Any) -> None:
        super().__init__(url, **options)
        self._inbox._has_lease = lambda: rng.random() < 0.5  # type: ignore[method-assign]


async def walk(seed: int, make: Callable[[str], OnTrial]) -> None:
    rng = random.Random(seed)
    steps = [(rng.randrange(21), rng.randrange(420), rng.randrange(420)) for _ in range(STEPS)]
    trial = Trial(make, SystemClock(), lease=LEASE, result_ttl=TTL)
    try:
        await Walk(trial).run(steps)
    finally:
        await trial.close()


@pytest.mark.parametrize("seed", range(6))
async def test_a_redis_broker_does_what_the_model_says(server: Server, seed: int) -> None:
    await walk(seed, lambda queue: OnTrial(server.url, queue=queue, lease=LEASE, result_ttl=TTL))


@pytest.mark.parametrize("seed", [0, 5])
async def test_so_it_does_where_heartbeats_are_late(server: Server, seed: int) -> None:
    rng = random.Random(seed)
    await walk(seed, lambda queue: Late(server.url, rng, queue=queue, lease=LEASE, result_ttl=TTL))
