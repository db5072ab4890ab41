"""A plain model of the queue: lists, counted anew for every question. Slow and obviously right is the aim."""

from __future__ import annotations

import dataclasses
from collections import Counter

from lane_obs import CAUSES, State

WAITING = (State.READY, State.DELAYED, State.BACKOFF)


@dataclasses.dataclass(frozen=True)
class PlainBoost:
    """A boost, in the words of docs/boosts.md: steps of (share of the deadline left, by how much), or ageing."""

    steps: tuple[tuple[float, int], ...] = ()
    every: float = 0.0
    by: int = 1
    floor: int = 0

    def level(self, priority: int, age: float, deadline: float | None) -> int:
        age += 1e-6
        if self.every:
            less = int(age / self.every) * self.by
        elif deadline is None:
            less = 0
        else:
            left = (deadline - age) / deadline
            less = max((less for share, less in self.steps if left <= share), default=0)
        return max(priority - less, min(self.floor, priority))


@dataclasses.dataclass
class PlainLane:
    """A lane's policies; `served` is the number of the queue's latest start in it, 0 before the first."""

    name: str
    minimum: int
    maximum: int
    priority: int
    paused: bool = False
    served: int = 0
    boost: PlainBoost | None = None
    limited: bool = False
    """Whether rate limits may hold it back: the model does not know when."""
    fair: bool = False
    """Whether its partitions take turns: the model does not know whose it is."""


@dataclasses.dataclass(eq=False)
class PlainCommand:
    """One life of one command; `waits` is its waiting so far by cause, in seconds."""

    seq: int
    lane: PlainLane
    state: State
    attempt: int = 0
    ran: float = 0.0
    key: object = None
    """Of those of one key, one at a time may run."""
    submitted_at: float = 0.0
    deadline: float | None = None
    waits: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))


