"""The link over a real Redis and a real Valkey: answers, refusals, logins, restarts."""

from __future__ import annotations

import asyncio
import threading
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import VirtualClock
from lane_obs.distributed.redis.link import Link, Script
from lane_obs.distributed.redis.route import Unreachable
from lane_obs.distributed.redis.thread_link import ThreadLink
from lane_obs.distributed.redis.wire import pack
from lane_obs.errors import BrokerError, BrokerRefused, BrokerUnavailable
from tests.integration.servers.authority import make_authority
from tests.integration.servers.links import connected
from tests.integration.servers.waiting import until
from tests.integration.services.process import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.servers.engine import Engine
    from tests.integration.servers.server import Server

ECHO = Script("echo", "return {ARGV[1], KEYS[1], #ARGV}")
SET = Script("set", "return redis.call('SET', KEYS[1], ARGV[1])")
GET = Script("get", "return redis.call('GET', KEYS[1])")
PUBLISH = Script("publish", "return redis.call('PUBLISH', ARGV[1], ARGV[2])")
ADD_AND_TAKE = Script("take", "redis.call('DEL', KEYS[1]) return redis.call('SET', KEYS[2], ARGV[1])")


def clients(server: Server) -> int:
    lines = server.ask("CLIENT", "LIST", "TYPE", "normal").decode().splitlines()
    return sum("name=lane-obs" in line for line in lines)


@pytest.mark.both_loops
async def test_a_script_runs_with_its_keys_and_any_bytes(server: Server) -> None:
    async with connected(server.url) as link:
        odd, binary = "{a b}:\N{SNOWMAN}}{", bytes(range(256)) * 1_000
        assert await link.run(ECHO, [odd], [binary, "text", 7], wait=5) == [binary, odd.encode(), 3]
        assert await link.run(GET, ["{a}:none"], [], wait=None) is None


@pytest.mark.both_loops
@pytest.mark.parametrize("turns", range(12))
async def test_a_link_can_be_closed_at_any_moment_of_its_coming_about(server: Server, turns: int) -> None:
    """uvloop says nothing to a connection that is given up in the very turn in which it comes about."""
    link = Link(server.url, timeout=5)
    link.subscribe(["{a}"], lambda _: None, lambda: None)
    asking = asyncio.ensure_future(link.run(GET, ["{a}"], [], wait=5))
    for _ in range(turns):
        await asyncio.sleep(0)
    closing = asyncio.ensure_future(link.close())
    await until(closing.done)
    assert not isinstance((await asyncio.gather(asking, return_exceptions=True))[0], asyncio.CancelledError)
    await until(lambda: clients(server) == 0)


async def test_calls_at_once_share_one_connection_and_each_gets_its_own_answer(server: Server) -> None:
    async with connected(server.url) as link:
        answers = await asyncio.gather(*(link.run(ECHO, ["{a}"], [number], wait=5) for number in range(2_000)))
        assert [int(answer[0]) for answer in answers] == list(range(2_000))
        assert clients(server) == 1
    await until(lambda: clients(server) == 0)


async def test_P41_cancelled_callers_leave_no_answer_for_others(server: Server) -> None:
    rng = Random(41)
    wrong: list[object] = []

    async def ask(number: int) -> None:
        answer = await link.run(ECHO, ["{a}"], [number], wait=5)
        if int(answer[0]) != number:
            wrong.append((number, answer))

    async with connected(server.url) as link:
        for turn in range(100):
            tasks = [asyncio.ensure_future(ask(turn * 100 + number)) for number in range(100)]
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            for task in rng.sample(tasks, 40):
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ended)
    assert wrong == []


async def test_flushed_scripts_are_loaded_again(server: Server) -> None:
    async with connected(server.url) as link:
        for _ in range(3):
            server.ask("SCRIPT", "FLUSH")
            answers = await asyncio.gather(*(link.run(ECHO, ["{a}"], [number], wait=5) for number in range(20)))
            assert [int(answer[0]) for answer in answers] == list(range(20))


async def test_a_failing_script_is_an_error_that_names_it(server: Server) -> None:
    async with connected(server.url) as link:
        with pytest.raises(BrokerError, match=r"script broken failed: ERR .*nothing") as caught:
            await link.run(Script("broken", "return nothing.here"), [], [], wait=5)
        assert type(caught.value) is BrokerError
        with pytest.raises(BrokerError, match="does not compile failed"):
            await link.run(Script("does not compile", "return ("), [], [], wait=5)


