"""One connection: questions go out as they are asked, answers come back in the same order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from lane_obs.distributed.redis.refusal import Lost, Refusal

try:
    import hiredis
except ImportError as fault:
    raise ImportError("RedisBroker needs the package hiredis: pip install 'lane-obs[redis]'") from fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lane_obs.clock import Clock, Timer
    from lane_obs.distributed.redis.url import Address

_PUSHED: Final = (b"message", b"subscribe", b"unsubscribe")
_PROBES: Final = 3


def pack(*words: str | bytes | int) -> bytes:
    """A command as it goes over a connection."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type] # its stub names a tuple of one
    return packed


class Wire(asyncio.Protocol):
    """A connection, made by `loop.create_connection`.

    Any number of callers may ask at once. An answer belongs to its question by its place in the order alone, so one
    whose asker is gone is read and dropped, and the connection can be used on. It breaks itself where the server owes
    an answer and has said nothing for `timeout`.

    Args:
        address: where it leads, for messages.
        clock: times the silence.
        timeout: seconds of silence that break it.
        push: gets what the server sends unasked on a connection that subscribes: `[kind, channel, payload]`.
    """

    def __init__(
        self, address: Address, clock: Clock, timeout: float, push: Callable[[list[Any]], None] | None = None
    ) -> None:
        loop = asyncio.get_running_loop()
        self.address = address
        self.lost: asyncio.Future[str] = loop.create_future()
        """Why it broke, once it has and its socket is closed."""
        self.proved = False
        """Whether it has done what it is there for."""
        self.heard_at = 0.0
        """When something came last, by the clock."""
        self._new_future = loop.create_future
        self._clock = clock
        self._timeout = timeout
        self._push = push
        self._reader = hiredis.Reader(replyError=Refusal)  # type: ignore[arg-type] # it takes any callable
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._timer: Timer | None = None
        self._written = self._gone = 0  # bytes in all, and of those that had left when it was last looked
        self._transport: asyncio.Transport | None = None
        self._reason = ""

    # --- what its owner does ------------------------------------------------------------------------------------

    def ask(self, packed: bytes) -> asyncio.Future[Any]:
        """Sends a command; the answer may be a `Refusal`, or a `Lost`. The future never gets an exception."""
        future = self._new_future()
        if self._reason or self._transport is None:
            future.set_result(Lost(self._reason))
            return future
        if not self._asked:
            self.heard_at = self._clock.now()  # silence counts from the question
            if self._timer is None:
                self._timer = self._clock.call_at(self.heard_at + self._timeout, self._look)
        self._asked.append(future)
        self._written += len(packed)
        self._transport.write(packed)
        return future

    @property
    def broken(self) -> bool:
        """Whether it answers no more; its socket may be open still."""
        return bool(self._reason)

    async def ask_all(self, commands: Sequence[bytes]) -> list[Any]:
        """Sends commands in one go; returns the answers."""
        return [await future for future in [self.ask(command) for command in commands]]

    def send(self, packed: bytes) -> None:
        """Sends a command whose answers go to `push`."""
        if not self._reason and self._transport is not None:
            self._transport.write(packed)

    def drop(self, reason: str) -> None:
        """Breaks it. Whoever waits for an answer is told at once."""
        self._break(reason)
        if self._transport is not None:
            self._transport.abort()
        elif not self.lost.done():
            self.lost.set_result(reason)

    async def end(self, reason: str) -> None:
        """Breaks it and waits until its socket is closed."""
        self.drop(reason)
        await asyncio.shield(self.lost)

    def lose(self) -> None:
        """The loop has given it up while it came about, and closes it: not every loop tells of that."""
        self._transport = None

    # --- what the event loop calls ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Has the system look whether the other side is still there."""
        self._transport = stream = cast("asyncio.Transport", transport)  # uvloop's is none by its bases
        if self._reason:
            stream.abort()
        elif self.address.port:
            _keep_alive(transport.get_extra_info("socket"), self._timeout)

    def data_received(self, data: bytes) -> None:
        """Hands out what has come."""
        self.heard_at = self._clock.now()
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                self._take(reply)
        except hiredis.ProtocolError as fault:
            self.drop(f"it does not speak the protocol of Redis: {fault}")

    def resume_writing(self) -> None:
        """A large question has left: silence counts from now."""
        self.heard_at = self._clock.now()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells everybody."""
        self._break("it closed the connection" if exc is None else str(exc) or type(exc).__name__)
        if not self.lost.done():
            self.lost.set_result(self._reason)

    # --- inside -------------------------------------------------------------------------------------------------

    def _take(self, reply: Any) -> None:
        if self._push is not None and type(reply) is list and reply and reply[0] in _PUSHED:
            self._push(reply)
            return
        if not self._asked:
            self.drop(reply.text if isinstance(reply, Refusal) else "it sent what nobody asked for")
            return
        future = self._asked.popleft()
        if not future.done():
            future.set_result(reply)

    def _look(self) -> None:
        """Breaks the connection where an answer is overdue; looks again while any is awaited."""
        self._timer = None
        if not self._asked or self._transport is None:
            return
        now = self._clock.now()
        gone = self._written - self._transport.get_write_buffer_size()
        if gone > self._gone and self._transport.get_write_buffer_size():
            self.heard_at = now  # a large question on its way through a slow network
        self._gone = gone
        due = self.heard_at + self._timeout
        if now >= due:
            self.drop(f"it did not answer for {self._timeout:g} s")
        else:
            self._timer = self._clock.call_at(due, self._look)

    def _break(self, reason: str) -> None:
        self._reason = self._reason or reason
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        asked, self._asked = self._asked, deque()
        for future in asked:
            if not future.done():
                future.set_result(Lost(self._reason))


def _keep_alive(link: Any, timeout: float) -> None:
    """Has the system probe a connection that is idle, and give it up where nothing answers."""
    seconds = max(1, round(timeout))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": seconds, "TCP_KEEPINTVL": max(1, seconds // _PROBES), "TCP_KEEPCNT": _PROBES}
    for name, value in options.items():
        if (option := getattr(socket, name, None)) is not None:
            with contextlib.suppress(OSError):  # not every system has all of them
                link.setsockopt(socket.IPPROTO_TCP, option, value)
