"""Keeps events in memory: for tests, and as a flight recorder of the last ones."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from lane_obs.config import to_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lane_obs.events import LaneEvent


class MemorySink:
    """Keeps the latest events.

    Args:
        capacity: how many to keep; `None` (default) for all. Older ones are dropped and counted.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self._events: deque[LaneEvent] = deque(maxlen=None if capacity is None else to_count("capacity", capacity))
        self._waiters: list[tuple[Callable[[LaneEvent], bool], asyncio.Future[LaneEvent]]] = []
        self.dropped: dict[str, int] = {}

    @property
    def events(self) -> list[LaneEvent]:
        """The events kept, oldest first."""
        return list(self._events)

    def keys(self) -> list[str]:
        """The keys of the events kept, oldest first."""
        return [event.key for event in self._events]

    def of(self, key: str) -> list[LaneEvent]:
        """The events kept that have this key."""
        return [event for event in self._events if event.key == key]

    async def wait_for(self, wanted: str | Callable[[LaneEvent], bool]) -> LaneEvent:
        """Returns the first event, kept or to come, with this key or for which this function is true."""
        test = (lambda event: event.key == wanted) if isinstance(wanted, str) else wanted
        for event in self._events:
            if test(event):
                return event
        future: asyncio.Future[LaneEvent] = asyncio.get_running_loop().create_future()
        waiter = (test, future)
        self._waiters.append(waiter)
        try:
            return await future
        finally:
            self._waiters.remove(waiter)

    def handle(self, events: Sequence[LaneEvent]) -> None:
        """Takes a batch and wakes those who wait for one of its events."""
        capacity = self._events.maxlen
        if capacity is not None and (lost := len(self._events) + len(events) - capacity) > 0:
            self.dropped["full"] = self.dropped.get("full", 0) + lost
        self._events.extend(events)
        for test, future in self._waiters:
            found = next((event for event in events if test(event)), None) if not future.done() else None
            if found is not None:
                future.set_result(found)

    def close(self) -> None:
        """Keeps what it has."""
