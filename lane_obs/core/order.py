"""Lanes whose order is not that of submits: boosts, ageing and partitions, brought to what the schedule sees."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from lane_obs.core import timer
from lane_obs.core.gate import INSTANT
from lane_obs.core.ready import ReadyQueue
from lane_obs.core.state import State
from lane_obs.core.wait import Access, between
from lane_obs.events import WaitByCause

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs.config import PriorityBoost
    from lane_obs.core.boosted import BoostedQueue
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
        boost = record.home.config.boost
        if boost is None or boost.is_ageing:  # by age: once it is its lane's head
            return
        record.level, changes_at = boost.level(record.home.config.priority, now - record.submitted_at, record.deadline)
        if changes_at != _NEVER:
            record.timer = self._timers.set(record.submitted_at + changes_at, timer.BOOST, record)

    def come_back(self, record: Record, now: float) -> None:
        """The same for one that was delayed or backed off: time has passed for it."""
        before = record.level
        self.level(record, now)
        if record.level not in {before, record.home.config.priority}:
            self.on_boosted(record, now)

    def boost(self, record: Record, now: float) -> None:
        """The timer of a waiting command's level is due."""
        before, lane = record.level, record.home
        self.level(record, now + INSTANT)
        if record.level != before:
            lane.ready.changed(record)
            self.on_boosted(record, now)
            self.look_at(lane, now)

    def take_in(self, record: Record, now: float, *, returning: bool) -> None:
        """Takes a new command into such a lane. It is ready and counted; `returning` as for `Engine.submit`."""
        lane: Lane = record.home
        parted, boost, is_only = lane.parted, lane.config.boost, lane.counts[_READY] == 1
        if boost is not None:
            record.level = lane.config.priority
            if returning or parted is not None:
                self.level(record, now)
        if returning:
            lane.ready.put_back(record)
            self._gates.recheck(lane, now)  # it may be the head
        elif parted is None:
            self._add(record, lane, now)
        elif parted.add(record) and not is_only:
            return  # held: it gets its mark once it is lined up
        record.ready_mark = mark = lane.meter.mark(now)
        if is_only:
            lane.begin_waiting(mark, now)
        elif (
            not returning
            and lane.gate is None
            and lane.meter.access is not _KEYED
            and (boost is None or record.level >= lane.priority)
        ):
            return  # others go first, as before
        self.look_at(lane, now)
        self._schedule.settle(now)

    def _add(self, record: Record, lane: Lane, now: float) -> None:
        """Puts in a new command, with its level."""
        boosted, boost, submitted_at = lane.boosted, lane.config.boost, record.submitted_at
        if boosted is None or boost is None:
            lane.ready.add(record)
            return
        record.level, changes_at = boost.level(record.level, now - submitted_at, record.deadline)
        rises_at = submitted_at + changes_at
        in_turn = boosted.add(record, rises_at)
        if rises_at == _NEVER:
            return
        if not in_turn:
            record.timer = self._timers.set(rises_at, timer.BOOST, record)
        elif boosted.rise is None or boosted.rise[0] > rises_at:
            self._set_rise(boosted, rises_at, lane)

    def _set_rise(self, boosted: BoostedQueue, when: float, lane: Lane) -> None:
        if boosted.rise is not None:
            self._timers.cancel(boosted.rise)
        boosted.rise = None if when == _NEVER else self._timers.set(when, timer.RISE, lane)

    def on_timer(self, kind: str, about: Any, now: float) -> None:
        """Does what is due: for a gate, for the head of a lane that ages, or for the level of a command."""
        if kind is timer.GATE:
            self._gates.open(about, now)
        elif kind is timer.AGE:
            about.alarm = None
            self.look_at(about, now)
        elif kind is timer.RISE:
            self._rise(about, now)
        else:
            about.timer = None
            self.boost(about, now)
        self._schedule.settle(now)

    def _rise(self, lane: Lane, now: float) -> None:
        """The first rise of one of a lane's new commands is due, and maybe of others."""
        boosted, boost, priority = lane.boosted, lane.config.boost, lane.config.priority
        assert boosted is not None
        assert boost is not None
        boosted.rise = None
        while (record := boosted.first_fresh()) is not None:
            level, changes_at = boost.level(priority, now + INSTANT - record.submitted_at, record.deadline)
            if level == record.level:
                self._set_rise(boosted, record.submitted_at + changes_at, lane)
                return
            self._timers.forget(record)
            self.boost(record, now)

    def relevel(self, lane: Lane, now: float) -> None:
        """Works the levels of a lane's ready commands out anew: its priority has changed."""
        boost, ready = lane.config.boost, lane.ready
        if boost is None:
            return
        if boost.is_ageing:
            if (head := ready.peek()) is not None:
                head.level, _ = boost.level(lane.config.priority, now + INSTANT - head.submitted_at)
            return
        assert not isinstance(ready, ReadyQueue)
        for record in ready.list_ready():
            before = record.level
            self.forget_timer(record)
            self.level(record, now)
            if record.level != before:
                ready.changed(record)
        if lane.boosted is not None:
            lane.boosted.rebuild()  # one that was raised and is not inside may come back with the level of new ones

    def forget_timer(self, record: Record) -> None:
        """Its level changes no more: it has started, or ended while it was ready."""
        self._timers.forget(record)
        lane: Lane = record.home
        if lane.boosted is not None and not lane.counts[_READY]:
            self._set_rise(lane.boosted, _NEVER, lane)

    def started(self, record: Record, now: float) -> None:
        """A command of such a lane has started."""
        lane: Lane = record.home
        if record.timer is not None or not lane.counts[_READY]:  # seldom, and asked here it saves two calls
            self.forget_timer(record)
        boosted = lane.boosted
        if boosted is not None and not boosted.raised and boosted.fresh_level == lane.priority == lane.config.priority:
            return  # nothing has risen, by far the most frequent
        if lane.config.boost is not None and self._may_rise(lane, record, now):
            self.look_at(lane, now)
        elif lane.parted is not None and lane.counts[_READY] <= lane.parted.held:
            self._schedule.update(lane, now)

    @staticmethod
    def _may_rise(lane: Lane, record: Record, now: float) -> bool:
        """Whether the priority of a lane may be another one, now that its head has started."""
        priority, alarm, head = lane.config.priority, lane.alarm, lane.ready.peek()
        if alarm is None or head is None:
            return lane.priority != (priority if head is None else head.level) or alarm is not None
        if lane.priority != priority or alarm[0] <= now + INSTANT or head.submitted_at < record.submitted_at:
            return True
        head.level = priority  # it ages, and is younger than a head that has not risen yet (one requeued is not)
        return False

    def delay(self, record: Record, now: float) -> None:
        """Takes in a command that is delayed; one that backed off in an earlier process goes on to do so."""
        lane: Lane = record.home
        record.level = lane.config.priority
        record.state = state = State.BACKOFF if record.attempt else State.DELAYED
        lane.counts[state] += 1
        if record.attempt and lane.parted is not None:
            lane.parted.claim(record)  # its partition is its own until it ends
            self.look_at(lane, now)
            self._schedule.settle(now)

    def line_up(self, record: Record, now: float) -> None:
        """A command has got its partition, as the one before it has ended."""
        lane: Lane = record.home
        held, waited, meter = WaitByCause(partition=now - record.since), record.waited, lane.meter
        record.waited = held if waited is None else waited + held
        record.since = now
        if lane.gate is not None or lane.config.boost is not None:
            self.look_at(lane, now)
        elif meter.access is _KEYED:  # else it is one more, and what goes next does not matter to others
            self._schedule.update(lane, now)
        record.ready_mark = meter.mark(now)

    def look_at(self, lane: Lane, now: float) -> None:
        """Brings a lane's place in the schedule up to date with its order."""
        if lane.parted is not None:
            self._note_moves(lane.parted, now)
        if lane.gate is not None or not lane.counts[_READY]:
            self._gates.recheck(lane, now)
        boost = lane.config.boost
        priority = lane.priority if boost is None else self._priority(lane, boost, now)
        if priority != lane.priority:
            self._schedule.relevel(lane, priority, now)
            self._gates.leave(lane, now)
        else:
            self._schedule.update(lane, now)

    @staticmethod
    def _note_moves(parted: PartitionedQueue, now: float) -> None:
        for record in parted.take_held_back():
            assert record.ready_mark is not None
            waited = between(record.ready_mark, record.since, record.home.meter.mark(now), now)
            record.waited = waited if record.waited is None else record.waited + waited
            record.since = now
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
        before, head.level = head.level, level
        if level < before and level < lane.config.priority:  # else the lane was given another priority
            self.on_boosted(head, now)

    def _set_alarm(self, lane: Lane, when: float) -> None:
        if lane.alarm is not None:
            if lane.alarm[0] == when:
                return
            self._timers.cancel(lane.alarm)
        lane.alarm = None if when == _NEVER else self._timers.set(when, timer.AGE, lane)
