"""Lanes whose order is not that of submits: boosts, ageing and partitions, brought to what the schedule sees."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from lane_obs.core import timer
from lane_obs.core.gate import INSTANT
from lane_obs.core.state import State
from lane_obs.core.wait import Access
from lane_obs.events import WaitByCause

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs.config import PriorityBoost
    from lane_obs.core.gate import Gates
    from lane_obs.core.lane import Lane
    from lane_obs.core.partition import PartitionedQueue
    from lane_obs.core.record import Record
    from lane_obs.core.schedule import Schedule
    from lane_obs.core.timer import Timers

_READY = State.READY
_KEYED = Access.KEYED
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

    @staticmethod
    def goes_next(record: Record, lane: Lane) -> bool:
        """Whether a new command goes next, ahead of others that wait in its lane, in a way that matters to it."""
        if lane.meter.access is _KEYED or lane.gate is not None:
            return lane.ready.peek() is record
        return lane.config.boost is not None and record.level < lane.priority

    def started(self, record: Record, now: float) -> None:
        """A command of such a lane has started."""
        if record.timer is not None:
            self._timers.cancel(record.timer)
            record.timer = None
        lane: Lane = record.home
        boost = lane.config.boost
        if boost is not None and self._may_rise(lane, now):
            self.look_at(lane, now)
        elif lane.parted is not None and lane.counts[_READY] <= lane.parted.held:
            self._schedule.update(lane, now)

    @staticmethod
    def _may_rise(lane: Lane, now: float) -> bool:
        """Whether the priority of a lane may be another one, now that its head has started."""
        config, alarm = lane.config, lane.alarm
        if alarm is not None:  # it ages: who was behind the head is younger
            return lane.priority != config.priority or alarm[0] <= now or not lane.counts[_READY]
        head = lane.ready.peek()
        return lane.priority != (config.priority if head is None else head.level)

    def ended(self, record: Record, now: float) -> None:
        """A command of such a lane has ended, other than while it was ready: its partition is free."""
        lane: Lane = record.home
        assert lane.parted is not None
        if not record.attempt or not lane.parted.ended(record):
            return
        if lane.config.boost is None and lane.gate is None and lane.meter.access is not _KEYED:
            self._note_lined_up(lane.parted, now)  # one more, where some were: what goes next does not matter to others
        else:
            self.look_at(lane, now)

    def look_at(self, lane: Lane, now: float) -> None:
        """Brings a lane's place in the schedule up to date with its order."""
        if lane.parted is not None:
            self._note_lined_up(lane.parted, now)
        if lane.gate is not None:
            self._gates.recheck(lane, now)
        boost = lane.config.boost
        priority = lane.priority if boost is None else self._priority(lane, boost, now)
        if priority != lane.priority:
            if lane.gate is not None:
                self._gates.release(lane, now)
            self._schedule.relevel(lane, priority, now)
        else:
            self._schedule.update(lane, now)

    @staticmethod
    def _note_lined_up(parted: PartitionedQueue, now: float) -> None:
        for record in parted.take_lined_up():
            held = WaitByCause(partition=now - record.since)
            record.waited = held if record.waited is None else record.waited + held
            record.since = now
            record.ready_mark = record.home.meter.mark(now)

    def _priority(self, lane: Lane, boost: PriorityBoost, now: float) -> int:
        head = lane.ready.peek()
        if head is None:
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
