"""A real Prometheus scrapes a queue to which everything happens, and every query of every dashboard gives numbers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import itertools
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prometheus_client
import pytest
from opentelemetry.sdk.trace import TracerProvider

from lane_obs import (
    BackgroundSink,
    LaneConfig,
    MemorySink,
    MonitorConfig,
    Partitions,
    PriorityBoost,
    QueueManager,
    QueueMonitor,
    RateLimit,
    RetryPolicy,
    command,
)
from lane_obs.alerts import Rule, compile_rules
from lane_obs.alerts.prometheus import prometheus_rules
from lane_obs.errors import LaneFullError, StorageError
from lane_obs.monitor.notify import CallbackNotifier
from lane_obs.observability import Metrics, Observability, Traces
from lane_obs.storage import LocalStorage, StoredCommand
from tests.conftest import run_clean
from tests.integration.services import grafana
from tests.integration.services.document import read_html
from tests.integration.services.grafana import Viewer
from tests.integration.services.process import free_port, poll
from tests.integration.services.prometheus import Prometheus
from tests.integration.shared_shop import BACK, FRONT, SharedShop
from tests.integration.shared_shop import LANES as SHARED
from tests.integration.supervised_processes import Supervised

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from lane_obs.events import LaneEvent

JOB, OTHER, QUEUE, SCRAPE = "lane-obs", "other", "shop", 0.5
ROUNDS = 8
CONSOLES = Path(__file__).resolve().parents[2] / "dashboards" / "consoles"
QUEUES = sorted([QUEUE, FRONT, BACK])
"""Between two of them Prometheus scrapes."""

LANES = {
    "fast": LaneConfig(1, 3, priority=1, durable=False),
    "flaky": LaneConfig(0, 2, priority=2, timeout=0.03, retry=RetryPolicy.fixed(1, 0.2, jitter="none"), durable=False),
    "small": LaneConfig(0, 1, priority=3, max_pending=2, overflow="reject", durable=False),
    "held": LaneConfig(0, 1, priority=4, durable=False),
    "late": LaneConfig(0, 4, priority=9, durable=False),
    "stored": LaneConfig(0, 1, priority=9),
    "tenant": LaneConfig(
        0,
        4,
        priority=8,
        durable=False,
        rate_limit=RateLimit.per_second(30, burst=5),
        boost=PriorityBoost.ageing(0.05),
        partitions=Partitions.per_key(),
    ),
}
RULES = (
    Rule(measure="ready_depth", warning=0, critical=1),
    Rule(measure="oldest_ready_age", warning=0),
    Rule(measure="active", per="queue", warning=1),
    Rule(measure="storage_failed", critical=0),
)
"""What fires at once, in the monitor and in Prometheus."""

ZERO = {
    ("Scraped", "B"): "no target is down",
    ("Garbage collected", "B"): "all garbage can be collected",
    ("Storage trouble", "C"): "there is memory for what waits for the disk",
    ("Commands recovered", "A"): "they were there before the first scrape",
    ("Broker down", "A"): "a broker in memory is always there",
    ("Links lost", "A"): "likewise",
}
"""Queries that give nothing but zeros, by panel, each with the reason."""


@dataclasses.dataclass
class Run:
    """What was scraped between two Unix times."""

    prometheus: Prometheus
    start: float
    end: float
    instance: str
    page: str
    """The console page of the overview, at the end."""

    def viewer(self, name: str, **chosen: Sequence[str]) -> Viewer:
        """Somebody who looks at a dashboard."""
        board = grafana.read(name)
        return Viewer(self.prometheus, board, self.start, self.end, chosen=chosen, step=SCRAPE, scrape=SCRAPE)


# --- a queue to which everything happens ------------------------------------------------------------------------


class Broken:
    """A sink that fails at everything from the first burst on, which comes when zeros have been seen."""

    def __init__(self) -> None:
        self._fails = False

    def handle(self, events: Sequence[LaneEvent]) -> None:
        self._fails = self._fails or any(event.payload.get("lane") == "late" for event in events)
        if self._fails:
            raise OSError("no space left on device")

    def close(self) -> None:
        pass


class Blocked:
    """A sink that takes nothing until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def handle(self, events: Sequence[LaneEvent]) -> None:
        self.released.wait()

    def close(self) -> None:
        pass


async def work() -> None:
    await asyncio.sleep(0.01)


@command("dashboards.stored")
async def stored() -> None:
    await asyncio.sleep(0.01)


@command("dashboards.hang")
async def hang_stored() -> None:
    await hang()


async def storage(folder: Path) -> LocalStorage:
    """A storage in which an earlier process has left a command that can run, and one of a type that is not there."""
    made = LocalStorage(folder, last_retry=0.2)
    await made.open()
    for number, kind in enumerate(("dashboards.stored", "dashboards.gone"), 1):
        await made.save_command(
            StoredCommand(id=f"old-{number}", seq=number, lane="stored", command_type=kind, payload=b"[]")
        )
    await made.close()
    return made


