"""`LocalBroker` passes the conformance suite of brokers, in virtual time and in real time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lane_obs.distributed import LocalBroker
from lane_obs.testing import BROKER_CHECKS, check_broker

if TYPE_CHECKING:
    from lane_obs.clock import VirtualClock

LEASE, TTL = 0.5, 1.0


class Queues:
    """Makes members of queues by name."""

    def __init__(self, clock: VirtualClock | None) -> None:
        self.clock = clock
        self.first: dict[str, LocalBroker] = {}

    def __call__(self, queue: str) -> LocalBroker:
        first = self.first.get(queue)
        if first is not None:
            return first.join()
        made = self.first[queue] = LocalBroker(queue, lease=LEASE, result_ttl=TTL, clock=self.clock)
        return made


@pytest.mark.parametrize("name", BROKER_CHECKS)
async def test_in_virtual_time(name: str, clock: VirtualClock) -> None:
    await clock.run(check_broker(Queues(clock), lease=LEASE, result_ttl=TTL, clock=clock, only=[name]))
    assert clock.pending == 0


@pytest.mark.parametrize("name", ["a_delay_holds", "a_bucket_limits", "a_lost_lease_returns_the_command"])
async def test_in_real_time(name: str) -> None:
    await check_broker(Queues(None), lease=LEASE, result_ttl=TTL, only=[name])
