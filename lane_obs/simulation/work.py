"""What a replayed command does in place of the recorded work: it sleeps on the clock, fails or hangs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lane_obs.clock import NS, sleep_until
from lane_obs.command import Command
from lane_obs.errors import LaneObsError
from lane_obs.runtime.handle import current

if TYPE_CHECKING:
    from lane_obs.clock import Clock
    from lane_obs.simulation.trace import TraceCommand


class ReplayFailure(LaneObsError):
    """A replayed attempt failed because its trace says so. Another attempt may succeed (`fail_attempts`)."""


def now_ns(clock: Clock) -> int:
    """Whole nanoseconds on the clock."""
    return round(clock.now() * NS)


class ReplayCommand(Command[None]):
    """One recorded command, run on a clock. Its `command_type` is that of its row.

    Args:
        row: what to do.
        clock: where its time passes.
    """

    def __init__(self, row: TraceCommand, clock: Clock) -> None:
        self.command_type = row.command_type  # type: ignore[misc]  # one class serves every type in a trace
        self._row = row
        self._clock = clock

    async def execute(self) -> None:
        """Takes as long as the row says and ends as it says.

        Raises:
            ReplayFailure: this attempt is to fail.
        """
        row, attempt = self._row, current().attempt
        fails = row.outcome == "fail" or attempt <= row.fail_attempts
        if row.outcome == "hang" and not fails:
            await sleep_until(self._clock, math.inf)
        # In whole nanoseconds, so that times that are equal in the trace stay equal.
        await sleep_until(self._clock, (now_ns(self._clock) + row.duration_ns) / NS)
        if fails:
            raise ReplayFailure(f"line {row.line} fails in attempt {attempt}")
