"""The file of Prometheus rules: what is in it, in which order, in the right words. Integration tests run it."""

from __future__ import annotations

from typing import Any

import promql_parser
import pytest
import yaml

from lane_obs.alerts import DEFAULT_RULES, MEASURES, AlertSpec, Rule, Slo, compile_rules
from lane_obs.alerts.prometheus import expression_of, prometheus_rules
from lane_obs.metrics import CATALOGUE

ALL = (
    *DEFAULT_RULES,
    *(
        Rule(measure=name, warning=0.5, critical=0.8, critical_clear=0.7, per="queue")
        for name, measure in MEASURES.items()
        if "queue" in measure.pers and name not in {rule.measure for rule in DEFAULT_RULES if rule.per == "queue"}
    ),
    Slo(success=0.99),
    Slo(wait_p=0.95, wait_seconds=2),
    Slo(wait_p=0.95, wait_seconds=5, lanes=["query", "prompt"]),
    Rule(measure="stall", warning=5, lanes=['say "hi"']),
)
SPECS = compile_rules(ALL)
KINDS = ("_bucket", "_count")


def rules_in(text: str) -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(text)["groups"]
    assert group["name"] == "lane-obs"
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def selectors(expression: Any) -> list[promql_parser.VectorSelector]:
    """All selectors in a parsed expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        return [expression]
    if isinstance(expression, promql_parser.MatrixSelector):
        return [expression.vector_selector]
    parts = [getattr(expression, name, None) for name in ("lhs", "rhs", "expr", "param")]
    parts += getattr(expression, "args", None) or []
    return [found for part in parts if part is not None for found in selectors(part)]


RULES = rules_in(prometheus_rules(SPECS, 10))
RECORDINGS = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
ALERTS = [rule for rule in RULES if "alert" in rule]


def test_recordings_come_before_the_alerts_and_each_once() -> None:
    kinds = ["record" if "record" in rule else "alert" for rule in RULES]
    assert kinds == sorted(kinds, reverse=True)
    assert len(RECORDINGS) == kinds.count("record")
    assert set(RECORDINGS) == {signal.record for spec in SPECS for signal in spec.signals}


@pytest.mark.parametrize("record", RECORDINGS)
def test_a_recording_reads_metrics_of_the_catalogue_with_their_labels(record: str) -> None:
    metrics = {f"{metric.name}{suffix}": metric for metric in CATALOGUE for suffix in ("", *KINDS)}
    found = selectors(promql_parser.parse(RECORDINGS[record]))
    assert found
    for selector in found:
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels <= {*metrics[selector.name].labels, "le"}


def test_every_alert_is_there_and_complete() -> None:
    assert len(ALERTS) == len(SPECS) + 1
    for rule, spec in zip(ALERTS, SPECS, strict=False):
        assert rule["alert"] == spec.alert
        assert (rule["labels"]["severity"], rule["labels"]["lane_obs_rule"]) == (spec.severity, spec.rule)
        assert ("for" in rule) is bool(spec.for_seconds)
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == spec.runbook
        assert f"{{{{ $labels.{spec.per} }}}}" in rule["annotations"]["summary"]
        assert "{{ $value | humanize" in rule["annotations"]["description"]
        assert spec.show(spec.level) in rule["annotations"]["description"]
        promql_parser.parse(rule["expr"])


def test_no_two_alerts_have_the_same_name_and_labels() -> None:
    assert len({(rule["alert"], *sorted(rule["labels"].items())) for rule in ALERTS}) == len(ALERTS)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.alert}-{spec.severity}")
def test_an_alert_compares_only_what_is_recorded_or_fires(spec: AlertSpec) -> None:
    names = {selector.name for selector in selectors(promql_parser.parse(expression_of(spec)))}
    assert names - {"ALERTS"} == {signal.record for signal in spec.signals}
    assert ("ALERTS" in names) is (spec.clear < spec.level)


def only(*rules: Rule | Slo) -> str:
    return expression_of(compile_rules(rules)[-1])


def test_the_condition_of_an_alert() -> None:
    assert only(Rule(measure="stuck", warning=0)) == "lane:stuck > 0"
    assert only(Rule(measure="error_ratio", critical=0.25, critical_clear=0.2)) == (
        "lane:error_ratio:5m > 0.25\n"
        "or\n"
        "(lane:error_ratio:5m > 0.2 and on (job, instance, process, queue, lane) "
        'ALERTS{alertname="LaneErrorRatioHigh", severity="critical", alertstate="firing"})'
    )
    assert only(Slo(success=0.99, min_rate=0)) == "lane:error_burn_0_99:6h > 6 and lane:error_burn_0_99:30m > 6"


@pytest.mark.parametrize(
    ("lanes", "one", "others"),
    [
        (["query"], 'lane="query"', 'lane!="query"'),
        (["a.b", "c|d"], r'lane=~"a\\.b|c\\|d"', r'lane!~"a\\.b|c\\|d"'),
        (['say "hi"'], r'lane="say \"hi\""', r'lane!="say \"hi\""'),
        (["back\\slash", "x"], r'lane=~"back\\\\slash|x"', r'lane!~"back\\\\slash|x"'),
        (["größe", "(x)"], r'lane=~"größe|\\(x\\)"', r'lane!~"größe|\\(x\\)"'),
    ],
)
def test_lanes_are_matched_literally(lanes: list[str], one: str, others: str) -> None:
    own, rest = Rule(measure="stuck", warning=1, lanes=lanes), Rule(measure="stuck", warning=2)
    assert only(rest, own) == f"lane:stuck{{{one}}} > 1"
    assert only(own, rest) == f"lane:stuck{{{others}}} > 2"
    promql_parser.parse(only(own, rest))


def test_a_target_that_is_down_is_an_alert_of_its_own() -> None:
    down = ALERTS[-1]
    assert (down["alert"], down["for"], down["labels"]["severity"]) == ("LaneObsTargetDown", "1m", "critical")
    assert down["expr"] == 'up{job="lane-obs"} == 0\nor\nabsent(up{job="lane-obs"})'
    assert down["annotations"]["runbook_url"].endswith("#target-down")
    other = rules_in(prometheus_rules((), 10, job="my app"))[-1]
    assert other["expr"] == 'up{job="my app"} == 0\nor\nabsent(up{job="my app"})'


def test_expressions_are_written_as_blocks_and_the_same_each_time() -> None:
    text = prometheus_rules(SPECS, 0.5)
    assert text == prometheus_rules(SPECS, 0.5)
    assert "  interval: 500ms\n" in text
    assert text.count("expr: |-\n") == len(RULES)
    assert text.startswith("# Made by `lane-obs alerts rules`")
    assert "&id" not in text
