"""Who is told of which alert, and when: of each that begins to fire or is resolved, and again while it fires."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lane_obs.monitor.alert import AlertState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lane_obs.monitor.alert import Alert
    from lane_obs.monitor.delivery import Delivery
    from lane_obs.monitor.tracker import Live


class Outbox:
    """Has notifiers told.

    Args:
        deliveries: one for each notifier.
        show: makes of an alert what people see.
    """

    def __init__(self, deliveries: Sequence[Delivery], show: Callable[[Live], Alert]) -> None:
        self._deliveries = deliveries
        self._show = show
        self._refreshed_at: dict[int, float] = {}

    def take(self, changed: Iterable[Live], firing: Iterable[Live], now: float) -> None:
        """Has them told of what there is to tell after a look.

        Args:
            changed: alerts whose state has changed.
            firing: all that fire.
            now: the clock's seconds.
        """
        if not self._deliveries:
            return
        told_before = [alert for alert in firing if alert.told_at is not None]
        # What people were told of must also be told to be over, silence or not.
        news = [
            self._show(alert) for alert in changed if alert.state is AlertState.RESOLVED and alert.told_at is not None
        ]
        for alert in firing:
            if self._is_due(alert, now) and not (shown := self._show(alert)).silenced:
                alert.told_at = now
                news.append(shown)
        fresh = {id(alert) for alert in firing if alert.told_at == now}
        again = [alert for alert in told_before if id(alert) not in fresh]
        for number, delivery in enumerate(self._deliveries):
            mine = [*news, *self._refreshed(number, delivery, again, now)]
            if mine:
                delivery.offer(mine)

    def _is_due(self, alert: Live, now: float) -> bool:
        if alert.told_at is None:
            return True
        repeat = alert.spec.renotify_seconds
        return repeat is not None and now - alert.told_at >= repeat

    def _refreshed(self, number: int, delivery: Delivery, again: Iterable[Live], now: float) -> list[Alert]:
        """What a notifier wants to hear at an interval, whether or not it has heard it before."""
        every: Any = delivery.refresh_seconds
        if every is None or now - self._refreshed_at.setdefault(number, now) < every:
            return []
        self._refreshed_at[number] = now
        return [shown for alert in again if not (shown := self._show(alert)).silenced]
