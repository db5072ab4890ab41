"""Follows the events of one queue from the first to the last, with the plain model beside them.

Between two events nothing changes, so the model can say at each start whether it was the right one, and at each end
what the command waited for.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from lane_obs import State, events
from lane_obs.core.state import FINAL, TRANSITIONS
from lane_obs.events import BLOCKS
from tests.property.model import WAITING, PlainBoost, PlainCommand, PlainLane, PlainQueue
from tests.property.plain_queue import PlainBucket

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs import LaneConfig, LaneEvent, PriorityBoost, WaitByCause

ENDINGS: dict[type[LaneEvent], State] = {
    events.CommandCompleted: State.SUCCEEDED,
    events.CommandFailed: State.FAILED,
    events.CommandTimedOut: State.TIMED_OUT,
    events.CommandCancelled: State.CANCELLED,
    events.CommandExpired: State.EXPIRED,
}


@dataclasses.dataclass
class Life:
    """What the events have told of one life of one command."""

    command: PlainCommand
    submitted_at: float
    deadline: float | None
    started_at: float = 0.0
    due_at: float = 0.0
    level: int = 0
    """The effective priority of which the events have told."""
    stuck: bool = False
    cancel_requested: bool = False


def plain_boost(boost: PriorityBoost | None) -> PlainBoost | None:
    if boost is None:
        return None
    return PlainBoost(boost.steps, float(boost.every or 0), boost.by, boost.floor)  # type: ignore[arg-type]


class Walk:
    """Checks one queue's events; `seqs` are the commands' sequence numbers by id, `keys` their partitions and costs."""

    def __init__(
        self,
        lanes: Mapping[str, LaneConfig],
        limit: int | None,
        letters: int,
        seqs: Mapping[str, int],
        keys: Mapping[str, tuple[object, float]] | None = None,
    ) -> None:
        plain = [
            PlainLane(
                name, c.min_concurrency, c.max_concurrency, c.priority,
                boost=plain_boost(c.boost), limited=bool(c.rate_limits),
                fair=c.partitions is not None and c.partitions.fair,
            )
            for name, c in lanes.items()
        ]  # fmt: skip
        self.queue = PlainQueue(plain, limit)
        self.keys = keys or {}
        self.expires = {name: c.on_expiry == "expire" for name, c in lanes.items()}
        self.buckets: dict[object, PlainBucket] = {}
        for name, c in lanes.items():
            for limited in c.rate_limits:  # the scenarios have buckets of so many a second
                assert limited.burst is not None
                bucket = PlainBucket(Fraction(limited.amount), Fraction(limited.burst), at=Fraction(0))
                self.buckets.setdefault(limited.name or (name, limited), bucket)
        self.taken_from = {
            name: [self.buckets[limited.name or (name, limited)] for limited in c.rate_limits]
            for name, c in lanes.items()
        }
        self.bounds = {name: config.max_pending for name, config in lanes.items()}
        self.thresholds = {name: config.pressure_threshold for name, config in lanes.items()}
        self.seqs = seqs
        self.size = letters
        self.lives: dict[str, Life] = {}
        self.letters: list[str] = []
        self.evicted = 0
        self.expected: list[tuple[type[LaneEvent], str]] = []
        self.pressed: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.open = False
        self.closed = False
        self.seq = 0
        self.at: float | None = None

    def follow(self, happened: Sequence[LaneEvent]) -> None:
        for event in happened:
            self.step(event)
        assert not self.expected

    def step(self, event: LaneEvent) -> None:
        assert not self.closed, f"{event} after the end"
        self.seq += 1
        assert event.seq == self.seq
        self.pass_time(event.at)
        self.counts[event.key] += 1
        if self.expected:  # the ending of a command and its dead letter are neighbours
            kind, command_id = self.expected.pop(0)
            assert isinstance(event, kind)
            assert getattr(event, "command_id", None) == command_id
        for kind in type(event).__mro__:
            method = getattr(self, f"on_{kind.__name__}", None)
            if method is not None:
                method(event)
                break

    def pass_time(self, at: float) -> None:
        before = at if self.at is None else self.at
        assert at >= before
        if self.at is None:
            self.queue.now = at
        if at > before:
            if self.open:
                assert not self.queue.choices(), f"until {at} a command could have started and did not"
            self.check_levels()
            self.queue.pass_time(at - before)
            self.queue.now = at
        self.at = at

    def check_levels(self) -> None:
        """Once all is done that was due, everybody was told of every step."""
        for life in self.lives.values():
            boost = life.command.lane.boost
            if boost is not None and not boost.every and life.command.state is State.READY and self.open:
                assert life.level == self.queue.level(life.command), f"nobody was told of {life}"

    # --- commands -----------------------------------------------------------------------------------------------

    def move(self, event: events.CommandEvent, state: State) -> Life:
        life = self.lives[event.command_id]
        command = life.command
        assert state in TRANSITIONS[command.state], f"{command.state} cannot become {state}: {event}"
        assert event.lane == command.lane.name
        assert event.attempt == command.attempt + (state is State.RUNNING)
        return life

    def on_CommandSubmitted(self, event: events.CommandSubmitted) -> None:
        assert not self.counts["queue.shutdown.started"], "taken in after the shutdown"
        assert event.command_id not in self.lives
        assert event.attempt == 0
        lane = self.queue.lanes[event.lane]
        seq = self.seqs[event.command_id]
        key, _ = self.keys.get(event.command_id, (None, 1.0))
        delayed = event.delay_seconds > 0
        command = self.queue.submit(seq, lane, delayed=delayed, key=key, deadline=event.deadline_seconds)
        self.lives[event.command_id] = Life(
            command, event.at, event.deadline_seconds, due_at=event.at + event.delay_seconds, level=lane.priority
        )
        bound = self.bounds[event.lane]
        if bound is not None:  # commands that came back from an attempt may exceed it: nobody can refuse them
            assert len([other for other in self.queue.of(lane, *WAITING) if not other.attempt]) <= bound

    def on_CommandReady(self, event: events.CommandReady) -> None:
        life = self.move(event, State.READY)
        assert event.at == pytest.approx(life.due_at, abs=1e-6)
        life.command.state = State.READY
        if self.queue.level(life.command) == life.command.lane.priority:  # else it was told just before
            life.level = life.command.lane.priority

    def on_CommandStarted(self, event: events.CommandStarted) -> None:
        life = self.move(event, State.RUNNING)
        assert self.queue.may_be_chosen(life.command), f"started {life.command}, wanted {self.queue.choices()}"
        self.take(event)
        self.queue.start(life.command)
        life.started_at = event.at
        life.stuck = life.cancel_requested = False
        self.check_wait(event.wait_by_cause, event.wait_seconds, life)

    def take(self, event: events.CommandStarted) -> None:
        """Takes tokens: they must be there."""
        _, cost = self.keys.get(event.command_id, (None, 1.0))
        for bucket in self.taken_from[event.lane]:
            bucket.take(Fraction(cost), Fraction(event.at))
            assert bucket.level > -1e-6, f"there was no token for {event}"

    def on_CommandBoosted(self, event: events.CommandBoosted) -> None:
        life = self.lives[event.command_id]
        assert life.command.state in WAITING
        assert event.base == life.command.lane.priority
        assert event.priority == self.queue.level(life.command)
        boost = life.command.lane.boost
        assert boost is not None
        if not boost.every:
            assert event.priority != life.level, "told twice"
        life.level = event.priority

    def on_CommandRetry(self, event: events.CommandRetry) -> None:
        life = self.move(event, State.BACKOFF)
        assert not life.cancel_requested, "a cancelled command is not tried again"
        assert event.run_seconds == pytest.approx(event.at - life.started_at, abs=1e-6)
        life.command.state = State.BACKOFF
        life.due_at = event.at + event.delay_seconds

    def on_CommandEnded(self, event: events.CommandEnded) -> None:
        state = ENDINGS[type(event)]
        life = self.move(event, state)
        if life.deadline is not None and life.command.state in WAITING and self.expires[event.lane]:
            assert event.at <= life.submitted_at + life.deadline + 1e-6, "it waited beyond its deadline"
        self.check_wait(event.wait_by_cause, event.wait_seconds, life)
        assert event.run_seconds == pytest.approx(life.command.ran, abs=1e-6)
        assert event.end_to_end_seconds == pytest.approx(event.at - life.submitted_at, abs=1e-6)
        assert event.wait_seconds + event.run_seconds == pytest.approx(event.end_to_end_seconds, abs=1e-6)
        self.queue.end(life.command, state)
        del self.lives[event.command_id]
        if state in {State.FAILED, State.TIMED_OUT, State.EXPIRED}:
            self.expected.append((events.CommandDeadLettered, event.command_id))

    def check_wait(self, wait: WaitByCause, seconds: float, life: Life) -> None:
        waits = life.command.waits
        if any(lane.limited or lane.fair for lane in self.queue.lanes.values()):  # the model cannot tell why
            assert wait.total == pytest.approx(sum(waits.values()), abs=1e-6)
            waits = waits | {cause: getattr(wait, cause) for cause in BLOCKS}
        assert wait.as_dict() == pytest.approx(waits, abs=1e-6)
        assert wait.total == pytest.approx(seconds, abs=1e-9)

    def on_CommandCancelRequested(self, event: events.CommandCancelRequested) -> None:
        life = self.lives[event.command_id]
        assert life.command.state is State.RUNNING
        life.cancel_requested = True

    def on_CommandStuck(self, event: events.CommandStuck) -> None:
        life = self.lives[event.command_id]
        assert life.command.state is State.RUNNING
        assert not life.stuck, "told twice"
        assert event.at >= life.started_at + event.after_seconds - 1e-6
        life.stuck = True

    # --- dead letters -------------------------------------------------------------------------------------------

    def on_CommandDeadLettered(self, event: events.CommandDeadLettered) -> None:
        assert event.command_id not in self.lives
        self.letters.append(event.command_id)
        if len(self.letters) > self.size:
            self.expected.append((events.DeadLetterEvicted, self.letters[0]))

    def on_DeadLetterEvicted(self, event: events.DeadLetterEvicted) -> None:
        assert self.letters.pop(0) == event.command_id
        self.evicted += 1

    def on_DeadLetterRequeued(self, event: events.DeadLetterRequeued) -> None:
        self.letters.remove(event.command_id)
        self.expected.append((events.CommandSubmitted, event.command_id))

    # --- lanes and the queue ------------------------------------------------------------------------------------

    def on_LanePaused(self, event: events.LanePaused) -> None:
        self.pause(event, paused=True)

    def on_LaneResumed(self, event: events.LaneResumed) -> None:
        self.pause(event, paused=False)

    def pause(self, event: events.LaneStateEvent, *, paused: bool) -> None:
        lane = self.queue.lanes[event.lane]
        assert lane.paused is not paused
        assert event.pending == self.pending(event.lane)
        lane.paused = paused

    def on_LaneChanged(self, event: events.LaneChanged) -> None:
        lane = self.queue.lanes[event.lane]
        changes = event.changes
        lane.minimum = int(changes.get("min_concurrency", lane.minimum))
        lane.maximum = int(changes.get("max_concurrency", lane.maximum))
        lane.priority = int(changes.get("priority", lane.priority))
        for life in self.lives.values():
            if life.command.lane is lane and life.command.state is State.READY:
                life.level = self.queue.level(life.command)

    def on_LanePressure(self, event: events.LanePressure) -> None:
        assert event.lane not in self.pressed
        assert event.pending == self.pending(event.lane) >= event.threshold == self.thresholds[event.lane]
        self.pressed.add(event.lane)

    def on_LaneIdle(self, event: events.LaneIdle) -> None:
        assert self.pending(event.lane) == event.pending == 0
        self.pressed.remove(event.lane)

    def pending(self, lane: str) -> int:
        return len(self.queue.of(self.queue.lanes[lane], *WAITING))

    def on_QueueStarted(self, _event: events.QueueStarted) -> None:
        assert not self.open
        self.open = True

    def on_ShutdownStarted(self, event: events.ShutdownStarted) -> None:
        assert self.counts[event.key] == 1
        assert event.running == self.queue.running_in_all()
        assert event.pending == len(self.queue.live) - event.running

    def on_ShutdownComplete(self, event: events.ShutdownComplete) -> None:
        assert self.counts["queue.shutdown.started"] == self.counts[event.key] == 1
        assert not self.queue.live

    def on_QueueClosed(self, _event: events.QueueClosed) -> None:
        assert not self.queue.live, "the queue closed over live commands"
        assert not self.lives
        self.closed = True

    # --- at the end ---------------------------------------------------------------------------------------------

    def total(self, state: State) -> int:
        return sum(count for (_, ended), count in self.queue.ended.items() if ended is state)

    def check_sums(self) -> None:
        """Every submitted command ended exactly once, and every one that should be is or was a dead letter."""
        assert sum(self.total(state) for state in FINAL) == self.queue.submitted
        unsuccessful = sum(self.total(state) for state in (State.FAILED, State.TIMED_OUT, State.EXPIRED))
        requeued = self.counts["queue.dead_letter.requeued"]
        assert len(self.letters) == unsuccessful - self.evicted - requeued
