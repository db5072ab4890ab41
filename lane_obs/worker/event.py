"""What a supervisor tells of its children. No queue emits these: they are lines of the log of `lane-obs worker`."""

from __future__ import annotations

from typing import ClassVar

from lane_obs.events import LaneEvent


class WorkerReady(LaneEvent, frozen=True):
    """A process has started its queue; `seconds` is how long that took."""

    key: ClassVar[str] = "worker.ready"
    level: ClassVar[str] = "info"
    process: str
    pid: int
    run: int
    seconds: float


class WorkerEnded(LaneEvent, frozen=True):
    """A process has ended because it was told to.

    Attributes:
        process, pid: which.
        code: its exit code; negative for the signal that killed it.
        left: commands that it had to leave; `None` where it could not tell.
    """

    key: ClassVar[str] = "worker.ended"
    level: ClassVar[str] = "info"
    process: str
    pid: int
    code: int
    left: int | None


class WorkerDied(LaneEvent, frozen=True):
    """A process has ended, or could not be started, and nobody had told it to end; another follows.

    Attributes:
        process, pid: which; 0 where there was no process.
        code: its exit code; negative for the signal that killed it; `None` where there was no process.
        error: what it said of it; empty when it said nothing.
        run_seconds: how long it had been ready; 0 when it never was.
        after_seconds: in how many seconds the next one is started.
    """

    key: ClassVar[str] = "worker.died"
    level: ClassVar[str] = "warning"
    process: str
    pid: int
    code: int | None
    error: str
    run_seconds: float
    after_seconds: float


class WorkerRefused(LaneEvent, frozen=True):
    """A process cannot start as it is configured. When its slot never had one that could, everything ends."""

    key: ClassVar[str] = "worker.refused"
    level: ClassVar[str] = "error"
    process: str
    pid: int
    error: str


class WorkerKilled(LaneEvent, frozen=True):
    """A process did not end in time and was killed; what it ran goes to others once its lease is over."""

    key: ClassVar[str] = "worker.killed"
    level: ClassVar[str] = "warning"
    process: str
    pid: int


class WorkersRolling(LaneEvent, frozen=True):
    """All processes are to be replaced, one after the other."""

    key: ClassVar[str] = "workers.rolling"
    level: ClassVar[str] = "info"
    workers: int


class WorkersRolled(LaneEvent, frozen=True):
    """All processes were replaced."""

    key: ClassVar[str] = "workers.rolled"
    level: ClassVar[str] = "info"
    workers: int


class RollStopped(LaneEvent, frozen=True):
    """A new process did not become ready, so those after it were not replaced."""

    key: ClassVar[str] = "workers.roll_stopped"
    level: ClassVar[str] = "error"
    process: str


class WorkersStopping(LaneEvent, frozen=True):
    """All processes were told to end; `how` is `drain`, `close` (give back what runs) or `kill`."""

    key: ClassVar[str] = "workers.stopping"
    level: ClassVar[str] = "info"
    how: str


class WorkersStopped(LaneEvent, frozen=True):
    """All processes have ended, and with this `code` the supervisor does."""

    key: ClassVar[str] = "workers.stopped"
    level: ClassVar[str] = "info"
    code: int
