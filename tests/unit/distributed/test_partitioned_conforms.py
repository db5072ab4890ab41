"""`PartitionedBroker` over one partition keeps to all that `Broker` says, and over three to all that can be divided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from lane_obs.distributed import LocalBroker, PartitionedBroker
from lane_obs.testing import BROKER_CHECKS, check_broker
from tests.unit.distributed.known_parts import LEFT_OUT, OnTrial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.clock import VirtualClock

LEASE, TTL = 0.5, 1.0


class Queues:
    """Makes members of queues by name, each in so many partitions."""

    def __init__(self, clock: VirtualClock, count: int) -> None:
        self.clock = clock
        self.count = count
        self.first: dict[str, Sequence[LocalBroker]] = {}

    def __call__(self, queue: str) -> OnTrial:
        first = self.first.get(queue)
        if first is None:
            first = self.first[queue] = [
                LocalBroker(f"{queue}.{number}", lease=LEASE, result_ttl=TTL, clock=self.clock)
                for number in range(self.count)
            ]
            return OnTrial(first, clock=self.clock)
        return OnTrial([one.join() for one in first], clock=self.clock)


@pytest.mark.parametrize("name", BROKER_CHECKS)
async def test_one_partition_is_as_its_broker(name: str, clock: VirtualClock) -> None:
    await clock.run(check_broker(Queues(clock, 1), lease=LEASE, result_ttl=TTL, clock=clock, only=[name]))
    assert clock.pending == 0


@pytest.mark.parametrize("name", [name for name in BROKER_CHECKS if name not in LEFT_OUT])
async def test_three_partitions(name: str, clock: VirtualClock) -> None:
    await clock.run(check_broker(Queues(clock, 3), lease=LEASE, result_ttl=TTL, clock=clock, only=[name]))
    assert clock.pending == 0
