"""When a queue has nothing to do: no command lives, and the storage has committed all it was told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lane_obs.core.engine import Engine


class Idle:
    """Tells those who wait for a queue to be idle.

    Args:
        engine: knows how many commands live.

    Attributes:
        waiting: those who wait.
        unsettled: submits, ends and readings that the storage has not come to an end with.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.waiting: list[asyncio.Future[None]] = []
        self.unsettled = 0

    @property
    def is_now(self) -> bool:
        """Whether it is idle."""
        return not self._engine.live and not self.unsettled

    async def wait(self) -> None:
        """Returns once it is idle."""
        while not self.is_now:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiting.append(future)
            try:
                await future
            finally:
                if future in self.waiting:
                    self.waiting.remove(future)

    def check(self) -> None:
        """Tells those who wait, if it is idle."""
        if self.waiting and self.is_now:
            waiting, self.waiting = self.waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    def settled(self, count: int = 1) -> None:
        """Notes that so many of what was unsettled have come to their end."""
        self.unsettled -= count
        self.check()
