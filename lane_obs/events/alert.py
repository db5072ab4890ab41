"""Events of the monitor: what its alerts do, and what became of telling people."""

from __future__ import annotations

from typing import ClassVar

from lane_obs.events.command import TracedEvent
from lane_obs.events.event import LaneEvent


class AlertEvent(TracedEvent, frozen=True):
    """Base of the changes of an alert: a rule's `value` against its `threshold`.

    Attributes:
        rule: the rule's name, such as `oldest_ready_age`.
        value: what it measured.
        threshold: the level it compares with: the one to fire at, and the one to clear at once it fires.
        alert: the alert's name, such as `LaneOldestReadyAgeHigh`.
        severity: `warning` or `critical`.
        lane: the lane; `None` for an alert about the whole queue.
        active_seconds: for how long it has been, or had been, active.
        silenced: whether notifications are held back by a silence.
        reason: why it is over, where it is not that less was measured: `lane_removed`.
        trace: the span of the command that tipped it, where one is known.
    """

    rule: str
    value: float
    threshold: float
    alert: str = ""
    severity: str = "warning"
    lane: str | None = None
    active_seconds: float = 0.0
    silenced: bool = False
    reason: str = ""


class AlertPending(AlertEvent, frozen=True):
    """A threshold is crossed; the alert fires if it stays so for the rule's `for_seconds`."""

    key: ClassVar[str] = "queue.alert.pending"


class AlertFiring(AlertEvent, frozen=True):
    """A threshold of the monitor has been crossed for long enough."""

    key: ClassVar[str] = "queue.alert.firing"


class AlertResolved(AlertEvent, frozen=True):
    """An alert that fired is over."""

    key: ClassVar[str] = "queue.alert.resolved"


class AlertCleared(AlertEvent, frozen=True):
    """An alert that was pending is over; it never fired."""

    key: ClassVar[str] = "queue.alert.cleared"


class MonitorStarted(LaneEvent, frozen=True):
    """A monitor watches the queue.

    Attributes:
        lane_alerts: names of the alerts that each lane has for itself.
        queue_alerts: names of those about the whole queue.
        notifiers: names of those who tell people.
    """

    key: ClassVar[str] = "queue.monitor.started"
    lane_alerts: tuple[str, ...]
    queue_alerts: tuple[str, ...]
    notifiers: tuple[str, ...] = ()


class AlertNotified(LaneEvent, frozen=True):
    """A notifier has told somebody of `alerts` alerts, at the `attempt`th try."""

    key: ClassVar[str] = "queue.alert.notified"
    notifier: str
    alerts: int
    attempt: int


class AlertNotificationFailed(LaneEvent, frozen=True):
    """A try of a notifier failed; `final` when there is none left and the notifications of `alerts` alerts are lost."""

    key: ClassVar[str] = "queue.alert.notification_failed"
    notifier: str
    alerts: int
    attempt: int
    error_type: str
    error: str
    final: bool


class AlertNotificationDropped(LaneEvent, frozen=True):
    """Notifications of `alerts` alerts were given up: `full` (too many waited) or `closed`."""

    key: ClassVar[str] = "queue.alert.notification_dropped"
    notifier: str
    alerts: int
    reason: str
