"""The life of commands in lanes, as a pure state machine: every call takes the time and returns what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lane_obs.core.gate import Gates
from lane_obs.core.lane import Lane
from lane_obs.core.order import Order
from lane_obs.core.removed import Removed
from lane_obs.core.schedule import Schedule
from lane_obs.core.state import TRANSITIONS, State
from lane_obs.core.timer import Timers
from lane_obs.core.wait import Contention, Mode, between
from lane_obs.errors import InternalError, UnknownLane
from lane_obs.events import WaitByCause

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs.config import LaneConfig, RateLimit
    from lane_obs.core.record import Record

_READY, _RUNNING, _DELAYED, _BACKOFF = State.READY, State.RUNNING, State.DELAYED, State.BACKOFF
_SUCCEEDED = State.SUCCEEDED
_FOLLOWING, _FREE = dict(TRANSITIONS), Mode.FREE
_SPARE_LEVELS = 64


class Engine:
    """Holds all lanes and moves commands through their states. It reads no clock: `now` is always given.

    Args:
        lanes: policies by lane name, already checked.
        max_concurrency: queue-wide bound on running commands; `None` for none.
        now: clock seconds.
        rate_limits: those of the whole queue.

    Attributes:
        timers: due times of commands, and of what the engine itself waits for.
        schedule: whose turn it is.
        gates: the rate limits at work.
        order: the lanes whose order is not that of submits.
    """

    __slots__ = (
        "_contention", "gates", "lanes", "live", "order", "removed", "schedule", "submitted", "timers",
    )  # fmt: skip

    def __init__(
        self,
        lanes: Mapping[str, LaneConfig],
        max_concurrency: int | None,
        now: float,
        *,
        rate_limits: Sequence[RateLimit] = (),
    ) -> None:
        self._contention = Contention(now)
        self.schedule = Schedule(max_concurrency, self._contention)
        self.timers = Timers()
        self.gates = Gates(self.schedule, self.timers)
        self.gates.for_all(rate_limits, now)
        self.order = Order(self.schedule, self.gates, self.timers)
        self.lanes: dict[str, Lane] = {}
        self.live = 0
        """Commands that have not ended."""
        self.submitted = 0
        self.removed = Removed()
        for name, config in lanes.items():
            self.add_lane(name, config, now)

    @property
    def max_concurrency(self) -> int | None:
        """The queue-wide bound."""
        return self.schedule.limit

    def add_lane(self, name: str, config: LaneConfig, now: float) -> Lane:
        """Takes in a new lane, already checked."""
        lane = self.lanes[name] = Lane(name, config, self._contention, now)
        self.gates.attach(lane, now)
        self.schedule.add(lane, now)
        self.schedule.settle(now)  # reservations may hold the whole queue
        return lane

    def remove_lane(self, lane: Lane, now: float) -> None:
        """Lets a lane go that has no live command."""
        del self.lanes[lane.name]
        self.removed.take(lane, now)
        self.schedule.remove(lane)
        self.gates.detach(lane)
        self.schedule.settle(now)
        if self._contention.level_count > 2 * len(self.lanes) + _SPARE_LEVELS:
            self._forget_levels()

    def _forget_levels(self) -> None:
        self._contention.forget_levels(frozenset(lane.priority for lane in self.lanes.values()))

    def lane(self, name: str) -> Lane:
        """The lane of this name.

        Raises:
            UnknownLane: there is none.
        """
        try:
            return self.lanes[name]
        except (KeyError, TypeError):
            raise UnknownLane(name, self.lanes) from None

    def submit(self, record: Record, now: float, *, delayed: bool = False, returning: bool = False) -> None:
        """Takes in a new command, ready or delayed. `returning`: its number is not the highest (a requeue)."""
        lane: Lane = record.home
        self.live += 1
        self.submitted += 1
        record.since = now
        if delayed:
            self.order.delay(record, now)
            return
        counts = lane.counts
        counts[_READY] = ready = counts[_READY] + 1
        if not lane.is_plain:
            self.order.take_in(record, now, returning=returning)
            return
        if returning:
            lane.ready.put_back(record)
            self.gates.recheck(lane, now)  # it may be the head
        else:
            lane.ready.add(record)
        record.ready_mark = mark = lane.meter.mark(now)
        if ready == 1:
            lane.begin_waiting(mark, now)
            if lane.turn is None:  # else it is lined up, or what blocks it lines it up once it ends
                self._line_up(lane, now)

    def look_at(self, lane: Lane, now: float) -> None:
        """Looks anew at what goes next in a lane that is not plain, or that a rate limit holds back."""
        if not lane.is_plain:
            self.order.look_at(lane, now)
        else:
            self.gates.recheck(lane, now)
        self.schedule.settle(now)

    def _line_up(self, lane: Lane, now: float) -> None:
        self.schedule.ask(lane)
        if self._contention.mode is not _FREE:
            self.schedule.settle(now)

    def make_ready(self, record: Record, now: float) -> None:
        """Ends a delay or back-off: the command takes its old place in its lane."""
        self._end_waiting(record, _READY, now)
        record.since = now
        lane: Lane = record.home
        if not lane.is_plain:
            self.order.come_back(record, now)
        lane.ready.put_back(record)
        record.ready_mark = lane.meter.mark(now)
        if lane.counts[_READY] == 1:
            lane.begin_waiting(record.ready_mark, now)
        if not lane.is_plain or lane.gate is not None:
            self.look_at(lane, now)
        elif lane.turn is None:
            self._line_up(lane, now)

    def start_next(self, now: float) -> Record | None:
        """Starts the most important command that may run, and returns it; `None` when none may."""
        schedule = self.schedule
        while (lane := schedule.next_lane()) is None or (lane.gates and not self.gates.admit(lane, now)):
            if lane is None:
                schedule.settle(now)
                if not self.gates.open_more(now):
                    return None
        record = lane.ready.pop()
        counts = lane.counts
        counts[_READY] = ready = counts[_READY] - 1  # as `_move` does; `pop` gives out ready commands only
        counts[_RUNNING] += 1
        lane.running[record] = None
        record.state = _RUNNING
        record.start_mark = mark = lane.meter.mark(now)
        if not ready:
            lane.end_waiting(mark, now)
            if lane.throttled:
                self.gates.end_throttling(lane, now)
        record.started_at = now
        record.attempt += 1
        schedule.started(lane, now)
        if not lane.is_plain and ((parted := lane.parted) is None or ready <= parted.held or lane.config.boost):
            self.order.started(record, now)
        return record

    def back_off(self, record: Record, now: float) -> None:
        """Ends an attempt that is tried again later."""
        self._end_attempt(record, _BACKOFF, now)
        if (parted := record.home.parted) is not None:
            parted.back_off(record)
        record.fold_wait()
        record.since = now

    def finish(self, record: Record, state: State, now: float) -> None:
        """Ends a command, running or waiting, in a final state."""
        old = record.state
        if old is _RUNNING:
            self._end_attempt(record, state, now)
        else:
            self._end_waiting(record, state, now)
        record.finished_at = now
        self.live -= 1
        lane: Lane = record.home
        if old is _READY:
            self.order.forget_timer(record)
            lane.ready.forget(record)
            if not lane.counts[_READY]:
                lane.turn = None  # it asks anew
                lane.end_waiting(lane.meter.mark(now), now)
                if lane.throttled:
                    self.gates.end_throttling(lane, now)
            self.look_at(lane, now)
        elif lane.parted is not None:
            if (moved := lane.parted.ended(record)) is not None:
                self.order.line_up(moved, now)
            self.schedule.settle(now)

    def succeed(self, record: Record, now: float) -> None:
        """Ends a running command in success: what `finish` does, in one step for by far the most frequent end."""
        lane: Lane = record.home
        record.ran += now - record.started_at
        record.finished_at = now
        record.state = _SUCCEEDED
        self.live -= 1
        counts = lane.counts
        counts[_RUNNING] -= 1
        counts[_SUCCEEDED] += 1
        del lane.running[record]
        self.schedule.ended(lane, now)
        if lane.parted is not None and (moved := lane.parted.ended(record)) is not None:
            self.order.line_up(moved, now)
        if self._contention.mode is not _FREE:
            self.schedule.settle(now)

    def _end_attempt(self, record: Record, state: State, now: float) -> None:
        self._move(record, state)
        del record.home.running[record]
        record.ran += now - record.started_at
        self.schedule.ended(record.home, now)
        if self._contention.mode is not _FREE:
            self.schedule.settle(now)

    def _end_waiting(self, record: Record, state: State, now: float) -> None:
        waited = self.wait_so_far(record, now)
        self._move(record, state)  # first of all: an illegal move raises and changes nothing
        record.waited = waited
        record.ready_mark = None

    def wait_so_far(self, record: Record, now: float) -> WaitByCause:
        """All the waiting of a command up to `now`, by cause."""
        if record.state is _READY and record.home.is_held(record):
            current = WaitByCause(partition=now - record.since)
        elif record.state is _READY and record.ready_mark is not None:
            current = between(record.ready_mark, record.since, record.home.meter.mark(now), now)
        elif record.state is _DELAYED:
            current = WaitByCause(delay=now - record.since)
        elif record.state is _BACKOFF:
            current = WaitByCause(backoff=now - record.since)
        else:
            return record.wait
        return current if record.waited is None else record.waited + current

    def set_paused(self, lane: Lane, now: float, *, paused: bool) -> bool:
        """Pauses or resumes a lane; tells whether that changed anything."""
        if lane.paused is paused:
            return False
        lane.paused = paused
        self.gates.leave(lane, now)
        self.schedule.update(lane, now)
        self.schedule.settle(now)
        return True

    def configure(self, lane: Lane, config: LaneConfig, now: float) -> None:
        """Gives a lane other policies, already checked. Running commands stay as they are."""
        limits = lane.config.rate_limit
        self.gates.leave(lane, now)
        lane.apply(config)
        if config.rate_limit != limits:
            self.gates.attach(lane, now)
        self.schedule.reline(lane, self.lanes.values(), now)
        self.order.relevel(lane, now)
        self.look_at(lane, now)
        self._forget_levels()

    @staticmethod
    def _move(record: Record, state: State) -> None:
        old = record.state
        if state not in _FOLLOWING[old]:
            raise InternalError(f"command {record.seq}: {old} cannot become {state}")
        counts = record.home.counts
        counts[old] -= 1
        counts[state] += 1
        record.state = state

    def total(self, state: State) -> int:
        """How many commands are, or ended, in `state`: of all lanes, those that were removed included."""
        return self.removed.ended.get(state, 0) + sum(lane.counts[state] for lane in self.lanes.values())
