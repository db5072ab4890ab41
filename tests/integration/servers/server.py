"""One real Redis or Valkey on loopback, with data of its own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hiredis

from tests.integration.services.process import Service, free_port, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.integration.servers.authority import Authority
    from tests.integration.servers.engine import Engine

SECONDS = 20.0
"""How long a server may take for what takes it less than one."""


class Server(Service):
    """A server in a private folder, which goes with it.

    Args:
        engine: which program.
        aof: `appendfsync` of its append-only file; empty for a server that keeps nothing on disk.
        replica_of: the master that it is to follow.
        cluster: whether it is a node of a cluster, so far alone.
        authority: makes it speak TLS only, with a certificate of this authority.
        config: more settings, by name.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        aof: str = "",
        replica_of: Server | None = None,
        cluster: bool = False,
        authority: Authority | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.engine = engine
        self.port = 0
        self.password = (config or {}).get("requirepass", "")
        self.directory = Path(tempfile.mkdtemp(prefix="lane-obs-server-"))
        self.bus_port = 0
        self.authority = authority
        self._cluster = cluster
        self._config = {
            "bind": "127.0.0.1",
            "save": "",
            "enable-debug-command": "yes",
            "repl-diskless-sync-delay": "0",
            "repl-ping-replica-period": "1",
            **({"appendonly": "yes", "appendfsync": aof} if aof else {}),
            **({"cluster-enabled": "yes", "cluster-node-timeout": "1000"} if cluster else {}),
            **({"replicaof": f"127.0.0.1 {replica_of.port}", "masterauth": replica_of.password} if replica_of else {}),
            **(config or {}),
        }

    def pick_ports(self) -> None:
        self.port = free_port()
        self.bus_port = free_port()

    def command(self) -> list[str]:
        ports = {"port": str(self.port)}
        if self.authority is not None:
            ports = {"port": "0", "tls-port": str(self.port), **self.authority.server_settings}
        if self._cluster:
            ports["cluster-port"] = str(self.bus_port)
        config = {**ports, "dir": str(self.directory), "unixsocket": str(self.socket_path), **self._config}
        words = [word for name, value in config.items() for word in (f"--{name}", *_words(name, value))]
        return [self.engine.binary, *words]

    def is_ready(self) -> bool:
        try:
            return self.ask("PING") in {b"PONG", "PONG"}
        except (OSError, hiredis.ReplyError):
            return False

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def socket_path(self) -> Path:
        """Its Unix socket."""
        return self.directory / "socket"

    @property
    def url(self) -> str:
        """Where it is, as `RedisBroker` takes it."""
        return self.url_of("", [self])

    def url_of(self, kind: str, nodes: Sequence[Server], path: str = "") -> str:
        """The URL of a group of servers, of which this is one or the one that they lead to."""
        secret = f":{self.password}@" if self.password else ""
        places = ",".join(f"127.0.0.1:{node.port}" for node in nodes) + path
        scheme = ("redis" if self.authority is None else "rediss") + (f"+{kind}" if kind else "")
        options = "" if self.authority is None else f"?ssl_ca_certs={self.authority.ca_file}"
        return f"{scheme}://{secret}{places}{options}"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def ask(self, *words: object, seconds: float = 10, user: str = "default", password: str = "") -> Any:
        """What it answers to a command, over a connection of its own, within so many seconds.

        Args:
            words: the command.
            seconds: how long it may take.
            user: who asks.
            password: that of the user; the server's own by default.

        Raises:
            hiredis.ReplyError: it answers with an error.
            OSError: it cannot be reached.
        """
        with contextlib.ExitStack() as open_sockets:
            link = open_sockets.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=seconds))
            if self.authority is not None:
                context = ssl.create_default_context(cafile=str(self.authority.ca_file))
                link = open_sockets.enter_context(context.wrap_socket(link, server_hostname="127.0.0.1"))
            if password or self.password:
                _exchange(link, "AUTH", user, password or self.password)
            return _exchange(link, *words)

    def info(self, section: str) -> dict[str, str]:
        """The fields of a section of INFO."""
        lines = self.ask("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def wait_for(self, check: Callable[[], bool], what: str) -> None:
        """Waits until the check holds. One that fails to reach the server does not: a Sentinel cuts what it demotes."""

        def holds() -> bool | None:
            with contextlib.suppress(OSError):
                return check() or None
            return None

        poll(holds, SECONDS, lambda: f"{what}; the server wrote:\n{self.text[-2000:]}")

    def wait_for_link(self) -> None:
        """Waits until this replica has its master's data and follows it."""
        self.wait_for(lambda: self.info("replication").get("master_link_status") == "up", "a replica in step")

    def kill(self) -> None:
        """Ends it at once, as `kill -9` does; `start` brings it back on its data and its port."""
        assert self._process is not None
        self._process.kill()
        self.stop()

    def freeze(self) -> None:
        """Stops its process where it stands: it answers nothing, and its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.thaw()
        super().stop()


def _words(name: str, value: str) -> list[str]:
    return value.split() if name == "replicaof" else [value]


def _exchange(link: socket.socket, *words: object) -> Any:
    link.sendall(hiredis.pack_command(tuple(word if isinstance(word, bytes) else str(word) for word in words)))
    reader = hiredis.Reader()
    while (reply := reader.gets()) is False:
        got = link.recv(65_536)
        if not got:
            raise ConnectionError("the server closed the connection")
        reader.feed(got)
    if isinstance(reply, Exception):
        raise reply
    return reply
