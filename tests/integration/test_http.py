"""The built-in server, over real HTTP: it answers while the queue's loop is blocked, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic
from starlette.applications import Starlette
from starlette.routing import Mount

from lane_obs import ConfigError, LaneConfig, QueueManager
from lane_obs.bus import ThreadedSink
from lane_obs.http import MetricsServer, create_app, server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import Metric

LANES = {"a": LaneConfig(1, 2)}
PATIENCE = 20.0


@pytest.fixture
def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    counter = Counter("done", "Done.", ["lane"], registry=made)
    counter.labels("a").inc(5, {"trace_id": "ab" * 16})
    return made


@pytest.fixture
def metrics_server(registry: CollectorRegistry) -> MetricsServer:
    return MetricsServer(port=0, registry=registry)


class Blocker:
    """A command that blocks the queue's loop while `meanwhile` runs in another thread."""

    def __init__(self, meanwhile: Callable[[], Any]) -> None:
        self._blocked = threading.Event()
        self._release = threading.Event()
        self._meanwhile = meanwhile
        self.result: Any = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            assert self._blocked.wait(PATIENCE)
            self.result = self._meanwhile()
        finally:
            self._release.set()

    async def command(self) -> None:
        self._thread.start()
        self._blocked.set()
        assert self._release.wait(PATIENCE)
        self._thread.join(PATIENCE)


async def get(url: str, **options: Any) -> httpx.Response:
    # In a thread: anyio's connect, which httpx's async client uses, breaks under coverage's tracer in Python 3.11.
    return await asyncio.to_thread(httpx.get, url, timeout=PATIENCE, **options)


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def no_thread_is_left() -> bool:
    """Whether the server's threads are gone; an idle worker may still be in its last instructions."""
    for thread in threading.enumerate():
        if thread.name.startswith(("lane-obs-http", "AnyIO")):
            thread.join(PATIENCE)
            if thread.is_alive():
                return False
    return True


# --- the pages --------------------------------------------------------------------------------------------------


async def test_metrics_come_in_the_format_that_the_scraper_accepts(metrics_server: MetricsServer) -> None:
    async with QueueManager(LANES, sinks=[metrics_server]):
        classic = await get(f"{metrics_server.url}/metrics")
        accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        modern = await get(f"{metrics_server.url}/metrics", headers={"accept": accept})
    assert classic.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert modern.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    (before,) = [family for family in parse_classic(classic.text) if family.name == "done"]
    (after,) = parse_openmetrics(modern.text)  # type: ignore[no-untyped-call]
    assert [sample.value for sample in before.samples if sample.name == "done_total"] == [5.0]
    (total,) = [sample for sample in after.samples if sample.name == "done_total"]
    assert total.exemplar is not None
    assert total.exemplar.labels == {"trace_id": "ab" * 16}


async def test_every_page_answers_and_says_nothing_of_the_server(metrics_server: MetricsServer) -> None:
    async with QueueManager(LANES, sinks=[metrics_server]):
        for path in ("/metrics", "/livez", "/readyz", "/stats"):
            answer = await get(metrics_server.url + path)
            assert answer.status_code == 200, path
            assert "server" not in answer.headers
        assert (await get(f"{metrics_server.url}/nothing")).status_code == 404


async def test_it_says_that_the_queue_drains_until_the_queue_is_closed(metrics_server: MetricsServer) -> None:
    manager = QueueManager(LANES, sinks=[metrics_server])
    await manager.start()
    url = metrics_server.url
    assert (await get(f"{url}/readyz")).status_code == 200
    await manager.shutdown()
    answer = await get(f"{url}/readyz")
    assert (answer.status_code, answer.json()["reason"]) == (503, "draining")
    assert (await get(f"{url}/livez")).status_code == 200
    await manager.drain()
    await manager.close()
    with pytest.raises(httpx.ConnectError):
        await get(f"{url}/readyz")


# --- while the loop is blocked ----------------------------------------------------------------------------------


async def test_metrics_and_livez_answer_while_a_command_blocks_the_loop(metrics_server: MetricsServer) -> None:
    async with QueueManager(LANES, sinks=[metrics_server]) as manager:
        paths = ("/metrics", "/livez", "/readyz", "/stats")
        blocker = Blocker(lambda: [httpx.get(metrics_server.url + path, timeout=PATIENCE) for path in paths])
        await (await manager.submit("a", blocker.command))
        after = await get(f"{metrics_server.url}/livez")
    metrics, livez, readyz, stats = blocker.result
    assert "done_total" in metrics.text
    assert (livez.status_code, livez.json()["status"]) == (200, "late")
    assert readyz.status_code == 200
    assert stats.json()["lanes"]["a"]["running"] == 1
    assert (after.status_code, after.json()["status"]) == (200, "alive")


