"""Rules together: which of them are about which lane, and the ones to start with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from lane_obs.alerts.rule import Rule
from lane_obs.alerts.slo import Slo
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.alerts.spec import AlertSpec

AnyRule: TypeAlias = Rule | Slo


def compile_rules(rules: Sequence[AnyRule], names: Sequence[str] | None = None) -> tuple[AlertSpec, ...]:
    """All alerts of some rules. A rule without lanes is about those that no other rule of its kind names.

    Args:
        rules: the rules and objectives.
        names: how errors call them; default `rules[0]` and so on.

    Raises:
        ConfigError: two rules of one kind are about the same lane.
    """
    called = [f"rules[{index}]" for index in range(len(rules))] if names is None else names
    homes: dict[tuple[tuple[str, ...], str], str] = {}
    specs: list[AlertSpec] = []
    for name, rule in zip(called, rules, strict=True):
        for lane in rule.lanes or ("",):  # none stands for all others
            home = homes.setdefault((rule.kind, lane), name)
            if home != name:
                about = f"lane {lane!r}" if lane else "the same"
                raise ConfigError(f"{name}.lanes", list(rule.lanes), f"{home} is about {about} already")
        others = dict.fromkeys(lane for other in rules if other.kind == rule.kind for lane in other.lanes)
        specs += rule.specs(except_lanes=() if rule.lanes else tuple(others))
    return tuple(specs)


def with_thresholds(rules: Sequence[AnyRule], pending: int | None, active: int | None) -> tuple[AnyRule, ...]:
    """Rules, and before them those of the two thresholds for a whole queue.

    Args:
        rules: the rules.
        pending: waiting commands above which a warning fires; `None` for no such rule.
        active: running commands above which one does; `None` for no such rule.
    """
    levels = {"pending": pending, "active": active}
    given = (
        Rule(measure=measure, per="queue", warning=level) for measure, level in levels.items() if level is not None
    )
    return (*given, *rules)


def fitted(rules: Sequence[AnyRule], interval: float) -> tuple[AnyRule, ...]:
    """Rules whose times are long enough for an interval, in seconds: those that are too short are made longer."""
    return tuple(rule.fitted(interval) if isinstance(rule, Rule) else rule for rule in rules)


DEFAULT_RULES: Final[tuple[Rule, ...]] = (
    Rule(measure="ready_depth", warning=100, warning_clear=80, critical=1_000, critical_clear=800, for_seconds=60),
    Rule(measure="oldest_ready_age", warning=60, warning_clear=45, critical=300, critical_clear=240, for_seconds=60),
    Rule(measure="wait_p99", warning=10, warning_clear=8, critical=60, critical_clear=50, for_seconds=120),
    Rule(measure="error_ratio", warning=0.05, warning_clear=0.04, critical=0.25, critical_clear=0.2, for_seconds=120),
    Rule(measure="timeout_ratio", warning=0.05, warning_clear=0.04, critical=0.25, critical_clear=0.2, for_seconds=120),
    Rule(measure="retry_ratio", warning=0.25, warning_clear=0.2, critical=0.5, critical_clear=0.4, for_seconds=120),
    Rule(measure="dead_letters", warning=0, critical=10, critical_clear=5),
    Rule(measure="saturation", warning=0.95, warning_clear=0.9, for_seconds=900),
    Rule(measure="starvation", warning=0.5, warning_clear=0.4, critical=0.9, critical_clear=0.8, for_seconds=300),
    Rule(measure="stall", warning=60, critical=300),
    Rule(measure="stuck", warning=0, for_seconds=60),
    Rule(measure="loop_lag", warning=0.1, warning_clear=0.05, critical=1, critical_clear=0.5, for_seconds=60),
    Rule(measure="telemetry_drops", warning=0),
    Rule(measure="storage_failed", critical=0),
    Rule(measure="broker_down", critical=0, for_seconds=30),
    Rule(measure="returned", warning=0, critical=100, critical_clear=50),
    Rule(
        measure="cluster_oldest_ready_age",
        warning=60,
        warning_clear=45,
        critical=300,
        critical_clear=240,
        for_seconds=60,
    ),
    Rule(measure="unserved", critical=0, for_seconds=60),
)
"""A start for most queues; thresholds of waiting belong to what your users expect."""
