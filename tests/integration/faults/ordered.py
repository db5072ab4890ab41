"""Processes of the test of the order of starts: each exchange of a worker with the broker is noted, one at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
from typing import TYPE_CHECKING, Any

from lane_obs import LaneConfig, QueueManager, command
from lane_obs.distributed import RedisBroker
from lane_obs.runtime.run import loop_factory
from tests.integration.faults import program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.distributed.record import End, Progress, Turn
    from tests.integration.faults.ledger import Ledger

ledger: Ledger


class InTurn(RedisBroker):
    """A member that waits for the others' exchanges: a lock on a file puts those of all processes in one order."""

    lock: int

    async def turn(self, ends: Sequence[End], want: int, progress: Sequence[Progress] = ()) -> Turn:
        await asyncio.to_thread(fcntl.flock, self.lock, fcntl.LOCK_EX)
        try:
            turn = await super().turn(ends, want, progress)
            claimed = [claim.id for claim in turn.claimed]
            ledger.note("turn", ended=[end.id for end in ends], want=want, claimed=claimed, stale=turn.stale)
        finally:
            fcntl.flock(self.lock, fcntl.LOCK_UN)
        return turn


@command("faults.brief")
async def brief(seconds: float) -> None:
    await asyncio.sleep(seconds)


def to_manager(order: dict[str, Any], **options: Any) -> QueueManager:
    lanes = {
        name: LaneConfig(least, most, priority=priority) for name, (priority, most, least) in order["lanes"].items()
    }
    broker = InTurn(order["url"], concurrency=order["concurrency"], lease=30)
    broker.lock = os.open(order["lock"], os.O_RDWR | os.O_CREAT, 0o600)
    return QueueManager(lanes, max_concurrency=order["limit"], broker=broker, **options)


async def work(order: dict[str, Any]) -> None:
    async with to_manager(order):
        ledger.note("up")
        await program.until_told()


async def submit(order: dict[str, Any]) -> None:
    """Submits everything, in order."""
    rng = random.Random(order["seed"])
    async with to_manager(order, work=False) as manager:
        for number, lane in enumerate(order["jobs"]):
            await manager.submit(lane, brief, rng.choice((0.0, 0.002, 0.01)), id=str(number))
        ledger.note("up")


def main(order: dict[str, Any]) -> None:
    """What such a process runs."""
    global ledger
    ledger = program.begin(order)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run({"worker": work, "single": submit}[order["role"]](order))