async def test_a_loop_that_is_blocked_for_too_long_is_not_live_and_recovers() -> None:
    metrics_server = MetricsServer(port=0, registry=CollectorRegistry(), stale_after=0.01)
    async with QueueManager(LANES, sinks=[metrics_server]) as manager:
        blocker = Blocker(lambda: httpx.get(f"{metrics_server.url}/livez", timeout=PATIENCE))
        await (await manager.submit("a", blocker.command))
        after = await get(f"{metrics_server.url}/livez")
    assert blocker.result.status_code == 503
    assert blocker.result.json()["status"] == "stale"
    assert blocker.result.json()["age_seconds"] >= 0.01
    assert after.status_code == 200


# --- start and end ----------------------------------------------------------------------------------------------


async def test_a_port_in_use_fails_the_start_with_an_error_that_names_it(registry: CollectorRegistry) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        manager = QueueManager(LANES, sinks=[MetricsServer(port, registry=registry)])
        with pytest.raises(ConfigError, match=rf"port: {port} .* in use on 127.0.0.1"):
            await manager.start()
        assert not manager.is_started()
    await manager.start()  # the port is free now, and nothing of the first try is in the way
    assert manager.is_started()
    await manager.close()
    assert no_thread_is_left()


async def test_two_servers_on_one_port_are_refused(metrics_server: MetricsServer, registry: CollectorRegistry) -> None:
    async with QueueManager(LANES, sinks=[metrics_server]):
        second = QueueManager(LANES, sinks=[MetricsServer(metrics_server.port, registry=registry)])
        with pytest.raises(ConfigError, match="in use"):
            await second.start()
        assert (await get(f"{metrics_server.url}/readyz")).status_code == 200


def test_a_port_that_is_not_allowed_is_named() -> None:
    field, value, advice = server._refusal("127.0.0.1", 80, PermissionError(errno.EACCES, "Permission denied"))
    assert (field, value) == ("port", 80)
    assert "may not listen" in advice


