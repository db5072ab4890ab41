"""`RedisBroker` keeps to what `Broker` says, at real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import LaneConfig
from lane_obs.distributed import RedisBroker
from lane_obs.distributed.nobody import NOBODY
from lane_obs.testing import BROKER_CHECKS, check_broker

if TYPE_CHECKING:
    from tests.integration.servers.server import Server

LEASE, TTL = 1.0, 1.0


class OnTrial(RedisBroker):
    """A member whose heartbeat can be stopped, and is counted."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.beats = 0
        beaten = self._inbox._beaten

        def count(*args: Any) -> None:
            self.beats += 1
            beaten(*args)

        self._inbox._beaten = count  # type: ignore[method-assign]

    def stop_beat(self) -> None:
        heartbeat = self._inbox._heartbeat
        assert heartbeat is not None
        heartbeat._beat = lambda: LEASE / 10  # type: ignore[method-assign]

    def start_beat(self) -> None:
        heartbeat = self._inbox._heartbeat
        assert heartbeat is not None
        del heartbeat._beat  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", BROKER_CHECKS)
async def test_conforms(server: Server, name: str) -> None:
    def make(queue: str) -> OnTrial:
        return OnTrial(server.url, queue=queue, lease=LEASE, result_ttl=TTL)

    await check_broker(make, lease=LEASE, result_ttl=TTL, only=[name])


async def test_what_a_member_began_for_itself_ends_with_it(server: Server) -> None:
    """Also where it had no step yet: a coroutine that was never awaited would be warned of."""
    broker = RedisBroker(server.url, queue="early")
    await broker.open({"a": LaneConfig(0, 1)}, None, (), letters=1, work=True, listener=NOBODY)
    broker._inbox.tell_facts([["expired", 99, "one", 1, 0.0, ""]], [b""])
    broker._inbox._join_again()
    begun = set(broker._inbox._tasks)
    assert len(begun) == 2
    await broker.close()
    assert all(task.cancelled() for task in begun)
