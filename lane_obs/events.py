"""Every event, one frozen type each: the contract that sinks, tests and documents share.

An event is a fact about the past. `key` is its name on the wire (the keys of A3S Lane 0.1, extended), `seq` its
place in the order in which one queue's events happened, `at` monotonic seconds of the queue's clock and `wall`
Unix seconds. A field that is not known (yet) is `None`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import msgspec

_HEADER: Final = frozenset({"seq", "at", "wall", "exception"})


CAUSES: Final = ("slots", "priority", "pause", "scheduler", "backoff", "delay")
"""Causes of waiting, in the order in which they are shown.

slots: the lane is at its `max_concurrency`, or the queue is full and this lane is next.
priority: the queue is full and a more important lane goes first.
pause: the lane is paused.
scheduler: nothing blocks it but the scheduler's own lateness.
backoff: between a failed attempt and the time of its retry.
delay: the delay asked for at submit.
"""


class WaitByCause(msgspec.Struct, frozen=True, gc=False):
    """Seconds waited, by cause (see `CAUSES`)."""

    slots: float = 0.0
    priority: float = 0.0
    pause: float = 0.0
    scheduler: float = 0.0
    backoff: float = 0.0
    delay: float = 0.0

    @property
    def total(self) -> float:
        """The whole wait in seconds."""
        return self.slots + self.priority + self.pause + self.scheduler + self.backoff + self.delay

    def __add__(self, other: WaitByCause) -> WaitByCause:
        return WaitByCause(*(getattr(self, cause) + getattr(other, cause) for cause in CAUSES))

    def as_dict(self) -> dict[str, float]:
        """By cause, zeros included."""
        return {cause: getattr(self, cause) for cause in CAUSES}


NO_WAIT: Final = WaitByCause()
"""No wait at all."""


class LaneEvent(msgspec.Struct, frozen=True, kw_only=False):
    """Base of all events.

    Attributes:
        key: name of the kind of event, such as `queue.command.started`.
        seq: 1, 2, 3, ... in the order the events of one queue happened.
        at: monotonic seconds on the queue's clock.
        wall: Unix seconds.
    """

    key: ClassVar[str] = "queue.event"

    seq: int
    at: float
    wall: float

    @property
    def timestamp(self) -> datetime:
        """When it happened, as an aware datetime in UTC."""
        return datetime.fromtimestamp(self.wall, UTC)

    @property
    def payload(self) -> dict[str, Any]:
        """The event's own fields as plain data, ready for JSON."""
        return {
            name: msgspec.to_builtins(getattr(self, name)) for name in self.__struct_fields__ if name not in _HEADER
        }


class CommandEvent(LaneEvent, frozen=True):
    """Base of the events about one command.

    Attributes:
        command_id: its id.
        lane: its lane's name.
        command_type: its registered name, or the name of its function or class.
        attempt: number of the latest attempt, from 1; 0 before the first.
    """

    command_id: str
    lane: str
    command_type: str
    attempt: int


class CommandSubmitted(CommandEvent, frozen=True):
    """A command was taken into its lane."""

    key: ClassVar[str] = "queue.command.submitted"
    delay_seconds: float = 0.0
    deadline_seconds: float | None = None
    requeued: bool = False


class CommandReady(CommandEvent, frozen=True):
    """A delay or back-off is over: the command may start."""

    key: ClassVar[str] = "queue.command.ready"


class CommandStarted(CommandEvent, frozen=True):
    """An attempt started. `wait_by_cause` splits the wait of the whole life so far (seconds)."""

    key: ClassVar[str] = "queue.command.started"
    wait_seconds: float = 0.0
    wait_by_cause: WaitByCause = NO_WAIT


class CommandEnded(CommandEvent, frozen=True):
    """Base of the events at which a command's life is over, once each.

    Attributes:
        wait_seconds: all its waiting, delay and back-off included.
        run_seconds: all its attempts.
        end_to_end_seconds: from submit to end.
    """

    wait_seconds: float = 0.0
    run_seconds: float = 0.0
    end_to_end_seconds: float = 0.0


class CommandCompleted(CommandEnded, frozen=True):
    """A command succeeded."""

    key: ClassVar[str] = "queue.command.completed"


class CommandUnsuccessful(CommandEnded, frozen=True):
    """Base of the ends without a value.

    Attributes:
        error_type: name of the exception's class.
        error: its message, at most 1,000 characters.
        exception: the exception itself; not part of the payload.
    """

    error_type: str = ""
    error: str = ""
    exception: BaseException | None = None


class CommandFailed(CommandUnsuccessful, frozen=True):
    """The last attempt raised, or the command was dropped from a full lane; no retry follows."""

    key: ClassVar[str] = "queue.command.failed"


class CommandTimedOut(CommandUnsuccessful, frozen=True):
    """The last attempt ran longer than its timeout; no retry follows."""

    key: ClassVar[str] = "queue.command.timeout"


class CommandCancelled(CommandUnsuccessful, frozen=True):
    """The command was cancelled or cancelled itself."""

    key: ClassVar[str] = "queue.command.cancelled"


