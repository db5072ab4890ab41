"""Alerts read from TOML: every field, and every kind of mistake. No secret is ever shown."""

from __future__ import annotations

import os
import threading
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from lane_obs import DEFAULT_LANES, ConfigError, load_lanes
from lane_obs.alerts import DEFAULT_RULES, AlertsConfig, Rule, Slo, compile_rules, load_alerts, with_thresholds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Load = Callable[[str], AlertsConfig]

SECRET = "T0PS3CRET"


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write_and_load(text: str) -> AlertsConfig:
        path = tmp_path / "lanes.toml"
        path.write_text(text, "utf-8")
        return load_alerts(path)

    return write_and_load


FULL = """
max_concurrency = 9

[lanes.api]
max_concurrency = 5

[lanes.batch]

[alerts]
interval = 5
pending_warning_threshold = 7
active_warning_threshold = false
defaults = false

[[alerts.rules]]
measure = "wait_p99"
lanes = ["api"]
warning = 1
warning_clear = 0.5
critical = 5.5
critical_clear = 4
for_seconds = 10
renotify_seconds = 60
window_seconds = 120

[[alerts.rules]]
measure = "wait_p99"
warning = 10
renotify_seconds = false

[[alerts.rules]]
measure = "error_ratio"
per = "queue"
critical = 0.5
min_rate = 1

[[alerts.slos]]
success = 0.99
fast = [120, 10, 14]
slow = [600, 60, 6]
min_rate = 0.5
renotify_seconds = false

[[alerts.slos]]
wait_p = 0.9
wait_seconds = 3
lanes = ["batch"]
buckets = [1, 3, 9]
fast = [120, 10, 9]
for_seconds = 5

[[alerts.silences]]
until = 2026-12-01T00:00:00Z
rule = "wait_p99"
lane = "api"

[[alerts.silences]]
until = 2020-01-01T00:00:00+02:00

[[alerts.notifiers]]
type = "webhook"
url = "https://user:pass@host:8443/path?token=1"
headers = { Authorization = "Bearer x" }

[[alerts.notifiers]]
type = "alertmanager"
url_env = "ALERTMANAGER"
"""


def test_every_field_can_be_set(load: Load) -> None:
    config = load(FULL)
    assert list(config.queue.lanes) == ["api", "batch"]
    assert config.queue.max_concurrency == 9
    assert (config.interval, config.pending_warning_threshold, config.active_warning_threshold) == (5.0, 7, None)
    assert config.rules == (
        Rule(
            measure="wait_p99", lanes=["api"], warning=1, warning_clear=0.5, critical=5.5, critical_clear=4,
            for_seconds=10, renotify_seconds=60, window_seconds=120,
        ),
        Rule(measure="wait_p99", warning=10, renotify_seconds=None),
        Rule(measure="error_ratio", per="queue", critical=0.5, min_rate=1),
        Slo(success=0.99, fast=(120, 10, 14), slow=(600, 60, 6), min_rate=0.5, renotify_seconds=None),
        Slo(wait_p=0.9, wait_seconds=3, lanes=["batch"], buckets=[1, 3, 9], fast=(120, 10, 9), for_seconds=5),
    )  # fmt: skip
    assert config.specs == compile_rules(with_thresholds(config.rules, 7, None))
    assert config.silences == (
        {"until": datetime(2026, 12, 1, tzinfo=UTC), "rule": "wait_p99", "lane": "api"},
        {"until": datetime(2019, 12, 31, 22, tzinfo=UTC)},
    )
    webhook, alertmanager = config.notifiers
    assert webhook["url"] == "https://user:pass@host:8443/path?token=1"
    assert webhook["headers"] == {"Authorization": "Bearer x"}
    assert alertmanager == {"type": "alertmanager", "url_env": "ALERTMANAGER"}


def test_what_is_not_said_has_a_default(load: Load) -> None:
    config = load("[alerts]")
    assert config.queue.lanes == DEFAULT_LANES
    assert (config.interval, config.pending_warning_threshold, config.active_warning_threshold) == (10.0, 100, 50)
    assert (config.rules, config.silences, config.notifiers) == ((), (), ())
    assert [spec.alert for spec in config.specs] == ["QueuePendingHigh", "QueueActiveHigh"]


def test_the_default_rules_are_added_where_no_rule_has_their_measure(load: Load) -> None:
    own = '[[alerts.rules]]\nmeasure = "stall"\nlanes = ["query"]\ncritical = 10\n'
    config = load(f"[alerts]\ndefaults = true\n{own}")
    assert config.rules[0] == Rule(measure="stall", lanes=["query"], critical=10)
    assert config.rules[1:] == tuple(rule for rule in DEFAULT_RULES if rule.kind[0] != "stall")
    assert load(f"[alerts]\n{own}").rules == config.rules[:1]


