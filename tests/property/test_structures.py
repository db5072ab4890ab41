from __future__ import annotations

import asyncio
import gc
import math
import random
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lane_obs import (
    CommandHandle,
    EventEmitter,
    LaneConfig,
    MemorySink,
    RetryPolicy,
    State,
    StreamClosed,
    VirtualClock,
)
from lane_obs.core.engine import Engine
from lane_obs.core.ready import ReadyQueue
from lane_obs.core.record import Record
from lane_obs.core.timer import Timers
from lane_obs.events import QueueStarted
from lane_obs.sinks.emitter import EventStream
from tests.conftest import run_clean
from tests.property.bench import running

SEEDS = st.integers(0, 2**32)
MANY = 10_000
FEW = 1_000


def inside(thing: object) -> int:
    """How many items the containers of an object hold, whatever they are called."""
    names = getattr(type(thing), "__slots__", ()) or vars(thing)
    parts = [getattr(thing, name) for name in names if hasattr(thing, name)]
    return sum(len(part) for part in parts if isinstance(part, list | dict | set | deque))


def alive(kind: type) -> int:
    gc.collect()
    return sum(1 for thing in gc.get_objects() if isinstance(thing, kind))


# --- timers -----------------------------------------------------------------------------------------------------


@given(seed=SEEDS, steps=st.sampled_from([20, 200, 3_000]), cancelling=st.sampled_from([0.2, 0.5, 0.9]))
@settings(max_examples=40, deadline=None)
def test_timers_come_due_as_from_a_sorted_list(seed: int, steps: int, cancelling: float) -> None:
    rng = random.Random(seed)
    timers, plain, entries = Timers(), [], []
    now = 0.0
    for number in range(1, steps + 1):
        chance = rng.random()
        if chance < 0.5:
            when = rng.choice([now + rng.randint(0, 50), rng.uniform(0, 1e6), now])
            kind = rng.choice(["due", "timeout"])
            plain.append((when, number, kind))
            entries.append((timers.set(when, kind, number), number))
        elif chance < 0.5 + cancelling / 2 and entries:
            entry, cancelled = entries[rng.randrange(len(entries))]  # it may be over, or cancelled, already
            timers.cancel(entry)
            plain = [item for item in plain if item[1] != cancelled]
        else:
            now += rng.choice([0, 1, 10, 1_000])
            due = sorted(item for item in plain if item[0] <= now)
            plain = [item for item in plain if item[0] > now]
            assert list(timers.pop_due(now)) == [(kind, order) for _, order, kind in due]
        assert len(timers) == len(plain)
        assert inside(timers) <= 2 * len(plain) + 2 * 256 + 2
        if rng.random() < 0.3:
            assert timers.next_at() == min((when for when, _, _ in plain), default=math.inf)
    assert [order for _, order in timers.pop_due(1e12)] == [order for _, order, _ in sorted(plain)]
    assert inside(timers) == 0


def test_timers_set_while_others_come_due_are_seen_in_their_place() -> None:
    timers, seen = Timers(), []
    timers.set(1.0, "due", "first")
    timers.set(3.0, "due", "third")
    last = timers.set(4.0, "due", "never")
    for _, name in timers.pop_due(5.0):
        seen.append(name)
        if name == "first":
            timers.set(2.0, "due", "second")
            timers.set(9.0, "due", "later")
            timers.cancel(last)
    assert seen == ["first", "second", "third"]
    assert (len(timers), timers.next_at()) == (1, 9.0)


# --- the ready commands of a lane -------------------------------------------------------------------------------


