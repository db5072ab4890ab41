"""The background sink: slow sinks run in a thread, behind a bounded buffer. Real time and threads."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import (
    BackgroundSink,
    Bus,
    ConfigError,
    LaneConfig,
    LaneEvent,
    MemorySink,
    QueueManager,
    SystemClock,
)
from lane_obs.bus import MAX_FAILURES
from lane_obs.events import LanePaused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PATIENCE = 20.0


def paused(seq: int) -> LaneEvent:
    return LanePaused(seq, float(seq), float(seq), "a", seq)


class Slow:
    """Waits in `handle` until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.seqs: list[int] = []
        self.threads: set[str] = set()
        self.closed = 0

    def handle(self, events: Sequence[LaneEvent]) -> None:
        self.entered.set()
        assert self.let_go.wait(PATIENCE)
        self.threads.add(threading.current_thread().name)
        self.seqs += [event.seq for event in events]

    def close(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.closed += 1


@pytest.fixture
def slow() -> Iterator[Slow]:
    sink = Slow()
    yield sink
    sink.let_go.set()


def test_handle_returns_while_the_inner_sink_waits(slow: Slow) -> None:
    sink = BackgroundSink(slow)
    sink.handle([paused(1)])
    assert slow.entered.wait(PATIENCE)
    sink.handle([paused(2), paused(3)])
    assert slow.seqs == []
    slow.let_go.set()
    sink.close()
    assert slow.seqs == [1, 2, 3]
    assert (slow.closed, sink.dropped) == (1, {})
    assert slow.threads == {"lane-obs-sink"}


def test_what_does_not_fit_is_dropped_and_counted(slow: Slow) -> None:
    sink = BackgroundSink(slow, capacity=10)
    sink.handle([paused(0)])
    assert slow.entered.wait(PATIENCE)
    for number in range(1, 31):
        sink.handle([paused(number)])
    assert sink.dropped == {"full": 20}
    slow.let_go.set()
    sink.close()
    assert slow.seqs == list(range(11))


def test_one_batch_above_the_capacity_is_kept_as_far_as_it_fits(slow: Slow) -> None:
    slow.let_go.set()
    sink = BackgroundSink(slow, capacity=10)
    sink.handle([paused(number) for number in range(25)])
    sink.close()
    assert slow.seqs == list(range(10))
    assert sink.dropped == {"full": 15}


def test_close_gives_up_on_a_stuck_sink_and_counts_what_is_lost(slow: Slow) -> None:
    sink = BackgroundSink(slow, close_timeout=0.05)
    sink.handle([paused(0)])
    assert slow.entered.wait(PATIENCE)
    sink.handle([paused(1), paused(2)])
    sink.close()
    assert sink.dropped == {"closed": 3}  # the one in hand included
    slow.let_go.set()


class Broken:
    """Raises at every batch."""

    def __init__(self) -> None:
        self.calls = 0
        self.called = threading.Semaphore(0)

    def handle(self, events: Sequence[LaneEvent]) -> None:
        self.calls += 1
        self.called.release()
        raise OSError("disk full")

    def close(self) -> None:
        raise OSError("still full")


async def test_a_failing_inner_sink_is_logged_once_reported_once_and_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    inner, good = Broken(), MemorySink()
    bus = Bus(SystemClock(), [BackgroundSink(inner), good])
    bus.bind(asyncio.get_running_loop())
    while not bus.stats()[0].disabled:
        bus.emit(LanePaused, "a", 1)
        await asyncio.sleep(0)
        assert inner.called.acquire(timeout=PATIENCE)
        assert inner.calls <= 2 * MAX_FAILURES
    calls = inner.calls
    assert calls >= MAX_FAILURES
    for _ in range(MAX_FAILURES):
        bus.emit(LanePaused, "a", 1)
        await asyncio.sleep(0)
    await bus.close()
    assert inner.calls == calls
    (failed,) = good.of("queue.sink.failed")
    assert failed.payload == {"sink": "BackgroundSink", "error_type": "OSError", "error": "disk full"}
    assert len(good.of("queue.sink.disabled")) == 1
    dropped = bus.stats()[0].dropped
    assert dropped["error"] + dropped["disabled"] == len(good.events)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "sink BackgroundSink failed; further failures are only counted",
        "sink Broken failed to close",
    ]


