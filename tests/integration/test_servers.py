"""The test servers do what tests of the distributed queue ask of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hiredis
import pytest

from tests.integration.servers.authority import make_authority
from tests.integration.servers.cluster import Cluster
from tests.integration.servers.sentinel import Watched

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.servers.engine import Engine
    from tests.integration.servers.server import Server


def test_a_killed_server_comes_back_with_its_append_only_file(start_server: Any) -> None:
    server = start_server(aof="always")
    server.ask("SET", "kept", "1")
    port = server.port
    server.kill()
    with pytest.raises(OSError, match="refused"):
        server.ask("PING")
    server.start()
    assert (server.ask("GET", "kept"), server.port) == (b"1", port)


def test_a_frozen_server_is_silent_and_goes_on_where_it_stood(start_server: Any) -> None:
    server = start_server()
    server.freeze()
    with pytest.raises(TimeoutError):
        server.ask("PING", seconds=0.05)
    server.thaw()
    assert server.ask("PING") in {b"PONG", "PONG"}


def test_a_replica_follows_its_master(server: Server, start_server: Any) -> None:
    server.ask("SET", "kept", "1")
    replica = start_server(replica_of=server)
    replica.wait_for_link()
    assert replica.ask("GET", "kept") == b"1"
    with pytest.raises(hiredis.ReplyError, match="READONLY"):
        replica.ask("SET", "kept", "2")


def test_a_cluster_promotes_a_replica_and_moves_a_slot(engine: Engine) -> None:
    with Cluster(engine, replicas=1) as cluster:
        old = cluster.owner("{q}:a")
        old.ask("SET", "{q}:a", "1")
        new = cluster.replica_of(old)
        cluster.promote(new)
        assert cluster.owner("{q}:a") is new
        other = next(node for node in cluster.masters if node is not old)
        cluster.move_slot("{q}:a", other)
        assert cluster.owner("{q}:a") is other
        assert other.ask("GET", "{q}:a") == b"1"


def test_sentinels_make_the_replica_the_master_when_that_is_killed(engine: Engine) -> None:
    with Watched(engine, sentinels=3) as watched:
        watched.master.ask("SET", "kept", "1")
        watched.replica.wait_for(lambda: watched.replica.ask("GET", "kept") == b"1", "the replica in step")
        heir = watched.replica
        watched.fail_over()
        assert watched.master is heir
        assert heir.ask("GET", "kept") == b"1"


def test_a_server_with_a_password_and_tls(start_server: Any, tmp_path: Path, engine: Engine) -> None:
    if not engine.has_tls:
        pytest.skip("the wheel's Valkey is built without TLS")
    server = start_server(authority=make_authority(tmp_path), config={"requirepass": "s3cret"})
    assert server.url.startswith("rediss://:s3cret@127.0.0.1:")
    assert server.ask("PING") in {b"PONG", "PONG"}