async def work_long() -> None:
    await asyncio.sleep(0.4)


async def fail() -> None:
    raise ValueError("bad")


async def hang() -> None:
    await asyncio.Event().wait()


def registry() -> prometheus_client.CollectorRegistry:
    """One with what the client shows of its own process, as the default one has it."""
    made = prometheus_client.CollectorRegistry()
    prometheus_client.ProcessCollector(registry=made)
    prometheus_client.GCCollector(registry=made)
    return made


@contextlib.asynccontextmanager
async def shop(
    port: int, folder: Path, shown: prometheus_client.CollectorRegistry
) -> AsyncIterator[tuple[QueueManager, MemorySink]]:
    """The queue, with a monitor that tells somebody, and two sinks that lose what they are given."""
    release, blocked, memory = asyncio.Event(), Blocked(), MemorySink(10_000)

    async def stubborn() -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    observability = Observability(
        logs=False,
        metrics=Metrics(registry=shown, port=port, command_types=8),
        traces=Traces(tracer_provider=TracerProvider()),
        recorder=False,
        queue=QUEUE,
    )
    sinks: list[Any] = [memory, Broken(), BackgroundSink(blocked, capacity=100)]
    manager = QueueManager(
        LANES, max_concurrency=5, sinks=sinks, observe=observability, dead_letters=3, stuck_after=0.01,
        storage=await storage(folder),
    )  # fmt: skip
    config = MonitorConfig(
        interval=SCRAPE / 2,
        active_warning_threshold=None,
        rules=RULES,
        notifiers=(CallbackNotifier(lambda _alert: None, name="pager"),),
        queue=QUEUE,
    )
    async with manager:
        monitor = QueueMonitor(manager, config)
        await monitor.start()
        manager.pause("held")
        await manager.submit("held", work)
        stuck = await manager.submit("fast", stubborn)
        await memory.wait_for("queue.command.started")
        stuck.cancel()
        try:
            yield manager, memory
        finally:
            release.set()
            blocked.released.set()
            manager.resume("held")
            await monitor.stop()


async def burst(manager: QueueManager) -> None:
    """Something of every kind."""
    many: Sequence[Callable[[], Any]] = [work] * 30
    await manager.submit_many("late", many)
    await manager.submit_many("fast", many)
    for failing in (fail, hang, fail):
        await manager.submit("flaky", failing)
    await manager.submit("late", work, deadline=0.001)
    for number in range(20):
        await manager.submit("tenant", work, partition_key=f"t{number % 2}")
    await manager.submit("stored", stored)
    await manager.submit("fast", work, delay=1.0)
    with contextlib.suppress(LaneFullError):
        for _ in range(4):
            await manager.submit("small", work_long)
    if letters := manager.dead_letters.list():
        manager.dead_letters.requeue(letters[0].id)
    ring: list[Any] = []
    ring.append(ring)
    del ring
    gc.collect()


async def lose_disk(manager: QueueManager, memory: MemorySink, prometheus: Prometheus, folder: Path) -> None:
    """The storage fails, with a change that waits for it, until the alert fires here and in Prometheus."""
    hangs = await manager.submit("stored", hang_stored)
    await memory.wait_for(
        lambda event: event.key == "queue.command.started" and event.payload["command_id"] == hangs.id
    )
    away = folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(StorageError):
        await manager.submit("stored", stored)
    hangs.cancel()
    await memory.wait_for(
        lambda event: event.key == "queue.command.cancelled" and event.payload["command_id"] == hangs.id
    )
    await memory.wait_for(lambda event: event.key == "queue.alert.firing" and event.alert == "QueueStorageFailed")
    fires = 'ALERTS{alertname="QueueStorageFailed", alertstate="firing"}'
    await asyncio.to_thread(poll, lambda: prometheus.query(fires) or None, 20, lambda: f"{prometheus.alerts()}")
    away.rename(folder)
    await memory.wait_for("queue.storage.back")
    await memory.wait_for(lambda event: event.key == "queue.alert.resolved" and event.alert == "QueueStorageFailed")


def console(prometheus: Prometheus) -> str:
    """The overview as Prometheus itself shows it."""
    with urllib.request.urlopen(f"{prometheus.url}/consoles/lane-obs.html?span=1m", timeout=30) as answer:
        text: str = answer.read().decode()
        return text


