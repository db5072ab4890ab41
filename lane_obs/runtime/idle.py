"""When a queue, or a lane, has nothing to do: no command lives, and the storage has committed all it was told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lane_obs.core.engine import Engine
    from lane_obs.core.lane import Lane


class Idle:
    """Tells those who wait for a queue, or for one of its lanes, to be idle.

    Args:
        engine: knows how many commands live.

    Attributes:
        waiting: those who wait, by lane; `None` stands for the whole queue.
        unsettled: submits, ends and readings that the storage has not come to an end with.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.waiting: dict[Lane | None, list[asyncio.Future[None]]] = {}
        self.unsettled = 0

    @property
    def is_now(self) -> bool:
        """Whether it is idle."""
        return not self._engine.live and not self.unsettled

    async def wait(self) -> None:
        """Returns once it is idle."""
        while not self.is_now:
            future = self.watch(None)
            try:
                await future
            finally:
                self.unwatch(None, future)

    def watch(self, lane: Lane | None) -> asyncio.Future[None]:
        """A future that is done when the queue is idle, or the lane may be; whoever has it ends with `unwatch`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.setdefault(lane, []).append(future)
        return future

    def unwatch(self, lane: Lane | None, future: asyncio.Future[None]) -> None:
        """Waits no more."""
        line = self.waiting.get(lane)
        if line is not None and future in line:
            line.remove(future)
            if not line:
                del self.waiting[lane]

    def check(self, lane: Lane | None = None) -> None:
        """Tells those who wait for the queue, and for this lane, if no command lives there."""
        if not self.waiting:
            return
        if self.is_now:
            self.tell(None)
        if lane is not None and not lane.live:
            self.tell(lane)

    def tell(self, lane: Lane | None) -> None:
        """Tells those who wait for a lane that something has changed."""
        for future in self.waiting.pop(lane, ()):
            if not future.done():
                future.set_result(None)

    def tell_all(self) -> None:
        """Tells those who wait for a lane, whichever."""
        for lane in list(filter(None, self.waiting)):
            self.tell(lane)

    def settled(self, count: int = 1) -> None:
        """Notes that so many of what was unsettled have come to their end."""
        self.unsettled -= count
        if self.waiting:
            self.check()
            self.tell_all()