class CommandExpired(CommandUnsuccessful, frozen=True):
    """The command's deadline passed before it ended."""

    key: ClassVar[str] = "queue.command.expired"


class CommandRetry(CommandEvent, frozen=True):
    """An attempt failed and another one follows after `delay_seconds`.

    Attributes:
        reason: `error` or `timeout`.
        run_seconds: run time of the failed attempt.
    """

    key: ClassVar[str] = "queue.command.retry"
    reason: str = "error"
    delay_seconds: float = 0.0
    run_seconds: float = 0.0
    error_type: str = ""
    error: str = ""
    exception: BaseException | None = None


class CommandDeadLettered(CommandEvent, frozen=True):
    """The command, ended without success, is now a dead letter."""

    key: ClassVar[str] = "queue.command.dead_lettered"
    reason: str = ""
    error_type: str = ""
    error: str = ""


class CommandCancelRequested(CommandEvent, frozen=True):
    """Someone asked a running command to cancel."""

    key: ClassVar[str] = "queue.command.cancel_requested"


class CommandStuck(CommandEvent, frozen=True):
    """A command still runs `after_seconds` after it was told to stop. It keeps its slot until it ends."""

    key: ClassVar[str] = "queue.command.stuck"
    after_seconds: float = 0.0


class CommandRejected(LaneEvent, frozen=True):
    """A submit was refused and nothing enqueued. `reason` is `full`, `shutting_down` or `unknown_lane`."""

    key: ClassVar[str] = "queue.command.rejected"
    lane: str
    command_type: str
    reason: str


class DeadLetterEvicted(LaneEvent, frozen=True):
    """The dead letter queue was full and let its oldest letter go."""

    key: ClassVar[str] = "queue.dead_letter.evicted"
    command_id: str
    lane: str
    command_type: str


class DeadLetterRequeued(LaneEvent, frozen=True):
    """A dead letter went back into its lane under the same id, with attempts reset."""

    key: ClassVar[str] = "queue.dead_letter.requeued"
    command_id: str
    lane: str
    command_type: str


class LaneStateEvent(LaneEvent, frozen=True):
    """Base of the events about a lane; `pending` counts its waiting commands."""

    lane: str
    pending: int


class LanePressure(LaneStateEvent, frozen=True):
    """The lane's waiting commands reached `threshold` (its `pressure_threshold`)."""

    key: ClassVar[str] = "queue.lane.pressure"
    threshold: int = 0


class LaneIdle(LaneStateEvent, frozen=True):
    """No command waits in a lane that was under pressure."""

    key: ClassVar[str] = "queue.lane.idle"


class LanePaused(LaneStateEvent, frozen=True):
    """The lane starts nothing until it is resumed."""

    key: ClassVar[str] = "queue.lane.paused"


class LaneResumed(LaneStateEvent, frozen=True):
    """The lane starts commands again."""

    key: ClassVar[str] = "queue.lane.resumed"


class LaneChanged(LaneStateEvent, frozen=True):
    """The lane's policies were changed; `changes` are the new values by field."""

    key: ClassVar[str] = "queue.lane.changed"
    changes: dict[str, str] = {}


class QueueStarted(LaneEvent, frozen=True):
    """The queue started to run commands."""

    key: ClassVar[str] = "queue.started"


class ShutdownStarted(LaneEvent, frozen=True):
    """The queue takes no new work; `pending` and `running` count what it still has."""

    key: ClassVar[str] = "queue.shutdown.started"
    pending: int
    running: int


class ShutdownComplete(LaneEvent, frozen=True):
    """All work is done after a shutdown."""

    key: ClassVar[str] = "queue.shutdown.complete"


class QueueClosed(LaneEvent, frozen=True):
    """The queue is closed; `abandoned` commands ignored their cancellation and were left running."""

    key: ClassVar[str] = "queue.closed"
    cancelled: int
    abandoned: int


class SinkFailed(LaneEvent, frozen=True):
    """A sink raised. Only its first failure is reported; all are counted."""

    key: ClassVar[str] = "queue.sink.failed"
    sink: str
    error_type: str
    error: str


class SinkDisabled(LaneEvent, frozen=True):
    """A sink kept failing and gets no more events."""

    key: ClassVar[str] = "queue.sink.disabled"
    sink: str
    failures: int


class AlertEvent(LaneEvent, frozen=True):
    """Base of the monitor's events: a rule's `value` against its `threshold`."""

    rule: str
    value: float
    threshold: float


class AlertFiring(AlertEvent, frozen=True):
    """A threshold of the monitor is crossed."""

    key: ClassVar[str] = "queue.alert.firing"


class AlertResolved(AlertEvent, frozen=True):
    """The value is back below the threshold."""

    key: ClassVar[str] = "queue.alert.resolved"


def _concrete(kind: type[LaneEvent]) -> list[type[LaneEvent]]:
    found = [kind] if "key" in kind.__dict__ and kind is not LaneEvent else []
    for child in kind.__subclasses__():
        found += _concrete(child)
    return found


EVENT_TYPES: Final = tuple(_concrete(LaneEvent))
"""All kinds of events that a queue emits."""
