"""Rules: what they may be, and the alerts that they become."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from lane_obs import ConfigError
from lane_obs.alerts import MEASURES, Rule, Severity

MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    # arguments, field, part of what is allowed
    ({"measure": "oldest_age"}, "measure", "did you mean 'oldest_ready_age'?"),
    ({"measure": "zzz"}, "measure", "known measures: ready_depth, pending"),
    ({"measure": 5}, "measure", "unknown measure"),
    ({"measure": ["stall"]}, "measure", "unknown measure"),
    ({"warning": None}, "warning", "a level for warning, critical or both"),
    ({"warning": -1}, "warning", "zero or more"),
    ({"warning": float("nan")}, "warning", "finite number"),
    ({"warning": float("inf")}, "warning", "finite number"),
    ({"warning": True}, "warning", "finite number"),
    ({"warning": "5"}, "warning", "finite number"),
    ({"critical": 5}, "critical", "more than warning, which is 5"),
    ({"critical": 4}, "critical", "more than warning, which is 5"),
    ({"warning_clear": 6}, "warning_clear", "at most the level, 5"),
    ({"warning_clear": -1}, "warning_clear", "zero or more"),
    ({"critical_clear": 3}, "critical_clear", "give critical, too"),
    ({"critical": 9, "critical_clear": 10}, "critical_clear", "at most the level, 9"),
    ({"measure": "error_ratio", "warning": 5}, "warning", "a share below 1, such as 0.05 for 5 %"),
    ({"measure": "error_ratio", "warning": 0.5, "critical": 1}, "critical", "a share below 1"),
    ({"for_seconds": -1}, "for_seconds", "zero or more"),
    ({"for_seconds": "1m"}, "for_seconds", "finite seconds"),
    ({"renotify_seconds": 0}, "renotify_seconds", "above zero"),
    ({"lanes": "query"}, "lanes", "a list of names of lanes"),
    ({"lanes": {"query"}}, "lanes", "a list of names of lanes"),
    ({"lanes": [""]}, "lanes", "1 to 200 printable characters"),
    ({"lanes": ["a", "b", "a"]}, "lanes", "name 'a' once"),
    ({"lanes": ["a"], "per": "queue"}, "lanes", "about the whole queue"),
    ({"per": "job"}, "per", "per lane or queue"),
    ({"measure": "saturation", "warning": 0.5, "per": "queue"}, "per", "per lane"),
    ({"measure": "loop_lag", "per": "lane"}, "per", "per queue"),
    ({"measure": "loop_lag", "lanes": ["a"]}, "lanes", "about the whole queue"),
    ({"window_seconds": 60}, "window_seconds", "leave it out: 'ready_depth' has none"),
    ({"min_rate": 1}, "min_rate", "leave it out: 'ready_depth' has none"),
    ({"measure": "wait_p99", "min_rate": 1}, "min_rate", "leave it out"),
    ({"measure": "wait_p99", "window_seconds": 0}, "window_seconds", "above zero"),
    ({"measure": "error_ratio", "warning": 0.5, "min_rate": -1}, "min_rate", "zero or more"),
]


@pytest.mark.parametrize(("arguments", "field", "allowed"), MISTAKES)
def test_a_mistake_is_named(arguments: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Rule(**{"measure": "ready_depth", "warning": 5, **arguments})
    assert caught.value.field == field
    assert allowed in caught.value.allowed


def test_what_is_not_given_is_the_measures() -> None:
    rule = Rule(measure="error_ratio", warning=0.1)
    assert (rule.per, rule.window_seconds, rule.min_rate, rule.for_seconds) == ("lane", 300.0, 0.02, 0.0)
    assert rule.warning_clear == 0.1
    assert Rule(measure="pending", warning=1).per == "queue"
    assert Rule(measure="ready_depth", warning=1).window_seconds is None


def test_durations_may_be_timedeltas() -> None:
    rule = Rule(
        measure="wait_p99",
        warning=1,
        for_seconds=timedelta(minutes=1),
        window_seconds=timedelta(minutes=2),
        renotify_seconds=timedelta(hours=1),
    )
    assert (rule.for_seconds, rule.window_seconds, rule.renotify_seconds) == (60.0, 120.0, 3600.0)


def test_a_rule_can_be_varied() -> None:
    rule = Rule(measure="error_ratio", warning=0.1, critical=0.5, lanes=["query"])
    assert dataclasses.replace(rule, critical=0.6).critical == 0.6
    with pytest.raises(ConfigError):
        dataclasses.replace(rule, critical=0.05)


@pytest.mark.parametrize(
    ("arguments", "field", "allowed"),
    [
        ({"for_seconds": 9}, "for_seconds", "0, or at least 10 s"),
        ({"renotify_seconds": 9}, "renotify_seconds", "at least 10 s"),
        ({"window_seconds": 19}, "window_seconds", "at least 20 s"),
    ],
)
def test_a_time_that_no_look_can_see_is_a_mistake(arguments: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Rule(measure="wait_p99", warning=1, **arguments).check_times(10.0)
    assert (caught.value.field, allowed in caught.value.allowed) == (field, True)


def test_times_of_the_interval_are_long_enough() -> None:
    Rule(measure="wait_p99", warning=1, for_seconds=10, window_seconds=20, renotify_seconds=10).check_times(10.0)
    Rule(measure="wait_p99", warning=1, for_seconds=0, renotify_seconds=None).check_times(10.0)
    Rule(measure="ready_depth", warning=1).check_times(10.0)


def test_times_that_are_too_short_can_be_made_to_fit() -> None:
    rule = Rule(measure="wait_p99", warning=1, for_seconds=5, window_seconds=30, renotify_seconds=60)
    fitted = rule.fitted(100.0)
    assert (fitted.for_seconds, fitted.window_seconds, fitted.renotify_seconds) == (100.0, 200.0, 100.0)
    assert rule.fitted(1.0) == rule
    at_once = Rule(measure="stuck", warning=1, renotify_seconds=None)
    assert at_once.fitted(100.0) == at_once


# --- alerts -----------------------------------------------------------------------------------------------------


def test_each_level_is_an_alert() -> None:
    rule = Rule(
        measure="oldest_ready_age",
        warning=60,
        warning_clear=45,
        critical=300,
        for_seconds=30,
        renotify_seconds=None,
        lanes=["query", "prompt"],
    )
    warning, critical = rule.specs()
    assert (warning.severity, warning.level, warning.clear) == (Severity.WARNING, 60.0, 45.0)
    assert (critical.severity, critical.level, critical.clear) == (Severity.CRITICAL, 300.0, 300.0)
    for spec in (warning, critical):
        assert (spec.alert, spec.rule, spec.per, spec.unit) == (
            "LaneOldestReadyAgeHigh", "oldest_ready_age", "lane", "seconds",
        )  # fmt: skip
        assert (spec.lanes, spec.except_lanes, spec.for_seconds) == (("query", "prompt"), (), 30.0)
        assert spec.renotify_seconds is None
        assert spec.signals == warning.signals
        assert spec.runbook.endswith("/docs/runbook.md#oldest-ready-age")
        assert (spec.is_about("query"), spec.is_about("other")) == (True, False)
    assert [spec.severity for spec in Rule(measure="stuck", critical=0).specs()] == ["critical"]


def test_an_alert_without_lanes_is_about_all_but_some() -> None:
    (spec,) = Rule(measure="stuck", warning=0).specs(except_lanes=("a",))
    assert (spec.is_about("a"), spec.is_about("b")) == (False, True)


def test_a_rule_for_the_queue_has_a_name_of_its_own() -> None:
    (spec,) = Rule(measure="oldest_ready_age", warning=1, per="queue").specs()
    assert (spec.alert, spec.signals[0].record) == ("QueueOldestReadyAgeHigh", "queue:oldest_ready_age")


@pytest.mark.parametrize(
    ("arguments", "record"),
    [
        ({}, "lane:error_ratio:5m"),
        ({"window_seconds": 90}, "lane:error_ratio:1m30s"),
        ({"min_rate": 0.02}, "lane:error_ratio:5m"),
        ({"min_rate": 0.5}, "lane:error_ratio:5m_above_0_5"),
        ({"min_rate": 0.00001}, "lane:error_ratio:5m_above_1em05"),
        ({"min_rate": 3}, "lane:error_ratio:5m_above_3"),
        ({"per": "queue"}, "queue:error_ratio:5m"),
    ],
)
def test_one_name_of_a_recording_never_stands_for_two_expressions(arguments: dict[str, Any], record: str) -> None:
    (spec,) = Rule(measure="error_ratio", warning=0.1, **arguments).specs()
    assert spec.signals[0].record == record


@pytest.mark.parametrize("measure", MEASURES.values(), ids=lambda measure: measure.name)
def test_every_measure_makes_an_alert_and_says_what_to_do(measure) -> None:
    for per in measure.pers:
        (spec,) = Rule(measure=measure.name, warning=0.5, per=per).specs()
        assert spec.alert == f"{per.capitalize()}{measure.title}"
        assert spec.unit in {"", "seconds", "ratio"}
        assert not spec.what[0].isupper()
        assert all(text.endswith(".") for text in (spec.cause, spec.remedy))


@pytest.mark.parametrize(
    ("measure", "value", "text"),
    [
        ("error_ratio", 0.05, "5 %"), ("error_ratio", 0.1234, "12.3 %"), ("saturation", 0.9999, "100 %"),
        ("saturation", 1.5, "150 %"), ("stall", 60.0, "60 s"), ("stall", 3600.0, "3600 s"),
        ("loop_lag", 0.05, "0.05 s"), ("ready_depth", 1000, "1000"), ("dead_letters", 2.5, "2.5"), ("stall", 0, "0 s"),
    ],
)  # fmt: skip
def test_values_are_shown_in_their_unit(measure: str, value: float, text: str) -> None:
    (spec,) = Rule(measure=measure, warning=0.5).specs()
    assert spec.show(value) == text
