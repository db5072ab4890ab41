"""One alert as people are told of it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence


class AlertState(StrEnum):
    """Where an alert stands. `resolved` and `cleared` are how it goes back to `ok`."""

    OK = "ok"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Alert(msgspec.Struct, frozen=True):
    """An alert at one moment. Times are Unix seconds.

    Attributes:
        alert: its name, such as `LaneOldestReadyAgeHigh`, the same as in Prometheus.
        rule: the rule's name, such as `oldest_ready_age`.
        severity: `warning` or `critical`.
        state: `pending`, `firing` or `resolved`.
        queue: name of the queue.
        lane: the lane; `None` for an alert about the whole queue.
        value: what was measured last.
        threshold: the level it fires at.
        since: when the level was crossed.
        fired_at: when it began to fire; `None` while pending.
        ended_at: when it ended; `None` before.
        summary: what is wrong, in one line.
        description: value, level and what the measure is.
        runbook: address of what to do.
        silenced: whether notifications are held back.
        trace_id: the trace of the command that tipped it, 32 hex digits; `None` where none is known.
    """

    alert: str
    rule: str
    severity: str
    state: AlertState
    queue: str
    lane: str | None
    value: float
    threshold: float
    since: float
    fired_at: float | None
    ended_at: float | None
    summary: str
    description: str
    runbook: str
    silenced: bool = False
    trace_id: str | None = None

    @property
    def labels(self) -> dict[str, str]:
        """What identifies it, as Prometheus labels it."""
        labels = {"alertname": self.alert, "severity": self.severity, "queue": self.queue}
        return labels if self.lane is None else {**labels, "lane": self.lane}


@runtime_checkable
class Notifier(Protocol):
    """Tells somebody of alerts.

    It may have an attribute `name` (default: its class's name), `batch_size` and `timeout` (see `Delivery`), and
    `refresh_seconds`: then it is told of all that fires again this often.
    """

    async def notify(self, alerts: Sequence[Alert]) -> None:
        """Tells of alerts that began to fire, fire still, or are resolved; raises when it could not."""

    async def close(self) -> None:
        """Lets go of everything."""
