"""The built-in server: the app in a thread with its own event loop, which answers while the queue's is blocked."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import logging
import os
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from lane_obs.config import to_count, to_seconds
from lane_obs.errors import ConfigError
from lane_obs.http.app import create_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

    from lane_obs.config import Duration
    from lane_obs.events import LaneEvent
    from lane_obs.runtime.queue import CommandQueue

_MAX_PORT: Final = 65_535
_BACKLOG: Final = 128
# An answer under way when the server is closed has this long; the thread a little longer.
_GRACE: Final = 1.0
_CLOSE_TIMEOUT: Final = 3.0
_logger = logging.getLogger("lane_obs.http")


class MetricsServer:
    """Serves `/metrics`, `/livez`, `/readyz` and `/stats` of the queue that it is given to as a sink.

    The port is taken when the queue starts and is free again when the queue is closed. It installs no signal
    handlers and logs no requests.

    Args:
        port: TCP port; 0 for any free one.
        host: address to listen on. Whoever reaches it can read everything that the four pages show.
        registry: what `/metrics` shows; by default prometheus_client's own `REGISTRY`.
        stale_after: for how many seconds the queue's event loop may owe an answer before `/livez` fails.

    Raises:
        ConfigError: a bad value.
    """

    wants: Final = ()

    def __init__(
        self,
        port: int = 9464,
        host: str = "127.0.0.1",
        registry: CollectorRegistry | None = None,
        *,
        stale_after: Duration = 10.0,
    ) -> None:
        check_address(port, host)
        self._port, self._host = port, host
        self._registry = registry
        self._stale_after = to_seconds("stale_after", stale_after)
        self._queue: CommandQueue | None = None
        self._running: Running | None = None
        self.failures_in_a_row = 0

    @property
    def port(self) -> int:
        """The port that it listens on; before the start, and after the end, the one that it was given."""
        return self._port if self._running is None else self._running.port

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return url_of(self._host, self.port)

    def attach(self, queue: CommandQueue) -> None:
        """Takes the queue to serve.

        Raises:
            ConfigError: it serves another one.
        """
        if self._running is not None and self._queue is not queue:
            raise ConfigError("sinks", self, "it serves another queue; give each queue a MetricsServer")
        self._queue = queue

    def start(self) -> None:
        """Listens and serves; calling it again does nothing.

        Raises:
            ConfigError: the port is in use or not allowed, the host is not this machine's, or it has no queue.
        """
        if self._running is not None:
            return
        if self._queue is None:
            raise ConfigError("sinks", self, "give it to a queue, as one of its sinks")
        app = create_app(self._queue, registry=self._registry, stale_after=self._stale_after)
        listener = listen(self._host, self._port)
        try:
            self._running = Running(app, listener)
        except BaseException:  # no more threads, say
            listener.close()
            raise

    def handle(self, events: Sequence[LaneEvent]) -> None:
        """Does nothing: all it shows is read when it is asked for."""

    def take_failure(self) -> Exception | None:
        """Nothing: there are no batches to fail at."""
        return None

    def close(self) -> None:
        """Ends the server and its thread and frees the port; waits for answers under way, for a second or so."""
        running, self._running = self._running, None
        if running is not None:
            running.close()


class Running:
    """A server from its start to its end.

    Args:
        app: what it serves.
        listener: where.

    Attributes:
        port: the one that it listens on.
    """

    def __init__(self, app: Any, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]
        self._listener = listener
        # With `log_config` and `log_level` None, uvicorn leaves the configuration of logging alone. `access_log=False`
        # would take the handlers off its logger, which another server in this process may use.
        config = uvicorn.Config(
            app, http=_Protocol, ws="none", lifespan="off", log_config=None, log_level=None, server_header=False,
            date_header=False,
        )  # fmt: skip
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._run, name="lane-obs-http", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        ident = threading.get_ident()

        def is_worth_it(record: logging.LogRecord) -> bool:
            """Lets uvicorn's errors through, and whatever other servers of this process log."""
            return record.thread != ident or record.levelno >= logging.ERROR

        log = logging.getLogger("uvicorn.error")
        log.addFilter(is_worth_it)
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._server.serve([self._listener]))
        except Exception as error:
            _logger.exception("the metrics server has failed", exc_info=error)
        finally:
            log.removeFilter(is_worth_it)
            self._listener.close()

    def close(self) -> None:
        """Ends it; waits for answers under way, for a second or so."""
        self._server.ask_to_end()
        # Bounded, whatever uvicorn waits for: the thread is a daemon and the port is free by then.
        self._thread.join(_CLOSE_TIMEOUT)


class _Server(uvicorn.Server):
    """A server that sleeps until it is told to end, and then ends at once; uvicorn's own looks around now and then."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._end: concurrent.futures.Future[None] = concurrent.futures.Future()

    def ask_to_end(self) -> None:
        """Ends `serve`; for other threads."""
        if not self._end.done():
            self._end.set_result(None)

    async def main_loop(self) -> None:
        """Waits for the end."""
        await asyncio.wrap_future(self._end)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes what listens and what is idle, and lets answers under way come to their end for a while.

        Those that do not are cancelled with everything else when the loop is closed.
        """
        for listening in self.servers:
            listening.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if self.server_state.tasks:
            await asyncio.wait(list(self.server_state.tasks), timeout=_GRACE)


class _Protocol(H11Protocol):
    """HTTP/1.1 without a log of requests."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.access_log = False


def check_address(port: int, host: str) -> None:
    """Checks where to listen.

    Raises:
        ConfigError: a port or a host that is none.
    """
    if to_count("port", port) > _MAX_PORT:
        raise ConfigError("port", port, f"give 1 to {_MAX_PORT}, or 0 for any free port")
    if not isinstance(host, str) or not host.strip():
        raise ConfigError("host", host, "give an address to listen on, such as 127.0.0.1")


def url_of(host: str, port: int) -> str:
    """The URL of a server, without a slash at the end."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """Takes the port.

    Raises:
        ConfigError: it cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError("host", host, f"give an address of this machine ({error})") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # a port whose old connections linger may be taken; elsewhere it means another thing
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.settimeout(0)
    except OSError as error:
        listener.close()
        raise ConfigError(*_refusal(host, port, error)) from error
    return listener


def _refusal(host: str, port: int, error: OSError) -> tuple[str, object, str]:
    """The field that is to blame, its value, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return "port", port, f"it is in use on {host}; give a free one, or 0 for any"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "port", port, f"this user may not listen on it; give one of 1024 to {_MAX_PORT}, or 0 for any free one"
    return "host", host, f"give an address of this machine ({error})"
