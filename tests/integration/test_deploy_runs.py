"""What of deploy/ runs without containers does so here: real programs with the shipped files, on loopback."""

from __future__ import annotations

import asyncio
import copy
import datetime
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import prometheus_client
import pytest

from lane_obs import DEFAULT_LANES, QueueManager
from lane_obs.observability import Metrics, Observability
from tests.architecture.deployed import DEPLOY, compose, health_command, mounts, objects, option, read
from tests.conftest import run_clean
from tests.integration.services.alertmanager import Alertmanager, WebhookReceiver, amtool_check_config
from tests.integration.services.process import free_port, poll
from tests.integration.services.prometheus import Prometheus
from tests.integration.services.tools import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# --- files that programs check ----------------------------------------------------------------------------------


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """The files that the compose service prometheus sees, below a folder."""
    for mount in mounts("prometheus"):
        if mount.source is not None:
            place = tmp_path / mount.target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(mount.source)
    return tmp_path


def check_config(container: Path) -> subprocess.CompletedProcess[str]:
    config = container / option("prometheus", "config.file").lstrip("/")
    # A link would be followed, and its own folder searched for the rules.
    text = config.read_text("utf-8")
    config.unlink()
    config.write_text(text, "utf-8")
    return subprocess.run(
        [require("promtool"), "check", "config", str(config)], capture_output=True, text=True, timeout=30, check=False
    )


def test_promtool_takes_the_config_with_the_rules_that_are_mounted(container: Path) -> None:
    done = check_config(container)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS: 1 rule files found" in done.stdout
    assert "demo-alerts.yml" in done.stdout


def test_promtool_sees_the_rules(container: Path) -> None:
    (container / "etc/prometheus/rules/more.yml").write_text("groups: [{name: a, rules: [{record: b, expr: '('}]}]")
    assert check_config(container).returncode == 1


def test_amtool_takes_the_config() -> None:
    assert amtool_check_config(DEPLOY / "alertmanager" / "alertmanager.yml") == []


# --- Alertmanager -----------------------------------------------------------------------------------------------


class ShippedAlertmanager(Alertmanager):
    """With the configuration of deploy/, but that it waits less and that each receiver posts to a path of its name."""

    @property
    def config(self) -> dict[str, Any]:
        config = copy.deepcopy(read(DEPLOY / "alertmanager" / "alertmanager.yml"))
        config["route"] |= {"group_wait": "1s", "group_interval": "1s"}
        for receiver in config["receivers"]:
            receiver["webhook_configs"] = [{"url": f"{self._webhook}/{receiver['name']}"}]
        return config

    def post(self, *alerts: dict[str, str]) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat()
        body = json.dumps([{"labels": labels, "startsAt": now} for labels in alerts]).encode()
        request = urllib.request.Request(f"{self.url}/api/v2/alerts", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10):
            pass


@pytest.fixture(scope="module")
def webhook() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory, webhook: WebhookReceiver) -> Iterator[ShippedAlertmanager]:
    with ShippedAlertmanager(tmp_path_factory.mktemp("alertmanager"), webhook.url) as running:
        yield running


def test_a_critical_alert_silences_its_own_warning_and_pages(
    alertmanager: ShippedAlertmanager, webhook: WebhookReceiver
) -> None:
    wait = {"alertname": "LaneWaitHigh", "queue": "demo", "lane": "query"}
    scraped = {"job": "lane-obs", "instance": "app:9464"}
    alertmanager.post(
        {**wait, **scraped, "severity": "critical"},
        {**wait, **scraped, "severity": "warning"},  # silenced
        {**wait, "severity": "critical"},  # from the app itself
        {**wait, "severity": "warning"},  # silenced
        {**wait, **scraped, "lane": "skill", "severity": "warning"},
        {**wait, **scraped, "instance": "other:9464", "severity": "warning"},
        {**wait, "alertname": "LaneDepthHigh", "severity": "warning"},
    )
    alertmanager.wait_for_alerts(lambda alerts: len([one for one in alerts if one["status"]["inhibitedBy"]]) == 2)
    webhook.wait_for(lambda payloads: sum(len(payload["alerts"]) for payload in payloads) >= 5)
    told = sorted(
        (path, *sorted(alert["labels"].values()))
        for path, _, body in webhook.requests
        for alert in json.loads(body)["alerts"]
    )
    assert told == [
        ("/page", "LaneWaitHigh", "app:9464", "critical", "demo", "lane-obs", "query"),
        ("/page", "LaneWaitHigh", "critical", "demo", "query"),
        ("/ticket", "LaneDepthHigh", "demo", "query", "warning"),
        ("/ticket", "LaneWaitHigh", "app:9464", "demo", "lane-obs", "skill", "warning"),
        ("/ticket", "LaneWaitHigh", "demo", "lane-obs", "other:9464", "query", "warning"),
    ]
    pages = [json.loads(body) for path, _, body in webhook.requests if path == "/page"]
    assert [page["groupLabels"] for page in pages] == [{"alertname": "LaneWaitHigh", "queue": "demo"}]


# --- Prometheus -------------------------------------------------------------------------------------------------


