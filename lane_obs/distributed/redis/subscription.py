"""Listens to channels, and subscribes again whenever the connection was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lane_obs.distributed.redis.keeper import Keeper
from lane_obs.distributed.redis.wire import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from lane_obs.clock import Clock, Timer
    from lane_obs.distributed.redis.route import Route
    from lane_obs.distributed.redis.url import Address
    from lane_obs.distributed.redis.wire import Wire

_PING: Final = pack("PING")


class Subscription:
    """A connection of its own that listens.

    Where nothing came for the time-out, it asks whether the server is still there: a connection that the network has
    forgotten looks like one on which nothing is said.

    Args:
        route: where to connect to.
        channels: what it listens to.
        clock: times it.
        timeout: seconds of silence after which it asks, and that the answer may take.
        rng: spreads the tries.
        on_message: gets each message.
        on_subscribed: is called after each subscription.
        on_trouble: is called with the reason when it is lost, and with an empty one when it listens again.
    """

    def __init__(
        self,
        route: Route,
        channels: Sequence[str],
        *,
        clock: Clock,
        timeout: float,
        rng: Random,
        on_message: Callable[[bytes], None],
        on_subscribed: Callable[[], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        self._route = route
        self._clock = clock
        self._timeout = timeout
        self._command = pack("SUBSCRIBE", *channels)
        self._channels = len(channels)
        self._on_message = on_message
        self._on_subscribed = on_subscribed
        self._on_trouble = on_trouble
        self._keeper = Keeper(self._dial, clock, rng, self._came_up, self._went_down)
        self._timer: Timer | None = None
        self._subscribed = 0
        self._follows = False

    def start(self) -> None:
        """Begins to listen."""
        self._keeper.start()

    async def close(self) -> None:
        """Ends it."""
        await self._keeper.close()
        self._stop_timer()

    def follow(self, address: Address) -> None:
        """Leaves a server that is not the one at this address: a failover has made it one that hears nothing."""
        wire = self._keeper.wire
        if wire is not None and wire.address != address:
            self._follows = True
            wire.drop("another server has the queue")

    async def _dial(self) -> Wire:
        return await self._route.dial(self._push)

    def _came_up(self, wire: Wire) -> None:
        self._subscribed = 0
        wire.send(self._command)
        self._timer = self._clock.call_at(self._clock.now() + self._timeout, self._look, wire)

    def _went_down(self, reason: str) -> None:
        self._stop_timer()
        follows, self._follows = self._follows, False
        if not follows:  # to go where the queue is is no trouble, unless that fails
            self._on_trouble(reason)

    def _push(self, message: list[Any]) -> None:
        kind, _channel, payload = message
        if kind == b"message":
            self._on_message(payload)
        elif kind == b"subscribe":
            self._subscribed += 1
            if self._subscribed == self._channels:
                self._on_trouble("")
                self._on_subscribed()

    def _look(self, wire: Wire) -> None:
        """Asks the server whether it is there, where it has been silent."""
        now = self._clock.now()
        due = wire.heard_at + self._timeout
        if now >= due:
            wire.ask(_PING)
            due = now + self._timeout
        wire.proved = True
        self._timer = self._clock.call_at(due, self._look, wire)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
