"""`lane-obs alerts` as users run it: a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "alerts.toml"
SECRET = "T0PS3CRET"
SLACK = f"https://hooks.example/{SECRET}"


def alerts(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "FORCE_COLOR"}}
    return subprocess.run(
        [sys.executable, "-m", "lane_obs", "alerts", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        env={**environment, "PYTHONWARNINGS": "error", **more},
        timeout=60,
        check=False,
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "alerts.toml"
        path.write_text(text, "utf-8")
        return path

    return write


def rows(text: str) -> list[list[str]]:
    """The cells of a printed table."""
    return [re.split(r" {2,}", line.strip()) for line in text.splitlines() if line.startswith("  ") and line.strip()]


# --- check ------------------------------------------------------------------------------------------------------


def test_check_prints_every_alert(write: Callable[[str], Path]) -> None:
    path = write("""
[lanes.api]
[lanes.batch]
[lanes.slow]
[alerts]
interval = 5
active_warning_threshold = false
[[alerts.rules]]
measure = "wait_p99"
warning = 30
[[alerts.rules]]
measure = "wait_p99"
lanes = ["api", "batch"]
warning = 1
warning_clear = 0.5
critical = 10
for_seconds = 90
[[alerts.slos]]
success = 0.99
lanes = ["slow"]
""")
    done = alerts("check", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == f"{path}: 6 alerts, a look every 5s"
    head, *body = rows(done.stdout)
    assert head == ["alert", "severity", "lanes", "fires above", "ends at", "for", "window"]
    assert body == [
        ["QueuePendingHigh", "warning", "(queue)", "100", "100", "-", "-"],
        ["LaneWaitP99High", "warning", "all but api, batch", "30 s", "30 s", "-", "5m"],
        ["LaneWaitP99High", "warning", "api, batch", "1 s", "0.5 s", "1m30s", "5m"],
        ["LaneWaitP99High", "critical", "api, batch", "10 s", "10 s", "1m30s", "5m"],
        ["LaneErrorBudgetBurnFast", "critical", "slow", "14.4", "14.4", "-", "1h, 5m"],
        ["LaneErrorBudgetBurnSlow", "warning", "slow", "6", "6", "-", "6h, 30m"],
    ]


def test_check_notes_what_is_odd_but_allowed(write: Callable[[str], Path]) -> None:
    done = alerts(
        "check",
        write(f"""
