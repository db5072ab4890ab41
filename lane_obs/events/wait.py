"""How waiting is split by cause."""

from __future__ import annotations

from typing import Final

import msgspec

CAUSES: Final = ("slots", "priority", "pause", "scheduler", "rate_limit", "partition", "backoff", "delay", "broker")
"""Causes of waiting, in the order in which they are shown.

slots: the lane is at its `max_concurrency`, or the queue is full and this lane is next.
priority: the queue is full and a more important lane goes first.
pause: the lane is paused.
scheduler: nothing blocks it but the scheduler's own lateness.
rate_limit: a rate limit holds the lane's next command back.
partition: it is behind another command of its partition.
backoff: between a failed attempt and the time of its retry.
delay: the delay asked for at submit.
broker: ready at the broker, which does not tell what held the command back.
"""

BLOCKS: Final = CAUSES[:6]
"""Those that are about a ready command in the process."""


class WaitByCause(msgspec.Struct, frozen=True, gc=False):
    """Seconds waited, by cause (see `CAUSES`)."""

    slots: float = 0.0
    priority: float = 0.0
    pause: float = 0.0
    scheduler: float = 0.0
    rate_limit: float = 0.0
    partition: float = 0.0
    backoff: float = 0.0
    delay: float = 0.0
    broker: float = 0.0

    @property
    def total(self) -> float:
        """The whole wait in seconds."""
        blocked = self.slots + self.priority + self.pause + self.scheduler + self.rate_limit + self.partition
        return blocked + self.backoff + self.delay + self.broker

    def __add__(self, other: WaitByCause) -> WaitByCause:
        return WaitByCause(
            self.slots + other.slots,
            self.priority + other.priority,
            self.pause + other.pause,
            self.scheduler + other.scheduler,
            self.rate_limit + other.rate_limit,
            self.partition + other.partition,
            self.backoff + other.backoff,
            self.delay + other.delay,
            self.broker + other.broker,
        )

    def as_dict(self) -> dict[str, float]:
        """By cause, zeros included."""
        return {cause: getattr(self, cause) for cause in CAUSES}


NO_WAIT: Final = WaitByCause()
"""No wait at all."""
