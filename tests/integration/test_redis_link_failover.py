"""The link through failovers: Sentinels and clusters of real servers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs.distributed.redis.link import Link, Script
from lane_obs.errors import BrokerError, BrokerRefused, BrokerUnavailable
from tests.integration.servers import links
from tests.integration.servers.authority import make_authority
from tests.integration.servers.cluster import Cluster
from tests.integration.servers.sentinel import Watched
from tests.integration.servers.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.servers.engine import Engine

ADD = Script("add", "return redis.call('SADD', KEYS[1], ARGV[1]) + redis.call('SCARD', KEYS[2])")
PUBLISH = Script("publish", "redis.call('INCR', KEYS[1]) return redis.call('PUBLISH', ARGV[1], ARGV[2])")
connected = functools.partial(links.connected, timeout=2.0)
SAID, KEYS = "{lane_obs:q}:said", ["{lane_obs:q}:set", "{lane_obs:q}:other"]


class Ear:
    """Listens with a link, and waits until it hears."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.heard: list[bytes] = []
        self.subscribed = 0
        link.subscribe(["{lane_obs:q}:ear"], self.heard.append, self._count)

    def _count(self) -> None:
        self.subscribed += 1

    async def hears(self, text: str) -> None:
        """Publishes until it was heard: what is published while nobody listens is lost."""
        for _ in range(200):
            await self.link.run(PUBLISH, [SAID], ["{lane_obs:q}:ear", text], wait=None)
            with contextlib.suppress(AssertionError):
                await until(lambda: text.encode() in self.heard, 0.1)
                return
        raise AssertionError(f"{text} was not heard")


@pytest.mark.both_loops
async def test_sentinels_lead_to_the_new_master(engine: Engine) -> None:
    with Watched(engine, sentinels=3) as watched:
        async with connected(watched.url) as link:
            ear = Ear(link)
            await link.run(ADD, KEYS, ["before"], wait=5)
            await ear.hears("before")
            calls = [asyncio.ensure_future(link.run(ADD, KEYS, [f"during {n}"], wait=None)) for n in range(50)]
            await asyncio.to_thread(watched.fail_over)
            await asyncio.gather(*calls)
            await ear.hears("after")
            assert {b"during %d" % n for n in range(50)} <= set(watched.master.ask("SMEMBERS", KEYS[0]))
            watched.sentinels[0].kill()
            watched.replica.start()  # the old master is back, and takes itself for one until it is told
            await link.run(ADD, KEYS, ["at last"], wait=None)
            assert b"at last" in watched.master.ask("SMEMBERS", KEYS[0])


async def test_sentinels_that_do_not_know_the_master_say_so(engine: Engine) -> None:
    with Watched(engine) as watched:
        with pytest.raises(BrokerUnavailable, match="knows no master 'other'"):
            await Link(watched.url.replace("/lanes/", "/other/"), timeout=0.2).connect()
        port = watched.sentinels[0].port
        nowhere = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/lanes"
        async with connected(nowhere) as link:  # one that is down does not matter
            await link.run(ADD, KEYS, ["x"], wait=5)


async def test_a_cluster_is_entered_at_any_node_and_keys_are_followed(engine: Engine) -> None:
    with Cluster(engine) as cluster:
        told: list[bool] = []
        for node in cluster.nodes:
            async with connected(cluster.url_of([node]), on_state=lambda up, _: told.append(up)) as link:
                ear = Ear(link)
                assert await link.run(ADD, KEYS, [node.port], wait=5) == 1
                await ear.hears(f"at {node.port}")
        assert told == []  # to be led to another node is no trouble
        owner = cluster.owner(KEYS[0])
        assert owner.ask("SCARD", KEYS[0]) == 3
        other = next(node for node in cluster.nodes if node is not owner)
        async with connected(cluster.url) as link:
            ear = Ear(link)
            calls = [asyncio.ensure_future(link.run(ADD, KEYS, [n], wait=None)) for n in range(50)]
            await asyncio.to_thread(cluster.move_slot, KEYS[0], other)
            await asyncio.gather(*calls)
            await link.run(ADD, KEYS, ["moved"], wait=20)
            assert b"moved" in other.ask("SMEMBERS", KEYS[0])
            await ear.hears("after")
        with pytest.raises(BrokerError, match="CROSSSLOT"):
            async with connected(cluster.url) as link:
                await link.run(ADD, ["{a}", "{b}"], [1], wait=5)
        async with connected(f"redis://127.0.0.1:{owner.port}") as link:
            with pytest.raises(BrokerError, match=r"redis\+cluster://"):
                await link.run(ADD, KEYS, [1], wait=5)


async def test_a_cluster_fails_over_by_order_and_by_death(engine: Engine) -> None:
    with Cluster(engine, replicas=1) as cluster:
        owner = cluster.owner(KEYS[0])
        heir = cluster.replica_of(owner)
        async with connected(cluster.url_of([owner])) as link:
            ear = Ear(link)
            await ear.hears("before")
            calls = [asyncio.ensure_future(link.run(ADD, KEYS, [n], wait=None)) for n in range(50)]
            await asyncio.to_thread(cluster.promote, heir)
            await asyncio.gather(*calls)
            await ear.hears("promoted")
            owner.wait_for_link()
            heir.kill()  # the old owner is elected again
            await link.run(ADD, KEYS, ["elected"], wait=None)
            assert b"elected" in owner.ask("SMEMBERS", KEYS[0])
            await ear.hears("elected")


async def test_sentinels_and_clusters_with_passwords_over_tls(engine: Engine, tmp_path: Path) -> None:
    secrets = {"requirepass": "s3cret", "masterauth": "s3cret"}
    options: dict[str, Any] = {"config": secrets}
    if engine.has_tls:
        options["authority"] = make_authority(tmp_path)
    with Watched(engine, **options) as watched:
        assert watched.url.startswith("rediss+sentinel://:s3cret@" if engine.has_tls else "redis+sentinel://:s3cret@")
        async with connected(watched.url) as link:
            ear = Ear(link)
            await ear.hears("before")
            await asyncio.to_thread(watched.fail_over)
            await link.run(ADD, KEYS, ["after"], wait=None)
            assert b"after" in watched.master.ask("SMEMBERS", KEYS[0])
            await ear.hears("after")
        wrong = watched.url.replace("sentinel_password=", "sentinel_password=wr0ng")
        with pytest.raises(BrokerRefused, match="WRONGPASS") as caught:
            await Link(wrong, timeout=60).connect()
        assert "wr0ng" not in str(caught.value)
    with Cluster(engine, **options) as cluster:
        async with connected(cluster.url) as link:
            ear = Ear(link)
            assert await link.run(ADD, KEYS, ["x"], wait=5) == 1
            await ear.hears("there")
