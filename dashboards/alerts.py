"""Prometheus rules and their cases: of the rules with which a monitor starts, and of the demo's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lane_obs.alerts import load_alerts
from lane_obs.alerts.prometheus import prometheus_rules
from lane_obs.alerts.promtool import prometheus_tests
from lane_obs.demo.settings import SETTINGS
from lane_obs.monitor import MonitorConfig

if TYPE_CHECKING:
    from collections.abc import Callable

RULES: Final = "lane-obs-alerts.yml"
CASES: Final = "lane-obs-alerts-tests.yml"
DEMO_RULES: Final = "demo-alerts.yml"

_DEFAULT: Final = MonitorConfig()
_INTERVAL: Final = float(_DEFAULT.interval)  # type: ignore[arg-type]


def _demo_rules() -> str:
    config = load_alerts(SETTINGS)
    return prometheus_rules(config.specs, config.interval)


OUTPUTS: Final[dict[str, Callable[[], str]]] = {
    RULES: lambda: prometheus_rules(_DEFAULT.specs, _INTERVAL),
    CASES: lambda: prometheus_tests(_DEFAULT.specs, _INTERVAL, RULES),
    DEMO_RULES: _demo_rules,
}
