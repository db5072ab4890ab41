"""Subscriptions: who gets which events, who loses some, and how a stream ends."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from lane_obs import ConfigError, EventEmitter, LaneConfig, LaneEvent, QueueManager, StreamClosed
from lane_obs.events import LaneIdle, LanePaused, QueueStarted


def paused(seq: int) -> LaneEvent:
    return LanePaused(seq, float(seq), float(seq), "a", seq)


async def test_every_subscriber_gets_every_event_in_order() -> None:
    emitter = EventEmitter()
    first, second = emitter.subscribe(), emitter.subscribe()
    emitter.handle([paused(1), paused(2)])
    emitter.handle([paused(3)])
    assert [(await first.recv()).seq for _ in range(3)] == [1, 2, 3]
    assert [(await second.recv()).seq for _ in range(3)] == [1, 2, 3]


async def test_a_subscriber_gets_events_from_its_subscription_on() -> None:
    emitter = EventEmitter()
    emitter.handle([paused(1)])
    stream = emitter.subscribe()
    emitter.handle([paused(2)])
    assert (await stream.recv()).seq == 2


async def test_a_filtered_stream_has_the_wanted_events_only() -> None:
    emitter = EventEmitter(capacity=2)
    stream = emitter.subscribe_filtered(lambda event: event.key == "queue.lane.idle")
    emitter.handle([paused(number) for number in range(50)])
    emitter.handle([LaneIdle(51, 1.0, 1.0, "a", 0)])
    assert (await stream.recv()).seq == 51
    assert stream.dropped == 0  # what it does not want takes no room


async def test_a_slow_subscriber_loses_the_oldest_and_knows_how_many() -> None:
    emitter = EventEmitter(capacity=100)
    slow, quick = emitter.subscribe(), emitter.subscribe()
    for number in range(300):
        emitter.handle([paused(number)])
        await quick.recv()
    assert slow.dropped == 200
    assert quick.dropped == 0
    assert [(await slow.recv()).seq for _ in range(100)] == list(range(200, 300))
    assert emitter.dropped == {"slow_subscriber": 200}


async def test_recv_waits_for_the_next_event() -> None:
    emitter = EventEmitter()
    stream = emitter.subscribe()
    waiting = asyncio.ensure_future(stream.recv())
    await asyncio.sleep(0)
    assert not waiting.done()
    emitter.handle([paused(7)])
    assert (await waiting).seq == 7


async def test_several_readers_of_one_stream_share_its_events() -> None:
    emitter = EventEmitter()
    stream = emitter.subscribe()
    readers = [asyncio.ensure_future(stream.recv()) for _ in range(3)]
    await asyncio.sleep(0)
    emitter.handle([paused(1), paused(2), paused(3)])
    assert sorted([(await reader).seq for reader in readers]) == [1, 2, 3]


@pytest.mark.both_loops
async def test_a_reader_cancelled_as_its_event_comes_leaves_it_to_the_next() -> None:
    emitter = EventEmitter()
    stream = emitter.subscribe()
    for number in range(300):
        first, second = asyncio.ensure_future(stream.recv()), asyncio.ensure_future(stream.recv())
        await asyncio.sleep(0)
        emitter.handle([paused(number)])
        first.cancel()
        assert (await second).seq == number
        await asyncio.wait([first])
        assert first.cancelled()


async def test_a_closed_stream_gives_out_what_it_holds_and_then_ends() -> None:
    emitter = EventEmitter()
    stream = emitter.subscribe()
    emitter.handle([paused(1)])
    stream.close()
    emitter.handle([paused(2)])
    assert [event.seq async for event in stream] == [1]
    with pytest.raises(StreamClosed):
        await stream.recv()


async def test_closing_wakes_every_reader() -> None:
    emitter = EventEmitter()
    stream = emitter.subscribe()
    readers = [asyncio.ensure_future(stream.recv()) for _ in range(5)]
    await asyncio.sleep(0)
    emitter.close()
    results = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(result) for result in results] == [StreamClosed] * 5


async def test_a_subscription_after_the_close_ends_at_once() -> None:
    emitter = EventEmitter()
    emitter.close()
    assert [event async for event in emitter.subscribe()] == []


async def test_a_with_block_closes_the_stream() -> None:
    emitter = EventEmitter()
    with emitter.subscribe() as stream:
        emitter.handle([paused(1)])
    assert [event.seq async for event in stream] == [1]


async def test_a_filter_that_raises_harms_its_own_subscriber_only() -> None:
    emitter = EventEmitter()
    bad = emitter.subscribe_filtered(lambda event: 1 / 0 > 0)
    good = emitter.subscribe()
    emitter.handle([paused(1)])
    emitter.handle([paused(2)])
    assert [(await good.recv()).seq, (await good.recv()).seq] == [1, 2]
    with pytest.raises(ZeroDivisionError):
        await bad.recv()


async def test_a_stream_nobody_holds_is_not_filled() -> None:
    emitter = EventEmitter(capacity=1)
    emitter.subscribe()
    gc.collect()
    emitter.handle([paused(1), paused(2)])
    assert emitter.dropped == {"slow_subscriber": 0}


@pytest.mark.parametrize("capacity", [0, -1, True, 1.5, "9", None])
def test_a_capacity_is_a_count_of_one_or_more(capacity: Any) -> None:
    with pytest.raises(ConfigError, match=r"^capacity: .* whole number of 1 or more"):
        EventEmitter(capacity)


async def test_a_queues_life_can_be_followed_to_its_end() -> None:
    emitter = EventEmitter()
    stream = emitter.subscribe()

    async def follow() -> list[str]:
        return [event.key async for event in stream]

    follower = asyncio.ensure_future(follow())
    async with QueueManager({"a": LaneConfig(0, 1)}, sinks=[emitter]) as manager:
        await (await manager.submit("a", asyncio.sleep, 0))
    keys = await follower
    assert keys[0] == QueueStarted.key
    assert keys[-1] == "queue.closed"
    assert "queue.command.completed" in keys


async def too_late(_: LaneEvent) -> bool:
    return True


@pytest.mark.parametrize("wanted", [5, None, "queue.lane.idle", [LaneIdle], too_late])
def test_a_filter_that_cannot_answer_is_refused_when_it_is_given(wanted: Any) -> None:
    with pytest.raises(ConfigError, match=r"^wanted: .* give a plain function of an event"):
        EventEmitter().subscribe_filtered(wanted)
