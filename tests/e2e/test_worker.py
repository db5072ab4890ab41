"""`lane-obs worker` with real processes: kept running, drained, replaced; what they count in one place."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from tests.e2e.worker_process import PATIENCE, Worker, is_there, poll, write_app

if TYPE_CHECKING:
    from pathlib import Path

TAKEN = 'lane_commands_submitted_total{{process="{}",lane="a",queue="default"}}'


def test_its_processes_show_their_pages_in_one_place(tmp_path: Path) -> None:
    write_app(tmp_path, "async def app():\n    return submitting((add, 1, 2), (add, 3, 4))\n")
    with Worker(tmp_path, "app:app", "--processes", 2, "--metrics-port", 0) as worker:
        assert worker.page("/livez")[0] == 200  # those that start are alive
        pids = worker.wait_ready(2)
        assert len(set(pids)) == 2
        samples = poll(lambda: (found := worker.samples()).get(TAKEN.format(1)) and found, "counted")
        assert samples[TAKEN.format(0)] == samples[TAKEN.format(1)] == 2
        assert samples['lane_worker_up{process="0"}'] == samples['lane_worker_up{process="1"}'] == 1
        assert samples['lane_worker_restarts_total{process="1",reason="died"}'] == 0
        assert {f'process_max_fds{{process="{place}"}}' for place in (0, 1)} <= samples.keys()
        status, text = worker.page("/readyz")
        assert (status, json.loads(text)["workers"]) == (200, {place: {"status": "ready"} for place in "01"})
        status, text = worker.page("/livez")
        assert (status, json.loads(text)["workers"]["0"]["status"]) == (200, "alive")
        stats = json.loads(worker.page("/stats")[1])["workers"]["1"]
        assert (stats["run"], stats["state"], stats["stats"]["submitted"]) == (1, "ready", 2)
        assert worker.page("/metrics", "application/openmetrics-text")[1].endswith("# EOF\n")
        worker.tell(signal.SIGTERM)
        assert worker.code() == 0
    assert worker.events("workers.stopped") == worker.events("workers.stopped", code=0)
    assert {(line["code"], line["left"]) for line in worker.events("worker.ended")} == {(0, 0)}


def test_one_that_is_killed_is_followed_by_another_and_counts_on(tmp_path: Path) -> None:
    write_app(tmp_path, "def app():\n    return submitting((add, 1, 2))\n")
    with Worker(tmp_path, "app:app", "--processes", 2, "--metrics-port", 0) as worker:
        pids = worker.wait_ready(2)
        poll(lambda: worker.samples()[TAKEN.format(0)] == 1, "counted")
        os.kill(pids[0], signal.SIGKILL)
        (died,) = worker.wait_for("worker.died")
        assert (died["level"], died["process"], died["pid"], died["code"]) == ("warning", "0", pids[0], -9)
        assert 0 <= died["after_s"] <= 1
        assert worker.samples()[TAKEN.format(0)] >= 1
        (ready,) = worker.wait_for("worker.ready", process="0", run=2)
        assert ready["pid"] != pids[0]
        samples = poll(lambda: (found := worker.samples())[TAKEN.format(0)] == 2 and found, "counted on")
        assert samples['lane_worker_restarts_total{process="0",reason="died"}'] == 1
        assert samples['lane_worker_restarts_total{process="1",reason="died"}'] == 0
        assert is_there(pids[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(tmp_path: Path, number: signal.Signals) -> None:
    write_app(tmp_path, "def app():\n    return submitting((hold,))\n")
    with Worker(tmp_path, "app:app") as worker:
        (pid,) = worker.wait_held()
        worker.wait_ready()
        worker.tell(number)
        worker.wait_for("workers.stopping", how="drain")
        os.kill(pid, signal.SIGTERM)  # as systemd does, which tells every process of a service
        assert is_there(pid)
        (tmp_path / "go").touch()
        assert worker.code() == 0
    assert (tmp_path / f"done-{pid}").exists()
    assert worker.events("worker.ended", left=0, code=0)


def test_ctrl_c_in_a_terminal_drains_once(tmp_path: Path) -> None:
    write_app(tmp_path, "def app():\n    return submitting((hold,))\n")
    with Worker(tmp_path, "app:app") as worker:
        (pid,) = worker.wait_held()
        worker.wait_ready()
        os.killpg(worker.process.pid, signal.SIGINT)
        worker.wait_for("workers.stopping", how="drain")
        (tmp_path / "go").touch()
        assert worker.code() == 0
    assert (tmp_path / f"done-{pid}").exists()


def test_what_is_not_done_within_the_time_for_the_drain_is_left(tmp_path: Path) -> None:
    write_app(tmp_path, "def app():\n    return submitting((hold,), (hold,), drain_timeout=60)\n")
    with Worker(tmp_path, "app:app", "--drain-timeout", 0.1) as worker:
        worker.wait_held()
        worker.wait_ready()
        worker.tell(signal.SIGTERM)
        assert worker.code() == 1
    assert worker.events("worker.ended", left=2, code=1)
    assert worker.events("workers.stopped", code=1)


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    write_app(tmp_path, "def app():\n    return submitting((hold,), drain_timeout=600)\n")
    with Worker(tmp_path, "app:app") as worker:
        worker.wait_held()
        worker.wait_ready()
        worker.tell(signal.SIGTERM)
        worker.wait_for("workers.stopping", how="drain")
        worker.tell(signal.SIGTERM)
        assert worker.code() == 1
    assert worker.events("worker.ended", left=1, code=1)
    assert [line["how"] for line in worker.events("workers.stopping")] == ["drain", "close"]


def test_a_third_signal_kills(tmp_path: Path) -> None:
    write_app(tmp_path, "def app():\n    return submitting((block,), drain_timeout=600)\n")
    with Worker(tmp_path, "app:app") as worker:
        (pid,) = worker.wait_held()
        for how in ("drain", "close", "kill"):
            worker.tell(signal.SIGTERM)
            worker.wait_for("workers.stopping", how=how)
        assert worker.code() == 1
    assert worker.events("worker.killed", pid=pid)
    assert worker.events("worker.ended", pid=pid, code=-9, left=None)


@pytest.mark.parametrize(
    ("app", "body", "says"),
    [
        ("nowhere:app", "", "nowhere"),
        ("app:app", "raise RuntimeError('no such table')\n", "RuntimeError: no such table"),
        (
            "app:app",
            "def app():\n    return QueueManager(LANES, max_concurrency=0, broker=LocalBroker())\n",
            "max_conc",
        ),
        ("app:app", "def app():\n    return QueueManager(LANES)\n", "give its queue a broker"),
        ("app:app", "def app():\n    return queue(work=False)\n", "its queue only submits"),
    ],
)
def test_an_app_that_cannot_start_ends_it_with_one_clear_line(tmp_path: Path, app: str, body: str, says: str) -> None:
    write_app(tmp_path, body)
    with Worker(tmp_path, app) as worker:
        assert worker.code() == 2
    last = worker.lines[-1]
    assert last.startswith("lane-obs: ")
    assert says in last
    assert "Traceback" not in worker.text
    assert len(worker.events("worker.refused")) == 1


def test_one_that_fails_for_another_reason_is_tried_again(tmp_path: Path) -> None:
    body = """
