"""What deploy/worker/ has runs: its app under a worker and a producer, on a real server, seen by a real Prometheus."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from tests.architecture.deployed import DEPLOY, read
from tests.e2e.worker_process import PATIENCE, Worker, environment, poll
from tests.integration.services.prometheus import promtool_check_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.servers.server import Server
    from tests.integration.services.prometheus import Prometheus

FOLDER = DEPLOY / "worker"


def lane_obs(server: Server, *words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "lane_obs", *words, "--queue", "shop"], env=environment(LANE_OBS_URL=server.url),
        timeout=PATIENCE, check=True,
    )  # fmt: skip


def test_the_app_runs_and_the_autoscaler_sees_how_much_there_is(
    server: Server, start_prometheus: Callable[..., Prometheus]
) -> None:
    (trigger,) = read(FOLDER / "kubernetes" / "scaledobject.yaml")["spec"]["triggers"]
    with Worker(FOLDER, "shop:app", "--processes", 2, "--metrics-port", 0, LANE_OBS_URL=server.url) as worker:
        worker.wait_ready(2)
        prometheus = start_prometheus({"lane-obs": worker.url().removeprefix("http://")})
        prometheus.wait_for_targets()
        lane_obs(server, "pause", "mail")
        producer = subprocess.Popen(
            [sys.executable, "-m", "shop"],
            cwd=FOLDER,
            env=environment(LANE_OBS_URL=server.url),
            stdin=subprocess.DEVNULL,
        )
        try:
            done = 'lane_commands_finished_total{{process="{}",lane="report",outcome="ok",queue="shop"}}'
            poll(lambda: sum(worker.samples().get(done.format(place), 0) for place in "01") >= 2, "reports are done")

            def wanted() -> Any:
                prometheus.wait_for_scrape(time.time())
                return prometheus.query(trigger["metadata"]["query"])

            # A paused lane is no reason for more workers, however much waits in it.
            ((_, paused),) = poll(wanted, "the whole queue is seen")
            depth = 'max(lane_cluster_queue_depth{lane="mail", state="ready"})'
            poll(lambda: wanted() and prometheus.query(depth)[0][1] > 10, "mail waits")
            ((_, paused),) = wanted()
            assert paused <= 3
            lane_obs(server, "resume", "mail")
            poll(lambda: 1 <= wanted()[0][1] <= 64 + 8, "what can run is wanted")
        finally:
            producer.terminate()
            assert producer.wait(PATIENCE) == 143
        assert promtool_check_metrics(worker.page("/metrics")[1]) == []
