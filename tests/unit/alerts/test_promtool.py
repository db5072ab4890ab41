"""The cases for promtool: there are all of them, and they ask the right things. Integration tests run them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from lane_obs.alerts import DEFAULT_RULES, AlertSpec, Rule, Slo, compile_rules
from lane_obs.alerts.notation import humanized
from lane_obs.alerts.promtool import prometheus_tests

SPECS = compile_rules((*DEFAULT_RULES, Slo(success=0.99), Slo(wait_p=0.95, wait_seconds=2)))


def cases_of(*specs: AlertSpec, interval: float = 10) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = yaml.safe_load(prometheus_tests(specs, interval, "r.yml"))["tests"]
    return cases


def firing(case: dict[str, Any]) -> list[list[str]]:
    """The severities that fire, check by check."""
    return [[alert["exp_labels"]["severity"] for alert in check["exp_alerts"]] for check in case["alert_rule_test"]]


def test_every_alert_has_a_case_in_which_it_is_quiet_and_one_in_which_it_fires_and_ends() -> None:
    names = [case["name"] for case in cases_of(*SPECS)]
    assert len(set(names)) == len(names)
    for spec in SPECS:
        quiet, fires, *more = [name for name in names if name.startswith(f"{spec.alert} {spec.severity}: ")]
        assert quiet.endswith(": is quiet at or just below its level")
        assert fires.endswith(
            ": fires, stays while above its clear level, ends" if spec.clear < spec.level else ": fires and ends"
        )
        assert ("is quiet while only its short window is above" in str(more)) is ("_burn_" in spec.rule)
    assert [name for name in names if "TargetDown" in name] == names[-2:]


def test_what_does_not_last_does_not_fire() -> None:
    (spec,) = compile_rules([Rule(measure="oldest_ready_age", warning=60, warning_clear=40, for_seconds=30)])
    _, _, attempt, *_ = cases_of(spec)
    assert attempt["name"].endswith(": is quiet when it falls below its level before its time")
    assert [series["values"] for series in attempt["input_series"]] == ["40+0x5 75+0x1 50+0x5"]
    assert firing(attempt) == [[], [], []]


def test_a_gauge_is_quiet_at_its_level_fires_after_its_time_and_stays_until_its_clear_level() -> None:
    spec, *_ = compile_rules([Rule(measure="oldest_ready_age", warning=60, warning_clear=40, for_seconds=30)])
    quiet, fires, *_ = cases_of(spec)
    assert [series["values"] for series in quiet["input_series"]] == ["60+0x5"]
    assert firing(quiet) == [[]]
    assert [series["values"] for series in fires["input_series"]] == ["40+0x5 75+0x5 50+0x2 40+0x2"]
    checks = [(check["eval_time"], len(check["exp_alerts"])) for check in fires["alert_rule_test"]]
    assert checks == [("50s", 0), ("1m20s", 0), ("1m50s", 1), ("2m20s", 1), ("2m50s", 0)]


def test_where_two_severities_fire_both_are_asked_for() -> None:
    specs = compile_rules([Rule(measure="stuck", warning=1, critical=5, critical_clear=3)])
    _, warning, _, critical, *_ = cases_of(*specs)
    assert firing(warning) == [[], ["warning"], []]
    assert firing(critical) == [["warning"], ["warning", "critical"], ["warning", "critical"], ["warning"]]


def test_other_states_and_outcomes_are_there_to_be_left_out() -> None:
    (spec,) = compile_rules([Rule(measure="ready_depth", warning=5)])
    quiet, *_ = cases_of(spec)
    series = {one["series"].partition("state=")[2]: one["values"] for one in quiet["input_series"]}
    assert series == {'"ready"}': "5+0x2", '"delayed"}': "1000+0x2", '"backoff"}': "1000+0x2"}


def test_the_queues_alerts_are_fed_by_two_lanes() -> None:
    (spec,) = compile_rules([Rule(measure="oldest_ready_age", per="queue", warning=8)])
    quiet, *_ = cases_of(spec)
    assert [series["values"] for series in quiet["input_series"]] == ["8+0x2", "4+0x2"]
    (spec,) = compile_rules([Rule(measure="active", per="queue", warning=8)])
    quiet, *_ = cases_of(spec)
    assert [series["values"] for series in quiet["input_series"]] == ["4+0x2", "4+0x2"]


def test_the_lane_of_a_case_is_one_that_the_alert_is_about() -> None:
    rules = [Rule(measure="stuck", warning=1, lanes=["query", 'say "hi"']), Rule(measure="stuck", warning=2)]
    own, _, rest, *_ = cases_of(*compile_rules(rules))
    assert 'lane="query"' in own["input_series"][0]["series"]
    assert 'lane="lane0"' in rest["input_series"][0]["series"]


def test_a_level_that_is_never_reached_has_only_its_quiet_case() -> None:
    (spec,) = compile_rules([Rule(measure="loop_lag", warning=10)])
    assert [case["name"] for case in cases_of(spec)][:2] == [
        "QueueEventLoopLag warning: is quiet at or just below its level",
        "LaneObsTargetDown: a target is down, and comes back",
    ]


def test_long_windows_are_looked_at_with_longer_steps() -> None:
    def step(*rules: Rule | Slo) -> str:
        text: str = yaml.safe_load(prometheus_tests(compile_rules(rules), 5, "r.yml"))["evaluation_interval"]
        return text

    assert step(Rule(measure="stuck", warning=1)) == "5s"
    assert step(Rule(measure="wait_p99", warning=1, window_seconds=60)) == "5s"
    assert step(Rule(measure="wait_p99", warning=1, window_seconds=3600)) == "2m"
    assert step(Slo(success=0.99)) == "1m15s"  # the short window still has four steps


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "", "0"), (7, "", "7"), (1234.5, "", "1.234k"), (1_000_000, "", "1M"), (0.25, "", "250m"),
        (0.001, "", "1m"), (0.0000025, "", "2.5u"), (2.5, "", "2.5"), (0, "seconds", "0s"), (0.25, "seconds", "250ms"),
        (59.5, "seconds", "59.5s"), (60, "seconds", "1m 0s"), (170.5, "seconds", "2m 50s"),
        (3600, "seconds", "1h 0m 0s"), (90_061, "seconds", "1d 1h 1m 1s"), (0.05, "ratio", "5%"),
        (0.1234567, "ratio", "12.35%"), (0, "ratio", "0%"),
    ],
)  # fmt: skip
def test_values_as_the_templates_of_prometheus_write_them(value: float, unit: str, text: str) -> None:
    assert humanized(value, unit) == text