def app():
    mark = HERE / "tried"
    if not mark.exists():
        mark.touch()
        raise ConnectionRefusedError("no database")
    return queue()
"""
    write_app(tmp_path, body)
    with Worker(tmp_path, "app:app") as worker:
        worker.wait_for("worker.ready", run=2)
        (died,) = worker.events("worker.died")
        assert died["error"] == "ConnectionRefusedError: no database"
        assert (died["code"], died["duration_s"]) == (1, 0)


def test_a_hangup_replaces_them_one_after_the_other(tmp_path: Path) -> None:
    write_app(tmp_path, "def app():\n    return submitting((add, 1, 2))\n")
    with Worker(tmp_path, "app:app", "--processes", 2, "--metrics-port", 0) as worker:
        worker.wait_ready(2)
        worker.tell(signal.SIGHUP)
        worker.wait_for("workers.rolled", workers=2)
        order = [(line["event"], line["process"]) for line in map(json.loads, filter(is_turn, worker.lines))]
        assert order[2:] == [("worker.ended", "0"), ("worker.ready", "0"), ("worker.ended", "1"), ("worker.ready", "1")]
        assert worker.events("worker.died") == []
        # What nobody had asked them before their end they said then.
        samples = poll(lambda: (found := worker.samples())[TAKEN.format(1)] == 2 and found, "counted on")
        assert samples[TAKEN.format(0)] == 2
        assert samples['lane_worker_restarts_total{process="0",reason="rolled"}'] == 1
        worker.tell(signal.SIGTERM)
        assert worker.code() == 0


BUSY = """
def app():
    manager = queue()
    start = manager.start
    async def keep_busy():
        while not manager.is_shutting_down():
            await (await manager.submit("a", add, 1, 2))
            await asyncio.sleep(0.001)
    async def start_and_submit():
        await start()
        manager.busy = asyncio.get_running_loop().create_task(keep_busy())
    manager.start = start_and_submit
    return manager
