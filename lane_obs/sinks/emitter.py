"""Subscriptions: events as async iterators, each with its own bounded buffer and its own count of drops."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections import deque
from typing import TYPE_CHECKING

from lane_obs.config import to_count
from lane_obs.errors import ConfigError, StreamClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from lane_obs.events import LaneEvent


class EventStream:
    """Events for one subscriber: `await stream.recv()` or `async for event in stream`.

    When the buffer is full the oldest event gives way and `dropped` counts it.

    Attributes:
        dropped: events this subscriber lost because it was too slow.
    """

    def __init__(self, capacity: int, wanted: Callable[[LaneEvent], bool] | None) -> None:
        self._buffer: deque[LaneEvent] = deque()
        self._capacity = capacity
        self._wanted = wanted
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._failure: Exception | None = None
        self.dropped = 0

    def put(self, events: Sequence[LaneEvent]) -> None:
        """Takes the events of a batch that this stream wants."""
        if self._closed:
            return
        wanted = self._wanted
        try:
            self._buffer.extend(events if wanted is None else [event for event in events if wanted(event)])
        except Exception as error:
            # The fault is this subscriber's own: it gets it from `recv`, and the others get their events.
            self._failure = error
            self.close()
        while len(self._buffer) > self._capacity:
            self._buffer.popleft()
            self.dropped += 1
        self._wake(len(self._buffer))

    def _wake(self, count: int) -> None:
        while self._waiters and count:
            future = self._waiters.popleft()
            if not future.done():
                future.set_result(None)
                count -= 1

    async def recv(self) -> LaneEvent:
        """Returns the next event, waiting for it if need be.

        Raises:
            StreamClosed: the stream is closed and its buffer is empty.
            Exception: what the stream's own filter raised, which ended the stream.
        """
        while not self._buffer:
            if self._failure is not None:
                raise self._failure
            if self._closed:
                raise StreamClosed("the event stream is closed")
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(future)
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self._wake(1)
                raise
        return self._buffer.popleft()

    def close(self) -> None:
        """Ends the stream; what is buffered can still be received."""
        self._closed = True
        self._wake(len(self._waiters))

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> LaneEvent:
        try:
            return await self.recv()
        except StreamClosed:
            raise StopAsyncIteration from None

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class EventEmitter:
    """A sink that others subscribe to.

    Args:
        capacity: events buffered for each subscriber, 1 or more.

    Raises:
        ConfigError: `capacity` is not a whole number of 1 or more.
    """

    def __init__(self, capacity: int = 100) -> None:
        self._capacity = to_count("capacity", capacity, minimum=1)
        # Weak: a stream that nobody reads any more must not be filled for ever.
        self._streams: weakref.WeakSet[EventStream] = weakref.WeakSet()
        self._closed = False
        self._dropped = 0

    def subscribe(self) -> EventStream:
        """A stream of all events from now on."""
        return self._subscribe(None)

    def subscribe_filtered(self, wanted: Callable[[LaneEvent], bool]) -> EventStream:
        """A stream of the events from now on for which `wanted(event)` is true.

        Raises:
            ConfigError: `wanted` is no function, or an `async` one, whose answer would come too late.
        """
        if not callable(wanted) or inspect.iscoroutinefunction(wanted):
            raise ConfigError("wanted", wanted, "give a plain function of an event that says whether it is wanted")
        return self._subscribe(wanted)

    def _subscribe(self, wanted: Callable[[LaneEvent], bool] | None) -> EventStream:
        stream = EventStream(self._capacity, wanted)
        if self._closed:
            stream.close()
        self._streams.add(stream)
        return stream

    @property
    def dropped(self) -> dict[str, int]:
        """Events that subscribers lost because they were too slow, those that are gone included."""
        return {"slow_subscriber": self._dropped}

    def handle(self, events: Sequence[LaneEvent]) -> None:
        """Gives a batch to every subscriber."""
        for stream in list(self._streams):
            before = stream.dropped
            stream.put(events)
            self._dropped += stream.dropped - before

    def close(self) -> None:
        """Ends all streams once they have given out what they hold."""
        self._closed = True
        for stream in list(self._streams):
            stream.close()