@pytest.mark.parametrize("host", ["203.0.113.1", "x" * 70])
async def test_a_host_that_is_not_this_machines_fails_the_start(host: str) -> None:
    manager = QueueManager(LANES, sinks=[MetricsServer(0, host)])
    with pytest.raises(ConfigError, match=r"host: .* address of this machine"):
        await manager.start()


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("port", {"port": -1}),
        ("port", {"port": 65_536}),
        ("port", {"port": "9464"}),
        ("port", {"port": True}),
        ("host", {"host": ""}),
        ("host", {"host": None}),
        ("stale_after", {"stale_after": 0}),
    ],
)
def test_a_bad_value_is_named(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        MetricsServer(**values)
    assert caught.value.field == field


async def test_close_frees_the_port_and_ends_the_threads(metrics_server: MetricsServer) -> None:
    async with QueueManager(LANES, sinks=[metrics_server]):
        port = metrics_server.port
        assert port != 0
        assert (await get(f"{metrics_server.url}/livez")).status_code == 200
    assert refuses(port)
    assert no_thread_is_left()
    assert metrics_server.port == 0
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


async def test_an_open_connection_does_not_hold_up_the_close(metrics_server: MetricsServer) -> None:
    with socket.socket() as half, httpx.Client(timeout=PATIENCE) as http:
        async with QueueManager(LANES, sinks=[metrics_server]):
            url, port = f"{metrics_server.url}/livez", metrics_server.port
            await asyncio.to_thread(http.get, url)  # kept alive by the client
            half.connect(("127.0.0.1", port))
            half.sendall(b"GET /livez HT")
            await asyncio.to_thread(http.get, url)
        assert refuses(port)
        assert no_thread_is_left()


async def test_start_and_close_twice_are_start_and_close_once(metrics_server: MetricsServer) -> None:
    async with QueueManager(LANES) as manager:
        metrics_server.attach(manager)
        metrics_server.start()
        url = metrics_server.url
        metrics_server.start()
        assert metrics_server.url == url
        assert [thread.name for thread in threading.enumerate()].count("lane-obs-http") == 1
        assert (await get(f"{url}/readyz")).status_code == 200
        metrics_server.close()
        metrics_server.close()
        assert no_thread_is_left()


async def test_it_may_start_again_after_its_close_and_be_given_to_the_next_queue(metrics_server: MetricsServer) -> None:
    for lane in ("first", "second"):
        async with QueueManager({lane: LaneConfig(1, 2)}, sinks=[metrics_server]):
            assert list((await get(f"{metrics_server.url}/stats")).json()["lanes"]) == [lane]
    assert no_thread_is_left()


async def test_one_that_serves_refuses_another_queue(metrics_server: MetricsServer) -> None:
    async with QueueManager(LANES, sinks=[metrics_server]):
        with pytest.raises(ConfigError, match="another queue"):
            QueueManager(LANES, sinks=[metrics_server])
        assert (await get(f"{metrics_server.url}/readyz")).status_code == 200


def test_close_at_once_after_the_start_ends_the_thread(metrics_server: MetricsServer) -> None:
    metrics_server.attach(QueueManager(LANES))
    metrics_server.start()
    metrics_server.close()
    assert no_thread_is_left()


def test_one_that_has_no_queue_says_so_and_may_be_closed() -> None:
    lonely = MetricsServer(0)
    lonely.close()
    with pytest.raises(ConfigError, match="give it to a queue"):
        lonely.start()


def test_it_is_a_sink_that_wants_no_events_and_closes_in_a_thread(metrics_server: MetricsServer) -> None:
    assert isinstance(metrics_server, ThreadedSink)
    assert list(metrics_server.wants) == []
    metrics_server.handle([])
    assert metrics_server.take_failure() is None


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_it_listens_on_ipv6() -> None:
    metrics_server = MetricsServer(0, "::1", CollectorRegistry())
    async with QueueManager(LANES, sinks=[metrics_server]):
        assert metrics_server.url == f"http://[::1]:{metrics_server.port}"
        assert (await get(f"{metrics_server.url}/readyz")).status_code == 200


async def test_a_collector_that_hangs_holds_up_no_other_page_and_the_close_not_for_long() -> None:
    entered, release = threading.Event(), threading.Event()

    class Hanging:
        def collect(self) -> Iterator[Metric]:
            entered.set()
            assert release.wait(PATIENCE)
            yield from ()

        def describe(self) -> list[Metric]:
            return []

    registry = CollectorRegistry()
    registry.register(Hanging())
    metrics_server = MetricsServer(0, registry=registry)

    def scrape() -> None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{metrics_server.url}/metrics", timeout=PATIENCE)

    client = threading.Thread(target=scrape)
    try:
        async with QueueManager(LANES, sinks=[metrics_server]):
            port = metrics_server.port
            client.start()
            assert entered.wait(PATIENCE)
            livez = await get(f"{metrics_server.url}/livez")
        assert livez.status_code == 200
        assert refuses(port)
        assert "lane-obs-http" not in [thread.name for thread in threading.enumerate()]
    finally:
        release.set()
        client.join(PATIENCE)
    assert no_thread_is_left()


# --- a good guest -----------------------------------------------------------------------------------------------


async def test_it_logs_and_prints_nothing_and_leaves_the_loggers_of_other_servers_alone(
    metrics_server: MetricsServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    access, error = logging.getLogger("uvicorn.access"), logging.getLogger("uvicorn.error")
    handler = logging.NullHandler()
    access.addHandler(handler)
    try:
        with caplog.at_level(logging.DEBUG):
            async with QueueManager(LANES, sinks=[metrics_server]):
                await get(f"{metrics_server.url}/metrics")
                with socket.create_connection(("127.0.0.1", metrics_server.port)) as rude:
                    rude.sendall(b"\x00 this is no HTTP \r\n\r\n")
                    assert rude.recv(100).startswith(b"HTTP/1.1 400")
                error.info("of another server")
        assert access.handlers == [handler]
        assert access.propagate
        assert error.filters == []
    finally:
        access.removeHandler(handler)
    assert [r.getMessage() for r in caplog.records if r.name.startswith("uvicorn")] == ["of another server"]
    assert capfd.readouterr() == ("", "")


async def test_it_installs_no_signal_handlers(metrics_server: MetricsServer) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    async with QueueManager(LANES, sinks=[metrics_server]):
        await get(f"{metrics_server.url}/livez")
        assert {number: signal.getsignal(number) for number in before} == before


def test_a_process_that_never_closes_it_ends_all_the_same() -> None:
    program = """
import asyncio, httpx
from lane_obs import QueueManager
from lane_obs.http import MetricsServer

async def main():
    server = MetricsServer(port=0)
    await QueueManager(sinks=[server]).start()
    answer = await asyncio.to_thread(httpx.get, server.url + "/metrics")
    print(answer.status_code)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "200\n", "")


async def test_the_app_runs_mounted_in_another_uvicorn_too(registry: CollectorRegistry) -> None:
    async with QueueManager(LANES) as manager:
        app = Starlette(routes=[Mount("/queue", create_app(manager, registry=registry))])
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            host = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
            thread = threading.Thread(target=host.run, kwargs={"sockets": [listener]})
            listener.listen()
            thread.start()
            try:
                url = f"http://127.0.0.1:{listener.getsockname()[1]}/queue"
                assert (await get(f"{url}/livez")).json()["status"] == "alive"
                assert "done_total" in (await get(f"{url}/metrics")).text
            finally:
                host.should_exit = True
                thread.join(PATIENCE)
    assert not thread.is_alive()
