"""`lane-obs worker` on a queue at a real Redis: its commands run, and go on elsewhere when a process does not."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import LaneConfig, QueueManager, command
from lane_obs.distributed import RedisBroker
from tests.e2e.worker_process import Worker, is_there, poll, write_app
from tests.integration.servers.engine import require_engine
from tests.integration.servers.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LANES = {"a": LaneConfig(0, 8)}
LEASE = 2.0
APP = f"""
from lane_obs.distributed import RedisBroker

def app(concurrency=4):
    broker = RedisBroker(os.environ["LANE_OBS_URL"], queue=os.environ["QUEUE"], lease={LEASE}, concurrency=concurrency)
    return QueueManager({{"a": LaneConfig(0, 8)}}, broker=broker)
"""


@command("app.add")
async def add(a: int, b: int) -> int:
    raise NotImplementedError("the worker's own runs")


@command("app.hold")
async def hold() -> None:
    raise NotImplementedError("the worker's own runs")


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    with Server(require_engine("redis"), config={"requirepass": "very-secret"}) as server:
        yield server


@pytest.fixture
def start(redis: Server, tmp_path: Path) -> Callable[..., Worker]:
    """A worker on a queue of the test's own."""
    write_app(tmp_path, APP)
    queue = f"q{uuid.uuid4().hex}"

    def make(*options: object, url: str = redis.url) -> Worker:
        return Worker(tmp_path, "app:app", *options, LANE_OBS_URL=url, QUEUE=queue)

    make.queue = queue  # type: ignore[attr-defined]
    return make


def producer(server: Server, start: Any) -> QueueManager:
    return QueueManager(LANES, broker=RedisBroker(server.url, queue=start.queue), work=False)


async def in_thread(call: Callable[..., Any], *args: object, **named: object) -> Any:
    return await asyncio.to_thread(call, *args, **named)


async def test_commands_run_and_their_results_come_back(redis: Server, start: Callable[..., Worker]) -> None:
    with start("--processes", 2, "--concurrency", 3, "--metrics-port", 0) as worker:
        await in_thread(worker.wait_ready, 2)
        async with producer(redis, start) as manager:
            handles = [await manager.submit("a", add, number, 1) for number in range(50)]
            assert [await handle for handle in handles] == list(range(1, 51))
            stats = await manager.cluster.stats()
        assert sorted((member.works, member.concurrency) for member in stats.members)[1:] == [(True, 3), (True, 3)]

        def all_counted() -> bool:
            found = worker.samples()
            ended = 'lane_commands_finished_total{{process="{}",lane="a",outcome="ok",queue="default"}}'
            return sum(found.get(ended.format(place), 0) for place in "01") == 50

        await in_thread(poll, all_counted, "both processes' commands are counted")
        leads = await in_thread(poll, lambda: [name for name in worker.samples() if is_depth(name)], "one leads")
        assert len(leads) == 1
        worker.tell(signal.SIGTERM)
        assert await in_thread(worker.code) == 0
    assert "very-secret" not in worker.text


def is_depth(series: str) -> bool:
    return series.startswith("lane_cluster_queue_depth{") and 'state="ready"' in series


async def test_what_a_killed_process_ran_goes_on_in_another(
    redis: Server, start: Callable[..., Worker], tmp_path: Path
) -> None:
    with start() as worker:
        (pid,) = await in_thread(worker.wait_ready)
        async with producer(redis, start) as manager:
            handle = await manager.submit("a", hold, id="held")
            assert await in_thread(worker.wait_held) == [pid]
            os.kill(pid, signal.SIGKILL)
            (died,) = await in_thread(worker.wait_for, "worker.died")
            assert died["code"] == -9
            held = await in_thread(worker.wait_held, 2)
            assert pid in held
            (successor,) = set(held) - {pid}
            assert is_there(successor)
            found = await manager.cluster.find("held")
            assert found is not None
            assert (found.state, found.attempt) == ("running", 2)
            (tmp_path / "go").touch()
            assert await handle is None
            assert (await manager.cluster.stats()).returned == 1
    assert (tmp_path / f"done-{successor}").exists()


async def test_a_signal_drains_what_runs_and_leaves_the_rest_to_others(
    redis: Server, start: Callable[..., Worker], tmp_path: Path
) -> None:
    with start("--concurrency", 1) as worker:
        await in_thread(worker.wait_ready)
        async with producer(redis, start) as manager:
            running = await manager.submit("a", hold)
            waiting = await manager.submit("a", add, 1, 2)
            await in_thread(worker.wait_held)
            worker.tell(signal.SIGTERM)
            await in_thread(worker.wait_for, "workers.stopping")
            (tmp_path / "go").touch()
            assert await running is None
            assert await in_thread(worker.code) == 0
            assert (await manager.cluster.stats()).lanes["a"].ready == 1
            with start():
                assert await waiting == 3


async def test_a_second_signal_gives_back_what_runs_at_once(redis: Server, start: Callable[..., Worker]) -> None:
    with start("--drain-timeout", 600) as worker:
        await in_thread(worker.wait_ready)
        async with producer(redis, start) as manager:
            await manager.submit("a", hold, id="held")
            await in_thread(worker.wait_held)
            for how in ("drain", "close"):
                worker.tell(signal.SIGTERM)
                await in_thread(worker.wait_for, "workers.stopping", how=how)
            assert await in_thread(worker.code) == 1
            found = await manager.cluster.find("held")  # no lease had to end for it
            assert found is not None
            assert (found.state, found.worker) == ("ready", "")
            assert (await manager.cluster.stats()).returned == 0
    assert worker.events("worker.ended", left=1)


async def test_a_server_that_is_not_there_yet_is_waited_for(start: Callable[..., Worker]) -> None:
    with Server(require_engine("redis"), config={"requirepass": "very-secret"}) as later:
        url = later.url
        later.kill()
        with start(url=url) as worker:
            (died, *_) = await in_thread(worker.wait_for, "worker.died")
            assert re.search(r"127\.0\.0\.1:\d+", died["error"])
            later.start()
            await in_thread(worker.wait_for, "worker.ready")
            assert "very-secret" not in worker.text
