"""A master, its replica and the Sentinels that watch them, on loopback."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from tests.integration.servers.server import SECONDS, Server
from tests.integration.services.process import free_port, poll

if TYPE_CHECKING:
    from typing import Self

    from tests.integration.servers.engine import Engine

SERVICE = "lanes"
"""What the Sentinels call the master."""


class Sentinel(Server):
    """One Sentinel."""

    def __init__(self, engine: Engine, master: Server, quorum: int) -> None:
        super().__init__(engine, authority=master.authority)
        self.password = f"sentinel-{master.password}" if master.password else ""
        self._master = master
        self._quorum = quorum

    def pick_ports(self) -> None:
        self.port = free_port()
        tls = {} if self.authority is None else {**self.authority.server_settings, "tls-port": str(self.port)}
        lines = [
            f"port {0 if tls else self.port}",
            *(f"{name} {value}" for name, value in tls.items() if name != "tls-cluster"),
            "bind 127.0.0.1",
            f'dir "{self.directory}"',
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._master.port} {self._quorum}",
            f"sentinel down-after-milliseconds {SERVICE} 500",
            f"sentinel failover-timeout {SERVICE} 3000",
        ]
        if self.password:
            lines += [f"requirepass {self.password}", f"sentinel auth-pass {SERVICE} {self._master.password}"]
        (self.directory / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        return [self.engine.binary, str(self.directory / "sentinel.conf"), "--sentinel"]

    def master_port(self) -> int:
        """Where it takes the master to be."""
        return int(self.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])


class Watched:
    """A master with a replica and Sentinels. Use it as a context manager.

    Args:
        engine: which program.
        sentinels: how many; most of them have to agree that the master is down.
        options: of each `Server`.
    """

    def __init__(self, engine: Engine, *, sentinels: int = 1, **options: Any) -> None:
        self.master = Server(engine, **options)
        self._engine = engine
        self._options = options
        self._count = sentinels
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            starting.enter_context(self.master)
            self.replica = starting.enter_context(Server(self._engine, replica_of=self.master, **self._options))
            self.replica.wait_for_link()
            quorum = self._count // 2 + 1
            self.sentinels = [
                starting.enter_context(Sentinel(self._engine, self.master, quorum)) for _ in range(self._count)
            ]
            poll(lambda: all(map(self._knows_all, self.sentinels)) or None, SECONDS, lambda: "Sentinels that know all")
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @property
    def url(self) -> str:
        """Where it is, as `RedisBroker` takes it."""
        url = self.master.url_of("sentinel", self.sentinels, f"/{SERVICE}/0")
        secret = self.sentinels[0].password
        return url + (f"{'&' if '?' in url else '?'}sentinel_password={secret}" if secret else "")

    def fail_over(self) -> None:
        """Kills the master and waits until the replica is the master; `replica` and `master` change places."""
        self.master.kill()
        heir = self.replica
        poll(lambda: self._follow(heir), SECONDS, lambda: f"a failover; a Sentinel wrote:\n{self.sentinels[0].text}")
        self.master, self.replica = heir, self.master

    def _follow(self, heir: Server) -> bool | None:
        told = all(sentinel.master_port() == heir.port for sentinel in self.sentinels)
        return (told and heir.ask("ROLE")[0] == b"master") or None

    def _knows_all(self, sentinel: Sentinel) -> bool:
        words = sentinel.ask("SENTINEL", "MASTER", SERVICE)
        known = dict(zip(words[::2], words[1::2], strict=True))
        return int(known[b"num-slaves"]) == 1 and int(known[b"num-other-sentinels"]) == self._count - 1
