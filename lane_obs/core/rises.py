"""The first rises of a lane's commands: with one deadline for all they come in order, and one timer does for all."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from lane_obs.core import timer

if TYPE_CHECKING:
    from lane_obs.config import PriorityBoost
    from lane_obs.core.record import Record
    from lane_obs.core.timer import Entry, Timers

WAITS: Final[Entry] = [math.inf, 0, timer.BOOST, None]
"""Stands in a command in place of a timer of its own, while it waits here. As a timer it is one that was cancelled."""

_COMPACT_FLOOR = 64


class Rises:
    """New commands whose first rise is due no earlier than that of the one before.

    A command that has started, ended or got another timer stays inside until its turn, or until half of those inside
    wait no more.

    Args:
        lane: what its timer is about.
        boost: of that lane.
    """

    __slots__ = ("_boost", "_lane", "_last", "_most", "_queue", "_timer")

    def __init__(self, lane: object, boost: PriorityBoost) -> None:
        self._lane = lane
        self._boost = boost
        self._queue: deque[Record] = deque()
        self._last = 0.0
        self._most = _COMPACT_FLOOR
        self._timer: Entry | None = None

    def add(self, record: Record, now: float, timers: Timers) -> None:
        """Takes in a new command with the level of its lane; it gets a timer of its own if it is due before another."""
        submitted_at = record.submitted_at
        record.level, changes_at = self._boost.level(record.level, now - submitted_at, record.deadline)
        when = submitted_at + changes_at
        if when == math.inf:
            return
        if not self._queue:
            self._timer = timers.set(when, timer.RISE, self._lane)
        elif when < self._last:
            record.timer = timers.set(when, timer.BOOST, record)
            return
        self._queue.append(record)
        self._last = when
        record.timer = WAITS

    def leave(self, record: Record, timers: Timers) -> None:
        """Notes that a command, one with no timer of its own, waits here no more."""
        record.timer = None
        queue = self._queue
        while queue and queue[0].timer is not WAITS:
            queue.popleft()
        if not queue:
            if self._timer is not None:
                timers.cancel(self._timer)
                self._timer = None
        elif len(queue) > self._most:
            self._queue = queue = deque(record for record in queue if record.timer is WAITS)
            self._most = 2 * len(queue) + _COMPACT_FLOOR

    def first(self) -> Record | None:
        """The command that is due next, once the timer was due; `None` when none waits."""
        self._timer = None
        queue = self._queue
        while queue and queue[0].timer is not WAITS:
            queue.popleft()
        return queue[0] if queue else None

    def wait_until(self, when: float, timers: Timers) -> None:
        """Sets the timer for the first one."""
        self._timer = timers.set(when, timer.RISE, self._lane)
