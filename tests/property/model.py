"""A plain model of the queue: lists, counted anew for every question. Slow and obviously right is the aim."""

from __future__ import annotations

import dataclasses
from collections import Counter

from lane_obs import CAUSES, State

WAITING = (State.READY, State.DELAYED, State.BACKOFF)


@dataclasses.dataclass
class PlainLane:
    """A lane's policies; `served` is the number of the queue's latest start in it, 0 before the first."""

    name: str
    minimum: int
    maximum: int
    priority: int
    paused: bool = False
    served: int = 0


@dataclasses.dataclass(eq=False)
class PlainCommand:
    """One life of one command; `waits` is its waiting so far by cause, in seconds."""

    seq: int
    lane: PlainLane
    state: State
    attempt: int = 0
    ran: float = 0.0
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

    def may_start(self, lane: PlainLane) -> bool:
        if lane.paused or not self.of(lane, State.READY) or self.running(lane) >= lane.maximum:
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
        able = [lane for lane in self.lanes.values() if self.may_start(lane)]
        first = min(((lane.priority, lane.served) for lane in able), default=None)
        return [self.head(lane) for lane in able if (lane.priority, lane.served) == first]

    # --- why it waits -------------------------------------------------------------------------------------------

    def competes(self, lane: PlainLane) -> bool:
        """Whether a shared slot of the queue is all that the lane's head needs."""
        able = not lane.paused and lane.minimum <= self.running(lane) < lane.maximum
        return able and bool(self.of(lane, State.READY))

    def cause(self, command: PlainCommand) -> str:
        """What a waiting command waits for."""
        if command.state is not State.READY:
            return {State.DELAYED: "delay", State.BACKOFF: "backoff"}[command.state]
        lane = command.lane
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
        best = min(other.priority for other in self.lanes.values() if self.competes(other))
        return "slots" if lane.priority == best else "priority"

    def pass_time(self, seconds: float) -> None:
        """Charges an interval in which nothing changes to whatever each command waits for."""
        causes = [(command, self.cause(command)) for command in self.live if command.state in WAITING]
        for command, cause in causes:
            command.waits[cause] += seconds
        for command in self.live:
            if command.state is State.RUNNING:
                command.ran += seconds

    # --- what happens -------------------------------------------------------------------------------------------

    def submit(self, seq: int, lane: PlainLane, *, delayed: bool) -> PlainCommand:
        command = PlainCommand(seq, lane, State.DELAYED if delayed else State.READY)
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
