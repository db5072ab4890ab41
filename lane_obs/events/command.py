"""Events about one command, and about commands that were refused or given up."""

from __future__ import annotations

from typing import ClassVar

from lane_obs.events.event import LaneEvent
from lane_obs.events.trace import TraceIds  # noqa: TC001 - msgspec reads the annotation
from lane_obs.events.wait import NO_WAIT, WaitByCause


class TracedEvent(LaneEvent, frozen=True, kw_only=True):
    """Base of the events that may belong to a trace.

    Attributes:
        trace: the span of the attempt, before the first attempt that of the submit; `None` when nobody traces.
    """

    trace: TraceIds | None = None


class CommandEvent(TracedEvent, frozen=True):
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


class CommandSubmitted(CommandEvent, frozen=True, gc=False):
    """A command was taken into its lane."""

    key: ClassVar[str] = "queue.command.submitted"
    delay_seconds: float = 0.0
    deadline_seconds: float | None = None
    requeued: bool = False


class CommandReady(CommandEvent, frozen=True, gc=False):
    """A delay or back-off is over: the command may start."""

    key: ClassVar[str] = "queue.command.ready"


class CommandStarted(CommandEvent, frozen=True, gc=False):
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
        wait_by_cause: the waiting, split.
        attempt_seconds: run time of the attempt that ended with it; `None` when it ended while it waited.
    """

    wait_seconds: float = 0.0
    run_seconds: float = 0.0
    end_to_end_seconds: float = 0.0
    wait_by_cause: WaitByCause = NO_WAIT
    attempt_seconds: float | None = None


class CommandCompleted(CommandEnded, frozen=True, gc=False):
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
        wait_seconds: all waiting so far.
    """

    key: ClassVar[str] = "queue.command.retry"
    reason: str = "error"
    delay_seconds: float = 0.0
    run_seconds: float = 0.0
    error_type: str = ""
    error: str = ""
    exception: BaseException | None = None
    wait_seconds: float = 0.0


class CommandDeadLettered(CommandEvent, frozen=True):
    """The command, ended without success, is now a dead letter.

    Attributes:
        reason: the state it ended in.
        wait_seconds: all its waiting.
        run_seconds: all its attempts.
    """

    key: ClassVar[str] = "queue.command.dead_lettered"
    reason: str = ""
    error_type: str = ""
    error: str = ""
    wait_seconds: float = 0.0
    run_seconds: float = 0.0


class CommandCancelRequested(CommandEvent, frozen=True):
    """Someone asked a running command to cancel."""

    key: ClassVar[str] = "queue.command.cancel_requested"


class CommandStuck(CommandEvent, frozen=True):
    """A command still runs `after_seconds` after it was told to stop. It keeps its slot until it ends."""

    key: ClassVar[str] = "queue.command.stuck"
    after_seconds: float = 0.0


class CommandBoosted(CommandEvent, frozen=True):
    """A waiting command's priority rose, from that of its lane (`base`) to `priority`: its deadline or its age."""

    key: ClassVar[str] = "queue.command.boosted"
    base: int = 0
    priority: int = 0


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