@pytest.mark.both_loops
async def test_a_server_that_is_not_there_is_unavailable_and_nothing_is_left() -> None:
    for url in (f"redis://127.0.0.1:{free_port()}", "unix:///nowhere/socket"):
        with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1|/nowhere/socket"):
            await Link(url, timeout=0.1).connect()


async def test_a_password_is_needed_used_and_never_told(start_server: Any) -> None:
    server = start_server(config={"requirepass": "s3cret"})
    async with connected(server.url) as link:
        assert await link.run(ECHO, ["k"], [1], wait=5)
        assert "s3cret" not in link.shown
    for secret in ("", ":wr0ng@", "no:wr0ng@"):
        with pytest.raises(BrokerRefused, match=r"NOAUTH|WRONGPASS") as caught:
            await Link(f"redis://{secret}127.0.0.1:{server.port}", timeout=60).connect()
        assert "wr0ng" not in f"{caught.value!r}{caught.value.__cause__!r}"


async def test_a_user_has_the_rights_it_needs_and_no_more(start_server: Any) -> None:
    server = start_server()
    server.ask("ACL", "SETUSER", "lanes", "on", ">pw", "~{a}*", "&*", "+evalsha", "+script|load", "+get", "+ping")
    async with connected(f"redis://lanes:pw@127.0.0.1:{server.port}") as link:
        assert await link.run(GET, ["{a}"], [], wait=5) is None
        with pytest.raises(BrokerRefused, match="NOPERM"):
            await link.run(GET, ["{b}"], [], wait=60)


async def test_a_database_and_a_unix_socket(server: Server) -> None:
    async with connected(f"unix://{server.socket_path}?db=3") as link:
        await link.run(SET, ["k"], ["v"], wait=5)
    async with connected(f"{server.url}/3") as link:
        assert await link.run(GET, ["k"], [], wait=5) == b"v"
    with pytest.raises(BrokerRefused, match="DB index"):
        await Link(f"{server.url}/99", timeout=60).connect()


async def test_tls_checks_who_the_server_is(start_server: Any, engine: Engine, tmp_path: Path) -> None:
    if not engine.has_tls:
        pytest.skip("the wheel's Valkey is built without TLS")
    server = start_server(authority=make_authority(tmp_path))
    async with connected(server.url) as link:
        big = b"x" * 1_000_000
        assert (await link.run(ECHO, ["k"], [big], wait=5))[0] == big
        server.kill()
        await asyncio.to_thread(server.start)
        assert await link.run(ECHO, ["k"], [1], wait=20)
    with pytest.raises(BrokerUnavailable, match=r"(?i)certificate"):
        await Link(f"rediss://127.0.0.1:{server.port}", timeout=0.3).connect()
    with pytest.raises(BrokerUnavailable):  # plain text to a port that speaks TLS
        await Link(f"redis://127.0.0.1:{server.port}", timeout=0.3).connect()


async def test_a_server_out_of_memory_refuses_what_adds_and_takes_what_removes_first(start_server: Any) -> None:
    server, told = start_server(), []
    async with connected(server.url, on_state=lambda up, reason: told.append((up, reason[:30]))) as link:
        await link.run(SET, ["{a}:old"], ["1"], wait=5)
        server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(BrokerRefused, match="OOM"):
            await link.run(SET, ["{a}"], ["1"], wait=10)
        assert told == []
        await link.run(ADD_AND_TAKE, ["{a}:old", "{a}:new"], ["1"], wait=10)
        waits = asyncio.ensure_future(link.run(SET, ["{a}"], ["2"], wait=None))
        await until(lambda: told)
        server.ask("CONFIG", "SET", "maxmemory", "0")
        await waits
        assert [up for up, _ in told] == [False, True]
        assert "OOM" in told[0][1]
        assert await link.run(GET, ["{a}"], [], wait=5) == b"2"


async def test_a_server_that_may_not_write_refuses(start_server: Any) -> None:
    server = start_server(config={"min-replicas-to-write": "1"})
    async with connected(server.url) as link:
        with pytest.raises(BrokerRefused, match="NOREPLICAS"):
            await link.run(SET, ["{a}"], ["1"], wait=10)
        server.ask("CONFIG", "SET", "min-replicas-to-write", "0")
        await link.run(SET, ["{a}"], ["1"], wait=10)


