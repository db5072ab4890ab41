"""Whoever follows an alert's link finds a section about it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lane_obs.alerts import MEASURES, Rule, Slo
from lane_obs.alerts.prometheus import TARGET_DOWN
from lane_obs.alerts.spec import RUNBOOK

ROOT = Path(__file__).resolve().parents[3]
SPECS = [
    *(Rule(measure=name, warning=0.5).specs()[0] for name in MEASURES),
    *Slo(success=0.99).specs(),
    *Slo(wait_p=0.99, wait_seconds=1).specs(),
    TARGET_DOWN,
]
TEXT = (ROOT / "docs" / "runbook.md").read_text("utf-8")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.rule)
def test_every_rule_has_a_section_that_says_what_to_do(spec) -> None:
    address, _, anchor = spec.runbook.partition("#")
    assert address == RUNBOOK
    sections = dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", TEXT, re.MULTILINE))
    (section,) = [body for title, body in sections.items() if title.lower().replace(" ", "-") == anchor]
    assert f"`{spec.alert}`" in section
    assert spec.cause in section
    assert spec.remedy in section


def test_the_runbook_stands_where_the_links_lead() -> None:
    assert RUNBOOK.endswith("/docs/runbook.md")


def test_events_and_metrics_that_the_texts_name_exist() -> None:
    from lane_obs.events import EVENT_TYPES
    from lane_obs.metrics import CATALOGUE

    known = {kind.key for kind in EVENT_TYPES} | {metric.name for metric in CATALOGUE}
    named = set(re.findall(r"`(queue\.[\w.]+|lane_\w+)`", TEXT))
    assert named
    assert named <= known
