"""`Wire` over a real pair of sockets, in virtual time: when silence is too long."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs.distributed.redis.refusal import Lost
from lane_obs.distributed.redis.url import Address
from lane_obs.distributed.redis.wire import Wire, pack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lane_obs.clock import VirtualClock

TIMEOUT = 5.0
LARGE = pack("ECHO", b"x" * 20_000_000)


@asynccontextmanager
async def connected(clock: VirtualClock) -> AsyncIterator[tuple[Wire, socket.socket]]:
    """A wire, and the other end of its connection."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    wire = Wire(Address("pair", 0), clock, TIMEOUT)
    await loop.create_connection(lambda: wire, sock=ours)
    try:
        yield wire, theirs
    finally:
        await wire.end("the test is over")
        theirs.close()


async def read(theirs: socket.socket, count: int) -> None:
    loop = asyncio.get_running_loop()
    while count > 0:
        count -= len(await loop.sock_recv(theirs, min(count, 1 << 20)))


async def answer(theirs: socket.socket, future: asyncio.Future[Any]) -> Any:
    await asyncio.get_running_loop().sock_sendall(theirs, b"+OK\r\n")
    return await future


async def test_a_large_question_that_has_just_left_has_the_whole_time_for_its_answer(clock: VirtualClock) -> None:
    async with connected(clock) as (wire, theirs):
        future = wire.ask(LARGE)
        await clock.advance(TIMEOUT - 0.1)
        await read(theirs, len(LARGE))
        await clock.advance(TIMEOUT - 0.2)
        assert not wire.broken
        assert await answer(theirs, future) == b"OK"


async def test_a_large_question_that_goes_on_leaving_may_take_longer(clock: VirtualClock) -> None:
    async with connected(clock) as (wire, theirs):
        future = wire.ask(LARGE)
        for _ in range(4):
            await clock.advance(TIMEOUT - 0.1)
            await read(theirs, len(LARGE) // 4)
        await read(theirs, len(LARGE) % 4)
        assert not wire.broken
        assert await answer(theirs, future) == b"OK"


@pytest.mark.parametrize("question", [pack("PING"), LARGE], ids=["small", "large"])
async def test_one_that_stays_without_an_answer_breaks_it(clock: VirtualClock, question: bytes) -> None:
    async with connected(clock) as (wire, theirs):
        future = wire.ask(question)
        await read(theirs, len(question))
        await clock.advance(TIMEOUT + 0.1)
        await clock.advance(TIMEOUT + 0.1)
        assert isinstance(await future, Lost)
        assert wire.broken
