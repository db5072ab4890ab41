"""What do events cost a command: with no sink, with one that only counts them, and with the library's own?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.workload import LANE, LOOPS, NullSink
from lane_obs import EventEmitter, MemorySink

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.conftest import Opener
    from lane_obs import Sink

COUNT = 10_000
SINKS: dict[str, Callable[[], list[Sink]]] = {
    "none": list,
    "null": lambda: [NullSink()],
    "two null": lambda: [NullSink(), NullSink()],
    "memory of 1,000": lambda: [MemorySink(1_000)],
    "emitter, nobody subscribed": lambda: [EventEmitter()],
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("sinks", SINKS)
def test_events(benchmark: Any, open_queue: Opener, sinks: str, loop: str) -> None:
    benchmark.group = f"{COUNT:,} commands, submit to result, by sink, {loop}"
    made = SINKS[sinks]()
    queue = open_queue(loop, sinks=made)
    benchmark.pedantic(queue.run, (queue.submit_and_wait, [LANE] * COUNT), rounds=5, warmup_rounds=1)
    told = [outlet.events for outlet in queue.manager.stats().sinks]
    assert len(told) == len(made)
    assert all(events > 2 * COUNT for events in told)
