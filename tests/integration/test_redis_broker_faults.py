"""What a `RedisBroker` does when answers are lost, members are forgotten and servers fail."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import LaneConfig
from lane_obs.distributed import RedisBroker
from lane_obs.distributed.record import Answer, End, FactKind, NewCommand, Result
from lane_obs.errors import BrokerMismatch, BrokerRefused, BrokerUnavailable, ConfigError
from lane_obs.testing.broker import check_broker
from lane_obs.testing.broker.trial import Ear
from tests.integration.servers.cluster import Cluster
from tests.integration.servers.proxy import Proxy
from tests.integration.test_redis_broker import LEASE, TTL, OnTrial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.integration.servers.engine import Engine
    from tests.integration.servers.server import Server

LANES = {"a": LaneConfig(0, 1000), "b": LaneConfig(0, 1000)}
LASTING = {b"meta", b"names", b"lanes", b"state"}


async def until(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def member(
    url: str, *, lanes: dict[str, LaneConfig] = LANES, work: bool = True, limit: int | None = None, **options: Any
) -> AsyncIterator[tuple[OnTrial, Ear]]:
    ear = Ear()
    broker = OnTrial(url, **options)
    await broker.open(lanes, limit, (), letters=10, work=work, listener=ear)
    await until(lambda: broker.beats)  # the first is over, and the next far away
    try:
        yield broker, ear
    finally:
        await broker.close()


def new(*ids: str, lane: str = "a", **fields: Any) -> list[NewCommand]:
    return [NewCommand(id_, lane, id_.encode(), **fields) for id_ in ids]


def names(server: Server) -> set[bytes]:
    keys = server.ask("KEYS", "*")
    assert all(key.startswith(b"{lane_obs:") for key in keys)
    return {key.partition(b"}:")[2] for key in keys}


async def test_a_turn_whose_answer_is_lost_counts_once(server: Server) -> None:
    with Proxy(server.port) as proxy:
        async with member(proxy.url) as (broker, _):
            await broker.submit(new("c1", "c2", "c3", "c4"))
            first = await broker.turn((), 2)
            proxy.cut_reply_after(1)
            turn = await broker.turn([End(c.id, c.token, "succeeded", b"r") for c in first.claimed], 2)
            assert (turn.stale, [c.id for c in turn.claimed]) == ([], ["c3", "c4"])
            assert [c.body for c in turn.claimed] == [b"c3", b"c4"]
            stats = await broker.stats()
            assert (stats.ended, stats.lanes["a"].running) == ({"succeeded": 2}, 2)
            assert (await broker.turn([End(c.id, c.token, "succeeded") for c in turn.claimed], 2)).stale == []


async def test_a_submit_whose_answer_is_lost_counts_once(server: Server) -> None:
    with Proxy(server.port) as proxy:
        async with member(proxy.url) as (broker, _):
            await broker.submit(new("c0"))  # the server has the script from now on
            proxy.cut_reply_after(1)
            receipts = await broker.submit(new("c1", "c2"))
            assert [receipt.answer for receipt in receipts] == [Answer.ACCEPTED] * 2
            assert (await broker.stats()).submitted == 3


async def test_a_submit_without_an_answer_is_safe_to_make_again(server: Server) -> None:
    """Also when the command has ended in the meantime."""
    with Proxy(server.port) as proxy:
        async with member(proxy.url, submit_timeout=0.5) as (broker, _), member(server.url) as (worker, ear):
            await broker.submit(new("c0"))  # the server has the script from now on
            await broker.cancel("c0")
            proxy.refuse()
            proxy.cut_reply_after(1)
            with pytest.raises(BrokerUnavailable):
                await broker.submit(new("c1"))
            (claimed,) = (await worker.turn((), 9)).claimed
            await worker.turn([End(claimed.id, claimed.token, "succeeded", b"r")], 9)
            proxy.accept()
            await until(lambda: broker.health().ready)
            (receipt,) = await broker.submit(new("c1"))
            assert receipt.answer == Answer.ACCEPTED
            assert await broker.watch(["c1"]) == [Result("c1", "succeeded", b"r")]
            assert (await worker.turn((), 9)).claimed == []
            # It is used up: the same id is a new command from now on.
            await broker.submit(new("c1"))
            await until(lambda: [c.id for c in ear.claimed] == ["c1"])


async def test_what_a_cancelled_turn_has_claimed_comes_with_the_next(server: Server) -> None:
    async with member(server.url) as (broker, _):
        await broker.submit(new("c1", "c2", "c3"))
        turn = asyncio.ensure_future(broker.turn((), 2))
        await asyncio.sleep(0)  # it is sent
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert [c.id for c in (await broker.turn((), 3)).claimed] == ["c1", "c2", "c3"]
        assert (await broker.stats()).lanes["a"].running == 3


async def test_a_queue_that_was_deleted_is_made_anew(server: Server) -> None:
    async with member(server.url) as (broker, ear), member(server.url) as (other, other_ear):
        await broker.submit(new("c1", "c2"))
        held = (await broker.turn((), 1)).claimed
        server.ask("FLUSHALL")
        await other.submit(new("d1"))
        turn = await broker.turn([End(c.id, c.token, "succeeded") for c in held], 5)
        assert turn.stale == ["c1"]
        assert ear.lost == ["c1"]
        assert [c.id for c in turn.claimed] == ["d1"]
        assert ear.states[-1].ready
        assert other_ear.lost == []
        await broker.watch(["d1"])
        await broker.turn([End(c.id, c.token, "succeeded", b"r") for c in turn.claimed], 0)
        await until(lambda: ear.results)


async def test_scripts_that_were_flushed_are_loaded_again(server: Server) -> None:
    async with member(server.url) as (broker, _):
        server.ask("SCRIPT", "FLUSH")
        await broker.submit(new("c1"))
        server.ask("SCRIPT", "FLUSH")
        assert [c.id for c in (await broker.turn((), 1)).claimed] == ["c1"]


async def test_a_blocked_loop_loses_nothing(server: Server) -> None:
    async with member(server.url, lease=LEASE) as (broker, ear), member(server.url, lease=LEASE) as (_, other):
        await broker.submit(new("c1"))
        (claimed,) = (await broker.turn((), 1)).claimed
        time.sleep(4 * LEASE)
        assert (await broker.turn([End(claimed.id, claimed.token, "succeeded")], 0)).stale == []
        assert [fact for fact in ear.facts + other.facts if fact.kind is FactKind.RETURNED] == []


async def test_a_cancel_that_overtakes_the_claim_is_told_after_it(server: Server) -> None:
    async with member(server.url) as (broker, ear), member(server.url) as (other, _):
        await broker.submit(new("c1"))
        turn = broker._turn

        async def late(*args: Any) -> Any:
            answer = await turn(*args)
            assert ear.cancelled == []
            return answer

        broker._turn = late  # type: ignore[method-assign]
        ask = broker._session.send

        async def hold(program: Any, *args: Any, **options: Any) -> Any:
            answer = await ask(program, *args, **options)
            if program.script.name == "turn":
                assert await other.cancel("c1") == "running"
                await until(lambda: broker._inbox.holding.early)
            return answer

        broker._session.send = hold  # type: ignore[method-assign]
        assert [c.id for c in (await broker.turn((), 1)).claimed] == ["c1"]
        assert ear.cancelled == []
        await until(lambda: ear.cancelled == ["c1"])


async def test_a_member_that_was_forgotten_learns_it_and_leaves_policies_alone(server: Server) -> None:
    async with member(server.url, lease=LEASE) as (sleeper, ear):
        await sleeper.submit(new("c1"))
        (claimed,) = (await sleeper.turn((), 1)).claimed
        sleeper.stop_beat()
        other_lanes = {"a": LaneConfig(0, 7), "z": LaneConfig(0, 1)}
        async with member(server.url, lanes=other_lanes, lease=LEASE) as (other, other_ear):
            await until(lambda: any(fact.kind is FactKind.RETURNED for fact in other_ear.facts))
            turn = await sleeper.turn([End(claimed.id, claimed.token, "succeeded")], 0)
            assert turn.stale == ["c1"]
            assert ear.lost == ["c1"]
            assert (sleeper.health().lost, sleeper.health().stale) == (1, 1)
            stats = await other.stats()
            assert (stats.lanes["a"].max_concurrency, len(stats.members), stats.returned) == (7, 2, 1)
            sleeper.start_beat()


async def test_who_takes_its_own_lease_back_is_told_what_it_lost(server: Server) -> None:
    """Nobody else was there to take its commands from it."""
    async with member(server.url, lease=LEASE) as (sleeper, ear):
        await sleeper.submit(new("c1", lane="b"))
        await sleeper.turn((), 1)
        sleeper.stop_beat()
        code = sleeper._session.code
        server.ask("ZREM", "{lane_obs:default}:members", code)
        server.ask("ZADD", "{lane_obs:default}:lost", 1, code)
        sleeper._session.lanes.clear()  # as if another member had named them since
        await sleeper.turn((), 0)
        await until(lambda: ear.facts)
        assert [(fact.kind, fact.id, fact.lane, fact.body) for fact in ear.facts] == [
            (FactKind.RETURNED, "c1", "b", b"c1")
        ]
        sleeper.start_beat()


async def test_a_new_bound_of_the_queue_is_for_lanes_of_others_too(server: Server) -> None:
    lanes = {"a": LaneConfig(1, 9)}
    async with member(server.url, lanes=lanes) as (first, _):
        await first.submit(new("a1", "a2", "a3"))
        async with member(server.url, lanes={"b": LaneConfig(1, 9)}, limit=2) as (second, _):
            await second.submit(new("b1", "b2", lane="b"))
            assert [c.id for c in (await first.turn((), 9)).claimed] == ["a1", "b1"]
            assert (await first.stats()).max_concurrency == 2


async def test_what_a_window_took_does_not_stay_for_ever(server: Server) -> None:
    from lane_obs import RateLimit

    lanes = {"a": LaneConfig(0, 9, rate_limit=RateLimit.sliding_window(2, 1.0))}
    async with member(server.url, lanes=lanes) as (broker, _):
        await broker.submit(new("a1", "a2", "a3", "a4"))
        assert len((await broker.turn((), 9)).claimed) == 2
        key = "{lane_obs:default}:windows"
        assert 0 < server.ask("PTTL", key) <= 61_000
        server.ask("DEL", key)  # as if it had expired
        assert len((await broker.turn((), 9)).claimed) == 0
        end = time.monotonic() + 15
        while not (claimed := (await broker.turn((), 9)).claimed):
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
        assert len(claimed) == 2


async def test_no_key_is_left_behind(server: Server) -> None:
    lanes = {
        "a": LaneConfig(0, 1000, max_pending=4, max_crashes=1),
        "b": LaneConfig(0, 1000),
    }
    async with member(server.url, lanes=lanes, lease=LEASE, result_ttl=0.3) as (broker, _):
        async with member(server.url, lanes=lanes, lease=LEASE, result_ttl=0.3) as (other, _):
            await broker.submit(new("c1", "c2", key="k", deadline=60.0))
            await broker.submit(new("p1", "p2", "p3", lane="b", part="p"))
            await broker.submit(new("d1", "d2", lane="b", delay=60.0, key="d"))
            await broker.watch(["c1", "p1", "d1"])
            await other.watch(["p2"])
            await broker.submit(new("f1", "f2", "f3", "f4", "f5"))
            claimed = (await other.turn((), 3)).claimed
            await other.turn([End(c.id, c.token, "failed", b"r", b"letter") for c in claimed], 0)
            for id_ in ("p2", "d1"):
                await broker.cancel(id_)
            await other.turn((), 2)
            other.stop_beat()
            await until(lambda: broker.health().leads)
            end = time.monotonic() + 15
            while (stats := await broker.stats()).letters < 4 or len(stats.members) > 1:
                assert time.monotonic() < end, stats
                await asyncio.sleep(0.02)
        while (stats := await broker.stats()).submitted > sum(stats.ended.values()):
            claimed = (await broker.turn((), 9)).claimed
            await broker.turn([End(c.id, c.token, "succeeded") for c in claimed], 0)
        assert await broker.remove_letters() > 0
    server_names = names(server)
    assert server_names <= LASTING | {b"results", b"result_due", b"room"}, server_names
    async with member(server.url, lanes=lanes, lease=LEASE):
        await until(lambda: names(server) & {b"results", b"result_due"} == set())
    assert names(server) <= LASTING | {b"room"}


async def test_results_go_also_when_nobody_is_there_any_more(server: Server) -> None:
    async with member(server.url, result_ttl=1.0) as (broker, _):
        await broker.submit(new("c1"))
        await broker.turn([End(c.id, c.token, "succeeded") for c in (await broker.turn((), 1)).claimed], 0)
    for name in ("results", "result_due"):
        assert 0 < server.ask("PTTL", f"{{lane_obs:default}}:{name}") <= 121_000


async def test_without_a_ttl_only_those_who_watch_are_told(server: Server) -> None:
    async with member(server.url, result_ttl=0) as (broker, ear):
        await broker.submit(new("c1", "c2"))
        await broker.watch(["c1"])
        claimed = (await broker.turn((), 2)).claimed
        await broker.turn([End(c.id, c.token, "succeeded", b"r") for c in claimed], 0)
        await until(lambda: ear.results)
        assert ear.results == [Result("c1", "succeeded", b"r")]
        assert [one.state for one in await broker.watch(["c1", "c2"])] == ["unknown", "unknown"]
        assert b"results" not in names(server)


async def test_one_command_wakes_one_member(server: Server) -> None:
    async with member(server.url) as (first, _):
        ears = []
        others = [member(server.url) for _ in range(5)]
        for other in others:
            broker, ear = await other.__aenter__()
            await broker.turn((), 4)
            ears.append((broker, ear, ear.work))
        await first.submit(new("c1"))
        await until(lambda: any(ear.work > before for _, ear, before in ears))
        await asyncio.sleep(0.1)
        woken = [(broker, ear) for broker, ear, before in ears if ear.work > before]
        assert len(woken) == 1
        ((broker, ear),) = woken
        assert [c.id for c in ear.claimed] == ["c1"]
        assert (await broker.turn((), 4)).claimed == []
        # Nine for members that take four each: three are woken.
        before = [ear.work for _, ear, _ in ears]
        await first.submit(new(*(f"d{n}" for n in range(9))))
        await asyncio.sleep(0.2)
        assert sum(ear.work > had for (_, ear, _), had in zip(ears, before, strict=True)) == 3
        for other in others:
            await other.__aexit__(None, None, None)


async def test_one_idle_member_keeps_the_time_and_hands_it_on(server: Server) -> None:
    async with member(server.url) as (first, _), member(server.url) as (second, second_ear):
        async with member(server.url) as (keeper, _):
            await first.submit(new("c1", delay=0.6))
            assert (await keeper.turn((), 1)).next_due is not None
            assert (await second.turn((), 1)).next_due is None
        await until(lambda: second_ear.work)
        due = (await second.turn((), 1)).next_due
        assert due is not None
        assert 0 < due <= 0.6
        await first.submit(new("c2", delay=0.1))  # earlier than what it knows
        before = second_ear.work
        await until(lambda: second_ear.work > before)
        due = (await second.turn((), 1)).next_due
        assert due is None or due <= 0.1


async def test_large_batches_are_cut(server: Server) -> None:
    async with member(server.url, lanes={"a": LaneConfig(0, 10_000)}) as (broker, _):
        ids = [f"c{n}" for n in range(1_700)]
        await broker.submit(new(*ids))
        claimed = (await broker.turn((), 1_600)).claimed
        assert [c.id for c in claimed] == ids[:1_600]
        turn = await broker.turn([End(c.id, c.token, "succeeded", b"r") for c in claimed], 1_000)
        assert (turn.stale, [c.id for c in turn.claimed]) == ([], ids[1_600:])
        assert len(await broker.watch(ids)) == 1_600


async def test_a_full_server_refuses_submits_and_takes_ends(start_server: Callable[..., Server]) -> None:
    server = start_server(config={"maxmemory-policy": "noeviction"})
    async with member(server.url, submit_timeout=2.0) as (broker, _):
        await broker.submit(new("c1", "c2"))
        claimed = (await broker.turn((), 1)).claimed
        server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(BrokerRefused):
            await broker.submit(new("c3"))
        turn = await broker.turn([End(c.id, c.token, "succeeded") for c in claimed], 1)
        assert [c.id for c in turn.claimed] == ["c2"]
        server.ask("CONFIG", "SET", "maxmemory", "0")
        assert (await broker.submit(new("c3")))[0].answer is Answer.ACCEPTED
        assert (await broker.stats()).submitted == 3


async def test_another_schema_is_not_touched(server: Server) -> None:
    key = "{lane_obs:default}:meta"
    for command in (("HSET", key, "version", "2"), ("SET", key, "mine")):
        server.ask("FLUSHALL")
        server.ask(*command)
        with pytest.raises(BrokerMismatch, match="this library has 1"):
            async with member(server.url):
                pass
        assert server.ask("KEYS", "*") == [key.encode()]


async def test_a_client_that_only_looks_makes_no_queue(server: Server) -> None:
    ear = Ear()
    looker = RedisBroker(server.url)
    await looker.open({}, None, (), letters=1, work=False, listener=ear)
    assert (await looker.stats()).version == 0
    assert (await looker.cancel("c1"), await looker.find("c1"), await looker.letters()) == ("unknown", None, [])
    assert server.ask("KEYS", "*") == []
    async with member(server.url) as (broker, _):
        await broker.submit(new("c1"))
        found = await looker.find("c1")
        assert found is not None
        stats = await looker.stats()
        assert (list(stats.lanes), len(stats.members), stats.lanes["a"].max_concurrency) == (["a", "b"], 1, 1000)
    await looker.close()


async def test_fair_partitions_and_bad_names_are_refused(server: Server) -> None:
    from lane_obs import Partitions

    with pytest.raises(ConfigError, match="fair"):
        async with member(server.url, lanes={"a": LaneConfig(partitions=Partitions.per_key(fair=True))}):
            pass
    for name in ("", "a}b", "x" * 201, "a\n"):
        with pytest.raises(ConfigError, match="queue"):
            RedisBroker(server.url, queue=name)


async def test_a_cluster_has_the_whole_queue_in_one_slot(engine: Engine) -> None:
    checks = (
        "many_are_taken_in_order",
        "a_lost_lease_returns_the_command",
        "a_watcher_is_told",
        "lanes_share_a_limit",
        "a_full_lane_tells_of_room",
        "an_idle_member_is_told_of_work",
        "deadlines_boost",
        "a_retry_keeps_its_partition",
    )
    with Cluster(engine) as cluster:
        await check_broker(
            lambda queue: OnTrial(cluster.url, queue=queue, lease=LEASE, result_ttl=TTL),
            lease=LEASE,
            result_ttl=TTL,
            only=checks,
        )


async def test_the_end_of_a_command_whose_lane_has_no_name_any_more_is_told(server: Server) -> None:
    """It is empty then, and forgotten before the one who is told has asked what it is called."""
    lanes = {**LANES, "goes": LaneConfig(0, 1)}
    async with member(server.url, lanes=lanes, work=False) as (owner, _), member(server.url) as (other, ear):
        learn = other._session.learn_names
        other._session.lanes = {code: name for code, name in other._session.lanes.items() if name != "goes"}

        async def learn_late(**options: Any) -> None:
            assert await owner.forget_lane("goes")
            await learn(**options)

        other._session.learn_names = learn_late  # type: ignore[method-assign]
        await owner.submit(new("c1", lane="goes", delay=50.0))
        assert await other.cancel("c1") == "cancelled"
        await until(lambda: ear.facts)
        assert [(fact.kind, fact.id, fact.lane) for fact in ear.facts] == [(FactKind.CANCELLED, "c1", "unknown")]