async def test_a_server_that_cannot_save_refuses_and_may_be_connected_to(start_server: Any) -> None:
    server = start_server(config={"dbfilename": "dump.rdb"})
    server.ask("CONFIG", "SET", "save", "3600 1")
    server.ask("SET", "k", "v")
    (server.directory / "dump.rdb").mkdir()  # not a file that a dump can take the place of
    server.ask("BGSAVE")
    server.wait_for(lambda: server.info("persistence")["rdb_last_bgsave_status"] == "err", "a dump that failed")
    async with connected(server.url) as link:
        with pytest.raises(BrokerRefused, match="MISCONF"):
            await link.run(SET, ["{a}"], ["1"], wait=10)
        (server.directory / "dump.rdb").rmdir()
        server.ask("BGSAVE")
        await link.run(SET, ["{a}"], ["1"], wait=None)


async def test_a_master_made_a_replica_is_waited_for_until_it_is_a_master_again(start_server: Any) -> None:
    server, other, told = start_server(), start_server(), []
    async with connected(server.url, on_state=lambda up, reason: told.append((up, reason))) as link:
        server.ask("REPLICAOF", "127.0.0.1", other.port)
        with pytest.raises(BrokerUnavailable, match=r"READONLY|replica|slave"):
            await link.run(SET, ["{a}"], ["1"], wait=0.5)
        assert [up for up, _ in told] == [False]
        waits = asyncio.ensure_future(link.run(SET, ["{a}"], ["2"], wait=None))
        server.ask("REPLICAOF", "NO", "ONE")
        await waits
        assert [up for up, _ in told] == [False, True]


async def test_a_killed_server_comes_back_and_nothing_acknowledged_is_lost(start_server: Any) -> None:
    server, told = start_server(aof="always"), []
    async with connected(server.url, on_state=lambda up, reason: told.append((up, reason))) as link:
        kept = 0
        for _ in range(3):
            calls = [asyncio.ensure_future(link.run(SET, [f"{{a}}:{kept + n}"], [1], wait=20)) for n in range(200)]
            await asyncio.sleep(0)
            server.kill()
            await until(lambda: told and not told[-1][0])
            await asyncio.to_thread(server.start)
            await asyncio.gather(*calls)
            kept += len(calls)
            assert server.ask("DBSIZE") == kept
        assert [up for up, _ in told] == [False, True] * 3


async def test_a_server_that_loads_its_data_is_waited_for(start_server: Any) -> None:
    server = start_server(aof="everysec", config={"key-load-delay": "2000"})
    async with connected(server.url) as link:
        await asyncio.gather(*(link.run(SET, [f"{{a}}:{number}"], [1], wait=5) for number in range(500)))
        server.stop()
        starting = asyncio.ensure_future(asyncio.to_thread(server.start))
        assert await link.run(GET, ["{a}:7"], [], wait=20) == b"1"
        await starting


async def test_a_frozen_server_is_given_up_in_time_and_used_again(start_server: Any) -> None:
    server, told = start_server(), []
    async with connected(server.url, 0.3, on_state=lambda up, reason: told.append((up, reason))) as link:
        server.freeze()
        with pytest.raises(BrokerUnavailable, match="did not answer"):
            await link.run(ECHO, ["{a}"], [1], wait=0.1)  # its own time is over before the connection's is
        with pytest.raises(BrokerUnavailable, match=r"did not answer for 0\.3 s|no connection"):
            await link.run(ECHO, ["{a}"], [1], wait=0.5)
        assert [up for up, _ in told] == [False]
        server.thaw()
        assert int((await link.run(ECHO, ["{a}"], [2], wait=20))[0]) == 2
        stat = server.info("commandstats")["cmdstat_evalsha"]
        assert int(stat.partition("calls=")[2].partition(",")[0]) < 10  # asked in vain, but not in a frenzy


async def test_closing_ends_calls_and_none_begins(start_server: Any) -> None:
    server = start_server()
    link = Link(server.url, timeout=5)
    await link.connect()
    server.freeze()
    calls = [asyncio.ensure_future(link.run(ECHO, ["{a}"], [n], wait=wait)) for n, wait in enumerate((None, 5, 60))]
    await asyncio.sleep(0)
    await link.close()
    await link.close()
    for end in await asyncio.gather(*calls, link.run(ECHO, ["{a}"], [1], wait=None), return_exceptions=True):
        assert isinstance(end, BrokerUnavailable)
        assert "closed" in str(end)


