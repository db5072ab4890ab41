"""A command that ends while it waits leaves no timer of its boost behind, however it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import LaneConfig, MemorySink, PriorityBoost
from lane_obs.events import CommandBoosted
from tests.unit.runtime.support import noop, running

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs import CommandHandle, QueueManager, VirtualClock


async def drop(manager: QueueManager, _handle: CommandHandle[Any]) -> None:
    await manager.submit("a", noop)


async def cancel(_manager: QueueManager, handle: CommandHandle[Any]) -> None:
    handle.cancel()


async def remove_the_lane(manager: QueueManager, _handle: CommandHandle[Any]) -> None:
    await manager.remove_lane("a", cancel=True)


@pytest.mark.parametrize("end", [drop, cancel, remove_the_lane])
async def test_what_ends_while_it_waits_is_boosted_no_more(clock: VirtualClock, end: Callable[..., Any]) -> None:
    lane = LaneConfig(
        0, 1, priority=5, boost=PriorityBoost.standard(100), max_pending=1, overflow="drop_oldest", on_expiry="run"
    )
    sink = MemorySink()
    async with running(clock, {"a": lane, "b": LaneConfig()}, sinks=[sink]) as manager:
        manager.pause("a")
        handle = await manager.submit("a", noop)
        await clock.run(end(manager, handle))
        assert handle.done()
        await clock.advance(99)  # past all steps
        if end is drop:
            manager.resume("a")
        await clock.run(manager.drain())
    boosted = [event for event in sink.events if isinstance(event, CommandBoosted)]
    assert [event for event in boosted if event.command_id == handle.id] == []
    assert len(boosted) == (4 if end is drop else 0)