def test_the_default_rules_are_stretched_to_the_interval(load: Load) -> None:
    by_measure = {rule.kind[0]: rule for rule in load("[alerts]\ndefaults = true\ninterval = 200").rules}
    assert (by_measure["ready_depth"].for_seconds, by_measure["wait_p99"].window_seconds) == (200.0, 400.0)
    assert (by_measure["saturation"].for_seconds, by_measure["dead_letters"].window_seconds) == (900.0, 600.0)
    assert by_measure["stall"].for_seconds == 0.0


def test_a_threshold_gives_way_to_a_rule_for_the_queue(load: Load) -> None:
    config = load('[alerts]\n[[alerts.rules]]\nmeasure = "pending"\ncritical = 500')
    assert (config.pending_warning_threshold, config.active_warning_threshold) == (None, 50)
    config = load('[alerts]\n[[alerts.rules]]\nmeasure = "pending"\nper = "lane"\ncritical = 500')
    assert config.pending_warning_threshold == 100


def test_the_lanes_of_a_file_with_alerts_can_be_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "lanes.toml"
    path.write_text(FULL, "utf-8")
    assert load_lanes(path) == load_alerts(path).queue


def test_the_file_is_read_once_so_that_it_may_be_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_text(FULL, "utf-8"))
    writer.start()
    assert load_alerts(path).interval == 5.0
    writer.join()


RULE = '[[alerts.rules]]\nmeasure = "wait_p99"\n'
SLO = "[[alerts.slos]]\nsuccess = 0.99\n"
NOTIFIER = '[[alerts.notifiers]]\ntype = "webhook"\n'
LATER = "until = 2030-01-01T00:00:00Z\n"