@given(seed=SEEDS, steps=st.sampled_from([30, 300, 3_000]), ending=st.sampled_from([0.1, 0.4, 0.7]))
@settings(max_examples=30, deadline=None)
def test_ready_commands_come_out_as_from_a_sorted_list(seed: int, steps: int, ending: float) -> None:
    rng = random.Random(seed)
    queue = ReadyQueue()
    plain: list[Record] = []
    away: list[int] = []  # numbers of those that started or ended and may come back
    for number in range(1, steps + 1):
        now = float(number // 3)
        chance = rng.random()
        if chance < 0.3:
            plain.append(Record(number, None, now, since=now))
            queue.add(plain[-1])
        elif chance < 0.5 and away:  # a delay is over, a retry is due, or a dead letter is requeued
            back = Record(away.pop(rng.randrange(len(away))), None, now, since=now)
            plain.append(back)
            queue.put_back(back)
        elif chance < 0.5 + ending / 2 and plain:
            ended = plain.pop(rng.randrange(len(plain)))
            ended.state = State.CANCELLED
            queue.forget(ended)
            away.append(ended.seq)
        elif plain:
            record = queue.pop()
            assert record is min(plain, key=lambda one: one.seq)
            record.state = State.RUNNING
            plain.remove(record)
            away.append(record.seq)
        if rng.random() < 0.2:
            assert queue.peek() is min(plain, key=lambda one: one.seq, default=None)
            assert queue.oldest_since() == min((one.since for one in plain), default=None)
            middle = rng.randint(0, number)
            assert queue.ahead_of(middle) == sum(one.seq < middle for one in plain)
        assert inside(queue) <= 5 * len(plain) + 400
    for record in sorted(plain, key=lambda one: one.seq):
        assert queue.pop() is record
        record.state = State.RUNNING
    assert queue.peek() is None


@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("order", ["oldest first", "newest first", "at random"])
def test_commands_that_end_in_a_paused_lane_leave_nothing_behind(delayed: bool, order: str) -> None:
    before = alive(Record)
    engine = Engine({"a": LaneConfig(0, 1)}, None, 0.0)
    lane = engine.lane("a")
    engine.set_paused(lane, 0.0, paused=True)
    records = [Record(number, lane, 0.0) for number in range(MANY)]
    for record in records:
        engine.submit(record, 0.0, delayed=delayed)
    for record in records:
        if delayed:
            engine.make_ready(record, 1.0)
    if order == "newest first":
        records.reverse()
    elif order == "at random":
        random.Random(1).shuffle(records)
    for record in records:
        engine.finish(record, State.CANCELLED, 2.0)
    assert lane.counts[State.CANCELLED] == MANY
    assert inside(lane.ready) < FEW
    records.clear()
    del record
    assert alive(Record) - before < FEW


def test_commands_that_ran_leave_nothing_behind() -> None:
    before = alive(Record)
    engine = Engine({"a": LaneConfig(0, 4)}, None, 0.0)
    lane = engine.lane("a")
    for number in range(MANY):
        engine.submit(Record(number, lane, 0.0), 0.0, delayed=False)
    waiting: list[Record] = []
    while engine.live:
        while (record := engine.start_next(1.0)) is not None:
            if record.attempt == 1:
                engine.back_off(record, 1.0)
                waiting.append(record)
            else:
                engine.finish(record, State.SUCCEEDED, 1.0)
        waiting.reverse()
        for record in waiting:
            engine.make_ready(record, 2.0)
        waiting.clear()
    assert lane.counts[State.SUCCEEDED] == MANY
    assert inside(lane.ready) < FEW
    del record
    assert alive(Record) - before < FEW


async def test_ten_thousand_commands_cancelled_in_a_paused_lane_leave_nothing_behind(clock: VirtualClock) -> None:
    async def work() -> None:
        raise AssertionError("it never runs")

    before = alive(CommandHandle)
    async with running(clock, {"a": LaneConfig(0, 1)}) as manager:
        manager.pause("a")
        dispatcher = manager._dispatcher
        handles = [
            manager.submit_nowait("a", work, delay=number % 2, deadline=1_000.0, id=f"id {number}", key=f"key {number}")
            for number in range(MANY)
        ]
        await clock.advance(2.0)
        for handle in handles:
            handle.cancel()
        await clock.advance(1.0)
        assert inside(manager._engine.lane("a").ready) < FEW
        assert inside(dispatcher.timers) < FEW
        assert inside(dispatcher.directory) == 0
        assert inside(clock) < FEW
        handles.clear()
        del handle
        assert alive(CommandHandle) - before < FEW
        assert manager.stats().lanes["a"].ended["cancelled"] == MANY


async def test_the_queue_does_not_keep_what_has_ended(clock: VirtualClock) -> None:
    async def work(number: int) -> int:
        if number % 5 == 0 and number % 10 == 0:
            raise ValueError(number)
        return number

    before = alive(CommandHandle)
    policy = RetryPolicy.fixed(1, 0.5)
    async with running(clock, {"a": LaneConfig(0, 50, timeout=9.0, retry=policy)}, dead_letters=10) as manager:
        for number in range(MANY // 2):
            manager.submit_nowait("a", work, number)
        await clock.run(manager.drain())
        assert inside(manager._engine.lane("a").ready) < FEW
        assert inside(manager._dispatcher.timers) < FEW
        assert inside(manager._dispatcher.directory) == 0
        assert (len(manager.dead_letters), manager.dead_letters.evicted) == (10, MANY // 20 - 10)
        assert alive(CommandHandle) - before < FEW


# --- streams ----------------------------------------------------------------------------------------------------


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 7)),
        st.tuples(st.just("receive"), st.integers(1, 4)),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("turn"), st.just(0)),
    ),
    max_size=40,
)


