"""What the scheduler knows of one command."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from lane_obs.core.state import State
from lane_obs.core.timer import Entry  # noqa: TC001 - msgspec reads the annotation
from lane_obs.core.wait import Mark, between
from lane_obs.events import NO_WAIT, WaitByCause


class Record(msgspec.Struct, eq=False):
    """One command, from submit to end. Times are clock seconds; NaN means not yet.

    It is a msgspec record for its size and the speed at which it is made: one exists for every waiting command.
    """

    seq: int
    home: Any
    """Its `core.lane.Lane`."""
    submitted_at: float
    state: State = State.READY
    attempt: int = 0
    since: float = 0.0
    """When it entered the state it waits in."""
    ready_mark: Mark | None = None
    start_mark: Mark | None = None
    started_at: float = math.nan
    """When its latest attempt started; NaN before the first."""
    finished_at: float = math.nan
    ran: float = 0.0
    """Seconds run in attempts that are over, the last one included."""
    waited: WaitByCause | None = None
    """Waiting that is over, but for the wait before the latest start, which the two marks hold."""
    timer: Entry | None = None
    deadline_timer: Entry | None = None
    level: int = 0
    """Its effective priority, in a lane that boosts."""
    cost: float = 1.0
    """What it takes of rate limits, and of its partition's share."""
    part: Any = None
    """Its partition; `None` for none."""

    @property
    def wait(self) -> WaitByCause:
        """The wait so far that is over, by cause."""
        waited = self.waited or NO_WAIT
        if self.start_mark is None or self.ready_mark is None:
            return waited
        last = between(self.ready_mark, self.since, self.start_mark, self.started_at)
        return last if waited is NO_WAIT else waited + last

    def fold_wait(self) -> WaitByCause:
        """Keeps the wait as a sum in place of the marks it is worked out from, and returns it."""
        if self.ready_mark is not None:
            self.waited = self.wait
            self.ready_mark = self.start_mark = None
        return self.waited or NO_WAIT
