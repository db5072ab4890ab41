"""A manager whose server is away: nothing hangs, nothing is silent, and it goes on by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lane_obs import BrokerUnavailable, DrainTimeout, LaneConfig, MemorySink, QueueManager
from lane_obs.distributed import RedisBroker
from tests.integration.servers.proxy import Proxy
from tests.integration.shared import commands
from tests.integration.shared.commands import add, begun, gate, hold

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.servers.server import Server

LANES = {"a": LaneConfig(1, 4)}


@pytest.fixture(autouse=True)
def fresh_notes() -> None:
    commands.reset()


async def test_a_submit_fails_in_time_and_a_close_ends_while_the_server_is_away(
    start_server: Callable[..., Server],
) -> None:
    server, sink = start_server(), MemorySink()
    broker = RedisBroker(server.url, submit_timeout=0.2)
    manager = QueueManager(LANES, broker=broker, sinks=[sink], drain_timeout=0.1)
    await manager.start()
    await manager.submit("a", hold, "it")
    await begun("it").wait()
    server.kill()
    with pytest.raises(BrokerUnavailable):
        await manager.submit("a", add, 1, 1)
    gate("it").set()
    with pytest.raises(DrainTimeout, match="1 ends are not stored yet"):
        await manager.stop()
    keys = [event.key for event in sink.events]
    assert "queue.broker.down" in keys
    assert ("queue.command.rejected", "broker") in [(event.key, getattr(event, "reason", "")) for event in sink.events]
    assert keys[-1] == "queue.closed"


async def test_it_goes_on_with_what_it_had_once_the_server_is_back(start_server: Callable[..., Server]) -> None:
    server, sink = start_server(aof="always"), MemorySink()
    async with QueueManager(LANES, broker=RedisBroker(server.url), sinks=[sink]) as manager:
        first = await manager.submit("a", hold, "it")
        await begun("it").wait()
        server.kill()
        await sink.wait_for("queue.broker.down")
        gate("it").set()
        await sink.wait_for("queue.command.completed")
        server.start()
        await sink.wait_for("queue.broker.up")
        assert await first == "it"
        assert await (await manager.submit("a", add, 1, 2)) == 3
        assert commands.runs["it"] == 1


async def test_a_start_that_failed_can_be_tried_again(start_server: Callable[..., Server]) -> None:
    server = start_server()
    server.kill()
    manager = QueueManager(LANES, broker=RedisBroker(server.url, timeout=0.3))
    with pytest.raises(BrokerUnavailable):
        await manager.start()
    server.start()
    async with manager:
        assert await (await manager.submit("a", add, 1, 1)) == 2


async def test_a_command_whose_end_the_server_has_forgotten_runs_again(start_server: Callable[..., Server]) -> None:
    """As after a failover to a replica that was behind; the lease, which is renewed, would never give it back."""
    server, sink = start_server(), MemorySink()
    async with QueueManager(LANES, broker=RedisBroker(server.url), sinks=[sink]) as manager:
        await sink.wait_for("queue.broker.lead")  # after which nothing is asked anew, until the server is away
        handle = await manager.submit("a", hold, "it")
        await begun("it").wait()
        server.ask("SAVE")
        gate("it").set()
        assert await handle == "it"
        while manager._dispatcher.idle.unsettled:  # the word of a result may outrun the answer to its end
            await asyncio.sleep(0)
        server.kill()
        server.start()
        assert await manager.result(handle.id) == "it"
        assert commands.runs["it"] == 2
    assert [event.command_id for event in sink.events if event.key == "queue.command.returned"] == [handle.id]


async def test_a_cancel_on_its_way_is_seen_through_at_a_close(server: Server) -> None:
    """Also where the link is broken at the moment, and the event of its end is told by who has asked."""
    sink = MemorySink()
    with Proxy(int(server.url.rpartition(":")[2])) as proxy:
        manager = QueueManager(LANES, broker=RedisBroker(proxy.url, timeout=1.0), work=False, sinks=[sink])
        await manager.start()
        handle = await manager.submit("a", add, 1, 2)
        proxy.refuse()
        proxy.cut()
        handle.cancel()
        closing = asyncio.ensure_future(manager.close())
        await asyncio.sleep(0.3)
        proxy.accept()
        await closing
    assert [event.payload["command_id"] for event in sink.of("queue.command.cancelled")] == [handle.id]
