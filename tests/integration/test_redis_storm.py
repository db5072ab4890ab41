"""The storms over brokers, at real servers."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from lane_obs.clock import SystemClock
from lane_obs.testing.broker.trial import Trial
from tests.integration.faults.leftover import check_leftovers
from tests.integration.test_redis_broker import OnTrial
from tests.property.broker_storm import LANES, Storm

if TYPE_CHECKING:
    from tests.integration.servers.server import Server

LEASE, TTL = 10.0, 1.0


@pytest.mark.parametrize("seed", range(6))
async def test_all_commands_are_accounted_for_and_nothing_is_left(server: Server, seed: int) -> None:
    def make(queue: str) -> OnTrial:
        return OnTrial(server.url, queue=queue, lease=LEASE, result_ttl=TTL)

    trial = Trial(make, SystemClock(), lease=LEASE, result_ttl=TTL)
    try:
        await Storm(trial, random.Random(seed)).run(200)
    finally:
        await trial.close()
    check_leftovers(server, len(LANES))
