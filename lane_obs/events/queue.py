"""Events about lanes, the queue and its sinks."""

from __future__ import annotations

from typing import ClassVar

from lane_obs.events.command import TracedEvent
from lane_obs.events.event import LaneEvent


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


class LaneThrottled(LaneStateEvent, frozen=True):
    """A rate limit began to hold the lane back: `wait_seconds` until its next command may start."""

    key: ClassVar[str] = "queue.lane.throttled"
    wait_seconds: float = 0.0


class LaneUnthrottled(LaneStateEvent, frozen=True):
    """All ready commands of a lane that a rate limit held back have started."""

    key: ClassVar[str] = "queue.lane.unthrottled"


class LanePaused(LaneStateEvent, frozen=True):
    """The lane starts nothing until it is resumed."""

    key: ClassVar[str] = "queue.lane.paused"


class LaneResumed(LaneStateEvent, frozen=True):
    """The lane starts commands again."""

    key: ClassVar[str] = "queue.lane.resumed"


class LaneChanged(LaneStateEvent, frozen=True):
    """The lane's policies were changed; `changes` are the new values by field."""

    key: ClassVar[str] = "queue.lane.changed"
    changes: dict[str, str]


class LaneAdded(LaneStateEvent, frozen=True):
    """The queue has a new lane; `policies` are those that differ from the default ones, by field."""

    key: ClassVar[str] = "queue.lane.added"
    policies: dict[str, str]


class LaneRemoved(LaneStateEvent, frozen=True):
    """The queue has a lane less; `ended` counts the commands that ended in it, by final state."""

    key: ClassVar[str] = "queue.lane.removed"
    ended: dict[str, int]


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


class LoopBlocked(TracedEvent, frozen=True):
    """Something kept the event loop from turning for `seconds`.

    Attributes:
        seconds: how long.
        command_id, lane, command_type: the command that ran at the time; `None` when none did.
        stack: where it was, outermost first, in its own frames: `file:line in function`.
    """

    key: ClassVar[str] = "queue.loop.blocked"
    seconds: float
    command_id: str | None = None
    lane: str | None = None
    command_type: str | None = None
    stack: tuple[str, ...] = ()
