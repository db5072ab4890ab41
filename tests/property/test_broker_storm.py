"""Storms over a broker in memory, in virtual time."""

from __future__ import annotations

import random

import pytest

from lane_obs.clock import VirtualClock
from lane_obs.distributed import LocalBroker
from lane_obs.testing.broker.trial import Trial
from tests.property.broker_storm import Storm

LEASE, TTL = 10.0, 1.0


@pytest.mark.parametrize("seed", range(20))
async def test_all_commands_are_accounted_for(seed: int) -> None:
    clock = VirtualClock()
    first = LocalBroker(lease=LEASE, result_ttl=TTL, clock=clock)
    trial = Trial(lambda _: first.join(), clock, lease=LEASE, result_ttl=TTL)
    await clock.run(Storm(trial, random.Random(seed)).run(300))
    await trial.close()
    assert clock.pending == 0
