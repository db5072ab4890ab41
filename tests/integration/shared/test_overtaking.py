"""What a broker tells comes on another way than its answers: it may come first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from lane_obs import LaneConfig, QueueManager
from lane_obs.distributed import LocalBroker
from tests.integration.shared import commands
from tests.integration.shared.commands import add

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.distributed.record import End, NewCommand, Progress, Receipt, Result, Turn


class SlowAnswers(LocalBroker):
    """A broker whose answers take several turns of the loop longer than what it tells."""

    async def _later(self, answer: Any) -> Any:
        for _ in range(20):
            await asyncio.sleep(0)
        return answer

    async def submit(self, commands: Sequence[NewCommand]) -> list[Receipt]:
        return await self._later(await super().submit(commands))

    async def turn(self, ends: Sequence[End], want: int, progress: Sequence[Progress] = ()) -> Turn:
        return await self._later(await super().turn(ends, want, progress))

    async def watch(self, ids: Sequence[str]) -> list[Result]:
        return await self._later(await super().watch(ids))


async def test_room_that_is_told_before_the_answer_full_is_not_lost() -> None:
    commands.reset()
    lanes = {"small": LaneConfig(1, 1, max_pending=1)}
    broker = SlowAnswers()
    async with QueueManager(lanes, broker=broker, work=False) as manager, QueueManager(lanes, broker=broker.join()):
        waiting = [asyncio.ensure_future(manager.submit("small", add, number, 0)) for number in range(20)]
        assert [await (await one) for one in waiting] == list(range(20))


async def test_a_result_that_is_told_before_the_watch_is_answered_is_not_lost() -> None:
    commands.reset()
    broker = SlowAnswers()
    async with QueueManager(broker=broker, work=False) as manager, QueueManager(broker=broker.join()):
        for number in range(20):
            assert await (await manager.submit("query", add, number, 1)) == number + 1


async def test_work_that_is_told_before_a_claim_is_answered_is_not_lost() -> None:
    commands.reset()
    broker = SlowAnswers(concurrency=2)
    async with QueueManager(broker=broker) as manager, QueueManager(broker=broker.join(), work=False) as other:
        for number in range(20):
            ours = await manager.submit("query", add, number, 1)
            theirs = await other.submit("query", add, number, 2)
            assert (await ours, await theirs) == (number + 1, number + 2)
