"""Rules together: which of them is about which lane."""

from __future__ import annotations

from collections import defaultdict

import pytest

from lane_obs import ConfigError
from lane_obs.alerts import DEFAULT_RULES, MEASURES, Rule, Slo, compile_rules, with_thresholds

LANES = ("query", "prompt", "skill")


def levels_by_lane(rules: list[Rule | Slo]) -> dict[str, list[float]]:
    """The level of the rules' alerts for each lane."""
    found = defaultdict(list)
    for spec in compile_rules(rules):
        for lane in LANES:
            if spec.is_about(lane):
                found[lane].append(spec.level)
    return dict(found)


def test_a_rule_without_lanes_leaves_those_to_others_that_have_a_rule_of_their_own() -> None:
    rules = [
        Rule(measure="wait_p99", warning=10),
        Rule(measure="wait_p99", warning=1, lanes=["query"]),
        Rule(measure="wait_p99", warning=60, lanes=["prompt"]),
    ]
    assert levels_by_lane(rules) == {"query": [1.0], "prompt": [60.0], "skill": [10.0]}
    assert compile_rules(rules)[0].except_lanes == ("query", "prompt")
    assert [spec.lanes for spec in compile_rules(rules)] == [(), ("query",), ("prompt",)]


def test_other_measures_and_the_queue_do_not_matter() -> None:
    rules = [
        Rule(measure="pending", per="lane", warning=10),
        Rule(measure="pending", per="queue", warning=99),
        Rule(measure="ready_depth", warning=1, lanes=["query"]),
    ]
    specs = compile_rules(rules)
    assert [spec.except_lanes for spec in specs] == [(), (), ()]
    assert [spec.per for spec in specs] == ["lane", "queue", "lane"]


def test_objectives_are_resolved_in_the_same_way() -> None:
    rules = [Slo(success=0.99), Slo(success=0.999, lanes=["query"]), Slo(wait_p=0.9, wait_seconds=5, fast=(60, 5, 9))]
    fast = [spec for spec in compile_rules(rules) if spec.rule.endswith("fast")]
    assert [(spec.alert, spec.lanes, spec.except_lanes) for spec in fast] == [
        ("LaneErrorBudgetBurnFast", (), ("query",)),
        ("LaneErrorBudgetBurnFast", ("query",), ()),
        ("LaneWaitBudgetBurnFast", (), ()),
    ]


@pytest.mark.parametrize(
    ("rules", "field", "allowed"),
    [
        (
            [Rule(measure="stall", warning=1, lanes=["a", "b"]), Rule(measure="stall", warning=2, lanes=["c", "b"])],
            "rules[1].lanes",
            "rules[0] is about lane 'b' already",
        ),
        (
            [Rule(measure="stall", warning=1), Rule(measure="stuck", warning=1), Rule(measure="stall", warning=2)],
            "rules[2].lanes",
            "rules[0] is about the same already",
        ),
        (
            [Rule(measure="loop_lag", warning=1), Rule(measure="loop_lag", warning=2)],
            "rules[1].lanes",
            "rules[0] is about the same already",
        ),
        ([Slo(success=0.99), Slo(success=0.999)], "rules[1].lanes", "rules[0] is about the same already"),
        (
            [Slo(success=0.99, lanes=["a"]), Slo(success=0.999, lanes=["a"])],
            "rules[1].lanes",
            "rules[0] is about lane 'a' already",
        ),
    ],
)
def test_two_rules_of_a_kind_for_one_lane_are_a_mistake(rules: list[Rule | Slo], field: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_rules(rules)
    assert (caught.value.field, caught.value.allowed) == (field, allowed)


def test_whoever_has_names_for_the_rules_finds_them_in_the_error() -> None:
    rules = [Rule(measure="stall", warning=1), Rule(measure="stall", warning=2)]
    with pytest.raises(ConfigError, match=r"^second\.lanes: .* first is about the same already"):
        compile_rules(rules, ["first", "second"])


def test_the_default_rules_compile_and_have_one_expression_a_recording() -> None:
    specs = compile_rules(with_thresholds(DEFAULT_RULES, 100, 50))
    assert {spec.rule for spec in specs} == set(MEASURES)
    for rule in DEFAULT_RULES:
        rule.check_times(10.0)
    assert len({(spec.alert, spec.severity) for spec in specs}) == len(specs)


def test_thresholds_are_rules_for_the_queue() -> None:
    own = Rule(measure="stall", warning=1)
    pending, active, last = with_thresholds([own], 7, 0)
    assert (pending.measure, pending.per, pending.warning) == ("pending", "queue", 7.0)
    assert (active.measure, active.per, active.warning) == ("active", "queue", 0.0)
    assert last is own
    assert with_thresholds([own], None, None) == (own,)
