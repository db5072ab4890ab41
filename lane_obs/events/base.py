"""What all events have in common, and how waiting is split by cause."""

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
