"""Fixtures of real servers; every test that uses `engine` runs on both Redis and Valkey."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.servers.engine import ENGINES, Engine, require_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.servers.server import Server


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Redis 7, then Valkey 9."""
    return require_engine(request.param)


@pytest.fixture(scope="session")
def _one_server(engine: Engine) -> Iterator[Server]:
    from tests.integration.servers.server import Server

    with Server(engine) as running:
        yield running


@pytest.fixture
def server(_one_server: Server) -> Server:
    """An empty server, which tests share one after the other: do not stop it or change its settings."""
    _one_server.ask("FLUSHALL")
    return _one_server


@pytest.fixture
def start_server(engine: Engine) -> Iterator[Callable[..., Server]]:
    """Starts a server of this test's own, with the options of `Server`."""
    from tests.integration.servers.server import Server

    with contextlib.ExitStack() as running:

        def start(**options: Any) -> Server:
            return running.enter_context(Server(engine, **options))

        yield start
