"""What the commands share that ask a queue at a broker: its URL, and a member that only looks."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from lane_obs.distributed.nobody import NOBODY
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from lane_obs.distributed import Broker

VARIABLE: Final = "LANE_OBS_URL"
"""Where the URL comes from that was not given: what is on a command line, everybody on the machine can read."""

_WHERE: Final = f"such as redis://127.0.0.1:6379; default ${VARIABLE}."

Url = Annotated[str | None, typer.Argument(metavar="URL", help=f"Where the queue is, {_WHERE}", show_default=False)]
UrlOption = Annotated[
    str | None, typer.Option("--url", metavar="URL", help=f"Where the queue is, {_WHERE}", show_default=False)
]
Queue = Annotated[str, typer.Option("--queue", metavar="NAME", help="The queue's name.")]


class Place(NamedTuple):
    """Where a queue is: in a folder or at a URL."""

    folder: Path | None
    url: str
    queue: str


def to_url(url: str | None) -> str:
    """The URL that is meant.

    Raises:
        ConfigError: there is none.
    """
    found = url or os.environ.get(VARIABLE)
    if not found:
        raise ConfigError("URL", url, f"say where the queue is, here or in ${VARIABLE}: redis://127.0.0.1:6379")
    return found


def to_place(folder: Path | None, url: str | None, queue: str) -> Place:
    """Either a folder or a URL.

    Raises:
        ConfigError: both or neither were given.
    """
    if folder is not None and url is not None:
        raise ConfigError("--dir", str(folder), "give --dir or --url, not both")
    if folder is None and not (url or os.environ.get(VARIABLE)):
        raise ConfigError("--dir", folder, f"give --dir for a folder, or --url (or ${VARIABLE}) for a queue elsewhere")
    return Place(folder, "" if folder is not None else to_url(url), queue)


@asynccontextmanager
async def joined(url: str, queue: str) -> AsyncIterator[Broker]:
    """A member of the queue that names no lanes and runs nothing; how many partitions it has, the server knows.

    Raises:
        ConfigError: the URL or the name is none.
        BrokerError: the queue cannot be asked.
    """
    from lane_obs.distributed import PartitionedBroker, RedisBroker  # here: they load the client
    from lane_obs.distributed.redis.parts import PartitionNote

    broker: Broker
    count = await PartitionNote(url, queue).read()
    if count is None:
        broker = RedisBroker(url, queue=queue)
    else:
        broker = PartitionedBroker.of_redis(url, partitions=count, queue=queue)
    await broker.open({}, None, (), letters=1, work=False, listener=NOBODY)
    try:
        yield broker
    finally:
        await broker.close()
