"""The whole demo under a real Prometheus and a real Alertmanager: what fires in one fires in all, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs.demo.chapter import STORY_ALERTS
from lane_obs.demo.settings import load_settings
from tests.integration.services import grafana
from tests.integration.services.alertmanager import Alertmanager, WebhookReceiver
from tests.integration.services.grafana import Viewer
from tests.integration.services.process import free_port
from tests.integration.services.prometheus import Prometheus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.services.prometheus import Labels

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "dashboards" / "demo-alerts.yml"
SCRAPE = 0.5
INTERVAL = float(load_settings()[1].interval)  # type: ignore[arg-type]
STORY = {(alert.alert, alert.severity, alert.lane) for alert in STORY_ALERTS}

Name = tuple[str, str, str]
Spans = dict[Name, list[tuple[float, float]]]


@dataclasses.dataclass
class Run:
    """One telling of the story, with what Prometheus and Alertmanager have of it."""

    prometheus: Prometheus
    start: float
    end: float
    log: list[dict[str, Any]]
    told: str
    received: list[dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run for all tests: it takes a minute."""
    directory, port = tmp_path_factory.mktemp("demo"), free_port()
    log = directory / "log.jsonl"
    targets = {"lane-obs": f"127.0.0.1:{port}"}
    with (
        WebhookReceiver() as receiver,
        Alertmanager(directory / "alertmanager", receiver.url) as alertmanager,
        Prometheus(directory / "data", targets, interval_seconds=SCRAPE, rule_files=[RULES]) as prometheus,
    ):
        prometheus.wait_for_targets()
        options = ["--metrics-port", port, "--log-file", log, "--alertmanager", alertmanager.url, "--no-screen"]
        done = subprocess.run(
            [sys.executable, "-m", "lane_obs", "demo", *map(str, options)],
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONWARNINGS": "error"},
            timeout=100,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        receiver.wait_for(lambda payloads: _over(payloads) >= STORY)
        end = float(lines[-1]["timestamp"])
        [(_, up)] = prometheus.samples('up{job="lane-obs"}', end - 90, end)
        start = next(at for at, value in up if value)
        yield Run(prometheus, start, end, lines, done.stdout, receiver.alerts)


def name_of(labels: Labels) -> Name:
    return labels.get("alertname", labels.get("alert", "")), labels["severity"], labels.get("lane") or ""


def _over(payloads: list[Any]) -> set[Name]:
    alerts = [alert for payload in payloads for alert in payload["alerts"]]
    return {name_of(alert["labels"]) for alert in alerts if alert["status"] == "resolved"}


def in_monitor(run: Run) -> Spans:
    """When each alert fired in the monitor, from when to when, by its log lines."""
    spans: Spans = {}
    for line in run.log:
        if line["event"] == "queue.alert.firing":
            spans.setdefault(name_of(line), []).append((line["timestamp"], float("inf")))
        elif line["event"] == "queue.alert.resolved":
            began, _ = spans[name_of(line)].pop()
            spans[name_of(line)].append((began, line["timestamp"]))
    return spans


def in_prometheus(run: Run) -> Spans:
    """The same by the series that Prometheus writes at each evaluation while an alert fires."""
    spans: Spans = {}
    begin, end = run.start - 30, run.end + 1
    [(_, evaluated)] = run.prometheus.samples('queue:pending{queue="demo"}', begin, end)
    following = dict(pairwise(at for at, _ in evaluated))  # one may have been left out on a machine that is too busy
    for labels, samples in run.prometheus.samples('ALERTS{alertstate="firing"}', begin, end):
        mine = spans.setdefault(name_of(labels), [])
        for at, _ in samples:
            over = following.get(at, at + INTERVAL)
            if mine and mine[-1][1] == at:
                mine[-1] = (mine[-1][0], over)
            else:
                mine.append((at, over))
    return spans


def test_what_the_story_is_meant_to_raise_fires_and_ends_in_the_monitor_and_nothing_else_does(run: Run) -> None:
    spans = in_monitor(run)
    assert set(spans) == STORY
    assert {name: len(times) for name, times in spans.items()} == dict.fromkeys(STORY, 1)
    assert all(over < float("inf") for [(_, over)] in spans.values())


def test_the_same_fires_and_ends_in_prometheus(run: Run) -> None:
    spans = in_prometheus(run)
    assert {name: len(times) for name, times in spans.items()} == dict.fromkeys(STORY, 1)
    assert all(over <= run.end for [(_, over)] in spans.values())


def hold_ups(run: Run, until: float) -> float:
    """By how many seconds this machine held Prometheus up while it made up its mind: late or slow scrapes, evaluations.

    It tells by its own samples; on a machine with nothing else to do this is some tenths of a second.
    """

    def samples(selector: str) -> list[tuple[float, float]]:
        [(_, found)] = run.prometheus.samples(selector, until - 6 * INTERVAL, until)
        return found

    def slowest(selector: str, every: float) -> float:
        times = [at for at, _ in samples(selector)]
        return max(after - before for before, after in pairwise(times)) - every

    longest_scrape = max(seconds for _, seconds in samples('scrape_duration_seconds{job="lane-obs"}'))
    evaluations = slowest('queue:pending{queue="demo"}', INTERVAL)
    return longest_scrape + slowest('up{job="lane-obs"}', SCRAPE) + evaluations


def test_each_fires_in_both_within_two_intervals(run: Run) -> None:
    monitor, prometheus = in_monitor(run), in_prometheus(run)
    fired = {name: (monitor[name][0][0], prometheus[name][0][0]) for name in STORY}
    apart = {name: there - here for name, (here, there) in fired.items()}
    allowed = {name: 2 * INTERVAL + hold_ups(run, max(both)) for name, both in fired.items()}
    assert {name: (late, allowed[name]) for name, late in apart.items() if abs(late) > allowed[name]} == {}


def test_alertmanager_is_told_of_each_twice_when_it_fires_and_when_it_is_over(run: Run) -> None:
    told = {(*name_of(alert["labels"]), alert["status"]) for alert in run.received}
    assert told == {(*name, status) for name in STORY for status in ("firing", "resolved")}


def test_the_summary_tells_of_each(run: Run) -> None:
    for alert, severity, lane in STORY:
        assert f"Alert {alert} ({severity}, {lane or 'queue'}) fired at" in run.told
    assert f"{len(STORY)} of the {len(STORY)} that the story is meant to raise fired, and all are over" in run.told
    assert "no part of the story" not in run.told


def titles_in(board: dict[str, Any], rows: set[str]) -> set[str]:
    """The titles of the panels below these rows."""
    titles, inside = set(), False
    for panel in board["panels"]:
        if panel["type"] == "row":
            inside = panel["title"] in rows
        elif inside:
            titles.add(panel["title"])
    return titles


@pytest.mark.parametrize("name", grafana.FILES)
def test_every_query_of_every_dashboard_gives_numbers(run: Run, name: str) -> None:
    viewer = Viewer(run.prometheus, grafana.read(name), run.start, run.end, step=1.0, scrape=SCRAPE)
    # The demo has no storage, nor processes of `lane-obs worker`; other tests show that panels of those have numbers.
    of_storage = {"Storage failed", "Stored commands", "Commit time", "Storage trouble", "Storage size"}
    elsewhere = of_storage | titles_in(grafana.read(name), {"Shared queue", "Broker", "Worker"})  # nor a broker
    assert [asked for asked in viewer.empty() if asked.panel not in elsewhere] == []
    choices = viewer.choices()
    assert choices["queue"] == ["demo"]
    assert choices["job"] == ["lane-obs"]
    if "lane" in choices:
        assert choices["lane"] == sorted(load_settings()[0].lanes)
