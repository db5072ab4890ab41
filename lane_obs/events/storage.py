"""Events about the storage and what comes back from it."""

from __future__ import annotations

from typing import ClassVar

from lane_obs.events.command import CommandEvent
from lane_obs.events.event import LaneEvent


class CommandRecovered(CommandEvent, frozen=True):
    """A stored command is back in its lane; `stored_state` is the one it was in when its process ended."""

    key: ClassVar[str] = "queue.command.recovered"
    stored_state: str = "ready"


class CommandKept(LaneEvent, frozen=True):
    """A stored command cannot run here and stays in the storage: `unknown_lane` or `unregistered`."""

    key: ClassVar[str] = "queue.command.kept"
    command_id: str
    lane: str
    command_type: str
    reason: str


class RecoveryComplete(LaneEvent, frozen=True):
    """All stored commands were read.

    Attributes:
        recovered: those that are back in their lanes.
        dead_lettered: those that became dead letters.
        kept: those that cannot run here and stay stored.
        seconds: how long it took.
    """

    key: ClassVar[str] = "queue.recovery.complete"
    recovered: int
    dead_lettered: int
    kept: int
    seconds: float


class RecoveryFailed(LaneEvent, frozen=True):
    """The storage could not be read to its end; what was not read stays stored."""

    key: ClassVar[str] = "queue.recovery.failed"
    error_type: str
    error: str


class StorageFailed(LaneEvent, frozen=True):
    """The storage cannot commit; durable submits fail until it can. `pending` changes wait to be tried again."""

    key: ClassVar[str] = "queue.storage.failed"
    error_type: str
    error: str
    pending: int


class StorageBack(LaneEvent, frozen=True):
    """The storage commits again, after `seconds`."""

    key: ClassVar[str] = "queue.storage.back"
    seconds: float
