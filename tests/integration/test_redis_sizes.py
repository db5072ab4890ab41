"""Thousands of everything at once: Lua passes some thousands of words to a call and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lane_obs import LaneConfig
from tests.integration.test_redis_broker_faults import member, new

if TYPE_CHECKING:
    from tests.integration.servers.server import Server

MANY = 9_000


async def test_members_with_ten_thousand_lanes(server: Server) -> None:
    lanes = {f"l{number}": LaneConfig(0, 9, priority=number) for number in range(10_000)}
    names = [*lanes][::20]
    async with member(server.url, lanes=lanes) as (first, _), member(server.url, lanes=lanes, limit=400) as (second, _):
        for number, lane in enumerate(names):
            await second.submit(new(f"c{number}", lane=lane))
        stats = await first.stats()
        assert {name for name, lane in stats.lanes.items() if lane.ready} == set(names)
        assert len(stats.lanes) == 10_000
        claimed = (await first.turn((), 500)).claimed
        assert [claim.lane for claim in claimed] == names[:400]
        async with member(server.url, lanes=lanes, limit=None):  # the limit goes: all lanes are lined up anew
            assert len((await first.turn((), 500)).claimed) == 100


async def test_a_member_that_holds_thousands(server: Server) -> None:
    lanes = {"a": LaneConfig(0, MANY)}
    ids = [f"c{number}" for number in range(MANY)]
    async with member(server.url, lanes=lanes, work=False) as (web, _):
        async with member(server.url, lanes=lanes, concurrency=MANY) as (worker, ear):
            await web.submit(new(*ids))
            assert [claim.id for claim in (await worker.turn((), MANY)).claimed] == ids
            # As if a replica that has taken over had missed that all of them ended.
            worker._inbox.holding.lose()
            worker._inbox.is_unsure = True
            assert [claim.id for claim in (await worker.turn((), MANY)).claimed] == ids
            assert len(ear.facts) == MANY
        stats = await web.stats()
        assert (stats.returned, stats.lanes["a"].ready, stats.lanes["a"].running) == (MANY, MANY, 0)
