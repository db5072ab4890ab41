"""The link through a network that cuts, delays, swallows and halves what passes."""

from __future__ import annotations

import asyncio
import socket
from random import Random
from typing import TYPE_CHECKING, Any

import hiredis
import pytest

from lane_obs.distributed.redis.link import Link, Script
from lane_obs.errors import BrokerUnavailable
from tests.integration.servers import links
from tests.integration.servers.proxy import Proxy
from tests.integration.servers.waiting import until

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterator

    from tests.integration.servers.server import Server

ECHO = Script("echo", "return {ARGV[1], KEYS[1]}")
BIG = Script("big", "return {ARGV[1], string.rep('x', 100000)}")
PUBLISH = Script("publish", "return redis.call('PUBLISH', ARGV[1], ARGV[2])")


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as running:
        yield running


def connected(proxy: Proxy, timeout: float = 2.0, **options: Any) -> contextlib.AbstractAsyncContextManager[Link]:
    return links.connected(proxy.url, timeout, **options)


async def check(link: Link, number: int, wait: float | None = 10.0) -> None:
    assert int((await link.run(ECHO, ["{a}"], [number], wait=wait))[0]) == number


@pytest.mark.both_loops
async def test_B31_after_five_cuts_in_two_seconds_scripts_run_and_messages_come(proxy: Proxy) -> None:
    heard: list[bytes] = []
    subscribed: list[int] = []
    async with connected(proxy) as link:
        link.subscribe(["{q}:one"], heard.append, lambda: subscribed.append(1))
        await until(lambda: subscribed)
        proxy.cut_fresh(6)  # each of the next ones breaks between its connection and its first command
        for number in range(5):
            assert proxy.cut() >= 0
            before = proxy.accepted
            call = asyncio.ensure_future(check(link, number))
            await until(lambda before=before: proxy.accepted > before)
            proxy.cut()
            await call
        deadline = asyncio.get_running_loop().time() + 5
        while not heard:  # what is published while nobody listens is lost
            await link.run(PUBLISH, [], ["{q}:one", "after"], wait=5)
            await asyncio.sleep(0.02)
            assert asyncio.get_running_loop().time() < deadline


async def test_a_reply_cut_at_any_byte_is_asked_for_again_and_never_mistaken(proxy: Proxy) -> None:
    rng = Random(7)
    async with connected(proxy) as link:
        for turn in range(30):
            proxy.cut_reply_after(rng.choice([0, 1, rng.randrange(1_000), rng.randrange(1_000_000)]))
            calls = [link.run(BIG, ["{a}"], [turn * 10 + n], wait=20) for n in range(10)]
            answers = await asyncio.gather(*calls)
            assert [int(answer[0]) for answer in answers] == [turn * 10 + n for n in range(10)]
            assert {len(answer[1]) for answer in answers} == {100_000}


async def test_B32_a_silent_server_is_noticed_by_calls_and_by_the_subscription(proxy: Proxy) -> None:
    told: list[bool] = []
    subscribed: list[int] = []
    heard: list[bytes] = []
    async with connected(proxy, 0.2, on_state=lambda up, _: told.append(up)) as link:
        link.subscribe(["{q}:one"], heard.append, lambda: subscribed.append(1))
        await until(lambda: subscribed)
        proxy.silence()
        await until(lambda: told == [False])  # nobody calls: the subscription alone notices
        with pytest.raises(BrokerUnavailable):
            await check(link, 1, wait=0.5)
        waits = asyncio.ensure_future(check(link, 2, wait=None))
        proxy.silence(silent=False)
        await waits
        await until(lambda: len(subscribed) == 2 and told == [False, True])
        await link.run(PUBLISH, [], ["{q}:one", "after"], wait=5)
        await until(lambda: heard == [b"after"])


async def test_a_slow_network_is_waited_for_and_one_that_is_too_slow_is_not(proxy: Proxy) -> None:
    async with connected(proxy, 1.0) as link:
        proxy.delay(0.1)
        await asyncio.gather(*(check(link, number) for number in range(50)))
        proxy.delay(30)
        with pytest.raises(BrokerUnavailable):
            await check(link, 1, wait=0.3)
        proxy.delay(0)
        proxy.cut()
        await check(link, 2)


async def test_a_server_that_refuses_connections_is_found_when_it_takes_them(proxy: Proxy) -> None:
    reasons: list[str] = []
    async with connected(proxy, on_state=lambda up, reason: reasons.append(reason)) as link:
        proxy.refuse()
        proxy.cut()
        await until(lambda: reasons)
        with pytest.raises(BrokerUnavailable):
            await check(link, 1, wait=0.2)
        waits = [asyncio.ensure_future(check(link, number, wait=None)) for number in range(20)]
        proxy.accept()
        await asyncio.gather(*waits)
        assert reasons[-1] == ""


async def test_P41_cancelled_callers_among_cuts_leave_no_answer_for_others(proxy: Proxy) -> None:
    rng = Random(42)
    async with connected(proxy) as link:
        for turn in range(30):
            if rng.random() < 0.3:
                proxy.cut_reply_after(rng.randrange(2_000))
            tasks = [asyncio.ensure_future(check(link, turn * 100 + number)) for number in range(50)]
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)
            for task in rng.sample(tasks, 20):
                task.cancel()
            for end in await asyncio.gather(*tasks, return_exceptions=True):
                assert end is None or isinstance(end, asyncio.CancelledError), end


async def test_a_promoted_replica_takes_over_behind_one_address(server: Server, start_server: Any) -> None:
    replica = start_server(replica_of=server)
    replica.wait_for_link()
    with Proxy(server.port) as proxy:
        async with connected(proxy) as link:
            await check(link, 1)
            proxy.lead_to(replica.port)
            proxy.cut()
            call = asyncio.ensure_future(check(link, 2, wait=None))  # a replica is not good enough
            before = proxy.accepted
            await until(lambda: proxy.accepted > before + 1)
            assert not call.done()
            replica.ask("REPLICAOF", "NO", "ONE")
            await call


async def test_what_is_no_redis_is_told_as_such() -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    web = await asyncio.start_server(answer, "127.0.0.1", 0)
    link = Link(f"redis://127.0.0.1:{web.sockets[0].getsockname()[1]}", timeout=0.2)
    with pytest.raises(BrokerUnavailable, match="does not speak the protocol"):
        await link.connect()
    web.close()
    await web.wait_closed()


async def test_a_large_question_through_a_slow_network_gets_its_time() -> None:
    readers: list[asyncio.Task[Any] | None] = []

    async def read_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        readers.append(asyncio.current_task())
        words = hiredis.Reader()
        while data := await reader.read(131_072):
            words.feed(data)
            while words.gets() is not False:
                writer.write(b"+OK\r\n")
            if len(data) > 10_000:
                await asyncio.sleep(0.01)
        writer.close()

    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)  # the system takes in little ahead of the reader
    narrow.bind(("127.0.0.1", 0))
    slow = await asyncio.start_server(read_slowly, sock=narrow)
    try:
        async with links.connected(f"redis://127.0.0.1:{narrow.getsockname()[1]}", 1.5) as link:
            assert await link.run(ECHO, ["{a}"], [b"x" * 20_000_000], wait=60) == b"OK"
            assert link._keeper.reason == "it was never reached"  # it never broke
    finally:
        slow.close()
        await until(lambda: all(reader is not None and reader.done() for reader in readers))
