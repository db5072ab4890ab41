"""`PartitionedBroker` over one partition keeps to all that `Broker` says, and over three to all that can be divided."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lane_obs.distributed import LocalBroker
from lane_obs.distributed.partitioned import broker, submits
from lane_obs.distributed.partitioned.share import Divider
from lane_obs.testing import BROKER_CHECKS, check_broker
from tests.unit.distributed.known_parts import LEFT_OUT, OnTrial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.clock import VirtualClock

LEASE, TTL = 0.5, 1.0
SUMMED = {"a_look_changes_nothing", "policies_are_replaced"}
"""These read limits, which are sums: three times as much where each of three has been given the whole."""


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


@pytest.mark.parametrize("name", [name for name in BROKER_CHECKS if name not in SUMMED])
async def test_one_of_three_partitions_that_has_it_all(
    name: str, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All commands and whole limits in one of them: what the other two say must not come between."""
    undivided = Divider(1).divide
    monkeypatch.setattr(submits, "partition_of", lambda _command, _count: 1)
    monkeypatch.setattr(Divider, "divide", lambda divider, *policies: undivided(*policies) * divider._count)
    monkeypatch.setattr(broker, "divide_count", lambda _field, value, count: [value] * count)
    await clock.run(check_broker(Queues(clock, 3), lease=LEASE, result_ttl=TTL, clock=clock, only=[name]))
    assert clock.pending == 0
