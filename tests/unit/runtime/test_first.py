from __future__ import annotations

import pytest

from lane_obs import LaneConfig, MemorySink, QueueManager, VirtualClock
from lane_obs.clock import sleep


@pytest.mark.both_loops
async def test_a_command_runs_in_virtual_time(clock: VirtualClock) -> None:
    sink = MemorySink()

    async def work(seconds: float) -> float:
        await sleep(clock, seconds)
        return seconds

    async with QueueManager({"a": LaneConfig(0, 1)}, clock=clock, sinks=[sink], seed=1) as manager:
        first = await manager.submit("a", work, 3.0)
        second = await manager.submit("a", work, 2.0)
        assert await clock.run(second) == 2.0
        assert await first == 3.0
        assert second.wait_by_cause.slots == pytest.approx(3.0)
        assert second.end_to_end_seconds == pytest.approx(5.0)
    assert sink.keys()[-1] == "queue.closed"
