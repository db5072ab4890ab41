"""The connection of a process to its server: runs scripts there, and waits through its troubles."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import math
from random import Random
from typing import TYPE_CHECKING, Any, Final

from lane_obs.clock import SystemClock
from lane_obs.distributed.redis.keeper import Backoff, Keeper
from lane_obs.distributed.redis.refusal import Lost, Refusal, Remedy
from lane_obs.distributed.redis.route import Route
from lane_obs.distributed.redis.subscription import Subscription
from lane_obs.distributed.redis.url import parse
from lane_obs.distributed.redis.wire import pack
from lane_obs.errors import BrokerError, BrokerRefused, BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lane_obs.clock import Clock
    from lane_obs.distributed.redis.wire import Wire

_PATIENCE: Final = 1.0
"""Seconds for which a server that takes nothing is asked again before its refusal is passed on."""


class Script:
    """A script that the server runs.

    Args:
        name: what messages call it.
        text: its source.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        """What the server knows it by."""
        self.load = pack("SCRIPT", "LOAD", text)
        """The command that tells the server of it."""


class _Call:
    """A script on its way: what it says, and what it has met."""

    __slots__ = ("backoff", "packed", "refused_at", "script", "until", "wire")

    def __init__(self, script: Script, packed: bytes, until: float | None) -> None:
        self.script = script
        self.packed = packed
        self.until = until
        self.wire: Wire | None = None
        self.backoff: Backoff | None = None
        self.refused_at = math.inf