async def test_a_listener_that_raises_does_not_end_the_link(start_server: Any) -> None:
    server, told = start_server(aof="always"), []

    def listen(up: bool, _reason: str) -> None:
        told.append(up)
        raise ValueError("a fault of whoever listens")

    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context["exception"]))
    async with connected(server.url, on_state=listen) as link:
        for _ in range(2):
            server.kill()
            await asyncio.to_thread(server.start)
            await link.run(ECHO, ["k"], [1], wait=20)
        await until(lambda: len(told) == 4)
    assert (told, len(faults)) == ([False, True] * 2, 4)


async def test_a_subscription_hears_all_channels_and_comes_back(server: Server) -> None:
    heard: list[bytes] = []
    subscribed: list[int] = []
    told: list[bool] = []
    async with connected(server.url, on_state=lambda up, _: told.append(up)) as link:
        link.subscribe(["{q}:one", "{q}:all"], heard.append, lambda: subscribed.append(len(heard)))
        await until(lambda: subscribed)
        for number, channel in enumerate(["{q}:one", "{q}:all", "{q}:none", "{q}:one"]):
            await link.run(PUBLISH, [], [channel, number], wait=5)
        await until(lambda: len(heard) == 3)
        server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: len(subscribed) == 2)
        await link.run(PUBLISH, [], ["{q}:one", 9], wait=5)
        await until(lambda: len(heard) == 4)
    assert (heard, subscribed, told) == ([b"0", b"1", b"3", b"9"], [0, 3], [False, True])


async def test_a_server_with_too_many_clients_is_waited_for(start_server: Any) -> None:
    server, told, subscribed = start_server(), [], []
    async with connected(server.url, on_state=lambda up, reason: told.append((up, reason))) as link:
        server.ask("CONFIG", "SET", "maxclients", "1")
        link.subscribe(["{q}:one"], print, lambda: subscribed.append(1))
        await until(lambda: told)
        assert not told[0][0]
        assert "max number of clients" in told[0][1]
        assert link._keeper.wire is not None  # the one connection that can still ask the server for anything
        assert await link._keeper.wire.ask(pack("CONFIG", "SET", "maxclients", "100")) in {b"OK", "OK"}
        await until(lambda: subscribed)
        assert [up for up, _ in told] == [False, True]


async def test_a_quiet_subscription_stays(server: Server) -> None:
    heard: list[bytes] = []
    subscribed: list[bool] = []
    async with connected(server.url, 0.25) as link:
        link.subscribe(["{q}:one"], heard.append, lambda: subscribed.append(True))
        await until(lambda: subscribed)
        pings = int(server.info("commandstats")["cmdstat_ping"].partition("calls=")[2].partition(",")[0])

        def asked() -> bool:
            stat = server.info("commandstats")["cmdstat_ping"]
            return int(stat.partition("calls=")[2].partition(",")[0]) > pings + 5

        await until(asked)
        await link.run(PUBLISH, [], ["{q}:one", "hi"], wait=5)
        await until(lambda: heard)
    assert subscribed == [True]


async def test_B06_after_3000_failures_the_server_is_found(server: Server) -> None:
    clock, failures = VirtualClock(), 3_000
    link = Link(server.url, timeout=5, clock=clock)
    dial = link._route.dial

    async def refused_at_first(push: Any = None) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise Unreachable("refused")
        return await dial(push)

    link._keeper._dial = refused_at_first
    call = asyncio.ensure_future(link.run(ECHO, ["{a}"], [1], wait=None))
    while failures:
        await clock.advance(2)
    await clock.advance(2)
    assert int((await call)[0]) == 1
    await link.close()


def test_a_thread_has_a_link_that_outlives_its_server(start_server: Any) -> None:
    server = start_server(aof="always")
    fds_before = threading.active_count()
    link = ThreadLink(server.url, timeout=10)
    assert int(link.run(ECHO, ["{a}"], [1])[0]) == 1
    server.kill()
    server.start()
    assert int(link.run(ECHO, ["{a}"], [2])[0]) == 2
    server.ask("SCRIPT", "FLUSH")
    assert int(link.run(ECHO, ["{a}"], [3])[0]) == 3
    link.close()
    link.close()
    assert threading.active_count() == fds_before


def test_a_thread_is_told_in_time_that_the_server_is_silent(start_server: Any) -> None:
    server = start_server()
    link = ThreadLink(server.url, timeout=0.3)
    link.run(ECHO, ["{a}"], [1])
    server.freeze()
    with pytest.raises(BrokerUnavailable):
        link.run(ECHO, ["{a}"], [2])
    server.thaw()
    link.close()
