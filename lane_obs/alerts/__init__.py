"""Alerts, defined once: the monitor evaluates the definitions, Prometheus rules and dashboards are made of them."""

from lane_obs.alerts.file import AlertsConfig, load_alerts
from lane_obs.alerts.measure import MEASURES, Measure
from lane_obs.alerts.rule import Rule
from lane_obs.alerts.rules import DEFAULT_RULES, AnyRule, compile_rules, with_thresholds
from lane_obs.alerts.slo import Slo
from lane_obs.alerts.spec import AlertSpec, Severity, Signal

__all__ = [
    "DEFAULT_RULES",
    "MEASURES",
    "AlertSpec",
    "AlertsConfig",
    "AnyRule",
    "Measure",
    "Rule",
    "Severity",
    "Signal",
    "Slo",
    "compile_rules",
    "load_alerts",
    "with_thresholds",
]
