"""The console pages by their text; tests/integration/test_consoles.py has a real Prometheus show them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from dashboards import consoles, generate
from dashboards.console import language
from lane_obs.alerts import MEASURES, Rule, compile_rules
from lane_obs.metrics import CATALOGUE

if TYPE_CHECKING:
    from pathlib import Path

METRICS = {metric.name for metric in CATALOGUE}


@pytest.mark.parametrize("name", consoles.OUTPUTS)
def test_a_file_is_fresh_and_the_same_input_gives_the_same_text(name: str) -> None:
    assert not generate.stale(name), "run: python -m dashboards.generate"
    assert consoles.OUTPUTS[name]() == consoles.OUTPUTS[name]()


def test_the_files_are_those_that_are_generated() -> None:
    assert set(consoles.OUTPUTS) <= set(generate.OUTPUTS)
    for folder in (consoles.FOLDER, consoles.DEMO):
        assert {path.name for path in (generate.ROOT / folder).iterdir()} == set(consoles.PAGES)


@pytest.mark.parametrize("name", consoles.OUTPUTS)
def test_a_page_has_all_it_needs_and_no_hole_left(name: str) -> None:
    text = consoles.OUTPUTS[name]()
    assert not re.search(r"@\w+@", text)
    assert not re.search(r"<script|<img|@import|url\(|\bsrc=", text)
    assert set(re.findall(r'<link [^>]*href="([^"]*)"', text)) == {"data:,"}
    assert set(re.findall(r'{{ template "(\w+)"', text)) <= set(re.findall(r'{{ define "(\w+)"', text))


@pytest.mark.parametrize("name", consoles.OUTPUTS)
def test_a_page_asks_only_for_metrics_of_the_catalogue(name: str) -> None:
    named = set(re.findall(r"\b(lane_[a-z_]+)\{", consoles.OUTPUTS[name]()))
    assert {re.sub(r"_(bucket|count|sum)$", "", one) if one not in METRICS else one for one in named} <= METRICS
    assert len(named) > 20


@pytest.mark.parametrize("name", consoles.PAGES)
def test_every_alert_that_there_can_be_is_known_whatever_the_rules(name: str) -> None:
    text = consoles.PAGES[name](compile_rules((Rule(measure="ready_depth", warning=7),)))
    assert "above 7" in text
    for measure in MEASURES.values():
        for per in measure.pers:
            (spec,) = Rule(measure=measure.name, per=per, warning=0).specs()
            assert f'if eq .Labels.alertname "{spec.alert}"' in text
            assert f'href="{spec.runbook}"' in text


def test_a_file_of_rules_of_ones_own_gives_pages_with_its_levels(tmp_path: Path) -> None:
    rules = tmp_path / "lanes.toml"
    rules.write_text('[alerts]\n[[alerts.rules]]\nmeasure = "wait_p99"\nwarning = 7.5\nwindow_seconds = 40\n')
    consoles.main(str(rules), str(tmp_path))
    texts = [(tmp_path / name).read_text("utf-8") for name in consoles.PAGES]
    for text in texts:
        assert "above 7.5 s" in text
        assert '$span := "1m"' in text  # all windows are short


def test_pages_look_back_an_hour_where_windows_are_of_minutes() -> None:
    for name in consoles.PAGES:
        assert '$span := "1h"' in consoles.OUTPUTS[f"{consoles.FOLDER}/{name}"]()
        assert '$span := "1m"' in consoles.OUTPUTS[f"{consoles.DEMO}/{name}"]()


# --- the language -----------------------------------------------------------------------------------------------


def test_a_part_with_a_hole_too_many_or_too_few_is_refused() -> None:
    assert language.part("level.html", found="x").startswith('{{ $level := "" }}x')
    for holes in ({}, {"found": "", "more": ""}):
        with pytest.raises(ValueError, match=r"level\.html has the holes"):
            language.part("level.html", **holes)


def test_what_fills_a_hole_is_not_looked_through_for_holes() -> None:
    assert "@found@" in language.part("level.html", found="@found@")


@pytest.mark.parametrize(
    ("text", "constant"),
    [
        ('a "b" {{', '`a "b" {{`'),
        ('a`b"', '"a`b\\""'),
        ("a\nb", '"a\\nb"'),
    ],
)
def test_a_constant_holds_any_text(text: str, constant: str) -> None:
    assert language.string(text) == constant


def test_markup_is_neither_html_nor_a_template() -> None:
    assert language.markup("<b> & {{ x }}") == "&lt;b&gt; &amp; {{ `{{` }} x }}"
    assert language.markup("see [Runbook](https://x/y#z)") == 'see <a href="https://x/y#z">Runbook</a>'


def test_an_expression_gets_its_variables_when_the_page_is_shown() -> None:
    assert language.asked("time()") == "`time()`"
    assert language.asked('100 % x{job=~"$job"}[$__rate_interval]').startswith(
        '(printf `100 %% x{job=~"%[1]s"}[%[5]s]` $job $instance '
    )
    assert "%[" not in language.asked('label_replace(x, "a", "$1", "b", "(.*)")')