def test_a_sink_that_never_got_an_event_is_still_closed(slow: Slow) -> None:
    BackgroundSink(slow).close()
    assert slow.closed == 1


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"capacity": 0}, "capacity"),
        ({"capacity": True}, "capacity"),
        ({"capacity": 1.0}, "capacity"),
        ({"close_timeout": -1}, "close_timeout"),
        ({"close_timeout": "x"}, "close_timeout"),
        ({"flush_interval": -1}, "flush_interval"),
    ],
)
def test_a_bad_capacity_or_time_out_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: "):
        BackgroundSink(Slow(), **options)


def test_what_is_no_sink_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^sink: "):
        BackgroundSink(object())  # type: ignore[arg-type]


async def test_the_queue_and_its_close_keep_the_loop_free(slow: Slow) -> None:
    manager = QueueManager({"a": LaneConfig(0, 1)}, sinks=[BackgroundSink(slow)])
    await manager.start()
    assert await (await manager.submit("a", asyncio.sleep, 0, "done")) == "done"
    closing = asyncio.ensure_future(manager.close())
    for _ in range(200):
        await asyncio.sleep(0)  # turns of the loop: it is free while the sink's thread waits
    assert not closing.done()
    slow.let_go.set()
    await closing
    assert slow.closed == 1
    assert slow.seqs[0] == 1


async def test_drops_are_shown_in_the_queues_statistics(slow: Slow) -> None:
    manager = QueueManager({"a": LaneConfig(0, 1)}, sinks=[BackgroundSink(slow, capacity=1)])
    await manager.start()
    for _ in range(20):
        await (await manager.submit("a", asyncio.sleep, 0))
    assert manager.stats().sinks[0].dropped["full"] > 0
    slow.let_go.set()
    await manager.close()


# When the thread works.


class Counting(MemorySink):
    """Keeps the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.got = threading.Semaphore(0)

    def handle(self, events: Sequence[LaneEvent]) -> None:
        self.sizes.append(len(events))
        super().handle(events)
        self.got.release()


def waits_without_a_time_out(sink: BackgroundSink) -> bool:
    """Whether the sink's thread sleeps until it is told."""
    thread = sink._thread
    assert thread is not None
    frame = sys._current_frames()[thread.ident or 0]
    return frame.f_code is threading.Condition.wait.__code__ and frame.f_locals["timeout"] is None


