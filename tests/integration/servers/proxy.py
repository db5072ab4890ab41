"""A proxy between a program and its server that does to connections what networks do."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from tests.integration.services.process import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

_Given = TypeVar("_Given")


class Proxy:
    """Forwards a port of loopback to another one. Use it as a context manager.

    It runs on an event loop in a thread of its own, so that a test may block its own loop. All methods may be called
    from any thread and return once it is done.

    Args:
        to_port: where it forwards to.
    """

    def __init__(self, to_port: int) -> None:
        self.port = 0
        self.accepted = 0
        """Connections so far."""
        self._to_port = to_port
        self._delay_seconds = 0.0
        self._silent = False
        self._replies_left: int | None = None
        self._fresh_to_cut = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._unclosed: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()
        self._pumps: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = free_port()
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """A server without password and TLS behind it, as `RedisBroker` takes it."""
        return f"redis://127.0.0.1:{self.port}"

    def refuse(self) -> None:
        """Takes no more connections; those there are go on."""
        self._call(self._unlisten())

    def accept(self) -> None:
        """Takes connections, at the port it has always had."""
        self._call(self._listen())

    def cut(self) -> int:
        """Breaks all connections; returns how many there were."""
        return self._do(self._cut)

    def cut_reply_after(self, count: int) -> None:
        """Breaks all connections once so many more bytes of replies have passed."""
        self._do(lambda: setattr(self, "_replies_left", count))

    def cut_fresh(self, count: int) -> None:
        """Breaks each of the next connections after its first answer: connected, but no more."""
        self._do(lambda: setattr(self, "_fresh_to_cut", count))

    def silence(self, *, silent: bool = True) -> None:
        """Swallows all that comes, both ways, and keeps the connections; with `False` it forwards again."""
        self._do(lambda: setattr(self, "_silent", silent))

    def delay(self, seconds: float) -> None:
        """Holds back what comes, each way."""
        self._do(lambda: setattr(self, "_delay_seconds", seconds))

    def lead_to(self, port: int) -> None:
        """Leads new connections to another port."""
        self._do(lambda: setattr(self, "_to_port", port))

    # --- in its thread ------------------------------------------------------------------------------------------

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _do(self, work: Callable[[], _Given]) -> _Given:
        async def on_loop() -> _Given:
            return work()

        return self._call(on_loop())  # type: ignore[no-any-return]

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _unlisten(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            # A connection that is being accepted while the server closes is neither served nor closed.
            for listener in server.sockets:
                self._loop.remove_reader(listener.fileno())
            await self._turn()
            server.close()

    async def _close(self) -> None:
        await self._unlisten()
        await self._turn()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:  # some are still being accepted
            self._cut()
            await asyncio.wait(others)
            await self._turn()
        for writer in self._unclosed:  # some have bytes for a peer that reads no more
            writer.transport.abort()
        await self._turn()

    @staticmethod
    async def _turn() -> None:
        """Lets the loop do what it was asked to do."""
        for _ in range(3):
            await asyncio.sleep(0)

    def _cut(self) -> int:
        count = len(self._open) // 2
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()
        for pump in self._pumps:
            pump.cancel()
        return count

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            writer.transport.abort()
            return
        fresh, self._fresh_to_cut = self._fresh_to_cut > 0, max(0, self._fresh_to_cut - 1)
        self._open |= {writer, back}
        self._unclosed |= {writer, back}
        for pump in (self._pump(reader, back), self._pump(there, writer, replies=True, fresh=fresh)):
            task = self._loop.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, replies: bool = False, fresh: bool = False
    ) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    if self._delay_seconds:
                        await asyncio.sleep(self._delay_seconds)
                    if self._silent:
                        continue
                    last = replies and self._replies_left is not None and self._replies_left <= len(data)
                    sink.write(data[: self._replies_left] if last else data)
                    await sink.drain()
                    if last:
                        self._replies_left = None
                        self._end_all()
                    elif replies and self._replies_left is not None:
                        self._replies_left -= len(data)
                    if fresh:
                        return
        finally:
            self._open.discard(sink)
            sink.close()

    def _end_all(self) -> None:
        """Ends all connections, with what was written before."""
        for writer in self._open:
            writer.close()
        self._open.clear()