class Link:
    """Runs scripts over one connection, on which calls follow each other without waiting for answers.

    It looks for its server again whenever the connection breaks, for ever. A script whose answer was lost runs again,
    so each must be safe to run twice.

    Args:
        url: as for `parse`.
        timeout: seconds that a connection may take to come about, and that an answer may take to come.
        clock: the clock for time-outs and rests; real time by default.
        rng: spreads the rests between tries.
        on_state: is called on the event loop when the link breaks, with `False` and why, and when it works again.

    Raises:
        ConfigError: the URL is wrong.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        clock: Clock | None = None,
        rng: Random | None = None,
        on_state: Callable[[bool, str], None] | None = None,
    ) -> None:
        target = parse(url)
        self.shown = target.shown
        """The URL without its secrets."""
        self.on_state = on_state
        self._timeout = timeout
        self._clock = clock or SystemClock()
        self._rng = rng or Random()  # noqa: S311 - nothing secret
        self._route = Route(target, self._clock, timeout)
        self._keeper = Keeper(self._route.dial, self._clock, self._rng, self._came_up, self._went_down)
        self._subscription: Subscription | None = None
        self._troubles: dict[object, str] = {}
        self._was_up = self._moves = False  # whether it ever was up; whether it goes to another node of a cluster

    async def connect(self) -> None:
        """Returns once the server is reached.

        Raises:
            BrokerUnavailable: it was not within the time-out.
            BrokerRefused: it does not let us in.
        """
        until = self._clock.now() + self._timeout
        if await self._keeper.wait_up(until, patient=False) is None:
            denied, text = self._keeper.denied, f"{self.shown}: {self._keeper.reason}"
            await self.close()
            raise BrokerRefused(text) if denied else BrokerUnavailable(text)

    async def close(self) -> None:
        """Closes all connections. Calls under way end with `BrokerUnavailable`; calling it again does nothing."""
        self.on_state = None
        if self._subscription is not None:
            await self._subscription.close()
        await self._keeper.close()

    async def run(
        self, script: Script, keys: Sequence[str | bytes], args: Sequence[bytes | str | int], *, wait: float | None
    ) -> Any:
        """Runs a script; waits where the server cannot.

        Args:
            script: which.
            keys: its keys, all in one slot.
            args: its arguments.
            wait: seconds for all of it; `None` until the link is closed.

        Returns:
            What the script returns, texts as bytes.

        Raises:
            BrokerUnavailable: the time is over, or the link closed; whether the script ran is not known.
            BrokerRefused: the server takes nothing, for example since it is out of memory, or does not allow it.
            BrokerError: the script failed.
        """
        count, head = _head(script.sha, tuple(keys))
        packed = b"*%d\r\n%b%b" % (count + len(args), head, _words(*args))
        wire = self._keeper.wire
        if wire is not None and (wait is None or wait >= self._timeout):  # the connection times it: no timer of its own
            reply = await wire.ask(packed)
            if type(reply) is not Lost and type(reply) is not Refusal:
                wire.proved = True
                return reply
        else:
            reply = Lost(self._keeper.reason)
        call = _Call(script, packed, None if wait is None else self._clock.now() + wait)
        call.wire = wire
        try:
            return await self._run_through(call, reply)
        finally:
            self._mark(call, "")

    def subscribe(
        self, channels: Sequence[str], on_message: Callable[[bytes], None], on_subscribed: Callable[[], None]
    ) -> None:
        """Listens to channels over a connection of its own, until the link is closed. Once for each link.

        Args:
            channels: their names.
            on_message: is called on the event loop with what is published there.
            on_subscribed: is called there after each subscription, since what was published before is lost.
        """

        def trouble(reason: str) -> None:
            self._mark(self._subscription, reason)

        self._subscription = Subscription(
            self._route,
            channels,
            clock=self._clock,
            timeout=self._timeout,
            rng=self._rng,
            on_message=on_message,
            on_subscribed=on_subscribed,
            on_trouble=trouble,
        )
        self._subscription.start()

    # --- troubles -----------------------------------------------------------------------------------------------

    async def _run_through(self, call: _Call, reply: Any) -> Any:
        """Asks until there is an answer; raises what `_failure` makes."""
        while True:
            if type(reply) is Refusal:
                await self._mend(call, reply)
            elif type(reply) is not Lost:
                return reply
            if call.until is not None and self._clock.now() >= call.until:
                raise self._failure(reply)
            wire = await self._keeper.wait_up(call.until)
            if wire is None:
                raise self._failure(reply)
            call.wire = wire
            if type(reply) is Refusal and reply.remedy is Remedy.RELOAD:
                reply = await self._ask(call, call.script.load)
                if type(reply) is Lost or type(reply) is Refusal:
                    continue
            reply = await self._ask(call, call.packed)

    def _failure(self, reply: Any) -> BrokerError:
        """What to raise when the time is over, for the last that was heard."""
        if type(reply) is Refusal:
            kind = BrokerRefused if reply.remedy is Remedy.GIVE_UP else BrokerUnavailable
            return kind(f"{self.shown}: {reply.text}")
        return BrokerUnavailable(f"{self.shown}: {reply.reason if self._keeper.is_up else self._keeper.reason}")

    async def _ask(self, call: _Call, packed: bytes) -> Any:
        assert call.wire is not None
        answer = call.wire.ask(packed)
        timer = None if call.until is None else self._clock.call_at(call.until, _give_up, answer)
        try:
            reply = await answer
        finally:
            if timer is not None:
                timer.cancel()
        call.wire.proved = call.wire.proved or not isinstance(reply, Lost | Refusal)
        return reply

    async def _mend(self, call: _Call, refusal: Refusal) -> None:
        """Does what helps against a refusal.

        Raises:
            BrokerError: asking again does not help.
            BrokerRefused: it did not help for long enough.
        """
        remedy, now, wire = refusal.remedy, self._clock.now(), call.wire
        assert wire is not None
        if remedy is Remedy.NONE:
            raise BrokerError(f"script {call.script.name} failed: {refusal.text}")
        over = call.until is not None and now >= min(call.until, call.refused_at + _PATIENCE)
        if remedy is Remedy.DENIED or (remedy is Remedy.GIVE_UP and over):
            raise BrokerRefused(f"{self.shown}: {refusal.text}")
        if remedy is Remedy.MOVE and not wire.broken:
            self._route.moved(wire, refusal.text)
            self._moves = True
        if remedy in {Remedy.MOVE, Remedy.RECONNECT}:
            await wire.end(refusal.text)
            return
        if remedy is Remedy.GIVE_UP:
            call.refused_at = min(call.refused_at, now)
        await self._rest(call, refusal)

    async def _rest(self, call: _Call, refusal: Refusal) -> None:
        if call.backoff is None:
            call.backoff = Backoff(self._clock, self._rng)
            if refusal.remedy is Remedy.RELOAD:
                return  # the first time there is nothing to wait for
        if call.until is None:
            self._mark(call, refusal.text)
        await call.backoff.rest(call.until)

    # --- state --------------------------------------------------------------------------------------------------

    def _came_up(self, wire: Wire) -> None:
        self._was_up = True
        self._mark(self._keeper, "")
        if self._subscription is not None:
            self._subscription.follow(wire.address)

    def _went_down(self, reason: str) -> None:
        moves, self._moves = self._moves, False
        if self._was_up and not moves:
            self._mark(self._keeper, reason)

    def _mark(self, source: object, reason: str) -> None:
        """Notes a trouble, or with an empty reason its end; tells of the first and of the end of the last."""
        before = bool(self._troubles)
        if reason:
            self._troubles[source] = reason
        else:
            self._troubles.pop(source, None)
        if before != bool(self._troubles):
            # In a turn of its own: what it raises must not reach the task that keeps the connection.
            asyncio.get_running_loop().call_soon(self._tell, before, reason)

    def _tell(self, up: bool, reason: str) -> None:  # noqa: FBT001 - as `on_state` takes it
        if self.on_state is not None:
            self.on_state(up, reason)


def _give_up(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_result(Lost("it did not answer in time"))


@functools.lru_cache(256)
def _head(sha: str, keys: tuple[str | bytes, ...]) -> tuple[int, bytes]:
    """How many words a call begins with, and these as they are sent: a queue's keys are the same in every call."""
    return 3 + len(keys), _words("EVALSHA", sha, len(keys), *keys)


def _words(*words: str | bytes | int) -> bytes:
    """Words as they are sent, without their number."""
    packed = pack(*words)
    return packed[packed.index(b"\n") + 1 :]
