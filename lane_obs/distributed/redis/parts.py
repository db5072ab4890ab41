"""A queue in partitions at Redis: each has a hash tag of its own, and one key says how many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lane_obs.config.check import to_seconds
from lane_obs.distributed.redis.broker import RedisBroker
from lane_obs.distributed.redis.keys import Keys
from lane_obs.distributed.redis.link import Link
from lane_obs.distributed.redis.program import load
from lane_obs.errors import BrokerMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Part(RedisBroker):
    """A member of one partition, known by the same name in all of them."""

    _known_as = ""

    def _get_ready(self) -> None:
        super()._get_ready()
        if self._known_as:
            self._session.member = self._known_as

    def call(self, name: str) -> None:
        """Has it known by a name."""
        self._known_as = self._session.member = name

    @property
    def name(self) -> str:
        """What it is known by."""
        return self._session.member


def make_parts(url: str, count: int, queue: str, options: Mapping[str, Any]) -> list[RedisBroker]:
    """The brokers of all partitions of a queue.

    Raises:
        ConfigError: a value outside its range, with its name.
    """
    Keys(queue)  # checks the name as it was given
    parts = [_Part(url, queue=f"{queue}.{number}of{count}", **options) for number in range(count)]
    for part in parts:
        part.call(parts[0].name)
    return list(parts)


class PartitionNote:
    """What a server knows of the number of a queue's partitions.

    Args:
        url: where it is.
        queue: the queue's name.
        timeout: seconds that the server may take.
    """

    def __init__(self, url: str, queue: str, timeout: float = 5.0) -> None:
        self._url = url
        self._queue = queue
        self._timeout = to_seconds("timeout", timeout)

    async def read(self) -> int | None:
        """How many partitions the queue has; `None` where it has never been in partitions.

        Raises:
            BrokerUnavailable: the server cannot be reached.
        """
        return await self._ask("")

    async def check(self, count: int, *, looks: bool) -> None:
        """Takes note of the number of partitions, unless it is known, and compares.

        Args:
            count: how many the caller has.
            looks: whether the caller only looks, and so leaves no note.

        Raises:
            BrokerMismatch: it is another one.
            BrokerUnavailable: the server cannot be reached.
        """
        found = await self._ask("" if looks else str(count))
        if found not in {None, count}:
            text = f"queue {self._queue!r} has {found} partitions, and this process asks for {count}"
            raise BrokerMismatch(f"{text}; give {found}, or empty the queue and delete the key {self._keys()[0]!r}")

    async def _ask(self, count: str) -> int | None:
        program, keys = load("partitions"), self._keys()
        link = Link(self._url, timeout=self._timeout)
        await link.connect()
        try:
            found = await link.run(program.script, keys, [count], wait=self._timeout)
        finally:
            await link.close()
        return None if found is None else int(found)

    def _keys(self) -> tuple[str, ...]:
        return Keys(self._queue).of(load("partitions").keys, "nobody")
