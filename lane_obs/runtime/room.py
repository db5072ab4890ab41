"""Back-pressure: callers of `submit` that wait for room in a full lane, first come first served."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING

from lane_obs.errors import LaneRemoved, ShutdownInProgress

if TYPE_CHECKING:
    from lane_obs.core.lane import Lane


class Room:
    """Hands out the free places of bounded lanes.

    A place is granted to the caller at the head of the line and stays its own until it has submitted, so that
    nobody overtakes; a caller that is cancelled passes its place on (aiojobs#97).
    """

    def __init__(self) -> None:
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}
        self._granted: dict[str, int] = {}
        self._saving: Counter[str] = Counter()

    def is_taken(self, lane: Lane) -> bool:
        """Whether the lane has no place for a newcomer."""
        bound = lane.config.max_pending
        if bound is None:
            return False
        # A place that is granted and not yet used is ahead of any newcomer, whatever is free behind it.
        return bool(self._lines.get(lane.name) or self._granted.get(lane.name)) or self._held(lane) >= bound

    def is_full(self, lane: Lane) -> bool:
        """Whether the lane holds, or has promised, as many places as it has."""
        bound = lane.config.max_pending
        return bound is not None and self._held(lane) + self._granted.get(lane.name, 0) >= bound

    def _held(self, lane: Lane) -> int:
        return lane.pending + self._saving[lane.name]

    def reserve(self, lane: Lane) -> None:
        """Holds a place for a command that is being saved, until `unreserve`."""
        self._saving[lane.name] += 1

    def unreserve(self, lane: Lane) -> None:
        """Gives that place back: the command is in its lane, or will not come."""
        self._saving[lane.name] -= 1

    def waiting(self, lane: Lane) -> int:
        """How many callers wait for this lane."""
        return len(self._lines.get(lane.name, ()))

    async def wait(self, lane: Lane) -> None:
        """Returns with a place granted; the caller must submit, or `release` it.

        Raises:
            ShutdownInProgress: the queue began to shut down meanwhile.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line = self._lines.setdefault(lane.name, deque())
        line.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(lane)
                self.grant(lane)
            elif future in line:
                line.remove(future)
            raise

    def release(self, lane: Lane) -> None:
        """Gives back a place that was granted."""
        self._granted[lane.name] -= 1

    def grant(self, lane: Lane) -> None:
        """Gives the lane's free places to those in line."""
        line = self._lines.get(lane.name)
        while line and not self.is_full(lane):
            future = line.popleft()
            if not future.done():
                self._granted[lane.name] = self._granted.get(lane.name, 0) + 1
                future.set_result(None)
        if not line:
            self._lines.pop(lane.name, None)

    def lanes(self) -> list[str]:
        """Names of the lanes that someone waits for."""
        return list(self._lines)

    def is_used(self, lane: Lane) -> bool:
        """Whether anyone waits for this lane, or has a place there and no command in it yet."""
        name = lane.name
        return bool(self._lines.get(name) or self._granted.get(name) or self._saving[name])

    def forget(self, lane: Lane) -> None:
        """Lets go of a lane that nobody uses."""
        self._granted.pop(lane.name, None)
        self._saving.pop(lane.name, None)

    def refuse(self, lane: Lane) -> None:
        """Tells everyone in line for this lane that it is being removed."""
        for future in self._lines.pop(lane.name, ()):
            if not future.done():
                future.set_exception(LaneRemoved(lane.name))

    def refuse_all(self) -> None:
        """Tells everyone in line that the queue takes no new work."""
        for line in self._lines.values():
            for future in line:
                if not future.done():
                    future.set_exception(ShutdownInProgress("the queue began to shut down while submit waited"))
        self._lines.clear()
