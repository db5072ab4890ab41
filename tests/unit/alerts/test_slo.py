"""Objectives: what they may be, and the two alerts that each becomes."""

from __future__ import annotations

from typing import Any

import pytest

from lane_obs import ConfigError
from lane_obs.alerts import Severity, Slo
from lane_obs.alerts.series import moves
from tests.unit.alerts.columns import FromSeries

WAITS = {"wait_p": 0.99, "wait_seconds": 2.5}

MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "success", "either wait_p and wait_seconds, or success"),
    ({**WAITS, "success": 0.9}, "success", "either wait_p and wait_seconds, or success"),
    ({"wait_p": 0.99}, "wait_seconds", "above zero"),
    ({"wait_seconds": 1}, "wait_p", "above 0 and below 1"),
    ({**WAITS, "wait_p": 99}, "wait_p", "such as 0.99 for 99 %"),
    ({"success": 1}, "success", "above 0 and below 1"),
    ({"success": 0}, "success", "above 0 and below 1"),
    ({"success": True}, "success", "above 0 and below 1"),
    ({"success": "0.9"}, "success", "above 0 and below 1"),
    ({"success": float("nan")}, "success", "above 0 and below 1"),
    ({**WAITS, "wait_seconds": 0}, "wait_seconds", "above zero"),
    ({**WAITS, "wait_seconds": 301}, "wait_seconds", "at most 300 s, the highest bound"),
    ({**WAITS, "buckets": [1, 2]}, "wait_seconds", "at most 2 s"),
    ({**WAITS, "buckets": [2, 1]}, "buckets", "rising seconds"),
    ({"success": 0.99, "lanes": "a"}, "lanes", "a list"),
    ({"success": 0.99, "min_rate": -1}, "min_rate", "zero or more"),
    ({"success": 0.99, "for_seconds": -1}, "for_seconds", "zero or more"),
    ({"success": 0.99, "renotify_seconds": 0}, "renotify_seconds", "above zero"),
    ({"success": 0.99, "fast": 5}, "fast", "[long window, short window, factor]"),
    ({"success": 0.99, "fast": (60, 5)}, "fast", "[long window, short window, factor]"),
    ({"success": 0.99, "slow": (60, 60, 2)}, "slow", "fewer seconds"),
    ({"success": 0.99, "slow": (60, 90, 2)}, "slow", "fewer seconds"),
    ({"success": 0.99, "slow": (60, 0, 2)}, "slow", "above zero"),
    ({"success": 0.99, "slow": (60, 5, 0)}, "slow", "above zero"),
    ({"success": 0.99, "slow": (60, 5, "2")}, "slow", "finite number"),
    ({"success": 0.9}, "fast", "a factor below 10: with this objective none is above it"),
    ({"success": 0.9, "fast": (60, 5, 9.9), "slow": (60, 5, 10)}, "slow", "a factor below 10"),
]


@pytest.mark.parametrize(("arguments", "field", "allowed"), MISTAKES)
def test_a_mistake_is_named(arguments: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Slo(**arguments)
    assert caught.value.field == field
    assert allowed in caught.value.allowed


@pytest.mark.parametrize(
    ("arguments", "field", "allowed"),
    [
        ({"for_seconds": 29}, "for_seconds", "0, or at least 30 s"),
        ({"renotify_seconds": 29}, "renotify_seconds", "at least 30 s"),
        ({"fast": (3600, 59, 14)}, "fast", "at least 60 s"),
        ({"slow": (3600, 59, 14)}, "slow", "at least 60 s"),
    ],
)
def test_a_time_that_no_look_can_see_is_a_mistake(arguments: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Slo(success=0.99, **arguments).check_times(30.0)
    assert (caught.value.field, allowed in caught.value.allowed) == (field, True)
    Slo(success=0.99).check_times(30.0)


def test_an_objective_of_success_is_two_alerts() -> None:
    fast, slow = Slo(success=0.999, lanes=["a"], renotify_seconds=None).specs()
    assert [(spec.alert, spec.rule, spec.severity) for spec in (fast, slow)] == [
        ("LaneErrorBudgetBurnFast", "error_burn_fast", Severity.CRITICAL),
        ("LaneErrorBudgetBurnSlow", "error_burn_slow", Severity.WARNING),
    ]
    assert (fast.level, fast.clear, slow.level) == (14.4, 14.4, 6.0)
    assert fast.lanes == ("a",)
    assert "99.9 % succeed" in fast.what
    assert [signal.record for signal in (*fast.signals, *slow.signals)] == [
        "lane:error_burn_0_999:1h_above_0_01", "lane:error_burn_0_999:5m",
        "lane:error_burn_0_999:6h_above_0_01", "lane:error_burn_0_999:30m",
    ]  # fmt: skip


def test_an_objective_of_waits_is_two_alerts() -> None:
    fast, slow = Slo(**WAITS).specs(except_lanes=("a",))
    assert (fast.alert, fast.rule) == ("LaneWaitBudgetBurnFast", "wait_burn_fast")
    assert (slow.alert, slow.rule) == ("LaneWaitBudgetBurnSlow", "wait_burn_slow")
    assert slow.except_lanes == ("a",)
    assert "99 % start within 2.5 s" in fast.what
    assert fast.signals[0].record == "lane:wait_burn_0_99_in_2_5s:1h_above_0_01"
    assert fast.runbook.endswith("#wait-burn-fast")


def test_no_two_objectives_share_a_recording() -> None:
    objectives = [
        Slo(success=0.99), Slo(success=0.9, fast=(60, 5, 2), slow=(90, 9, 2)), Slo(success=0.99, min_rate=1),
        Slo(**WAITS), Slo(wait_p=0.99, wait_seconds=25), Slo(wait_p=0.999, wait_seconds=2.5),
    ]  # fmt: skip
    seen: dict[str, str] = {}
    for objective in objectives:
        for spec in objective.specs():
            for signal in spec.signals:
                assert seen.setdefault(signal.record, signal.expression.promql("lane")) == signal.expression.promql(
                    "lane"
                )


@pytest.mark.parametrize("objective", [Slo(success=0.99), Slo(**WAITS), Slo(wait_p=0.99, wait_seconds=2)])
@pytest.mark.parametrize("burn", [0.0, 1.0, 14.4, 99.0])
def test_a_burn_of_one_uses_up_the_budget_just_so(objective: Slo, burn: float) -> None:
    """Of a budget of 1 %, a burn of 14.4 means that 14.4 % miss the objective."""
    for spec in objective.specs():
        samples = FromSeries(moves(spec.signals[0].expression, burn))
        for signal in spec.signals:
            assert signal.expression.values(samples, "lane") == pytest.approx([burn])
