"""What became of each replayed command, read from the events of the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from lane_obs import events
from lane_obs.clock import NS
from lane_obs.core.state import State
from lane_obs.events import CAUSES, NO_WAIT, WaitByCause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lane_obs.events import LaneEvent
    from lane_obs.simulation.trace import TraceCommand

REJECTED: Final = "rejected"
"""Outcome of a command that its full lane refused; all other outcomes are final states."""

OUTCOMES: Final = (State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.EXPIRED, REJECTED, State.CANCELLED)
"""All outcomes, in the order in which they are shown."""

BAD_OUTCOMES: Final = (State.FAILED, State.TIMED_OUT, State.EXPIRED, REJECTED)
"""Those of a command that failed for good. A cancelled one was told to end."""


class CommandRecord(msgspec.Struct, frozen=True):
    """One command of a replay. Times are seconds from the trace's start, to the nanosecond.

    Attributes:
        id: the number of its line in the trace, as text.
        submitted_at: when its lane took it (or refused it).
        started_at: when its first attempt started; `None` if none did.
        finished_at: when it ended.
        outcome: one of `OUTCOMES`.
        attempts: how many attempts started.
        wait_seconds: all its waiting, back-off included.
        wait_by_cause: the same, split.
    """

    id: str
    lane: str
    command_type: str
    submitted_at: float
    started_at: float | None
    finished_at: float
    outcome: str
    attempts: int
    wait_seconds: float
    wait_by_cause: WaitByCause


class Tally(msgspec.Struct):
    """Running counts of a lane or of all lanes.

    Attributes:
        submitted: commands that the lane took.
        waiting: commands that wait now, back-off included.
        running: commands that run now.
        peak_depth: the most commands that waited at one time, those included that were about to start.
        run_seconds: all attempts of the commands that ended.
        retries: attempts that another one follows.
        outcomes: commands that ended, by outcome.
    """

    submitted: int = 0
    waiting: int = 0
    running: int = 0
    peak_depth: int = 0
    run_seconds: float = 0.0
    retries: int = 0
    outcomes: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(map(str, OUTCOMES), 0))

    @property
    def ended(self) -> int:
        """How many commands ended, rejected ones included."""
        return sum(self.outcomes.values())

    def moved(self, *, waiting: int, running: int) -> None:
        """Counts commands that began (or, negative, ceased) to wait or run."""
        self.waiting += waiting
        self.running += running
        self.peak_depth = max(self.peak_depth, self.waiting)


class _Life(msgspec.Struct):
    """A command that has not ended."""

    submitted_at: float
    started_at: float | None = None
    runs: bool = False


class Recorder:
    """A sink that keeps a record of each command and counts them by lane.

    Args:
        start_ns: the trace's start on the queue's clock, nanoseconds; may be set until the first event.
        lanes: the lanes' names.
    """

    def __init__(self, start_ns: int, lanes: Iterable[str]) -> None:
        self.start_ns = start_ns
        self._lives: dict[str, _Life] = {}
        self._records: dict[str, CommandRecord] = {}
        self.total = Tally()
        """Counts of all lanes together."""
        self.lanes = {name: Tally() for name in lanes}
        """Counts by lane."""
        self._takers: dict[type[LaneEvent], Callable[[Any], None]] = {
            events.CommandSubmitted: self._submitted,
            events.CommandStarted: self._started,
            events.CommandRetry: self._retried,
            **dict.fromkeys(_ENDINGS, self._ended),
        }

    def handle(self, batch: Sequence[LaneEvent]) -> None:
        """Takes the events about commands; others are of no interest."""
        for event in batch:
            take = self._takers.get(type(event))
            if take is not None:
                take(event)

    def close(self) -> None:
        """Keeps what it has."""

    def reject(self, command: TraceCommand, at: float) -> None:
        """Records a command that its full lane refused at this time on the queue's clock."""
        when = self._since_start(at)
        self._keep(
            CommandRecord(
                str(command.line), command.lane, command.command_type, when, None, when, REJECTED, 0, 0.0, NO_WAIT
            ),
            run_seconds=0.0,
        )

    def records(self, commands: Iterable[TraceCommand]) -> tuple[CommandRecord, ...]:
        """The records of those commands that have one, in the order given."""
        found = (self._records.get(str(command.line)) for command in commands)
        return tuple(record for record in found if record is not None)

    def _since_start(self, at: float) -> float:
        return (round(at * NS) - self.start_ns) / NS

    def _move(self, lane: str, *, waiting: int = 0, running: int = 0) -> None:
        self.lanes[lane].moved(waiting=waiting, running=running)
        self.total.moved(waiting=waiting, running=running)

    def _submitted(self, event: events.CommandSubmitted) -> None:
        self._lives[event.command_id] = _Life(self._since_start(event.at))
        for tally in (self.lanes[event.lane], self.total):
            tally.submitted += 1
        self._move(event.lane, waiting=1)

    def _started(self, event: events.CommandStarted) -> None:
        life = self._lives[event.command_id]
        life.runs = True
        if life.started_at is None:
            life.started_at = self._since_start(event.at)
        self._move(event.lane, waiting=-1, running=1)

    def _retried(self, event: events.CommandRetry) -> None:
        self._lives[event.command_id].runs = False
        for tally in (self.lanes[event.lane], self.total):
            tally.retries += 1
        self._move(event.lane, waiting=1, running=-1)

    def _ended(self, event: events.CommandEnded) -> None:
        life = self._lives.pop(event.command_id)
        self._move(event.lane, waiting=-(not life.runs), running=-life.runs)
        record = CommandRecord(
            id=event.command_id,
            lane=event.lane,
            command_type=event.command_type,
            submitted_at=life.submitted_at,
            started_at=life.started_at,
            finished_at=self._since_start(event.at),
            outcome=str(_ENDINGS[type(event)]),
            attempts=event.attempt,
            wait_seconds=round(event.wait_seconds, 9),
            wait_by_cause=WaitByCause(*(round(getattr(event.wait_by_cause, cause), 9) for cause in CAUSES)),
        )
        self._keep(record, event.run_seconds)

    def _keep(self, record: CommandRecord, run_seconds: float) -> None:
        self._records[record.id] = record
        for tally in (self.lanes[record.lane], self.total):
            tally.outcomes[record.outcome] += 1
            tally.run_seconds += run_seconds


_ENDINGS: Final[dict[type[LaneEvent], State]] = {
    events.CommandCompleted: State.SUCCEEDED,
    events.CommandFailed: State.FAILED,
    events.CommandTimedOut: State.TIMED_OUT,
    events.CommandCancelled: State.CANCELLED,
    events.CommandExpired: State.EXPIRED,
}
