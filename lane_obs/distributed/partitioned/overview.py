"""The whole queue as the member sees it that leads partition 0 and so exports it."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Final

from lane_obs.clock import sleep
from lane_obs.distributed.partitioned.merge import merge_stats
from lane_obs.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.clock import Clock
    from lane_obs.distributed.partitioned.branch import Branch
    from lane_obs.distributed.view import BrokerStats

_PERIOD: Final = 5.0
"""Seconds between two looks at partitions that others lead."""


class Overview:
    """Knows how all partitions are while this member leads partition 0.

    Partitions that it leads tell by themselves; those that others lead are asked, from time to time.

    Args:
        branches: the partitions.
        clock: all time.
    """

    def __init__(self, branches: Sequence[Branch], clock: Clock) -> None:
        self._branches = branches
        self._clock = clock
        self._seen: dict[int, BrokerStats] = {}
        self._task: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Looks whether there is something to ask, as this member may lead by now, or lead no more."""
        if self._task is None and self._others():
            self._task = asyncio.get_running_loop().create_task(self._ask(), context=contextvars.Context())

    def _others(self) -> list[Branch]:
        first, *rest = self._branches
        return [branch for branch in rest if not branch.broker.health().leads] if first.broker.health().leads else []

    async def _ask(self) -> None:
        while others := self._others():
            for branch in others:
                try:
                    self._seen[branch.number] = await branch.reach(lambda broker: broker.stats())
                except BrokerError:
                    self._seen.pop(branch.number, None)
            await sleep(self._clock, _PERIOD)
        self._seen.clear()
        self._task = None

    def stats(self) -> BrokerStats | None:
        """All partitions together; `None` unless this member leads. From any thread."""
        if not self._branches[0].broker.health().leads:
            return None
        found = [branch.broker.leading_stats() or self._seen.get(branch.number) for branch in self._branches]
        parts = [stats for stats in found if stats is not None]
        return merge_stats(parts) if len(parts) == len(found) else None

    async def close(self) -> None:
        """Asks no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
