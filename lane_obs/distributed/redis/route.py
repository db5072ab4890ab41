"""Finds the server to speak to, and opens connections to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from lane_obs.distributed.redis.refusal import Lost, Refusal, Remedy
from lane_obs.distributed.redis.url import Address, Kind
from lane_obs.distributed.redis.wire import Wire, pack
from lane_obs.errors import BrokerError, LaneObsError, error_text

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from lane_obs.clock import Clock
    from lane_obs.distributed.redis.url import Target

    Push = Callable[[list[Any]], None] | None

_PING: Final = pack("PING")
_NAME: Final = pack("CLIENT", "SETNAME", "lane-obs")
_ROLE: Final = pack("ROLE")
_SLOTS: Final = pack("CLUSTER", "SLOTS")
_DENIALS: Final = frozenset({"NOAUTH", "ERR"})
_TOO_MANY: Final = "max number of clients"


class Unreachable(LaneObsError):
    """No connection came about. Trying again helps, unless the server denies it.

    Attributes:
        denied: whether the server answers, and does not let us in.
    """

    def __init__(self, reason: str, *, denied: bool = False) -> None:
        super().__init__(reason)
        self.denied = denied


class Route:
    """The way to the server that has the keys; it changes when a failover or a cluster moves them.

    Args:
        target: where to begin.
        clock: times it.
        timeout: seconds that each step may take.
    """

    def __init__(self, target: Target, clock: Clock, timeout: float) -> None:
        self._target = target
        self._clock = clock
        self._timeout = timeout
        self._nodes = list(target.addresses)  # in the order in which they are asked

    async def dial(self, push: Push = None) -> Wire:
        """Opens a connection to the server.

        Args:
            push: as for `Wire`.

        Raises:
            Unreachable: nothing that it knows of could be reached, or none is the right server.
        """
        faults: list[Unreachable] = []
        for node in tuple(self._nodes):
            try:
                if self._target.kind is not Kind.SENTINEL:
                    return await self._open(node, push)
                address = await self._ask_sentinel(node)
                self._prefer(node)
                return await self._open(address, push)
            except Unreachable as fault:
                faults.append(fault)
        told = "; ".join(dict.fromkeys(map(str, faults)))
        raise Unreachable(told, denied=any(fault.denied for fault in faults))

    def moved(self, wire: Wire, text: str) -> None:
        """Notes what a node of a cluster said: `MOVED slot host:port`; an empty host is that of the node itself.

        Raises:
            BrokerError: there should be no cluster.
        """
        if self._target.kind is not Kind.CLUSTER:
            raise BrokerError(f"{wire.address} is a node of a cluster: give its address as redis+cluster://")
        host, _, port = text.split(" ")[2].rpartition(":")
        self._prefer(Address(host or wire.address.host, int(port)))

    def _prefer(self, node: Address) -> None:
        if node in self._nodes:
            self._nodes.remove(node)
        self._nodes.insert(0, node)

    async def _open(self, address: Address, push: Push) -> Wire:
        target = self._target
        wire = await self._connect(address, target.username, target.password, target.db, push)
        try:
            if target.kind is Kind.CLUSTER:
                self._learn(wire, (await wire.ask_all([_SLOTS]))[0])
            else:
                await self._check_role(wire)
        except BaseException:
            await wire.end("it is not needed")
            raise
        return wire

    async def _check_role(self, wire: Wire) -> None:
        """Looks whether it is a master; a user without the right to ask that is let through.

        Raises:
            Unreachable: it is not.
        """
        role = (await wire.ask_all([_ROLE]))[0]
        if isinstance(role, list) and role and role[0] != b"master":
            raise Unreachable(f"{wire.address}: it is a {role[0].decode()} that takes no writes")

    def _learn(self, wire: Wire, slots: Any) -> None:
        """Notes the nodes of the cluster, so that it is found when the ones of the URL are gone."""
        if not isinstance(slots, list):
            return
        for _first, _last, *nodes in slots:
            for host, port, *_ in nodes:
                node = Address(host.decode() if host else wire.address.host, port)
                if node not in self._nodes and node.host != "?":
                    self._nodes.append(node)

    async def _ask_sentinel(self, node: Address) -> Address:
        target = self._target
        wire = await self._connect(node, target.sentinel_username, target.sentinel_password)
        try:
            answer = (await wire.ask_all([pack("SENTINEL", "GET-MASTER-ADDR-BY-NAME", target.service)]))[0]
        finally:
            await wire.end("it has answered")
        if isinstance(answer, list):
            return Address(answer[0].decode(), int(answer[1]))
        said = _reason(answer) if answer is not None else f"it knows no master {target.service!r}"
        raise Unreachable(f"Sentinel {node}: {said}")

    async def _connect(self, address: Address, username: str, password: str, db: int = 0, push: Push = None) -> Wire:
        wire = Wire(address, self._clock, self._timeout, push)
        try:
            await self._in_time(self._connection(wire))
            await self._greet(wire, username, password, db)
        except (OSError, UnicodeError) as fault:  # a host name that cannot be encoded is a UnicodeError
            await wire.end("it is not needed")
            raise Unreachable(f"{address}: {error_text(fault) or type(fault).__name__}") from fault
        except BaseException:
            await wire.end("it is not needed")
            raise
        return wire

    async def _connection(self, wire: Wire) -> None:
        try:
            await self._made(wire)
        except BaseException:
            wire.lose()
            raise

    async def _made(self, wire: Wire) -> None:
        loop, address, tls = asyncio.get_running_loop(), wire.address, self._target.tls
        if not address.port:
            await loop.create_unix_connection(lambda: wire, address.host)
        elif tls is None:
            await loop.create_connection(lambda: wire, address.host, address.port)
        else:
            await loop.create_connection(
                lambda: wire, address.host, address.port, ssl=tls, server_hostname=address.host
            )

    async def _in_time(self, work: Coroutine[Any, Any, None]) -> None:
        """Awaits it for so long.

        Raises:
            TimeoutError: it took longer.
        """
        task = asyncio.get_running_loop().create_task(work)
        timer = self._clock.call_at(self._clock.now() + self._timeout, task.cancel)
        try:
            await asyncio.wait([task])
        finally:
            timer.cancel()
            task.cancel()  # where this is itself cancelled
            await asyncio.wait([task])
        if task.cancelled():
            raise TimeoutError(f"no connection within {self._timeout:g} s")
        task.result()

    @staticmethod
    async def _greet(wire: Wire, username: str, password: str, db: int) -> None:
        """Logs in; leaves with a connection that takes commands.

        Raises:
            Unreachable: it does not.
        """
        commands = [pack("AUTH", *filter(None, (username, password)))] if password else []
        if db:
            commands.append(pack("SELECT", db))
        answers = await wire.ask_all([*commands, _PING, _NAME])
        for answer in answers[:-1]:  # a user without the right to set a name does without
            _check(wire.address, answer)


def _check(address: Address, answer: Any) -> None:
    """Looks whether a greeting was answered well.

    Raises:
        Unreachable: it was not.
    """
    if isinstance(answer, Lost):
        raise Unreachable(f"{address}: {answer.reason}")
    # A server that takes no writes refuses even PING; what is asked of it then says so by itself.
    if isinstance(answer, Refusal) and answer.remedy is not Remedy.GIVE_UP:
        denied = answer.remedy is Remedy.DENIED or (answer.code in _DENIALS and _TOO_MANY not in answer.text)
        raise Unreachable(f"{address}: {answer.text}", denied=denied)


def _reason(answer: Any) -> str:
    return answer.reason if isinstance(answer, Lost) else answer.text if isinstance(answer, Refusal) else repr(answer)
