"""The real promtool checks the generated rules and runs the generated cases, which notice rules that are wrong."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from dashboards import alerts as shipped
from lane_obs.alerts import MEASURES, Rule, Slo, compile_rules
from lane_obs.alerts.prometheus import prometheus_rules
from lane_obs.alerts.promtool import prometheus_tests
from tests.integration.services.tools import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.alerts import AlertSpec

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "dashboards"


def promtool(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [require("promtool"), *arguments], cwd=directory, capture_output=True, text=True, timeout=110, check=False
    )


def assert_well(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr


def run_cases(specs: Sequence[AlertSpec], interval: float, directory: Path) -> subprocess.CompletedProcess[str]:
    (directory / "r.yml").write_text(prometheus_rules(specs, interval), "utf-8")
    (directory / "t.yml").write_text(prometheus_tests(specs, interval, "r.yml"), "utf-8")
    assert_well(promtool("check", "rules", "--lint-fatal", "r.yml", directory=directory))
    return promtool("test", "rules", "t.yml", directory=directory)


# --- what is shipped --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [shipped.RULES, shipped.DEMO_RULES])
def test_the_shipped_rules_are_well_formed(name: str) -> None:
    assert_well(promtool("check", "rules", "--lint-fatal", name, directory=DASHBOARDS))


def test_the_shipped_cases_pass() -> None:
    assert_well(promtool("test", "rules", shipped.CASES, directory=DASHBOARDS))


def test_no_generated_file_is_stale() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dashboards.generate", "--check"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "run: python -m dashboards.generate"


# --- what users may write ---------------------------------------------------------------------------------------


def test_objectives_of_waits_and_of_success(tmp_path: Path) -> None:
    rules = [
        Slo(wait_p=0.99, wait_seconds=2.5),
        Slo(wait_p=0.95, wait_seconds=2, lanes=["prompt"], fast=(1_200, 120, 9), slow=(3_600, 300, 3)),
        Slo(success=0.999, min_rate=5, for_seconds=300, fast=(1_200, 120, 99), slow=(3_600, 300, 9)),
    ]
    assert_well(run_cases(compile_rules(rules), 30, tmp_path))


MEASURED = [(name, per) for name, measure in MEASURES.items() for per in measure.pers]


@pytest.mark.parametrize(("name", "per"), MEASURED)
def test_every_measure_for_lanes_and_for_the_queue(tmp_path: Path, name: str, per: Literal["lane", "queue"]) -> None:
    rule = Rule(
        measure=name, per=per, warning=0.2, warning_clear=0.1, critical=0.6, critical_clear=0.4, for_seconds=4,
        window_seconds=MEASURES[name].window and 10,
    )  # fmt: skip
    assert_well(run_cases(compile_rules([rule]), 1, tmp_path))


def test_lanes_with_any_names(tmp_path: Path) -> None:
    names = ['say "hi"', "back\\slash", "a.b", "a|b", "(größe)", "{{ $value }}", "x y", "it's", "100%", "[a-z]*", "$1"]
    rules: list[Rule] = [
        Rule(measure="ready_depth", warning=5),
        Rule(measure="ready_depth", warning=9, warning_clear=7, lanes=names[:4]),
        Rule(measure="ready_depth", warning=20, lanes=["a.b.c", "axb"]),
        *(Rule(measure="stuck", warning=number, lanes=[name]) for number, name in enumerate(names)),
    ]
    assert_well(run_cases(compile_rules(rules), 5, tmp_path))


def random_rule(measure: str, rng: random.Random) -> Rule:
    """A rule with levels, times and windows of any size."""
    is_share = MEASURES[measure].unit == "ratio"
    levels = sorted(rng.uniform(0.01, 0.9) if is_share else rng.choice([1, 10, 100]) * rng.random() for _ in range(4))
    return Rule(
        measure=measure,
        warning_clear=levels[0],
        warning=levels[1],
        critical_clear=rng.choice(levels[:3]),
        critical=levels[3],
        for_seconds=rng.choice([0, 0, rng.uniform(5, 100)]),
        window_seconds=MEASURES[measure].window and rng.uniform(10, 200),
        min_rate=MEASURES[measure].min_rate and rng.choice([0, rng.uniform(0, 100)]),
    )


@pytest.mark.parametrize("measure", [name for name in MEASURES if name != "loop_lag"])
def test_rules_of_any_numbers(tmp_path: Path, measure: str) -> None:
    for seed in range(2):
        assert_well(run_cases(compile_rules([random_rule(measure, random.Random(f"{measure}{seed}"))]), 5, tmp_path))


# --- the cases see what is wrong --------------------------------------------------------------------------------

HYSTERESIS = Rule(measure="ready_depth", warning=10, warning_clear=5, for_seconds=60)
RATIO = Rule(measure="error_ratio", warning=0.1, window_seconds=60)
BURN = Slo(success=0.99, fast=(200, 20, 2), slow=(300, 30, 2))
SUM = Rule(measure="active", per="queue", warning=8)
HIGHEST = Rule(measure="oldest_ready_age", per="queue", warning=8)
STALL = Rule(measure="stall", warning=8, window_seconds=60)

WRONG: list[tuple[str, Rule | Slo, str, str]] = [
    # what is wrong, the rule, and what is put in the place of what
    ("a higher level", HYSTERESIS, "> 10", "> 90"),
    ("a lower level", HYSTERESIS, "> 10", "> 9"),
    ("at the level, too", HYSTERESIS, "> 10", ">= 10"),
    ("no hysteresis", HYSTERESIS, "depth > 5 and", "depth > 99 and"),
    ("hysteresis for ever", HYSTERESIS, "depth > 5 and", "depth > 0 and"),
    ("hysteresis before it fires", HYSTERESIS, ', alertstate="firing"', ""),
    ("another alert's state", HYSTERESIS, 'alertname="Lane', 'alertname="Queue'),
    ("a shorter time", HYSTERESIS, "for: 1m", "for: 50s"),
    ("a longer time", HYSTERESIS, "for: 1m\n    labels:\n      severity: w", "for: 2m\n    labels:\n      severity: w"),
    ("more states", HYSTERESIS, 'state="ready"', 'state=~"ready|delayed"'),
    ("no state", HYSTERESIS, 'state="ready"', 'state="reddy"'),
    ("another severity", HYSTERESIS, "severity: warning", "severity: page"),
    ("other words", HYSTERESIS, "Ready commands that wait to start", "Commands"),
    ("a wrong template", HYSTERESIS, "$value | humanize", "$value | humanizeDuration"),
    ("cancelled ones count", RATIO, "ok|error|timeout|expired", "ok|error|timeout|expired|cancelled"),
    ("some failures do not count", RATIO, '"error|timeout|expired"', '"error|timeout"'),
    ("a longer window", RATIO, "[1m]", "[5m]"),
    ("a share that is not divided by the budget", BURN, "/ 0.01", ""),
    ("no short window", BURN, " and lane:error_burn_0_99:20s > 2", ""),
    ("no long window", BURN, "lane:error_burn_0_99:3m20s_above_0_01 > 2 and ", ""),
    ("the highest, not the sum", SUM, "sum without", "max without"),
    ("the sum, not the highest", HIGHEST, "max without", "sum without"),
    ("a stall while something ends", STALL, "== 0", "> 0"),
    ("a target that is away", HYSTERESIS, "absent(", "("),
]


@pytest.mark.parametrize(("rule", "right", "wrong"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_the_cases_notice_a_wrong_rule(tmp_path: Path, rule: Rule | Slo, right: str, wrong: str) -> None:
    specs = compile_rules([rule])
    assert_well(run_cases(specs, 5, tmp_path))
    text = (tmp_path / "r.yml").read_text("utf-8")
    assert right in text
    (tmp_path / "r.yml").write_text(text.replace(right, wrong), "utf-8")
    done = promtool("test", "rules", "t.yml", directory=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "FAILED" in done.stdout + done.stderr
