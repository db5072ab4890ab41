"""The conformance suite of sinks: what the bus relies on, checked against a real queue in virtual time."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from lane_obs.bus import FactSink, Sink
from lane_obs.clock import VirtualClock, sleep
from lane_obs.config import LaneConfig, RetryPolicy
from lane_obs.errors import LaneFullError
from lane_obs.events import AlertFiring
from lane_obs.runtime.manager import QueueManager
from lane_obs.sinks.memory import MemorySink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lane_obs.bus import AnySink
    from lane_obs.core.fact import Fact


async def check_sink(make: Callable[[], AnySink]) -> None:
    """Checks that a sink keeps to what `Sink` (or `FactSink`) says.

    It sees commands that succeed, fail, are retried, time out, expire, are cancelled and rejected; a lane that is
    paused, changed and under pressure; an alert; and a shutdown. Await it inside a test.

    Args:
        make: makes a new sink, each time it is called.

    Raises:
        AssertionError: what the sink does wrong.
    """
    sink = make()
    assert isinstance(sink, Sink | FactSink), f"{sink!r} has no handle(events), or handle_facts(facts), and close()"
    threads = set(threading.enumerate())
    await _check_unused(make())
    await _check_used(sink)
    left = [thread.name for thread in threading.enumerate() if thread not in threads]
    assert not left, f"close() left threads behind: {left}"


async def _check_unused(sink: AnySink) -> None:
    manager = QueueManager({"a": LaneConfig(0, 1)}, sinks=[sink], clock=VirtualClock())
    await manager.close()
    (stats,) = manager.bus.stats()
    assert not stats.errors, "close() of a sink that got nothing raised; the log says what"


async def _check_used(sink: AnySink) -> None:
    clock, memory, guard = VirtualClock(), MemorySink(), _Guard()
    lanes = {
        "a": LaneConfig(0, 1, timeout=5.0, retry=RetryPolicy.fixed(1, 1.0)),
        "b": LaneConfig(0, 1, max_pending=1, overflow="reject", pressure_threshold=1),
    }
    # The guard comes before and the memory after the sink: they see the same batches.
    manager = QueueManager(lanes, sinks=[guard, sink, memory], clock=clock, seed=1, dead_letters=1)
    async with manager:
        await _commands(manager, clock)
        manager.bus.emit(AlertFiring, "pending", 2.0, 1.0)
        await clock.run(manager.drain())
    _, stats, kept = manager.bus.stats()
    assert not stats.errors, f"the sink raised {stats.errors} times; the log says what"
    assert not stats.disabled, "the sink was cut off"
    assert guard.intact(), "the sink changed a batch that others get too"
    assert kept.events == len(memory.events)


async def _commands(manager: QueueManager, clock: VirtualClock) -> None:
    async def work(seconds: float = 0.0) -> float:
        await sleep(clock, seconds)
        return seconds

    async def fail() -> None:
        raise ValueError("a message with \udcff, which no text file takes")

    await manager.submit("a", work)
    await manager.submit("a", fail)
    await manager.submit("a", work, 60.0)
    await manager.submit("a", work, deadline=2.0)
    await manager.submit("a", work, delay=3.0, id="late")
    (await manager.submit("a", work)).cancel()
    manager.pause("b")
    await manager.submit("b", work)
    with contextlib.suppress(LaneFullError):
        await manager.submit("b", work)
    manager.set_lane("b", priority=1)
    manager.resume("b")
    await clock.run(manager.drain())
    if (letter := next(iter(manager.dead_letters.list()), None)) is not None:
        manager.dead_letters.requeue(letter.id)


class _Guard:
    """Sees whether the batches that it got first are still as they were."""

    def __init__(self) -> None:
        self._seen: list[tuple[Sequence[Fact], list[Fact]]] = []

    def handle_facts(self, facts: Sequence[Fact]) -> None:
        self._seen.append((facts, list(facts)))

    def close(self) -> None:
        """Keeps what it has."""

    def intact(self) -> bool:
        return all(list(now) == then for now, then in self._seen)
