"""A lane is removed while commands for it are on their way to the broker, or wait for room there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lane_obs import LaneConfig, LaneNotEmpty, LaneRemoved, MemorySink, QueueManager
from tests.integration.shared import commands
from tests.integration.shared.commands import add

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs.distributed import Broker

    Join = Callable[..., Broker]

LANES = {"stays": LaneConfig(1, 4), "goes": LaneConfig(1, 4, max_pending=1)}


@pytest.fixture(autouse=True)
def fresh_notes() -> None:
    commands.reset()


async def test_a_lane_goes_once_those_who_wait_for_room_there_are_in(join: Join) -> None:
    sink = MemorySink()
    async with QueueManager(LANES, broker=join(), work=False, sinks=[sink]) as manager:
        waiting = [asyncio.ensure_future(manager.submit("goes", add, number, 0)) for number in range(4)]
        await waiting[0]
        going = asyncio.ensure_future(manager.remove_lane("goes"))
        await asyncio.sleep(0)
        with pytest.raises(LaneRemoved):
            await manager.submit("goes", add, 1, 1)
        with pytest.raises(LaneNotEmpty):
            await manager.remove_lane("goes", timeout=0.05)
        assert not going.done()
        async with QueueManager(LANES, broker=join()):
            await going
            assert "goes" not in manager.lanes
            assert [await (await one) for one in waiting] == [0, 1, 2, 3]
    assert len(sink.of("queue.command.submitted")) == 4


async def test_a_lane_goes_once_a_submit_that_is_under_way_is_answered(join: Join) -> None:
    sink = MemorySink()
    async with QueueManager(LANES, broker=join(), work=False, sinks=[sink]) as manager:
        first = asyncio.ensure_future(manager.submit("goes", add, 1, 0))
        await asyncio.sleep(0)
        await manager.remove_lane("goes")
        assert (await first).lane == "goes"
    keys = sink.keys()
    assert keys.index("queue.command.submitted") < keys.index("queue.lane.removed")


async def test_a_lane_that_goes_at_once_refuses_those_who_wait_for_room_there(join: Join) -> None:
    async with QueueManager(LANES, broker=join(), work=False) as manager:
        kept = await manager.submit("goes", add, 0, 0)
        waiting = asyncio.ensure_future(manager.submit("goes", add, 1, 0))
        await asyncio.sleep(0)
        with pytest.raises(LaneNotEmpty):
            await manager.remove_lane("goes", timeout=0.05)
        late = asyncio.ensure_future(manager.submit("goes", add, 2, 0))
        await asyncio.sleep(0)
        await manager.remove_lane("goes", cancel=True)
        with pytest.raises(LaneRemoved):
            await waiting
        with pytest.raises(LaneRemoved):
            await late
        async with QueueManager(LANES, broker=join()):
            assert await kept == 0


async def test_who_waits_for_room_in_a_lane_that_others_have_made_anew_is_told(join: Join) -> None:
    async with (
        QueueManager(LANES, broker=join(), work=False) as manager,
        QueueManager(LANES, broker=join(), work=False) as other,
    ):
        await other.remove_lane("goes")
        while "goes" in (await other.cluster.stats()).lanes:
            await asyncio.sleep(0)
        other.add_lane("goes", LANES["goes"])
        while "goes" not in (await other.cluster.stats()).lanes:
            await asyncio.sleep(0)
        waiting = [asyncio.ensure_future(manager.submit("goes", add, number, 0)) for number in range(4)]
        await waiting[0]
        async with QueueManager(LANES, broker=join()), asyncio.timeout(10):
            assert [await (await one) for one in waiting] == [0, 1, 2, 3]