MISTAKES: list[tuple[str, str, str]] = [
    # text, field, part of what is allowed
    ("", "alerts", "give a table [alerts]"),
    ("alerts = 5", "alerts", "give a table"),
    ("[[alerts]]", "alerts", "give a table"),
    ("[alert]", "alert", "did you mean 'alerts'?"),
    ("[alerts]\nintervall = 5", "alerts.intervall", "did you mean 'interval'?"),
    ("[alerts]\ninterval = 0", "alerts.interval", "above zero"),
    ("[alerts]\ninterval = '5'", "alerts.interval", "finite seconds"),
    ("[alerts]\npending_warning_threshold = -1", "alerts.pending_warning_threshold", "whole number of 0 or more"),
    ("[alerts]\nactive_warning_threshold = true", "alerts.active_warning_threshold", "whole number of 0 or more"),
    ("[alerts]\ndefaults = 1", "alerts.defaults", "true or false"),
    ("[alerts]\nrules = 5", "alerts.rules", "[[alerts.rules]]"),
    ("[alerts]\nrules = [5]", "alerts.rules[0]", "give a table"),
    ("[alerts.rules]\nmeasure = 'stall'", "alerts.rules", "[[alerts.rules]]"),
    (f"{RULE}warning = 5\n[[alerts.rules]]\nwarning = 5", "alerts.rules[1].measure", "name what is measured"),
    ("[[alerts.rules]]\nmeasure = 'wait_p9'", "alerts.rules[0].measure", "did you mean 'wait_p99'?"),
    (f"{RULE}warn = 5", "alerts.rules[0].warn", "did you mean 'warning'?"),
    (f"{RULE}warning = 5\ncritical = 4", "alerts.rules[0].critical", "more than warning, which is 5"),
    (f"{RULE}warning = 5\nwarning_clear = 6", "alerts.rules[0].warning_clear", "at most the level, 5"),
    (f"{RULE}warning = 5\nfor_seconds = 9", "alerts.rules[0].for_seconds", "0, or at least 10 s"),
    (f"{RULE}warning = 5\nwindow_seconds = 19", "alerts.rules[0].window_seconds", "at least 20 s"),
    (f"{RULE}warning = 5\nrenotify_seconds = 1", "alerts.rules[0].renotify_seconds", "at least 10 s"),
    (f"{RULE}warning = 5\nrenotify_seconds = true", "alerts.rules[0].renotify_seconds", "finite seconds"),
    (f"{RULE}warning = 5\nlanes = ['quer']", "alerts.rules[0].lanes", "did you mean 'query'?"),
    (f"{RULE}warning = 5\nlanes = ['x']\n[lanes.a]\n[lanes.b]", "alerts.rules[0].lanes", "known lanes: a, b"),
    (f"{RULE}warning = 5\n{RULE}warning = 6", "alerts.rules[1].lanes", "alerts.rules[0] is about the same already"),
    (
        "[alerts]\nactive_warning_threshold = 5\n[[alerts.rules]]\nmeasure = 'active'\nwarning = 6",
        "alerts.rules[0].lanes",
        "alerts.active_warning_threshold is about the same already",
    ),
    ("[[alerts.slos]]\nsucess = 0.9", "alerts.slos[0].sucess", "did you mean 'success'?"),
    ("[[alerts.slos]]\nsuccess = 99", "alerts.slos[0].success", "above 0 and below 1"),
    ("[[alerts.slos]]\nwait_p = 0.9", "alerts.slos[0].wait_seconds", "above zero"),
    (f"{SLO}fast = [20, 19, 2]", "alerts.slos[0].fast", "at least 20 s"),
    (f"{SLO}slow = [20, 30, 2]", "alerts.slos[0].slow", "fewer seconds"),
    (f"{SLO}lanes = ['prompts']", "alerts.slos[0].lanes", "did you mean 'prompt'?"),
    (f"{SLO}{SLO}", "alerts.slos[1].lanes", "alerts.slos[0] is about the same already"),
    ("[[alerts.silences]]\nrule = 'stall'", "alerts.silences[0].until", "2026-12-01T08:00:00Z"),
    ("[[alerts.silences]]\nuntil = 2026-12-01T00:00:00", "alerts.silences[0].until", "a time with its zone"),
    ("[[alerts.silences]]\nuntil = 2026-12-01", "alerts.silences[0].until", "a time with its zone"),
    ("[[alerts.silences]]\nuntil = '2026-12-01T00:00:00Z'", "alerts.silences[0].until", "a time with its zone"),
    (
        f"[[alerts.silences]]\n{LATER}rule = 'stall'",
        "alerts.silences[0].rule",
        "known rules: pending, QueuePendingHigh",
    ),
    (
        f"[[alerts.silences]]\n{LATER}rule = 'QueuePending'",
        "alerts.silences[0].rule",
        "did you mean 'QueuePendingHigh'?",
    ),
    (f"[[alerts.silences]]\n{LATER}rule = 5", "alerts.silences[0].rule", "unknown rule"),
    (f"[[alerts.silences]]\n{LATER}lane = 'promt'", "alerts.silences[0].lane", "did you mean 'prompt'?"),
    (f"[[alerts.silences]]\n{LATER}lanes = ['prompt']", "alerts.silences[0].lanes", "did you mean 'lane'?"),
    (f"{NOTIFIER}url = '{SECRET}'", "alerts.notifiers[0].url", "an address such as http://127.0.0.1:9093"),
    (f"{NOTIFIER}url = 'ftp://h/{SECRET}'", "alerts.notifiers[0].url", "an address"),
    (f"{NOTIFIER}url = 'https:///{SECRET}'", "alerts.notifiers[0].url", "an address"),
    (f"{NOTIFIER}url = 'https://h:x/{SECRET}'", "alerts.notifiers[0].url", "an address"),
    (f"{NOTIFIER}url = ['{SECRET}']", "alerts.notifiers[0].url", "an address"),
    (f"{NOTIFIER}token = '{SECRET}'", "alerts.notifiers[0].url", "either url, or url_env"),
    (f"{NOTIFIER}url = 'https://h/{SECRET}'\nurl_env = 'X'", "alerts.notifiers[0].url", "either url, or url_env"),
    (f"{NOTIFIER}url_env = ''", "alerts.notifiers[0].url_env", "the name of an environment variable"),
    (f"[[alerts.notifiers]]\nurl = 'https://h/{SECRET}'", "alerts.notifiers[0].type", "'webhook', 'alertmanager'"),
    (
        f"[[alerts.notifiers]]\ntype = 'slack'\nurl = '{SECRET}'",
        "alerts.notifiers[0].type",
        "'webhook', 'alertmanager'",
    ),
    (f"[alerts]\nnotifiers = ['https://h/{SECRET}']", "alerts.notifiers[0]", "give a table"),
    (f"[alerts]\nnotifiers = 'https://h/{SECRET}'", "alerts.notifiers", "[[alerts.notifiers]]"),
    (f"[[alerts.notifier]]\nurl = 'https://h/{SECRET}'", "alerts.notifier", "did you mean 'notifiers'?"),
    (f"[[alert.notifiers]]\nurl = 'https://h/{SECRET}'", "alert", "did you mean 'alerts'?"),
]


@pytest.mark.parametrize(("text", "field", "allowed"), MISTAKES)
def test_a_mistake_is_named_and_no_secret_shown(load: Load, text: str, field: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.field == field
    assert allowed in caught.value.allowed
    assert SECRET not in "".join(traceback.format_exception(caught.value)).replace(repr(text), "")
    assert SECRET not in repr(caught.value.value)


def test_a_mistake_in_the_lanes_is_told_as_ever(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"lanes\.a\.max_concurrency"):
        load("[lanes.a]\nmax_concurrency = 0\n[alerts]\n")
    with pytest.raises(ConfigError, match="give valid TOML"):
        load("[alerts\n")


def test_showing_the_configuration_shows_no_secret(load: Load) -> None:
    config = load(f"{NOTIFIER}url = 'https://h/{SECRET}'\nheaders = {{ Authorization = '{SECRET}' }}")
    assert SECRET not in repr(config)
