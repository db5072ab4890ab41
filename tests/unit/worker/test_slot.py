"""How long a slot waits before it starts another process, and what a channel carries."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from lane_obs import Clock, MemorySink, SystemClock, VirtualClock
from lane_obs.bus import Bus
from lane_obs.config import RetryPolicy
from lane_obs.worker import Slot
from lane_obs.worker.channel import Channel, LastWords, Left, Line, Message, Ready, Refused
from lane_obs.worker.event import WorkerDied
from lane_obs.worker.slot import RESTARTS, STEADY_SECONDS


def make_slot(clock: Clock, restarts: RetryPolicy = RESTARTS) -> tuple[Slot, MemorySink]:
    sink = MemorySink()
    bus = Bus(clock, [sink])
    slot = Slot(
        "0", lambda _: [], clock, bus, on_last_words=lambda *_: None, on_refused=lambda _: None, restarts=restarts
    )
    return slot, sink


def test_the_back_off_grows_to_its_cap_and_begins_anew_after_a_good_run() -> None:
    clock = VirtualClock()
    slot, sink = make_slot(clock, RetryPolicy(initial_delay=1, max_delay=30, jitter="none"))
    assert [slot._note_death(7, 1) for _ in range(7)] == pytest.approx([1, 2, 4, 8, 16, 30, 30])
    slot._ready_at = clock.now() - STEADY_SECONDS + 1
    assert slot._note_death(7, -9) == 30
    slot._ready_at = clock.now() - STEADY_SECONDS
    assert slot._note_death(7, -9) == 1
    assert slot.restarted == {"died": 9, "rolled": 0}
    slot._bus.flush()
    died = sink.of(WorkerDied.key)[-1]
    assert (died.code, died.run_seconds, died.after_seconds) == (-9, STEADY_SECONDS, 1)


def test_a_thousand_deaths_are_no_matter() -> None:
    slot, _ = make_slot(VirtualClock())
    delays = [slot._note_death(7, 1) for _ in range(2_000)]
    assert all(0 <= delay <= 30 for delay in delays)
    assert len(set(delays[-100:])) > 50  # spread, so that processes do not come back in step


async def test_a_process_that_cannot_be_started_at_all_is_tried_again(clock: VirtualClock) -> None:
    slot, sink = make_slot(clock)
    slot._command = lambda _: ["/no/such/program"]
    keeping = asyncio.ensure_future(slot.keep())
    while slot.state != "waiting":
        await asyncio.sleep(0)
    slot._bus.flush()
    (died,) = sink.of(WorkerDied.key)
    assert (died.pid, died.code) == (0, None)
    assert died.error.startswith("it cannot be started: ")
    slot.stop()
    await keeping
    assert slot.state == "ended"


async def test_processes_that_come_and_go_leave_nothing_open() -> None:
    slot, _ = make_slot(SystemClock(), RetryPolicy(initial_delay=0, max_delay=0))
    slot._command = lambda _: ["true"]
    keeping = asyncio.ensure_future(slot.keep())

    async def runs(count: int) -> int:
        while slot.run < count:
            await asyncio.sleep(0.001)
        return len(os.listdir("/proc/self/fd"))

    before = await runs(5)
    after = await runs(60)
    slot.stop()
    await keeping
    assert after <= before + 4  # those of the process that runs
    assert slot.restarted["died"] >= 59


# --- channel ----------------------------------------------------------------------------------------------------

MESSAGES: list[Message] = [
    Ready("http://127.0.0.1:1", 30.0),
    Refused("no", final=True),
    Left(3),
    LastWords("é" * 300_000),
]


async def open_pair() -> tuple[Channel, Line]:
    ours, theirs = socket.socketpair()
    return Channel(theirs.detach()), Line(*await asyncio.open_connection(sock=ours))


async def test_every_message_arrives_however_large_and_then_the_end() -> None:
    channel, line = await open_pair()

    def tell() -> None:
        for message in MESSAGES:
            channel.send(message)
        channel._socket.close()

    telling = asyncio.create_task(asyncio.to_thread(tell))
    assert [message async for message in line.messages()] == MESSAGES
    await telling
    line.close()


async def test_a_child_hears_that_it_is_to_close_and_that_nobody_is_there() -> None:
    channel, line = await open_pair()
    heard: asyncio.Queue[str] = asyncio.Queue()
    channel.listen(lambda: heard.put_nowait("close"), lambda: heard.put_nowait("gone"))
    line.close_now()
    assert await heard.get() == "close"
    line.close()
    assert await heard.get() == "gone"
    channel.send(Left(0))  # to nobody
    channel._socket.close()


async def test_what_is_cut_off_or_no_message_ends_the_line() -> None:
    for data in (b"\0\0", b"\0\0\0\x05ab", b"\0\0\0\x01\xc1"):
        ours, theirs = socket.socketpair()
        line = Line(*await asyncio.open_connection(sock=ours))
        os.write(theirs.fileno(), data)
        theirs.close()
        assert [message async for message in line.messages()] == []
        line.close()