@given(capacity=st.integers(1, 6), steps=STEPS, filtered=st.booleans())
@settings(max_examples=60, deadline=None)
def test_each_event_is_received_once_or_counted_as_dropped(
    capacity: int, steps: list[tuple[str, int]], filtered: bool
) -> None:
    async def play() -> None:
        stream = EventStream(capacity, (lambda event: event.seq % 2 == 0) if filtered else None)
        received: list[int] = []
        tasks: list[asyncio.Task[None]] = []
        sent = 0

        async def receive() -> None:
            event = await stream.recv()
            received.append(event.seq)

        for name, count in steps:
            if name == "put":
                stream.put([QueueStarted(sent + number + 1, 0.0, 0.0) for number in range(count)])
                sent += count
            elif name == "receive":
                tasks += [asyncio.ensure_future(receive()) for _ in range(count)]
            elif name == "cancel" and tasks:
                tasks[count % len(tasks)].cancel()
            elif name == "turn":
                await asyncio.sleep(0)
        stream.close()
        if tasks:
            await asyncio.wait(tasks)
        assert all(task.cancelled() or isinstance(task.exception(), StreamClosed | None) for task in tasks)
        received += [event.seq async for event in stream]
        wanted = sent // 2 if filtered else sent
        assert len(set(received)) == len(received)
        assert len(received) + stream.dropped == wanted
        with pytest.raises(StreamClosed):
            await stream.recv()

    run_clean(play)


@given(capacity=st.integers(1, 20), reads=st.lists(st.integers(0, 12), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_a_slow_subscriber_of_a_queue_knows_how_much_it_lost(capacity: int, reads: list[int]) -> None:
    async def play() -> None:
        clock, every, short = VirtualClock(), MemorySink(), MemorySink(capacity)
        emitter = EventEmitter(capacity)
        stream = emitter.subscribe()
        received: list[Any] = []

        async def work() -> None:
            return None

        async with running(clock, {"a": LaneConfig(0, 2)}, sinks=[emitter, every, short]) as manager:
            for count in reads:
                for _ in range(3):
                    manager.submit_nowait("a", work)
                await clock.advance(1.0)
                for _ in range(count):
                    if len(received) + stream.dropped < len(every.events):
                        received.append(await stream.recv())
            await clock.run(manager.drain())
        received += [event async for event in stream]
        seqs = [event.seq for event in received]
        assert seqs == sorted(set(seqs))
        assert len(received) + stream.dropped == len(every.events) == every.events[-1].seq
        assert every.events[-len(received) :][-1] is received[-1]
        assert len(short.events) + short.dropped.get("full", 0) == len(every.events)
        for sink in manager.stats().sinks:
            assert sink.events == len(every.events)

    run_clean(play)
