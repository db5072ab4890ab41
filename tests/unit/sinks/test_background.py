"""The background sink: slow sinks run in a thread, behind a bounded buffer. Real time and threads."""

from __future__ import annotations

import asyncio
import logging
import threading
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
    ],
)
def test_a_bad_capacity_or_time_out_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: "):
        BackgroundSink(Slow(), **options)


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
