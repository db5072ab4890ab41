"""What a child and its supervisor tell each other: over a pair of sockets, each message behind its length.

The end of it is a message, too: it comes when the other process is gone, however it went.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_LENGTH_BYTES: Final = 4
_SEND_SECONDS: Final = 5.0
_CLOSE: Final = b"c"


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The queue is started.

    Attributes:
        url: where the child serves its pages.
        drain_seconds: how long a drain may take.
    """

    url: str
    drain_seconds: float


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It cannot start.

    Attributes:
        error: why, in words.
        final: whether trying again is no use.
    """

    error: str
    final: bool


class LastWords(msgspec.Struct, frozen=True, tag="last_words"):
    """All metrics, as they are when the queue is closed."""

    text: str


class Left(msgspec.Struct, frozen=True, tag="left"):
    """The queue is closed; so many commands it had to leave."""

    commands: int


Message: TypeAlias = Ready | Refused | LastWords | Left

_decoder = msgspec.msgpack.Decoder(Message)


class Channel:
    """The child's end.

    Args:
        descriptor: of the socket that the supervisor gave it.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)  # what the app starts must not keep it open
        self._socket.settimeout(_SEND_SECONDS)

    def send(self, message: Message) -> None:
        """Tells the supervisor; one that is gone, or stopped, is told nothing."""
        data = msgspec.msgpack.encode(message)
        with contextlib.suppress(OSError):
            self._socket.sendall(len(data).to_bytes(_LENGTH_BYTES, "big") + data)

    def listen(self, on_close: Callable[[], object], on_gone: Callable[[], object]) -> None:
        """Calls `on_close` in the running loop when it is to end at once, `on_gone` when the supervisor has died."""
        loop = asyncio.get_running_loop()

        def read() -> None:
            try:
                heard = self._socket.recv(1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                heard = b""
            if heard == _CLOSE:
                on_close()
            else:
                loop.remove_reader(self._socket)
                on_gone()

        loop.add_reader(self._socket, read)

    def unlisten(self) -> None:
        """Listens no more; there may still be something to tell."""
        asyncio.get_running_loop().remove_reader(self._socket)


class Line:
    """The supervisor's end.

    Args:
        reader, writer: of its socket.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def messages(self) -> AsyncIterator[Message]:
        """What the child tells, until it is gone."""
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, msgspec.MsgspecError):
            while True:
                length = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
                yield _decoder.decode(await self._reader.readexactly(length))

    def close_now(self) -> None:
        """Tells the child to end at once."""
        self._writer.write(_CLOSE)

    def close(self) -> None:
        """Ends it."""
        self._writer.close()
