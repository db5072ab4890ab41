"""Who waits for the end of a command is told, whatever becomes of the question."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lane_obs import BrokerRefused, LaneConfig, QueueManager
from lane_obs.distributed import LocalBroker, RedisBroker
from lane_obs.errors import ResultLost
from tests.integration.servers.proxy import Proxy
from tests.integration.shared import commands
from tests.integration.shared.commands import add, gate, hold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs import VirtualClock
    from lane_obs.distributed.record import Result
    from tests.integration.servers.server import Server

LANES = {"query": LaneConfig(1, 4)}


@pytest.fixture(autouse=True)
def fresh_notes() -> None:
    commands.reset()


class SlowWatches(LocalBroker):
    """A broker that is slow to answer who watches."""

    async def watch(self, ids: Sequence[str]) -> list[Result]:
        results = await super().watch(ids)
        for _ in range(20):
            await asyncio.sleep(0)
        return results


class Denying(LocalBroker):
    """A broker that denies so many watches, though its link works."""

    denials = 0

    async def watch(self, ids: Sequence[str]) -> list[Result]:
        if self.denials:
            self.denials -= 1
            raise BrokerRefused("it takes no watches now")
        return await super().watch(ids)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("pause", [0, 3, 9])
async def test_who_waits_again_while_the_wait_before_is_ended_is_told(pause: int) -> None:
    """The end of the wait before must not reach the broker last."""
    broker = SlowWatches()
    async with QueueManager(LANES, broker=broker, work=False) as manager, QueueManager(LANES, broker=broker.join()):
        one, other = await manager.submit("query", hold, "one"), await manager.submit("query", hold, "other")
        waiting = asyncio.ensure_future(manager.result(one.id))
        await turns(30)
        waiting.cancel()
        late = asyncio.ensure_future(manager.result(other.id))  # watched in the turn in which the other is given up
        await turns(3 + pause)
        again = asyncio.ensure_future(manager.result(one.id))
        await turns(60)
        gate("one").set()
        gate("other").set()
        async with asyncio.timeout(5):
            await asyncio.gather(again, late)


async def test_a_watch_that_was_denied_is_asked_for_again(clock: VirtualClock) -> None:
    broker = Denying(clock=clock)
    async with (
        QueueManager(LANES, broker=broker, work=False, clock=clock) as manager,
        QueueManager(LANES, broker=broker.join(), clock=clock),
    ):
        handle = await clock.run(manager.submit("query", add, 1, 2))
        broker.denials = 3
        waiting = asyncio.ensure_future(manager.result(handle.id))
        await clock.advance(0.05)
        assert broker.denials == 2
        await clock.advance(30)
        assert waiting.done()
        assert waiting.result() == 3
        broker.denials = 1
        waiting = asyncio.ensure_future(manager.result(handle.id))
        await clock.advance(0.05)
    with pytest.raises(ResultLost, match="has left its broker"):
        await waiting


async def test_a_result_is_awaited_over_a_link_that_is_slower_than_a_submit_may_be(server: Server) -> None:
    """The link is not broken: nothing says that it works again."""
    with Proxy(int(server.url.rpartition(":")[2])) as proxy:
        async with (
            QueueManager(LANES, broker=RedisBroker(proxy.url, queue="far", submit_timeout=0.3), work=False) as manager,
            QueueManager(LANES, broker=RedisBroker(server.url, queue="far")),
        ):
            handle = await manager.submit("query", add, 1, 2)
            proxy.delay(0.4)
            waiting = asyncio.ensure_future(manager.result(handle.id))
            await asyncio.sleep(1.2)
            proxy.delay(0)
            async with asyncio.timeout(20):
                assert await waiting == 3