[[alerts.rules]]
measure = "wait_p99"
critical = 600
[[alerts.rules]]
measure = "stall"
critical = 60
[[alerts.silences]]
until = 2020-01-01T00:00:00Z
rule = "stall"
lane = "query"
[[alerts.silences]]
until = 2999-01-01T00:00:00Z
[[alerts.notifiers]]
type = "webhook"
url = "{SLACK}"
[[alerts.notifiers]]
type = "alertmanager"
name = "ours"
url_env = "NOT_SET_HERE"
headers_env = {{ Authorization = "NOT_SET_EITHER" }}
[[alerts.notifiers]]
type = "webhook"
url_env = "SET_HERE"
"""),
        SET_HERE=SLACK,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-6:] == [
        "silence of rule stall in lane query until 2020-01-01T00:00:00+00:00, expired",
        "silence of everything until 2999-01-01T00:00:00+00:00, in force",
        "LaneWaitP99High critical never fires unless the histogram has bounds above 600 s: by default the highest is "
        "300 s",
        "notifier <WebhookNotifier 'webhook' to https://hooks.example>",
        "notifier alertmanager 'ours' at $NOT_SET_HERE; not set here: NOT_SET_HERE, NOT_SET_EITHER",
        "notifier webhook 'webhook' at $SET_HERE",
    ]
    assert SECRET not in done.stdout


MISTAKES = [
    ("[alerts]\ninterval = 0", "alerts.interval: 0 is not allowed; give finite seconds above zero"),
    ('[[alerts.rules]]\nmeasure = "stal"\nwarning = 5', "alerts.rules[0].measure: 'stal' is not allowed; unknown"),
    ('[[alerts.rules]]\nmeasure = "stall"\nwarning = 5\ncritical = 4', "alerts.rules[0].critical: 4 is not allowed"),
    ("[lanes.a]", "alerts: None is not allowed; give a table [alerts]"),
    ("[alerts", "file: "),
    (
        f'[[alerts.notifiers]]\ntype = "webhook"\nurl = "{SLACK}"\nheadres = {{ Authorization = "{SECRET}" }}',
        "alerts.notifiers[0].headres: (not shown) is not allowed; unknown key; did you mean 'headers'?",
    ),
    (
        f'[[alerts.notifiers]]\ntype = "alertmanager"\nurl = "{SLACK}"\nrefresh_seconds = 0',
        "alerts.notifiers[0].refresh_seconds: 0 is not allowed",
    ),
    (f'[[alerts.notifiers]]\ntype = "webhook"\nurl = "{SLACK}:x"\nheaders = 5', "alerts.notifiers[0]."),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_bad_input_is_one_line_and_exit_code_2(write: Callable[[str], Path], text: str, message: str) -> None:
    path = write(text)
    done = alerts("check", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"lane-obs: {path}: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert SECRET not in done.stderr


@pytest.mark.parametrize("command", ["rules", "tests"])
def test_nothing_is_made_of_bad_input(write: Callable[[str], Path], command: str) -> None:
    done = alerts(command, write("[alerts]\ninterval = 0"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "alerts.interval: 0 is not allowed" in done.stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = alerts("check", tmp_path / "none.toml")
    assert (done.returncode, done.stderr) == (2, f"lane-obs: {tmp_path}/none.toml: No such file or directory\n")


def test_the_example_is_well() -> None:
    done = alerts("check", EXAMPLE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "LaneWaitBudgetBurnFast" in done.stdout
    assert "LaneRetryStorm" in done.stdout


# --- rules and tests --------------------------------------------------------------------------------------------


def test_without_a_file_the_rules_are_the_shipped_ones(tmp_path: Path) -> None:
    assert alerts("rules").stdout == (ROOT / "dashboards" / "lane-obs-alerts.yml").read_text("utf-8")
    out = tmp_path / "cases.yml"
    done = alerts("tests", "-o", out)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert out.read_text("utf-8") == (ROOT / "dashboards" / "lane-obs-alerts-tests.yml").read_text("utf-8")


def test_rules_and_cases_of_a_file(tmp_path: Path) -> None:
    rules = yaml.safe_load(alerts("rules", EXAMPLE, "--job", "agents").stdout)
    (group,) = rules["groups"]
    assert {rule["alert"] for rule in group["rules"] if "alert" in rule} >= {
        "LaneWaitP99High", "LaneWaitBudgetBurnFast", "LaneErrorBudgetBurnSlow", "LaneObsTargetDown",
    }  # fmt: skip
    assert 'up{job="agents"}' in group["rules"][-1]["expr"]
    cases = yaml.safe_load(alerts("tests", EXAMPLE, "--job", "agents", "--rules-file", "mine.yml").stdout)
    assert cases["rule_files"] == ["mine.yml"]
    assert 'job="agents"' in cases["tests"][0]["input_series"][0]["series"]


def test_an_output_that_cannot_be_written_is_told_and_one_that_is_there_stays(tmp_path: Path) -> None:
    done = alerts("rules", "-o", tmp_path / "no" / "rules.yml")
    assert done.returncode == 2
    assert "--output: " in done.stderr
    kept = tmp_path / "rules.yml"
    kept.write_text("mine", "utf-8")
    assert alerts("rules", tmp_path / "none.toml", "-o", kept).returncode == 2
    assert kept.read_text("utf-8") == "mine"


def test_help_names_the_commands() -> None:
    done = alerts("--help")
    assert done.returncode == 0
    assert all(f"  {command} " in done.stdout for command in ("check", "rules", "tests"))
