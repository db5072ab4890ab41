"""The memory sink: for tests, and as a flight recorder."""

from __future__ import annotations

import asyncio

import pytest

from lane_obs import LaneEvent, MemorySink
from lane_obs.events import LanePaused, LaneResumed


def paused(seq: int) -> LaneEvent:
    return LanePaused(seq, float(seq), float(seq), "a", seq)


def test_it_keeps_events_in_order_and_finds_them_by_key() -> None:
    sink = MemorySink()
    sink.handle([paused(1), LaneResumed(2, 2.0, 2.0, "a", 0)])
    sink.handle([paused(3)])
    assert [event.seq for event in sink.events] == [1, 2, 3]
    assert sink.keys() == ["queue.lane.paused", "queue.lane.resumed", "queue.lane.paused"]
    assert [event.seq for event in sink.of("queue.lane.paused")] == [1, 3]
    assert sink.of("queue.none") == []
    assert sink.dropped == {}


def test_with_a_capacity_it_keeps_the_last_ones_and_counts_the_others() -> None:
    sink = MemorySink(capacity=3)
    for number in range(10):
        sink.handle([paused(number)])
    sink.handle([paused(number) for number in range(10, 15)])
    assert [event.seq for event in sink.events] == [12, 13, 14]
    assert sink.dropped == {"full": 12}


async def test_waiting_gives_an_event_that_is_there_already() -> None:
    sink = MemorySink()
    sink.handle([paused(1), paused(2)])
    assert (await sink.wait_for("queue.lane.paused")).seq == 1
    assert (await sink.wait_for(lambda event: event.seq == 2)).seq == 2


async def test_waiting_gives_the_first_event_to_come() -> None:
    sink = MemorySink()
    waiting = [asyncio.ensure_future(sink.wait_for("queue.lane.resumed")) for _ in range(2)]
    await asyncio.sleep(0)
    sink.handle([paused(1)])
    await asyncio.sleep(0)
    assert not any(waiter.done() for waiter in waiting)
    sink.handle([LaneResumed(2, 2.0, 2.0, "a", 0), LaneResumed(3, 2.0, 2.0, "a", 0)])
    assert [(await waiter).seq for waiter in waiting] == [2, 2]


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    sink = MemorySink()
    waiting = asyncio.ensure_future(sink.wait_for("never"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert sink._waiters == []


def test_it_keeps_what_it_has_when_closed() -> None:
    sink = MemorySink()
    sink.handle([paused(1)])
    sink.close()
    assert [event.seq for event in sink.events] == [1]


@pytest.mark.parametrize("capacity", [0, 1])
def test_a_small_capacity_still_counts_right(capacity: int) -> None:
    sink = MemorySink(capacity)
    sink.handle([paused(1), paused(2)])
    assert len(sink.events) + sink.dropped["full"] == 2