class ShippedPrometheus(Prometheus):
    """With the configuration of deploy/, but for the addresses, which are names of containers there."""

    def __init__(self, directory: Path, addresses: dict[str, str]) -> None:
        super().__init__(directory, {"lane-obs": addresses["app:9464"]})
        text = (DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8")
        for there, here in addresses.items():
            assert there in text
            text = text.replace(there, here)
        directory.mkdir()
        (directory / "shipped.yml").write_text(text, "utf-8")
        self._config = read(directory / "shipped.yml")
        self._config["global"] = dict.fromkeys(self._config["global"], "500ms")
        (directory / "rules").mkdir()
        for mount in mounts("prometheus"):
            if "/rules/" in mount.target and mount.source is not None:
                shutil.copy(mount.source, directory / "rules")

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def alertmanagers(self) -> list[str]:
        return [found["url"] for found in self._get("alertmanagers")["activeAlertmanagers"]]


async def fill(manager: QueueManager, prometheus: Prometheus) -> None:
    """Keeps the slots of one lane busy, and more waiting, until two scrapes have seen it."""
    release = asyncio.Event()
    handles = [await manager.submit("skill", release.wait) for _ in range(5)]
    for _ in range(2):
        await asyncio.to_thread(prometheus.wait_for_scrape, time.time())
    # The recorded series and the queries want two samples after the first that is not zero.
    await asyncio.to_thread(prometheus.wait_for_scrape, time.time() + 1)
    release.set()
    for handle in handles:
        await handle


async def watch(prometheus: Prometheus, port: int) -> dict[str, Any]:
    metrics = Metrics(registry=prometheus_client.CollectorRegistry(), port=port)
    observability = Observability(metrics=metrics, logs=False, traces=False, queue="demo")
    async with QueueManager(DEFAULT_LANES, sinks=observability.sinks) as manager:
        await asyncio.to_thread(prometheus.wait_for_targets)
        await fill(manager, prometheus)
        triggers = objects()["ScaledObject"]["spec"]["triggers"]
        return {
            trigger["name"]: await asyncio.to_thread(prometheus.query, trigger["metadata"]["query"])
            for trigger in triggers
        }


def test_prometheus_scrapes_the_app_knows_alertmanager_and_evaluates_the_rules(
    tmp_path: Path, alertmanager: ShippedAlertmanager
) -> None:
    port = free_port()
    addresses = {"app:9464": f"127.0.0.1:{port}", "alertmanager:9093": alertmanager.address}
    with ShippedPrometheus(tmp_path / "prometheus", addresses) as prometheus:
        scaling = run_clean(watch, prometheus=prometheus, port=port)
        assert [target["labels"] for target in prometheus.targets()] == [
            {"instance": f"127.0.0.1:{port}", "job": "lane-obs"}
        ]
        poll(lambda: prometheus.alertmanagers() or None, 20, lambda: "an Alertmanager")
        assert prometheus.alertmanagers() == [f"{alertmanager.url}/api/v2/alerts"]
        rules = prometheus.rules()
        assert {rule["type"] for rule in rules} == {"recording", "alerting"}
        assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] == "err"} == {}
        # Each query of the autoscaler is one number, and tells of the one busy lane.
        assert {name: len(found) for name, found in scaling.items()} == {"slot-utilisation": 1, "wait-for-slots": 1}
        ((_, busy),) = scaling["slot-utilisation"]
        ((_, waited),) = scaling["wait-for-slots"]
        assert 0 < busy <= 1
        assert 0 < waited <= 1


# --- health checks ----------------------------------------------------------------------------------------------


def run_check(words: list[str], port: int, at: int) -> int:
    """The exit code of a health check that is pointed at another port."""
    words = [word.replace(f"127.0.0.1:{port}", f"127.0.0.1:{at}") for word in words]
    return subprocess.run(words, capture_output=True, timeout=30, check=False).returncode


def test_the_health_check_of_alertmanager_tells_whether_it_is_there(alertmanager: ShippedAlertmanager) -> None:
    _, *words = compose()["services"]["alertmanager"]["healthcheck"]["test"]
    require(words[0])
    assert run_check(words, 9093, int(alertmanager.address.rpartition(":")[2])) == 0
    assert run_check(words, 9093, free_port()) != 0


def test_the_health_check_of_prometheus_tells_whether_it_is_there(tmp_path: Path) -> None:
    _, *words = compose()["services"]["prometheus"]["healthcheck"]["test"]
    require(words[0])
    with Prometheus(tmp_path, {}) as prometheus:
        assert run_check(words, 9090, int(prometheus.url.rpartition(":")[2])) == 0
    assert run_check(words, 9090, free_port()) != 0


async def test_the_health_check_of_the_image_tells_whether_the_queue_is_there() -> None:
    port = free_port()
    metrics = Metrics(registry=prometheus_client.CollectorRegistry(), port=port)
    python, *words = health_command()
    assert python == "python"
    async with QueueManager(sinks=Observability(metrics=metrics, logs=False, traces=False).sinks):
        assert await asyncio.to_thread(run_check, [sys.executable, *words], 9464, port) == 0
    assert await asyncio.to_thread(run_check, [sys.executable, *words], 9464, port) != 0
