"""Follows the events of one queue from the first to the last, with the plain model beside them.

Between two events nothing changes, so the model can say at each start whether it was the right one, and at each end
what the command waited for.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from lane_obs import State, events
from lane_obs.core.state import FINAL, TRANSITIONS
from tests.property.model import WAITING, PlainCommand, PlainLane, PlainQueue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs import LaneConfig, LaneEvent, WaitByCause

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
    stuck: bool = False
    cancel_requested: bool = False


class Walk:
    """Checks one queue's events; `seqs` are the commands' sequence numbers by id."""

    def __init__(
        self, lanes: Mapping[str, LaneConfig], limit: int | None, letters: int, seqs: Mapping[str, int]
    ) -> None:
        plain = [PlainLane(name, c.min_concurrency, c.max_concurrency, c.priority) for name, c in lanes.items()]
        self.queue = PlainQueue(plain, limit)
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
        if at > before:
            if self.open:
                assert not self.queue.choices(), f"until {at} a command could have started and did not"
            self.queue.pass_time(at - before)
        self.at = at

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
        command = self.queue.submit(seq, lane, delayed=event.delay_seconds > 0)
        self.lives[event.command_id] = Life(
            command, event.at, event.deadline_seconds, due_at=event.at + event.delay_seconds
        )
        bound = self.bounds[event.lane]
        if bound is not None:  # commands that came back from an attempt may exceed it: nobody can refuse them
            assert len([other for other in self.queue.of(lane, *WAITING) if not other.attempt]) <= bound

    def on_CommandReady(self, event: events.CommandReady) -> None:
        life = self.move(event, State.READY)
        assert event.at == pytest.approx(life.due_at, abs=1e-6)
        life.command.state = State.READY

    def on_CommandStarted(self, event: events.CommandStarted) -> None:
        life = self.move(event, State.RUNNING)
        choices = self.queue.choices()
        assert life.command in choices, f"started {life.command}, wanted {choices}"
        self.queue.start(life.command)
        life.started_at = event.at
        life.stuck = life.cancel_requested = False
        self.check_wait(event.wait_by_cause, event.wait_seconds, life)

    def on_CommandRetry(self, event: events.CommandRetry) -> None:
        life = self.move(event, State.BACKOFF)
        assert not life.cancel_requested, "a cancelled command is not tried again"
        assert event.run_seconds == pytest.approx(event.at - life.started_at, abs=1e-6)
        life.command.state = State.BACKOFF
        life.due_at = event.at + event.delay_seconds

    def on_CommandEnded(self, event: events.CommandEnded) -> None:
        state = ENDINGS[type(event)]
        life = self.move(event, state)
        if life.deadline is not None and life.command.state in WAITING:
            assert event.at <= life.submitted_at + life.deadline + 1e-6, "it waited beyond its deadline"
        self.check_wait(event.wait_by_cause, event.wait_seconds, life)
        assert event.run_seconds == pytest.approx(life.command.ran, abs=1e-6)
        assert event.end_to_end_seconds == pytest.approx(event.at - life.submitted_at, abs=1e-6)
        assert event.wait_seconds + event.run_seconds == pytest.approx(event.end_to_end_seconds, abs=1e-6)
        self.queue.end(life.command, state)
        del self.lives[event.command_id]
        if state in {State.FAILED, State.TIMED_OUT, State.EXPIRED}:
            self.expected.append((events.CommandDeadLettered, event.command_id))

    @staticmethod
    def check_wait(wait: WaitByCause, seconds: float, life: Life) -> None:
        assert wait.as_dict() == pytest.approx(life.command.waits, abs=1e-6)
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
