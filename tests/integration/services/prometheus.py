"""A real Prometheus that scrapes what a test serves, and promtool."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from tests.integration.services.process import Service, ServiceError, free_port, poll
from tests.integration.services.tools import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Labels = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Exemplar:
    """An exemplar of a series. `labels` are its own; `at` is Unix time in seconds."""

    series: Labels
    labels: Labels
    value: float
    at: float


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What the application said of a metric. `name` is that of the family."""

    name: str
    type: str
    help: str
    unit: str


class Prometheus(Service):
    """A Prometheus with its data in `directory`.

    Args:
        targets: addresses `host:port` to scrape, each as a job of its own with its name from the mapping's key.
        interval_seconds: between scrapes, and the longest that one may take.
        metrics_path: where the targets serve.
        rule_files: files of rules to evaluate, at the same interval.
        alertmanagers: addresses `host:port` of Alertmanagers to tell of alerts.
        consoles: a folder of console templates to serve at `/consoles/`.
    """

    def __init__(
        self,
        directory: Path,
        targets: Mapping[str, str],
        *,
        interval_seconds: float = 0.5,
        metrics_path: str = "/metrics",
        rule_files: Sequence[Path] = (),
        alertmanagers: Sequence[str] = (),
        consoles: Path | None = None,
    ) -> None:
        super().__init__()
        self._binary = require("prometheus")
        self._directory = directory
        self._consoles = consoles
        self._interval_seconds = interval_seconds
        interval = f"{round(interval_seconds * 1_000)}ms"
        self._config: dict[str, Any] = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [str(path) for path in rule_files],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]},
            "scrape_configs": [
                {"job_name": job, "metrics_path": metrics_path, "static_configs": [{"targets": [target]}]}
                for job, target in targets.items()
            ],
        }
        self._port = 0

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self._port}"

    def pick_ports(self) -> None:
        self._port = free_port()

    def command(self) -> Sequence[str]:
        self._directory.mkdir(parents=True, exist_ok=True)
        config = self._directory / "prometheus.yml"
        config.write_text(json.dumps(self._config))  # YAML takes JSON
        return [
            self._binary,
            f"--config.file={config}",
            f"--storage.tsdb.path={self._directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
            *([f"--web.console.templates={self._consoles}"] if self._consoles else []),
        ]

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def query(self, expr: str, at: float | None = None) -> list[tuple[Labels, float]]:
        """The value of an expression now, or at a Unix time: one pair for each series, in any order."""
        data = self._get("query", query=expr, **({} if at is None else {"time": repr(at)}))
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[tuple[Labels, list[float]]]:
        """The values of an expression over a time: for each series those it has."""
        data = self._get("query_range", query=expr, start=repr(start), end=repr(end), step=repr(step))
        return [(series["metric"], [float(value) for _, value in series["values"]]) for series in data["result"]]

    def samples(self, selector: str, start: float, end: float) -> list[tuple[Labels, list[tuple[float, float]]]]:
        """What is stored of each series after one Unix time up to another: pairs of time and value."""
        window = f"{selector}[{math.ceil((end - start) * 1_000)}ms]"
        found = self._get("query", query=window, time=repr(end))["result"]
        return [(series["metric"], [(at, float(value)) for at, value in series["values"]]) for series in found]

    def query_exemplars(self, expr: str, start: float, end: float) -> list[Exemplar]:
        """The exemplars of all series that an expression names, between two Unix times."""
        return [
            Exemplar(series["seriesLabels"], found["labels"], float(found["value"]), found["timestamp"])
            for series in self._get("query_exemplars", query=expr, start=repr(start), end=repr(end))
            for found in series["exemplars"]
        ]

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, with `labels`, `health`, `lastError`, `lastScrape` and `lastScrapeDuration`."""
        active: list[dict[str, Any]] = self._get("targets")["activeTargets"]
        return active

    def wait_for_targets(self, seconds: float = 20.0) -> None:
        """Waits until it has taken in its targets and scrapes them, which is some 5 s after its start."""
        count = len(self._config["scrape_configs"])
        poll(lambda: len(self.targets()) >= count or None, seconds, lambda: f"{count} targets")

    def metadata(self) -> dict[str, list[Metadata]]:
        """What it knows of each metric of all targets: more than one entry where targets differ.

        The name is that of the family in the format scraped: OpenMetrics names a counter without `_total`, the
        classic text with it.
        """
        return {
            name: [Metadata(name, found["type"], found["help"], found["unit"]) for found in entries]
            for name, entries in self._get("metadata").items()
        }

    def target_metadata(self) -> list[tuple[Labels, Metadata]]:
        """The same target by target, with the target's labels."""
        return [
            (found["target"], Metadata(found["metric"], found["type"], found["help"], found["unit"]))
            for found in self._get("targets/metadata")
        ]

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or firing."""
        active: list[dict[str, Any]] = self._get("alerts")["alerts"]
        return active

    def wait_for_scrape(self, after: float, *, job: str = "", seconds: float = 20.0) -> float:
        """Waits until a scrape of each target that began after a Unix time has succeeded and can be queried.

        The first one begins some 5 s after the start, see `wait_for_targets`.

        Args:
            after: Unix time.
            job: the one job to wait for; default all.
            seconds: how long to wait.

        Returns:
            When the earliest of these scrapes began: query `at` this or later. To see what happened last, stop it,
            take the time, and wait for a scrape after it.
        """

        jobs = [job] if job else [config["job_name"] for config in self._config["scrape_configs"]]

        def found() -> float | None:
            # A scrape's samples, `up` among them, become visible in one go and bear the time when it began.
            begun = {labels["job"]: at for labels, at in self.query("timestamp(up) and up == 1")}
            first = min(begun.get(name, -math.inf) for name in jobs)
            return first if first >= after else None

        return poll(found, seconds, lambda: f"a scrape after {after}; targets: {self.targets()}")

    def _get(self, path: str, **parameters: str) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ServiceError(f"{url}: {error.read().decode()}") from error


def promtool_check_metrics(text: str) -> list[str]:
    """What `promtool check metrics` finds wrong with metrics in the classic text format (not OpenMetrics)."""
    done = subprocess.run(
        [require("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, timeout=30, check=False
    )
    errors = (done.stderr + done.stdout).splitlines()
    return errors or ([f"exit code {done.returncode}"] if done.returncode else [])