class PlainQueue:
    """What should happen, worked out from the definitions in design.md section 3 and `lane_obs.CAUSES`."""

    def __init__(self, lanes: list[PlainLane], limit: int | None) -> None:
        self.lanes = {lane.name: lane for lane in lanes}
        self.limit = limit
        self.live: list[PlainCommand] = []
        self.ended: Counter[tuple[str, State]] = Counter()
        self.submitted = 0
        self.starts = 0
        self.now = 0.0
        """Matters to boosts only."""

    # --- counts -------------------------------------------------------------------------------------------------

    def of(self, lane: PlainLane, *states: State) -> list[PlainCommand]:
        """The live commands of a lane in these states."""
        return [command for command in self.live if command.lane is lane and command.state in states]

    def running(self, lane: PlainLane) -> int:
        return len(self.of(lane, State.RUNNING))

    def running_in_all(self) -> int:
        return sum(self.running(lane) for lane in self.lanes.values())

    def held(self) -> int:
        """Slots that are in use or that nobody but their lane may take."""
        return sum(max(self.running(lane), lane.minimum) for lane in self.lanes.values())

    def count(self, lane: PlainLane, state: State) -> int:
        return len(self.of(lane, state)) + self.ended[lane.name, state]

    # --- what may start -----------------------------------------------------------------------------------------

    def level(self, command: PlainCommand) -> int:
        """The effective priority of a command."""
        lane = command.lane
        if lane.boost is None:
            return lane.priority
        return lane.boost.level(lane.priority, self.now - command.submitted_at, command.deadline)

    def is_held(self, command: PlainCommand) -> bool:
        """Whether another command of its partition is ahead of a ready one, runs, or backs off."""
        if command.key is None or command.attempt:
            return False
        mine = [other for other in self.live if other.lane is command.lane and other.key == command.key]
        return any(
            other.attempt or (other.state is State.READY and other.seq < command.seq)
            for other in mine
            if other is not command
        )

    def lined_up(self, lane: PlainLane) -> list[PlainCommand]:
        """Its ready commands that no other of their partition holds up."""
        return [command for command in self.of(lane, State.READY) if not self.is_held(command)]

    def heads(self, lane: PlainLane) -> list[PlainCommand]:
        """The commands of which one is next in a lane: one, but where its partitions take turns."""
        lined_up = self.lined_up(lane)
        if lane.fair:
            return lined_up
        by_age = lane.boost is not None and lane.boost.every
        return [min(lined_up, key=lambda command: (0 if by_age else self.level(command), command.seq))]

    def priority(self, lane: PlainLane) -> int:
        """That of a lane's head, where it boosts; it must have one."""
        return lane.priority if lane.boost is None else self.level(self.heads(lane)[0])

    def may_start(self, lane: PlainLane) -> bool:
        if lane.paused or not self.lined_up(lane) or self.running(lane) >= lane.maximum:
            return False
        if self.limit is None:
            return True
        if self.running(lane) < lane.minimum:
            return self.running_in_all() < self.limit
        return self.held() < self.limit

    def head(self, lane: PlainLane) -> PlainCommand:
        """The first submitted of the lane's ready commands, whatever it went through since."""
        return min(self.of(lane, State.READY), key=lambda command: command.seq)

    def choices(self) -> list[PlainCommand]:
        """The commands of which one must start next: none, or one; several only among lanes never served yet."""
        able = [lane for lane in self.lanes.values() if self.may_start(lane) and not lane.limited]
        ranks = {lane.name: (self.priority(lane), lane.served) for lane in able}
        first = min(ranks.values(), default=None)
        return [command for lane in able if ranks[lane.name] == first for command in self.heads(lane)]

    def may_be_chosen(self, command: PlainCommand) -> bool:
        """Whether it may start now, where limits may hold others back, and must go before those that have none."""
        lane = command.lane
        if not lane.limited:
            return command in self.choices()
        if not self.may_start(lane) or command not in self.heads(lane):
            return False
        return all((self.priority(lane), lane.served) <= (self.priority(o.lane), o.lane.served) for o in self.choices())

    # --- why it waits -------------------------------------------------------------------------------------------

    def competes(self, lane: PlainLane) -> bool:
        """Whether a shared slot of the queue is all that the lane's head needs."""
        able = not lane.paused and lane.minimum <= self.running(lane) < lane.maximum
        return able and bool(self.lined_up(lane))

    def cause(self, command: PlainCommand) -> str:
        """What a waiting command waits for."""
        if command.state is not State.READY:
            return {State.DELAYED: "delay", State.BACKOFF: "backoff"}[command.state]
        lane = command.lane
        if self.is_held(command):
            return "partition"
        if lane.paused:
            return "pause"
        if self.running(lane) >= lane.maximum:
            return "slots"
        if self.limit is None:
            return "scheduler"
        if self.running(lane) < lane.minimum:
            return "slots" if self.running_in_all() >= self.limit else "scheduler"
        if self.held() < self.limit:
            return "scheduler"
        best = min(self.priority(other) for other in self.lanes.values() if self.competes(other))
        return "slots" if self.priority(lane) == best else "priority"

    def pass_time(self, seconds: float) -> None:
        """Charges an interval in which nothing changes to whatever each command waits for."""
        causes = [(command, self.cause(command)) for command in self.live if command.state in WAITING]
        for command, cause in causes:
            command.waits[cause] += seconds
        for command in self.live:
            if command.state is State.RUNNING:
                command.ran += seconds
        self.now += seconds

    # --- what happens -------------------------------------------------------------------------------------------

    def submit(
        self, seq: int, lane: PlainLane, *, delayed: bool, key: object = None, deadline: float | None = None
    ) -> PlainCommand:
        state = State.DELAYED if delayed else State.READY
        command = PlainCommand(seq, lane, state, key=key, submitted_at=self.now, deadline=deadline)
        self.live.append(command)
        self.submitted += 1
        return command

    def start(self, command: PlainCommand) -> None:
        """Starts a command and checks the limits and reservations, apart from the rule by which it was chosen."""
        assert command.state is State.READY
        lane = command.lane
        command.state = State.RUNNING
        command.attempt += 1
        self.starts += 1
        lane.served = self.starts
        running = self.running(lane)
        assert running <= lane.maximum
        assert command.key is None or sum(other.key == command.key for other in self.of(lane, State.RUNNING)) == 1
        if self.limit is not None:
            free = self.limit - self.running_in_all()
            assert free >= 0
            if running > lane.minimum:
                missing = sum(max(0, other.minimum - self.running(other)) for other in self.lanes.values())
                assert free >= missing, "it took a slot reserved for another lane"

    def end(self, command: PlainCommand, state: State) -> None:
        command.state = state
        self.live.remove(command)
        self.ended[command.lane.name, state] += 1
