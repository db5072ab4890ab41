"""`PartitionedBroker` at real servers: one, a cluster, and three of which one goes away."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import LaneConfig, Partitions, QueueManager, command
from lane_obs.clock import SystemClock, sleep
from lane_obs.distributed import PartitionedBroker, RedisBroker
from lane_obs.distributed.nobody import NOBODY
from lane_obs.distributed.partitioned.route import number_of
from lane_obs.errors import BrokerMismatch, BrokerUnavailable, ConfigError
from lane_obs.testing import BROKER_CHECKS, check_broker
from lane_obs.testing.broker.trial import Trial
from tests.integration.servers.cluster import Cluster
from tests.integration.test_redis_broker import LEASE, TTL, OnTrial
from tests.unit.distributed import known_parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.servers.engine import Engine
    from tests.integration.servers.server import Server

LANES = {"api": LaneConfig(0, 9, partitions=Partitions.per_key())}
CUSTOMERS = [f"customer {n}" for n in range(24)]

_ran: dict[str, list[int]] = defaultdict(list)
_now: Counter[str] = Counter()
_most: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    for known in (_ran, _now, _most):
        known.clear()


@command("redis.parted")
async def parted(customer: str, number: int) -> int:
    for place in ("all", customer):
        _now[place] += 1
        _most[place] = max(_most[place], _now[place])
    await asyncio.sleep(0.002)
    _ran[customer].append(number)
    for place in ("all", customer):
        _now[place] -= 1
    return number


@pytest.mark.parametrize("name", BROKER_CHECKS)
async def test_one_partition_is_as_its_broker(server: Server, name: str) -> None:
    def make(queue: str) -> known_parts.OnTrial:
        return known_parts.OnTrial([OnTrial(server.url, queue=queue, lease=LEASE, result_ttl=TTL)])

    await check_broker(make, lease=LEASE, result_ttl=TTL, only=[name])


@pytest.mark.parametrize("name", [name for name in BROKER_CHECKS if name not in known_parts.LEFT_OUT])
async def test_three_partitions(server: Server, name: str) -> None:
    def make(queue: str) -> known_parts.OnTrial:
        parts = [OnTrial(server.url, queue=f"{queue}.{n}", lease=LEASE, result_ttl=TTL) for n in range(3)]
        for part in parts:  # as `of_redis` does
            part._session.member = parts[0]._session.member
        return known_parts.OnTrial(parts)

    await check_broker(make, lease=LEASE, result_ttl=TTL, only=[name])


async def _run_all(make: Callable[[], PartitionedBroker]) -> None:
    async with (
        QueueManager(LANES, broker=make()) as one,
        QueueManager(LANES, broker=make()) as two,
        QueueManager(LANES, broker=make(), work=False) as shop,
    ):
        handles = [
            await manager.submit("api", parted, customer, n, partition_key=customer)
            for n, manager in enumerate([one, two, shop] * 4)
            for customer in CUSTOMERS
        ]
        assert [await handle for handle in handles] == [n for n in range(12) for _ in CUSTOMERS]
        stats = await shop.cluster.stats()
        assert (stats.submitted, stats.ended["succeeded"], stats.returned) == (288, 288, 0)
        assert sorted(member.works for member in stats.members) == [False, True, True]
    assert _ran == {customer: list(range(12)) for customer in CUSTOMERS}
    assert _most["all"] <= 9
    assert {_most[customer] for customer in CUSTOMERS} == {1}


async def test_managers_share_partitions_at_one_server(server: Server) -> None:
    await _run_all(lambda: PartitionedBroker.of_redis(server.url, partitions=3, queue="shop", concurrency=5))


async def test_partitions_spread_over_the_nodes_of_a_cluster(engine: Engine) -> None:
    with Cluster(engine) as cluster:

        def make() -> PartitionedBroker:
            return PartitionedBroker.of_redis(cluster.url, partitions=6, queue="shop", concurrency=5)

        await _run_all(make)
        slots: dict[int, set[int]] = {}
        for node in cluster.masters:
            keys = [key for key in node.ask("KEYS", "{lane_obs:shop.*") if b":meta" in key]
            slots[node.port] = {node.ask("CLUSTER", "KEYSLOT", key) for key in keys}
        assert sum(map(len, slots.values())) == 6, "each partition has a slot of its own"
        assert all(slots.values()), "each node has partitions"


async def test_another_number_of_partitions_is_refused(server: Server) -> None:
    async def join(count: int, lanes: Any = LANES) -> None:
        broker = PartitionedBroker.of_redis(server.url, partitions=count, queue="shop")
        await broker.open(lanes, None, (), letters=10, work=bool(lanes), listener=NOBODY)
        await broker.close()

    await join(4, {})
    assert server.ask("KEYS", "*") == [], "who only looks leaves nothing"
    await join(3)
    await join(3)
    for lanes in (LANES, {}):
        with pytest.raises(BrokerMismatch, match="has 3 partitions, and this process asks for 4; give 3, or empty"):
            await join(4, lanes)
    assert not server.ask("KEYS", "*of4*")
    server.ask("DEL", "{lane_obs:shop}:partitions")
    await join(4)


def test_settings_are_checked() -> None:
    for options in ({"partitions": 0}, {"partitions": 2, "queue": "{x}"}, {"partitions": 2, "lease": 0}):
        with pytest.raises(ConfigError):
            PartitionedBroker.of_redis("redis://127.0.0.1:1", **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        PartitionedBroker.of_redis("redis://127.0.0.1:1", partitions=2, no_such=1)


async def test_one_server_of_three_goes_away_and_comes_back(start_server: Callable[..., Server]) -> None:
    servers = [start_server(aof="always") for _ in range(3)]

    def make() -> PartitionedBroker:
        return PartitionedBroker(
            [RedisBroker(one.url, queue="shop", timeout=0.5, submit_timeout=0.5, concurrency=4) for one in servers]
        )

    by_server = [[name for name in CUSTOMERS if number_of(name, 3) == n] for n in range(3)]
    near, far = by_server[0] + by_server[1], by_server[2]
    clock = SystemClock()

    async def until(check: Callable[[], Any], what: str) -> None:
        for _ in range(1500):
            if check():
                return
            await sleep(clock, 0.01)
        raise AssertionError(what)

    async with QueueManager(LANES, broker=make()) as worker, QueueManager(LANES, broker=make(), work=False) as shop:
        handles = [
            await shop.submit("api", parted, name, n, partition_key=name) for n in range(5) for name in CUSTOMERS
        ]
        assert sorted(await asyncio.gather(*handles)) == sorted(n for n in range(5) for _ in CUSTOMERS)
        waiting = [await shop.submit("api", parted, name, 5, partition_key=name, delay=2) for name in far]
        await asyncio.to_thread(servers[2].kill)
        late = [await shop.submit("api", parted, name, 5, partition_key=name) for name in near]
        assert [await handle for handle in late] == [5] * len(near)
        assert "partition 2" in worker.broker.health().error
        with pytest.raises(BrokerUnavailable):
            await shop.submit("api", parted, far[0], 99, partition_key=far[0])
        mixed = await asyncio.gather(
            *(shop.submit("api", parted, name, 6, partition_key=name) for name in near), return_exceptions=True
        )
        assert [await handle for handle in mixed] == [6] * len(near)
        await asyncio.to_thread(servers[2].start)
        assert [await handle for handle in waiting] == [5] * len(far)
        await until(lambda: worker.broker.health().ready, "the link works again")
        assert await (await shop.submit("api", parted, far[0], 7, partition_key=far[0])) == 7
    assert all(_ran[name] == list(range(7)) for name in near)
    assert all(_ran[name][:6] == list(range(6)) for name in far)
    assert {count for name in CUSTOMERS for count in Counter(_ran[name]).values()} == {1}


async def test_a_member_that_is_full_has_another_called(server: Server) -> None:
    """It was idle in a partition, was filled by another one, and is called by the first."""
    near, far = ([name for name in (f"c{n}" for n in range(99)) if number_of(name, 2) == part] for part in range(2))
    lanes = {"a": LaneConfig(0, 100)}

    def make(queue: str) -> known_parts.OnTrial:
        parts = [OnTrial(server.url, queue=f"{queue}.{n}", concurrency=2) for n in range(2)]
        return known_parts.OnTrial(parts)

    for _ in range(4):  # whichever of them is called first
        trial = Trial(make, SystemClock(), lease=30.0, result_ttl=TTL)
        full, free, shop = await trial.member(lanes), await trial.member(lanes), await trial.member(lanes, work=False)
        await trial.pass_time()
        assert await full.claim(2) == []
        await shop.put("a", *near[:2])
        assert len(await full.claim_all(2)) == 2
        assert await free.claim(2) == []
        before = free.ear.work
        await shop.put("a", far[0])
        await trial.until(lambda: free.ear.work > before, "the member with a free slot is told")  # noqa: B023
        assert await free.claim_ids(1) == far[:1]
        await trial.close()