"""


def test_no_counter_goes_backwards_while_processes_are_killed_and_replaced(tmp_path: Path) -> None:
    write_app(tmp_path, BUSY)
    seen: dict[str, list[float]] = defaultdict(list)
    with Worker(tmp_path, "app:app", "--processes", 2, "--metrics-port", 0) as worker:
        pids = worker.wait_ready(2)
        over = threading.Event()

        def scrape() -> None:
            while not over.is_set():
                for series, value in worker.samples().items():
                    name = series.partition("{")[0]
                    # What is about the broker is not added up; this one's goes with its process.
                    if name.endswith(("_total", "_count", "_bucket")) and not name.startswith("lane_cluster_"):
                        seen[series].append(value)

        scraping = threading.Thread(target=scrape)
        scraping.start()
        try:
            os.kill(pids[0], signal.SIGKILL)
            worker.wait_for("worker.ready", process="0", run=2)
            worker.tell(signal.SIGHUP)
            worker.wait_for("workers.rolled")
            os.kill(worker.events("worker.ready", process="1", run=2)[0]["pid"], signal.SIGKILL)
            worker.wait_for("worker.ready", process="1", run=3)
        finally:
            over.set()
            scraping.join(PATIENCE)
    assert {series: values for series, values in seen.items() if values != sorted(values)} == {}
    assert len(seen[TAKEN.format(0)]) > 10
    assert seen[TAKEN.format(0)][-1] > seen[TAKEN.format(0)][0] + 100


def is_turn(line: str) -> bool:
    return '"event":"worker.ready"' in line or '"event":"worker.ended"' in line


def test_a_roll_stops_at_a_process_that_does_not_start(tmp_path: Path) -> None:
    write_app(tmp_path, "def app():\n    return queue()\n")
    with Worker(tmp_path, "app:app", "--processes", 2) as worker:
        pids = worker.wait_ready(2)
        write_app(tmp_path, "raise RuntimeError('a release too far')\n")
        worker.tell(signal.SIGHUP)
        worker.wait_for("workers.roll_stopped", process="0")
        assert "a release too far" in worker.events("worker.refused")[0]["error"]
        assert is_there(pids[1])
        assert worker.process.poll() is None
        write_app(tmp_path, "def app():\n    return queue()\n")
        worker.tell(signal.SIGHUP)  # does not wait for the back-off
        worker.wait_for("workers.rolled")


def test_without_their_supervisor_the_processes_drain(tmp_path: Path) -> None:
    write_app(tmp_path, "def app():\n    return submitting((hold,))\n")
    with Worker(tmp_path, "app:app") as worker:
        (pid,) = worker.wait_held()
        worker.wait_ready()
        worker.process.kill()
        (tmp_path / "go").touch()
        poll(lambda: not is_there(pid), "the child is gone", PATIENCE)
    assert (tmp_path / f"done-{pid}").exists()


def test_a_port_in_use_is_named_by_its_option(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with Worker(tmp_path, "app:app", "--metrics-port", taken.getsockname()[1]) as worker:
            assert worker.code() == 2
    assert worker.lines[-1].startswith("lane-obs: --metrics-port: ")


def test_a_host_needs_a_port(tmp_path: Path) -> None:
    with Worker(tmp_path, "app:app", "--host", "0.0.0.0") as worker:
        assert worker.code() == 2
    assert worker.lines == ["lane-obs: --host 0.0.0.0: give --metrics-port too, as nothing else is served"]


def test_a_blocked_process_is_not_alive(tmp_path: Path) -> None:
    write_app(tmp_path, "def app():\n    return queue()\n")
    with Worker(tmp_path, "app:app", "--processes", 2, "--metrics-port", 0) as worker:
        pids = worker.wait_ready(2)
        os.kill(pids[1], signal.SIGSTOP)
        status, text = worker.page("/livez")
        assert status == 503
        assert {place: told["status"] for place, told in json.loads(text)["workers"].items()} == {
            "0": "alive",
            "1": "no_answer",
        }
        samples = worker.samples()
        assert samples['lane_worker_scrape_failures_total{process="1"}'] >= 1
        assert 'lane_active_commands{process="1",lane="a",queue="default"}' not in samples
        assert 'lane_active_commands{process="0",lane="a",queue="default"}' in samples
        os.kill(pids[1], signal.SIGCONT)
        assert poll(lambda: worker.page("/readyz")[0] == 200, "ready again")