async def run_shop(prometheus: Prometheus, port: int, folder: Path) -> tuple[float, float, str]:
    shown = registry()
    shown.register(Supervised())
    shared = SharedShop(shown)
    async with shop(port, folder, shown) as (manager, memory), contextlib.aclosing(shared):
        await shared.start()
        # Begins when zeros have been seen: a rate needs two values.
        start = await asyncio.to_thread(prometheus.wait_for_scrape, time.time())
        for number in range(ROUNDS):
            await burst(manager)
            await shared.burst(number)
            if number == 1:
                await lose_disk(manager, memory, prometheus, folder)
            for _ in range(
                2
            ):  # a graph has a value an interval, and misses one that was scraped once where that was late
                end = await asyncio.to_thread(prometheus.wait_for_scrape, time.time())
        assert len(manager.dead_letters.list()) == 3
        return start, end, await asyncio.to_thread(console, prometheus)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run for all tests."""
    directory = tmp_path_factory.mktemp("dashboards")
    rules = directory / "rules.yml"
    rules.write_text(prometheus_rules(compile_rules(RULES), SCRAPE))
    port = free_port()
    # Another program in the same Prometheus, which has no queue and shows its process, too.
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry())
    targets = {JOB: f"127.0.0.1:{port}", OTHER: f"127.0.0.1:{server.server_port}"}
    with Prometheus(
        directory / "data", targets, interval_seconds=SCRAPE, rule_files=[rules], consoles=CONSOLES
    ) as prometheus:
        prometheus.wait_for_targets()
        start, end, page = run_clean(run_shop, prometheus=prometheus, port=port, folder=directory / "queue")
        yield Run(prometheus, start, end, targets[JOB], page)
    server.shutdown()
    server.server_close()
    thread.join()


# --- the tests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", grafana.FILES)
def test_every_query_gives_numbers(run: Run, name: str) -> None:
    assert run.viewer(name).empty() == []


@pytest.mark.parametrize("name", grafana.FILES)
def test_every_query_gives_the_same_when_all_values_are_chosen_one_by_one(run: Run, name: str) -> None:
    chosen = {"job": [JOB], "instance": [run.instance], "queue": QUEUES, "lane": [*LANES, *SHARED, "unknown"]}
    one_by_one, everything = run.viewer(name, **chosen), run.viewer(name)
    for asked in grafana.queries(grafana.read(name)):
        assert len(one_by_one.series(asked)) == len(everything.series(asked)), asked


@pytest.mark.parametrize("name", grafana.FILES)
def test_no_query_gives_anything_of_another_program(run: Run, name: str) -> None:
    assert run.prometheus.query(f'process_open_fds{{job="{OTHER}"}}', run.end)
    chosen, everything = run.viewer(name, job=[OTHER]), run.viewer(name)
    for asked in grafana.queries(grafana.read(name)):
        assert "vector(0)" in asked.expr or chosen.series(asked) == [], asked
        assert {labels.get("job", JOB) for labels, _ in everything.series(asked)} == {JOB}


@pytest.mark.parametrize("name", grafana.FILES)
def test_only_one_lane_is_shown_where_one_is_chosen(run: Run, name: str) -> None:
    viewer = run.viewer(name, lane=["flaky"])
    for asked in grafana.queries(grafana.read(name)):
        lanes = {labels["lane"] for labels, _ in viewer.series(asked) if "lane" in labels}
        assert lanes <= {"flaky"}, asked


def test_every_query_shows_something_that_happened(run: Run) -> None:
    still = {
        (asked.panel, asked.ref)
        for name in grafana.FILES
        for asked in grafana.queries(grafana.read(name))
        if not any(value for _, values in run.viewer(name).series(asked) for value in values)
    }
    assert still == set(ZERO)


def test_the_console_page_has_the_shared_queue_once(run: Run) -> None:
    page = read_html(run.page)
    [row] = page.one("table", "shared").table()
    assert row["Lane"].text == "shared"
    assert (row["Running"].text, row["Limit"].text, row["Paused"].text) == ("0", "8", "0")
    assert row["Dead letters"].text == "1"
    assert "1 submitter, 1 worker, 32 slots" in run.page


def test_prometheus_saw_the_storage_fail_and_work_again(run: Run) -> None:
    [(_, seen)] = run.prometheus.samples("lane_storage_failed", run.start, run.end)
    assert [value for value, _ in itertools.groupby(value for _, value in seen)] == [0, 1, 0]
    alerts = run.prometheus.samples('ALERTS{alertname="QueueStorageFailed"}', run.start, run.end)
    assert [(labels["alertstate"], labels["severity"]) for labels, _ in alerts] == [("firing", "critical")]
    assert alerts[0][1][-1][0] < seen[-1][0]


@pytest.mark.parametrize("name", grafana.FILES)
def test_every_variable_offers_what_there_is(run: Run, name: str) -> None:
    choices = run.viewer(name).choices()
    assert choices == {"job": [JOB], "instance": [run.instance], "queue": QUEUES, "lane": sorted([*LANES, *SHARED])}


def test_the_points_on_the_histograms_lead_to_commands(run: Run) -> None:
    viewer = run.viewer("lane.json", lane=["flaky"])
    asked = [one for one in grafana.queries(grafana.read("lane.json")) if one.exemplar]
    assert {one.panel for one in asked} >= {"Wait", "Run time", "Wait quantiles"}
    for one in asked:
        exemplars = viewer.exemplars(one)
        assert exemplars, one
        assert {exemplar.series["lane"] for exemplar in exemplars} == {"flaky"}
        assert all(len(exemplar.labels["trace_id"]) == 32 for exemplar in exemplars)
