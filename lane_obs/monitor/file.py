"""Reads what a monitor does from the TOML file that has the lanes, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lane_obs.alerts import load_alerts
from lane_obs.errors import ConfigError
from lane_obs.monitor.config import MonitorConfig
from lane_obs.monitor.silence import Silence

if TYPE_CHECKING:
    from os import PathLike

    from lane_obs.monitor.alert import Notifier


def load_monitor(path: str | PathLike[str], *, queue: str = "default") -> MonitorConfig:
    """Reads a monitor's configuration from a TOML file; its shape is that of `load_alerts`.

    Args:
        path: the file.
        queue: name of the queue in notifications.

    Raises:
        ConfigError: broken TOML, no table `[alerts]`, or a value that is not allowed, named such as
            `alerts.rules[2].critical`.
        OSError: the file cannot be read.
    """
    found = load_alerts(path)
    return MonitorConfig(
        interval=found.interval,
        pending_warning_threshold=found.pending_warning_threshold,
        active_warning_threshold=found.active_warning_threshold,
        rules=found.rules,
        silences=tuple(Silence(**table) for table in found.silences),
        notifiers=tuple(_notifiers(found.notifiers)),
        queue=queue,
    )


def _notifiers(tables: tuple[object, ...]) -> list[Notifier]:
    if not tables:
        return []
    from lane_obs.monitor.notify import notifier_from  # here: it brings an HTTP client

    made: list[Notifier] = []
    for number, table in enumerate(tables):
        try:
            made.append(notifier_from(table))  # type: ignore[arg-type]
        except ConfigError as error:
            raise ConfigError(f"alerts.notifiers[{number}].{error.field}", error.value, error.allowed) from None
    return made
