"""Brokers of every kind, each test with a queue of its own."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs.distributed import LocalBroker
from tests.integration.servers.engine import ENGINES, require_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lane_obs.distributed import Broker
    from tests.integration.servers.server import Server

_numbers = itertools.count()


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[dict[str, Server]]:
    """The servers that are running, by engine."""
    running: dict[str, Server] = {}
    yield running
    for one in running.values():
        one.__exit__()


@pytest.fixture(params=["local", *ENGINES])
def join(request: pytest.FixtureRequest, shared_servers: dict[str, Server]) -> Callable[..., Broker]:
    """Makes a member of this test's queue, with the options of its broker."""
    queue = f"test-{os.getpid()}-{next(_numbers)}"
    if request.param == "local":
        return _local(queue)
    if request.param not in shared_servers:
        from tests.integration.servers.server import Server

        shared_servers[request.param] = Server(require_engine(request.param)).__enter__()
    return _on(shared_servers[request.param], queue)


def _local(queue: str) -> Callable[..., Broker]:
    first: list[LocalBroker] = []

    def member(**options: Any) -> Broker:
        if not first:
            first.append(LocalBroker(queue, **options))
            return first[0]
        return first[0].join(concurrency=options.get("concurrency"))

    return member


def _on(server: Server, queue: str) -> Callable[..., Broker]:
    from lane_obs.distributed import RedisBroker

    def member(**options: Any) -> Broker:
        return RedisBroker(server.url, queue=queue, **options)

    return member