def until(check: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_events_are_collected_and_handed_over_together() -> None:
    inner = Counting()
    sink = BackgroundSink(inner, flush_interval=3600)
    for number in range(5):
        sink.handle([paused(number)])
    sink.close()
    assert inner.sizes == [5]


def test_events_are_handed_over_after_the_interval_though_nothing_else_comes() -> None:
    inner = Counting()
    sink = BackgroundSink(inner, flush_interval=0.01)
    sink.handle([paused(1)])
    assert inner.got.acquire(timeout=PATIENCE)
    assert inner.sizes == [1]
    sink.close()


def test_without_an_interval_nothing_waits() -> None:
    inner = Counting()
    sink = BackgroundSink(inner, flush_interval=0)
    for number in range(5):
        sink.handle([paused(number)])
        assert inner.got.acquire(timeout=PATIENCE)
    sink.close()
    assert inner.sizes == [1] * 5


def test_a_buffer_half_full_does_not_wait_for_the_interval() -> None:
    inner = Counting()
    sink = BackgroundSink(inner, capacity=10, flush_interval=3600)
    sink.handle([paused(number) for number in range(4)])
    assert sink.pending == 4
    sink.handle([paused(4)])
    assert inner.got.acquire(timeout=PATIENCE)
    assert inner.sizes == [5]
    sink.close()


def test_many_events_are_handed_over_in_parts() -> None:
    inner = Counting()
    sink = BackgroundSink(inner)
    sink.handle([paused(number) for number in range(1000)])
    sink.close()
    assert [event.seq for event in inner.events] == list(range(1000))
    assert max(inner.sizes) <= 256


def test_an_idle_thread_sleeps_until_it_is_told() -> None:
    inner = Counting()
    sink = BackgroundSink(inner, flush_interval=0.001)
    for number in range(3):
        sink.handle([paused(number)])
        assert inner.got.acquire(timeout=PATIENCE)
        until(lambda: waits_without_a_time_out(sink))
    sink.close()
    assert sum(inner.sizes) == 3


def test_what_comes_after_close_is_counted_as_lost() -> None:
    sink = BackgroundSink(MemorySink())
    sink.close()
    sink.handle([paused(1)])
    assert sink.dropped == {"closed": 1}
    assert sink._thread is None


def test_closing_twice_closes_the_inner_sink_once(slow: Slow) -> None:
    sink = BackgroundSink(slow)
    sink.close()
    sink.close()
    assert slow.closed == 1


def test_an_exit_raised_by_the_inner_sink_does_not_end_the_thread() -> None:
    class Leaving(Counting):
        def handle(self, events: Sequence[LaneEvent]) -> None:
            super().handle(events)
            if len(self.sizes) == 1:
                raise SystemExit

    inner = Leaving()
    sink = BackgroundSink(inner, flush_interval=0)
    for number in range(2):
        sink.handle([paused(number)])
        assert inner.got.acquire(timeout=PATIENCE)
    sink.close()
    assert (inner.sizes, sink.dropped) == ([1, 1], {"error": 1})


# What it shows, and what it passes on.


def test_pending_counts_what_waits_and_what_is_being_handed_over(slow: Slow) -> None:
    sink = BackgroundSink(slow)
    sink.handle([paused(1)])
    assert slow.entered.wait(PATIENCE)
    sink.handle([paused(2), paused(3)])
    assert sink.pending == 3
    slow.let_go.set()
    sink.close()
    assert sink.pending == 0


async def test_flush_time_and_lag_are_those_of_the_thread() -> None:
    class Clock(SystemClock):
        """Stands still but for what the inner sink takes."""

        def __init__(self) -> None:
            super().__init__()
            self.time = 100.0
            self.now = lambda: self.time  # type: ignore[method-assign]

    class Taking(MemorySink):
        def handle(self, events: Sequence[LaneEvent]) -> None:
            clock.time += 2.0
            super().handle(events)

    clock = Clock()
    sink = BackgroundSink(Taking(), flush_interval=3600)
    manager = QueueManager({"a": LaneConfig(0, 1)}, sinks=[sink], clock=clock)
    await manager.start()
    await asyncio.sleep(0)
    clock.time += 3.0
    await manager.close()
    assert (sink.timing.flush.count, sink.timing.flush.total) == (1, 2.0)
    assert sink.timing.last_lag == 5.0  # from the first event until it was handed over
    stats = manager.stats().sinks[0]
    assert (stats.flush_seconds, stats.lag_seconds, stats.pending) == (2.0, 5.0, 0)


class Hooked(MemorySink):
    """Notes the hooks that are called."""

    wants = frozenset({LanePaused})

    def __init__(self) -> None:
        super().__init__()
        self.called: list[str] = []

    def attach(self, queue: Any) -> None:
        self.called.append(f"attach {[*queue.lanes]}")

    def start(self) -> None:
        self.called.append("start")

    def at_submit(self, command: Any) -> None:
        self.called.append(f"at_submit {command.id}")

    def at_start(self, command: Any) -> None:
        self.called.append(f"at_start {command.attempt}")

    def in_attempt(self, command: Any) -> None:
        self.called.append(f"in_attempt {command.lane}")


async def test_the_inner_sinks_hooks_and_wishes_are_passed_on() -> None:
    inner = Hooked()
    async with QueueManager({"a": LaneConfig(0, 1)}, sinks=[BackgroundSink(inner)]) as manager:
        await (await manager.submit("a", asyncio.sleep, 0, id="one"))
        manager.pause("a")
        manager.resume("a")
    assert inner.called == ["attach ['a']", "start", "at_submit one", "at_start 1", "in_attempt a"]
    assert [event.key for event in inner.events] == ["queue.lane.paused"]


async def test_hooks_that_the_inner_sink_has_not_cost_nothing() -> None:
    bus = Bus(SystemClock(), [BackgroundSink(MemorySink())])
    assert (bus.at_submit, bus.at_reject, bus.at_start, bus.in_attempt) == ((), (), (), ())
    await bus.close()
