"""Lanes whose order is not that of submits: boosts, ageing and partitions, brought to what the schedule sees."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from lane_obs.core import timer
from lane_obs.core.gate import INSTANT
from lane_obs.core.partition import PartitionedQueue
from lane_obs.events import NO_WAIT, WaitByCause

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs.core.gate import Gates
    from lane_obs.core.lane import Lane
    from lane_obs.core.record import Record
    from lane_obs.core.schedule import Schedule
    from lane_obs.core.timer import Timers

_NEVER: Final = math.inf


class Order:
    """Keeps the levels of commands, and what goes next in their lanes.

    Args:
        schedule: lines lanes up.
        gates: hold lanes back.
        timers: wake the queue when a level changes.

    Attributes:
        on_boosted: called with a command whose priority has risen, and the time.
    """

    __slots__ = ("_gates", "_schedule", "_timers", "on_boosted")

    def __init__(self, schedule: Schedule, gates: Gates, timers: Timers) -> None:
        self._schedule = schedule
        self._gates = gates
        self._timers = timers
        self.on_boosted: Callable[[Record, float], None] = lambda _record, _now: None

    def level(self, record: Record, now: float) -> None:
        """Works out the effective priority of a command that becomes ready, and when it changes next."""
        lane: Lane = record.home
        boost = lane.config.boost
        if boost is None or boost.is_ageing:
            record.level = lane.config.priority
            return
        age = now - record.submitted_at
        record.level, changes_at = boost.level(lane.config.priority, age, record.deadline)
        if changes_at != _NEVER:
            record.timer = self._timers.set(record.submitted_at + changes_at, timer.BOOST, record)

    def boost(self, record: Record, now: float) -> None:
        """The timer of a waiting command's level is due."""
        before, lane = record.level, record.home
        self.level(record, now + INSTANT)
        if record.level != before:
            lane.ready.changed(record)
            self.on_boosted(record, now)
            self.look_at(lane, now)

    def on_timer(self, kind: str, about: Any, now: float) -> None:
        """Does what is due: for a gate, for the head of a lane that ages, or for the level of a command."""
        if kind is timer.GATE:
            self._gates.open(about, now)
        elif kind is timer.AGE:
            about.alarm = None
            self.look_at(about, now)
        else:
            about.timer = None
            self.boost(about, now)
        self._schedule.settle(now)

    def started(self, record: Record, now: float) -> None:
        """A command of such a lane has started."""
        if record.timer is not None:
            self._timers.cancel(record.timer)
            record.timer = None
        self.look_at(record.home, now)

    def claim(self, record: Record, now: float) -> None:
        """A command that backs off has come into such a lane: its partition is its own until it ends."""
        ready = record.home.ready
        if isinstance(ready, PartitionedQueue):
            ready.claim(record)
            self.look_at(record.home, now)
            self._schedule.settle(now)

    def ended(self, record: Record, now: float) -> None:
        """A command of such a lane has ended, other than while it was ready: its partition is free."""
        ready = record.home.ready
        if isinstance(ready, PartitionedQueue) and record.attempt:
            ready.ended(record)
            self.look_at(record.home, now)

    def look_at(self, lane: Lane, now: float) -> None:
        """Brings a lane's place in the schedule up to date with its order."""
        ready = lane.ready
        if isinstance(ready, PartitionedQueue):
            for record in ready.take_lined_up():
                record.waited = (record.waited or NO_WAIT) + WaitByCause(partition=now - record.since)
                record.since = now
                record.ready_mark = lane.meter.mark(now)
        self._gates.recheck(lane, now)
        priority = self._priority(lane, now)
        if priority != lane.priority:
            if lane.gate is not None:
                self._gates.release(lane, now)
            self._schedule.relevel(lane, priority, now)
        else:
            self._schedule.update(lane, now)

    def _priority(self, lane: Lane, now: float) -> int:
        boost = lane.config.boost
        head = lane.ready.peek() if boost is not None else None
        if head is None or boost is None:
            self._set_alarm(lane, _NEVER)
            return lane.config.priority
        if boost.is_ageing:
            self._age(lane, head, now)
        return head.level

    def _age(self, lane: Lane, head: Record, now: float) -> None:
        """Works out the level of a lane's head, and when it changes next."""
        boost = lane.config.boost
        assert boost is not None
        level, changes_at = boost.level(lane.config.priority, now + INSTANT - head.submitted_at)
        self._set_alarm(lane, head.submitted_at + changes_at)
        if level != head.level:
            head.level = level
            self.on_boosted(head, now)

    def _set_alarm(self, lane: Lane, when: float) -> None:
        if lane.alarm is not None:
            if lane.alarm[0] == when:
                return
            self._timers.cancel(lane.alarm)
        lane.alarm = None if when == _NEVER else self._timers.set(when, timer.AGE, lane)
