"""How alerts look on the wire: labels, annotations and times as Alertmanager's APIs have them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from lane_obs.clock import LAST_SECOND
from lane_obs.monitor.alert import AlertState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs.monitor.alert import Alert

_NEVER: Final = "0001-01-01T00:00:00Z"
"""Go's time zero: what an alert that fires has for its end."""
_FNV_OFFSET: Final = 14_695_981_039_346_656_037
_FNV_PRIME: Final = 1_099_511_628_211
_SEPARATOR: Final = b"\xff"


def to_time(at: float) -> str:
    """Unix seconds in the form of RFC 3339, to the millisecond."""
    moment = datetime.fromtimestamp(min(max(at, 0.0), LAST_SECOND), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def starts_at(alert: Alert) -> float:
    """When it began to fire."""
    return alert.since if alert.fired_at is None else alert.fired_at


def to_annotations(alert: Alert) -> dict[str, str]:
    """What people read."""
    found = {"summary": alert.summary, "description": alert.description, "runbook_url": alert.runbook}
    return found if alert.trace_id is None else {**found, "trace_id": alert.trace_id}


def fingerprint(labels: Mapping[str, str]) -> str:
    """Alertmanager's own name for a set of labels.

    Source: `LabelSet.Fingerprint` of github.com/prometheus/common/model: FNV-1a, 64 bits.
    """
    value = _FNV_OFFSET
    for name in sorted(labels):
        for byte in name.encode() + _SEPARATOR + labels[name].encode() + _SEPARATOR:
            value = (value ^ byte) * _FNV_PRIME & 0xFFFF_FFFF_FFFF_FFFF
    return f"{value:016x}"


def in_common(mappings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The pairs that all have."""
    first, *others = mappings
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def to_webhook(alerts: Sequence[Alert], *, receiver: str, generator_url: str, external_url: str) -> dict[str, Any]:
    """What Alertmanager posts to a webhook, payload version 4, with the alerts of a queue as a group.

    Source: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
    """
    shown = [_webhook_alert(alert, generator_url) for alert in alerts]
    labels = in_common([alert["labels"] for alert in shown])
    group = {"queue": labels["queue"]} if "queue" in labels else {}
    key = ", ".join(f"{name}={_quoted(value)}" for name, value in group.items())
    return {
        "version": "4",
        "groupKey": f"{{}}:{{{key}}}",
        "truncatedAlerts": 0,
        "status": "firing" if any(alert["status"] == "firing" for alert in shown) else "resolved",
        "receiver": receiver,
        "groupLabels": group,
        "commonLabels": labels,
        "commonAnnotations": in_common([alert["annotations"] for alert in shown]),
        "externalURL": external_url,
        "alerts": shown,
    }


def _webhook_alert(alert: Alert, generator_url: str) -> dict[str, Any]:
    over = alert.state is AlertState.RESOLVED
    labels = alert.labels
    return {
        "status": "resolved" if over else "firing",
        "labels": labels,
        "annotations": to_annotations(alert),
        "startsAt": to_time(starts_at(alert)),
        "endsAt": to_time(alert.ended_at) if over and alert.ended_at is not None else _NEVER,
        "generatorURL": generator_url,
        "fingerprint": fingerprint(labels),
    }


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
