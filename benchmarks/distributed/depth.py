"""What a turn costs the server, by how much waits and in how many lanes: `RedisBroker` alone."""

from __future__ import annotations

import itertools
from typing import Final

from benchmarks.distributed.jobs import CONCURRENCY, QUEUE
from benchmarks.distributed.server import Server, Use
from benchmarks.workload import LOOPS, on_loop
from lane_obs import LaneConfig
from lane_obs.distributed import RedisBroker
from lane_obs.distributed.nobody import NOBODY
from lane_obs.distributed.record import End, NewCommand

_BATCH: Final = 1_000
_STRETCH: Final = 20
"""Turns between two refills, which are not measured."""
_BODY: Final = b'{"name": "bench.count", "args": [{"user": 12345, "kind": "mail"}], "trace": null}'


class Depth:
    """A queue in which as much waits all the time.

    Args:
        server: where it is.
        waiting: how many commands wait.
        lanes: how many lanes they are spread over evenly.
        levels: how many priorities the lanes have among them.
    """

    def __init__(self, server: Server, waiting: int, lanes: int, levels: int) -> None:
        self._server = server
        self._waiting = waiting
        self._names = [f"lane-{number}" for number in range(lanes)]
        self._levels = levels
        self._numbers = itertools.count()
        self._broker = RedisBroker(server.url, queue=QUEUE, concurrency=CONCURRENCY)
        self._ends: list[End] = []

    async def spend(self, turns: int) -> tuple[float, float]:
        """What the server takes for one turn, in which 32 commands end and 32 are claimed: seconds, and commands."""
        lanes = {
            name: LaneConfig(0, CONCURRENCY, priority=number % self._levels) for number, name in enumerate(self._names)
        }
        await self._broker.open(lanes, None, (), letters=1, work=True, listener=NOBODY)
        try:
            await self._fill(self._waiting + CONCURRENCY)  # those of the first turn run from then on
            await self._turns(1)
            uses = [await self._stretch() for _ in range(turns // _STRETCH)]
            count = len(uses) * _STRETCH
            return sum(use.cpu for use in uses) / count, sum(use.commands for use in uses) / count
        finally:
            await self._broker.close()

    async def _stretch(self) -> Use:
        await self._fill(_STRETCH * CONCURRENCY)
        before = self._server.use()
        await self._turns(_STRETCH)
        return self._server.use().since(before)

    async def _turns(self, count: int) -> None:
        for _ in range(count):
            turn = await self._broker.turn(self._ends, CONCURRENCY)
            self._ends = [End(claimed.id, claimed.token, "succeeded", b"1") for claimed in turn.claimed]
            if turn.stale or len(turn.claimed) < CONCURRENCY:
                raise RuntimeError(f"{len(turn.claimed)} claimed, {len(turn.stale)} ends refused")

    async def _fill(self, count: int) -> None:
        for first in range(0, count, _BATCH):
            numbers = [next(self._numbers) for _ in range(first, min(first + _BATCH, count))]
            names = self._names
            await self._broker.submit(
                [NewCommand(f"bench-{number}", names[number % len(names)], _BODY) for number in numbers]
            )


def spend(waiting: int, lanes: int, levels: int, turns: int) -> tuple[float, float]:
    """What a new server takes for one turn: seconds of processor time, and commands."""
    with Server() as server:
        return on_loop(LOOPS[0], Depth(server, waiting, lanes, levels).spend, turns)
