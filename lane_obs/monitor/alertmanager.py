"""Tells Alertmanager of alerts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from lane_obs.clock import SystemClock
from lane_obs.config import Duration, check_clock, check_name, to_seconds
from lane_obs.errors import ConfigError
from lane_obs.monitor.alert import AlertState
from lane_obs.monitor.payload import starts_at, to_annotations, to_time
from lane_obs.monitor.post import Post, check_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.clock import Clock
    from lane_obs.monitor.alert import Alert

_PATH: Final = "/api/v2/alerts"
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_OURS: Final = frozenset({"alertname", "severity", "queue", "lane"})
# As Prometheus does: three messages may be lost before an alert is taken to be over.
_REFRESHES: Final = 4


class AlertmanagerNotifier:
    """Posts alerts to Alertmanager (API v2), as Prometheus does.

    What fires is sent again every `refresh_seconds`, each time with an end `resolve_after` seconds ahead: so the alerts
    of a process that dies end. Failures are those of `WebhookNotifier`.

    Args:
        url: its address, with its route prefix if it has one. Neither it nor the headers are ever shown, but for
            scheme, host and port.
        headers: sent with each request.
        timeout: limit on one try.
        name: what events and metrics call it.
        labels: added to each alert's own, such as `{"cluster": "eu"}`.
        refresh_seconds: how often what fires is sent again.
        resolve_after: when Alertmanager takes an alert to be over unless it is sent again; default four times
            `refresh_seconds`, and more than that in any case.
        generator_url: where the alerts come from, such as a dashboard's address.
        clock: what time it is where Alertmanager is; default real time, whatever clock the queue has.

    Raises:
        ConfigError: a value that is not allowed.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: Duration = 10.0,
        name: str = "alertmanager",
        labels: Mapping[str, str] | None = None,
        refresh_seconds: Duration = 60.0,
        resolve_after: Duration | None = None,
        generator_url: str = "",
        clock: Clock | None = None,
    ) -> None:
        self.name = check_name("name", name)
        self.refresh_seconds = to_seconds("refresh_seconds", refresh_seconds)
        self._resolve_after = _REFRESHES * self.refresh_seconds
        if resolve_after is not None:
            self._resolve_after = to_seconds("resolve_after", resolve_after)
            if self._resolve_after <= self.refresh_seconds:
                wanted = f"give more than refresh_seconds, {self.refresh_seconds:g} s"
                raise ConfigError("resolve_after", resolve_after, wanted)
        self._labels = _to_labels(labels)
        self._generator_url = check_text("generator_url", generator_url)
        self._clock = SystemClock() if clock is None else clock
        check_clock(self._clock)
        self._post = Post(url, headers, timeout, _PATH)
        self.timeout = self._post.timeout

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} to {self._post.origin}>"

    async def notify(self, alerts: Sequence[Alert]) -> None:
        """Posts them."""
        if alerts:
            now = self._clock.wall()
            await self._post.send([self._shown(alert, now) for alert in alerts])

    async def close(self) -> None:
        """Lets go of everything."""
        await self._post.close()

    def _shown(self, alert: Alert, now: float) -> dict[str, Any]:
        # A queue's clock may be ahead of Alertmanager's: an end in the future would mean that the alert fires.
        ends = now + self._resolve_after
        if alert.state is AlertState.RESOLVED:
            ends = now if alert.ended_at is None else min(alert.ended_at, now)
        shown: dict[str, Any] = {
            "labels": {**self._labels, **alert.labels},
            "annotations": to_annotations(alert),
            "startsAt": to_time(min(starts_at(alert), now, ends)),
            "endsAt": to_time(ends),
        }
        return {**shown, "generatorURL": self._generator_url} if self._generator_url else shown


def _to_labels(labels: object) -> dict[str, str]:
    if labels is None:
        return {}
    if not isinstance(labels, Mapping):
        raise ConfigError("labels", labels, "give a mapping of names to values")
    found: dict[str, str] = {}
    for name, value in labels.items():
        if not isinstance(name, str) or not _LABEL.fullmatch(name):
            raise ConfigError("labels", name, "a label's name has letters, digits and underscores")
        if name in _OURS:
            raise ConfigError(f"labels.{name}", value, "alerts have this label already; give it another name")
        found[name] = check_name(f"labels.{name}", value)
    return found
