"""A real cluster of Redis or Valkey on loopback."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from tests.integration.servers.server import SECONDS, Server
from tests.integration.services.process import poll

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from tests.integration.servers.engine import Engine

_SLOTS = 16_384


class Cluster:
    """Masters that share the slots among them, each with as many replicas. Use it as a context manager.

    Args:
        engine: which program.
        masters: how many.
        replicas: of each master.
        options: of each `Server`.
    """

    def __init__(self, engine: Engine, *, masters: int = 3, replicas: int = 0, **options: Any) -> None:
        self.masters = [Server(engine, cluster=True, **options) for _ in range(masters)]
        self.replicas = [Server(engine, cluster=True, **options) for _ in range(masters * replicas)]
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            for node in self.nodes:
                starting.enter_context(node)
            self._join()
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @property
    def nodes(self) -> list[Server]:
        """All servers."""
        return [*self.masters, *self.replicas]

    @property
    def url(self) -> str:
        """Where it is, as `RedisBroker` takes it."""
        return self.url_of(self.nodes)

    @staticmethod
    def url_of(nodes: Sequence[Server]) -> str:
        """The same with some of its nodes only."""
        return nodes[0].url_of("cluster", nodes)

    def owner(self, key: str) -> Server:
        """The master that has this key."""
        alive = self._alive()
        slot = alive[0].ask("CLUSTER", "KEYSLOT", key)

        def agreed() -> Server | None:
            ports = {_owner_port(node, slot) for node in alive}
            return next((node for node in alive if {node.port} == ports), None)

        return poll(agreed, SECONDS, lambda: f"nodes that agree on the slot {slot}")

    def replica_of(self, master: Server) -> Server:
        """A replica of this master."""
        for node in self.replicas:
            role = node.ask("ROLE")
            if role[0] == b"slave" and role[2] == master.port:
                return node
        raise AssertionError(f"{master.port} has no replica")

    def promote(self, replica: Server) -> None:
        """Makes a replica the master, with nothing lost, and waits until it is."""
        replica.wait_for_link()
        replica.ask("CLUSTER", "FAILOVER")
        replica.wait_for(lambda: replica.ask("ROLE")[0] == b"master", "a replica made master")
        slots = replica.ask("CLUSTER", "SLOTS")
        slot = next(first for first, _, (_, port, *_), *_ in slots if port == replica.port)
        poll(
            lambda: all(_owner_port(node, slot) == replica.port for node in self._alive()) or None,
            SECONDS,
            lambda: "all know",
        )

    def move_slot(self, key: str, to: Server) -> None:
        """Moves the slot of a key, and all that is in it, to another master; nodes learn of it as they do in life."""
        source = self.owner(key)
        slot = source.ask("CLUSTER", "KEYSLOT", key)
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", _node_id(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", _node_id(to))
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.ask("MIGRATE", "127.0.0.1", to.port, "", 0, 5_000, "KEYS", *keys)
        for node in (to, source):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", _node_id(to))

    def _join(self) -> None:
        count = len(self.masters)
        first, *others = self.nodes
        for number, node in enumerate(self.masters):
            node.ask("CLUSTER", "ADDSLOTSRANGE", number * _SLOTS // count, (number + 1) * _SLOTS // count - 1)
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in others:
            node.ask("CLUSTER", "MEET", "127.0.0.1", first.port, first.bus_port)
        self._wait(lambda node: node.ask("CLUSTER", "INFO").count(b"cluster_known_nodes:%d\r" % len(self.nodes)))
        for number, replica in enumerate(self.replicas):
            replica.ask("CLUSTER", "REPLICATE", _node_id(self.masters[number % count]))
        self._wait(lambda node: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"))
        for replica in self.replicas:
            replica.wait_for_link()

    def _wait(self, check: Any) -> None:
        poll(lambda: all(check(node) for node in self.nodes) or None, SECONDS, lambda: "a cluster that agrees")

    def _alive(self) -> list[Server]:
        return [node for node in self.nodes if node.is_ready()]


def _owner_port(node: Server, slot: int) -> int | None:
    for first, last, (_, port, *_), *_ in node.ask("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return int(port)
    return None


def _node_id(node: Server) -> str:
    return str(node.ask("CLUSTER", "MYID").decode())
