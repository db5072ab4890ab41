"""The event bus: order, batches, and sinks that fail."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import Bus, ConfigError, EventEmitter, LaneConfig, LaneEvent, MemorySink, QueueManager, VirtualClock
from lane_obs.bus import MAX_FAILURES
from lane_obs.events import LaneIdle, LanePaused

if TYPE_CHECKING:
    from collections.abc import Sequence


class Batches:
    """Keeps the batches as they came."""

    def __init__(self) -> None:
        self.batches: list[list[LaneEvent]] = []
        self.closed = 0

    def handle(self, events: Sequence[LaneEvent]) -> None:
        self.batches.append(list(events))

    def close(self) -> None:
        self.closed += 1


class Failing(Batches):
    """Raises while `broken`."""

    def __init__(self, *, broken: bool = True) -> None:
        super().__init__()
        self.broken = broken
        self.calls = 0

    def handle(self, events: Sequence[LaneEvent]) -> None:
        self.calls += 1
        if self.broken:
            raise RuntimeError("disk full")
        super().handle(events)


def bound(*sinks: Any) -> Bus:
    bus = Bus(VirtualClock(), sinks)
    bus.bind(asyncio.get_running_loop())
    return bus


async def turn() -> None:
    await asyncio.sleep(0)


async def test_events_of_one_turn_come_as_one_batch_in_order_of_seq() -> None:
    sink = Batches()
    bus = bound(sink)
    for number in range(5):
        bus.emit(LanePaused, "a", number)
    assert sink.batches == []
    await turn()
    bus.emit(LanePaused, "a", 5)
    await turn()
    assert [[event.seq for event in batch] for batch in sink.batches] == [[1, 2, 3, 4, 5], [6]]
    await bus.close()


async def test_events_from_before_the_loop_was_known_go_out_once_it_is() -> None:
    sink = Batches()
    bus = Bus(VirtualClock(), [sink])
    bus.emit(LanePaused, "a", 1)
    bus.bind(asyncio.get_running_loop())
    await turn()
    assert [event.seq for event in sink.batches[0]] == [1]


async def test_a_huge_turn_is_handed_over_in_parts_so_memory_is_bounded() -> None:
    sink = Batches()
    bus = bound(sink)
    for number in range(20_000):
        bus.emit(LanePaused, "a", number)
    assert sum(map(len, sink.batches)) >= 10_000
    await turn()
    assert [event.seq for batch in sink.batches for event in batch] == list(range(1, 20_001))


async def test_a_batch_that_a_sink_keeps_is_not_changed_afterwards() -> None:
    kept: list[Sequence[LaneEvent]] = []

    class Keeper(Batches):
        def handle(self, events: Sequence[LaneEvent]) -> None:
            kept.append(events)

    bus = bound(Keeper())
    bus.emit(LanePaused, "a", 1)
    await turn()
    bus.emit(LanePaused, "a", 2)
    await turn()
    assert [len(batch) for batch in kept] == [1, 1]


async def test_a_sink_may_emit_while_it_handles_a_batch() -> None:
    class Echo(Batches):
        def handle(self, events: Sequence[LaneEvent]) -> None:
            super().handle(events)
            if any(isinstance(event, LanePaused) for event in events):
                bus.emit(LaneIdle, "a", 0)

    sink, after = Echo(), Batches()
    bus = bound(sink, after)
    bus.emit(LanePaused, "a", 1)
    await turn()
    await turn()
    assert [[event.seq for event in batch] for batch in after.batches] == [[1], [2]]
    assert after.batches == sink.batches


async def test_without_sinks_no_event_is_even_made() -> None:
    bus = bound()
    made: list[object] = []
    bus.emit(lambda *fields: made.append(fields))  # type: ignore[arg-type, return-value]
    assert not bus.active
    assert made == []


async def test_a_raising_sink_is_logged_once_counted_and_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    bad, good = Failing(), MemorySink()
    bus = bound(bad, good)
    with caplog.at_level(logging.WARNING, "lane_obs.bus"):
        for number in range(4):
            bus.emit(LanePaused, "a", number)
            await turn()
            await turn()
    assert [record.getMessage() for record in caplog.records] == [
        "sink Failing failed; further failures are only counted"
    ]
    failed = good.of("queue.sink.failed")
    assert [event.payload for event in failed] == [
        {"sink": "Failing", "error_type": "RuntimeError", "error": "disk full"}
    ]
    assert len(good.of("queue.lane.paused")) == 4
    bad_stats, good_stats = bus.stats()
    assert (bad_stats.name, bad_stats.events, bad_stats.errors, bad_stats.disabled) == ("Failing", 0, 5, False)
    assert bad_stats.dropped == {"error": 5}
    assert (good_stats.events, good_stats.errors, good_stats.dropped) == (5, 0, {})


async def test_a_sink_that_keeps_failing_is_cut_off_and_said_so_once(caplog: pytest.LogCaptureFixture) -> None:
    bad, good = Failing(), MemorySink()
    bus = bound(bad, good)
    for number in range(3 * MAX_FAILURES):
        bus.emit(LanePaused, "a", number)
        await turn()
    await turn()
    assert bad.calls == MAX_FAILURES
    disabled = good.of("queue.sink.disabled")
    assert [event.payload for event in disabled] == [{"sink": "Failing", "failures": MAX_FAILURES}]
    assert len(good.of("queue.lane.paused")) == 3 * MAX_FAILURES
    stats = bus.stats()[0]
    assert stats.disabled
    assert stats.dropped["error"] + stats.dropped["disabled"] == len(good.events)
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 1


async def test_a_sink_that_recovers_is_not_cut_off() -> None:
    flaky = Failing()
    bus = bound(flaky)
    for number in range(3 * MAX_FAILURES):
        flaky.broken = number % MAX_FAILURES != 0
        bus.emit(LanePaused, "a", number)
        await turn()
    await turn()
    assert not bus.stats()[0].disabled
    assert bus.stats()[0].events == sum(map(len, flaky.batches)) > 0


async def test_the_queue_runs_on_when_a_sink_is_broken() -> None:
    async with QueueManager({"a": LaneConfig(0, 2)}, sinks=[Failing()]) as manager:
        handles = [await manager.submit("a", asyncio.sleep, 0, number) for number in range(100)]
        assert [await handle for handle in handles] == list(range(100))
        assert manager.stats().sinks[0].errors >= 1


async def test_closing_hands_over_the_rest_and_closes_every_sink_once() -> None:
    class BadEnd(Batches):
        def close(self) -> None:
            raise OSError("gone")

    bad, good = BadEnd(), Batches()
    bus = bound(bad, good)
    bus.emit(LanePaused, "a", 1)
    await bus.close()
    bus.emit(LanePaused, "a", 2)
    await turn()
    assert (len(good.batches), good.closed) == (1, 1)
    assert bus.stats()[0].errors == 1


@pytest.mark.parametrize(
    "sink", [object(), None, MemorySink, print], ids=["an object", "None", "a class", "a function"]
)
def test_something_that_is_no_sink_is_refused_when_the_queue_is_built(sink: Any) -> None:
    with pytest.raises(ConfigError, match=r"^sinks: .* give objects with handle\(events\) and close\(\)"):
        QueueManager(sinks=[sink])


async def test_sinks_do_not_see_the_context_of_whoever_emits() -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    seen: list[str] = []

    class Reader(Batches):
        def handle(self, events: Sequence[LaneEvent]) -> None:
            seen.append(user.get())
            user.set("the sink")

    bus = bound(Reader())
    user.set("alice")
    bus.emit(LanePaused, "a", 1)
    await turn()
    bus.emit(LanePaused, "a", 2)
    await turn()
    assert seen[0] == "nobody"
    assert "alice" not in seen
    assert user.get() == "alice"


async def test_drops_of_a_sinks_own_are_shown_in_its_statistics() -> None:
    emitter = EventEmitter(capacity=2)
    stream = emitter.subscribe()
    bus = bound(emitter)
    for number in range(5):
        bus.emit(LanePaused, "a", number)
    await turn()
    assert bus.stats()[0].dropped == {"slow_subscriber": 3}
    assert stream.dropped == 3
