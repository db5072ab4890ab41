"""The lanes and the alerts of the story, from the file beside this module (`examples/demo.toml` is the same)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from lane_obs.alerts.file import load_alerts
from lane_obs.monitor import MonitorConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.config import QueueConfig
    from lane_obs.monitor import Notifier

SETTINGS: Final = Path(__file__).with_name("demo.toml")
"""The file."""

QUEUE: Final = "demo"
"""Name of the queue, the label `queue` of its metrics."""


def load_settings(notifiers: Sequence[Notifier] = ()) -> tuple[QueueConfig, MonitorConfig]:
    """Reads both; the monitor tells `notifiers`."""
    found = load_alerts(SETTINGS)
    monitor = MonitorConfig(
        interval=found.interval,
        pending_warning_threshold=found.pending_warning_threshold,
        active_warning_threshold=found.active_warning_threshold,
        rules=found.rules,
        notifiers=tuple(notifiers),
        queue=QUEUE,
    )
    return found.queue, monitor
