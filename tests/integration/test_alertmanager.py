"""A real Alertmanager is told of alerts and tells a webhook; and servers in every kind of trouble hold nothing up."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import signal
import socket
import socketserver
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from lane_obs import Bus, LaneConfig, MemorySink, MonitorConfig, QueueManager, QueueMonitor, SystemClock
from lane_obs.alerts import Rule
from lane_obs.clock import sleep
from lane_obs.monitor.delivery import Delivery
from lane_obs.monitor.notify import Alert, AlertmanagerNotifier, AlertState, CallbackNotifier, WebhookNotifier
from lane_obs.sinks.prometheus import PrometheusSink
from tests.integration.services.alertmanager import Alertmanager, WebhookReceiver, amtool_check_config
from tests.integration.services.process import accepts, free_port, poll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Self

    from lane_obs.monitor.alert import Notifier
    from tests.integration.services.prometheus import Prometheus

PATIENCE = 20.0


def alert(state: str = "firing", lane: str | None = "query", **changes: Any) -> Alert:
    now = time.time()
    given = {
        "alert": "LaneOldestReadyAgeHigh",
        "rule": "oldest_ready_age",
        "severity": "warning",
        "state": AlertState(state),
        "queue": "demo",
        "lane": lane,
        "value": 75.0,
        "threshold": 60.0,
        "since": now - 5,
        "fired_at": now - 3,
        "ended_at": now if state == "resolved" else None,
        "summary": "commands wait for too long",
        "description": "75 s, above 60 s",
        "runbook": "https://runbook#oldest-ready-age",
    }
    return Alert(**{**given, **changes})


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


@pytest.fixture
def alertmanager(tmp_path: Path, receiver: WebhookReceiver) -> Iterator[Alertmanager]:
    """A running Alertmanager that posts to `receiver`."""
    with Alertmanager(tmp_path / "alertmanager", receiver.url) as running:
        yield running


class Place:
    """A bus in real time, and the deliveries made on it; closed at the end."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.sink = MemorySink()
        self.bus = Bus(self.clock, [self.sink])
        self.made: list[Delivery] = []

    async def __aenter__(self) -> Self:
        self.bus.bind(asyncio.get_running_loop())
        return self

    async def __aexit__(self, *_: object) -> None:
        for delivery in self.made:
            await delivery.close(1)
            counts = delivery.counts
            settled = counts["sent"] + counts["failed"] + counts["dropped"] + counts["replaced"]
            assert (counts["offered"], delivery.pending) == (settled, 0)

    def delivery(self, notifier: Notifier, **options: Any) -> Delivery:
        made = Delivery(notifier, self.clock, self.bus, **options)
        made.start()
        self.made.append(made)
        return made

    async def told(self, what: str, notifier: str, count: int) -> None:
        """Waits until so many events of this kind and notifier have come."""
        found = 0

        def is_last(event: Any) -> bool:
            nonlocal found
            found += event.key == f"queue.alert.{what}" and event.notifier == notifier
            return found == count

        async with asyncio.timeout(PATIENCE):
            await self.sink.wait_for(is_last)


async def in_thread(call: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.to_thread(call, *args)


# --- Alertmanager -----------------------------------------------------------------------------------------------


async def test_alertmanager_gets_both_ends_of_an_alert_and_passes_them_on(
    alertmanager: Alertmanager, receiver: WebhookReceiver
) -> None:
    async with Place() as place:
        delivery = place.delivery(AlertmanagerNotifier(alertmanager.url, labels={"cluster": "eü"}))
        odd = 'präzise "x" \\ {}'
        delivery.offer([alert(), alert(lane=odd, severity="critical", trace_id="ab" * 16), alert(lane=None)])
        await in_thread(receiver.wait_for, lambda payloads: len(payloads) == 3)
        active = await in_thread(alertmanager.alerts)
        assert {found["labels"].get("lane") for found in active} == {"query", odd, None}
        first = next(found for found in active if found["labels"].get("lane") == "query")
        assert first["labels"] == {
            "alertname": "LaneOldestReadyAgeHigh", "severity": "warning", "queue": "demo", "lane": "query",
            "cluster": "eü",
        }  # fmt: skip
        assert first["annotations"] == {
            "summary": "commands wait for too long",
            "description": "75 s, above 60 s",
            "runbook_url": "https://runbook#oldest-ready-age",
        }

        delivery.offer([alert("resolved"), alert("resolved", odd, severity="critical")])
        payloads = await in_thread(receiver.wait_for, lambda payloads: len(payloads) == 5)
        assert [payload["status"] for payload in payloads] == ["firing"] * 3 + ["resolved"] * 2
        ended = {found["labels"]["lane"]: found for payload in payloads[3:] for found in payload["alerts"]}
        assert set(ended) == {"query", odd}
        left = await in_thread(alertmanager.wait_for_alerts, lambda alerts: len(alerts) == 1)
        assert "lane" not in left[0]["labels"]
    assert delivery.counts == {"offered": 5, "sent": 5, "retried": 0, "failed": 0, "dropped": 0, "replaced": 0}


async def test_a_monitor_tells_alertmanager_and_its_metrics_count_it(
    alertmanager: Alertmanager, receiver: WebhookReceiver
) -> None:
    registry = CollectorRegistry()
    config = MonitorConfig(
        interval=0.05,
        rules=(Rule(measure="ready_depth", warning=2),),
        notifiers=(AlertmanagerNotifier(alertmanager.url), WebhookNotifier(f"http://127.0.0.1:{free_port()}/s3cret")),
        queue="demo",
    )
    sinks = [PrometheusSink(registry=registry, queue="demo"), MemorySink()]
    async with QueueManager({"query": LaneConfig(0, 1)}, sinks=sinks) as manager:
        monitor = QueueMonitor(manager, config)
        await monitor.start()
        gate = asyncio.Event()
        await manager.submit_many("query", [gate.wait] * 5)
        firing = await in_thread(receiver.wait_for, lambda payloads: len(payloads) == 1)
        gate.set()
        resolved = await in_thread(receiver.wait_for, lambda payloads: len(payloads) == 2)
        await monitor.stop()
        manager.bus.flush()
        samples = {
            (sample.labels["notifier"], sample.labels["outcome"]): sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == "lane_alert_notifications_total"
        }
    labels = {"alertname": "LaneReadyDepthHigh", "severity": "warning", "queue": "demo", "lane": "query"}
    assert [payload["status"] for payload in (firing[0], resolved[1])] == ["firing", "resolved"]
    assert [payload["commonLabels"] for payload in resolved] == [labels] * 2
    assert samples["alertmanager", "sent"] == 2
    assert samples["alertmanager", "failed"] == samples["alertmanager", "dropped"] == 0
    assert samples["webhook", "sent"] == 0
    assert samples["webhook", "failed"] + samples["webhook", "dropped"] == 2
    assert samples["webhook", "retried"] >= 1


async def test_the_webhook_notifier_posts_what_alertmanager_posts(
    alertmanager: Alertmanager, receiver: WebhookReceiver
) -> None:
    """The same alerts over both ways: whoever understands the one understands the other."""
    at = int(time.time()) - 10 + 0.125  # Go leaves out zeros at the end
    times = {"since": at, "fired_at": at + 1}
    states = [
        alert(lane='präzise "x"', trace_id="ab" * 16, **times),
        alert("resolved", 'präzise "x"', ended_at=at + 5, **times),
    ]
    ways: list[Notifier] = [
        AlertmanagerNotifier(alertmanager.url, generator_url="http://dash"),
        WebhookNotifier(receiver.url, generator_url="http://dash"),
    ]
    turns = [(state, notifier) for state in states for notifier in ways]
    for count, (state, notifier) in enumerate(turns, 1):
        await notifier.notify([state])
        await in_thread(receiver.wait_for, lambda payloads, count=count: len(payloads) == count)
    for notifier in ways:
        await notifier.close()
    theirs_firing, ours_firing, theirs_resolved, ours_resolved = receiver.payloads
    for theirs, ours in ((theirs_firing, ours_firing), (theirs_resolved, ours_resolved)):
        assert set(ours) == set(theirs)
        assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in theirs.items()}
        for same in ("version", "status", "receiver", "truncatedAlerts", "commonLabels"):
            assert ours[same] == theirs[same]
        assert ours["alerts"] == theirs["alerts"]


async def test_an_alert_lives_while_it_is_refreshed_and_ends_when_its_process_is_gone(
    alertmanager: Alertmanager, receiver: WebhookReceiver
) -> None:
    async with Place() as place:
        notifier = AlertmanagerNotifier(alertmanager.url, refresh_seconds=0.25, resolve_after=3)
        delivery = place.delivery(notifier)
        assert delivery.refresh_seconds == 0.25
        first = alert()
        until = place.clock.now() + 5
        while place.clock.now() < until:  # as the monitor does
            delivery.offer([first])
            await sleep(place.clock, delivery.refresh_seconds)
        assert [payload["status"] for payload in receiver.payloads] == ["firing"]
        assert len(await in_thread(alertmanager.alerts)) == 1
    # Nobody says that it is over.
    payloads = await in_thread(receiver.wait_for, lambda payloads: len(payloads) == 2)
    assert payloads[1]["status"] == "resolved"


async def test_an_alertmanager_that_is_away_misses_what_is_counted_and_gets_the_rest(
    alertmanager: Alertmanager, receiver: WebhookReceiver
) -> None:
    async with Place() as place:
        delivery = place.delivery(AlertmanagerNotifier(alertmanager.url), attempts=3, first_delay=0.01, timeout=2)
        await in_thread(alertmanager.stop)
        delivery.offer([alert(), alert(lane="other")])
        await place.told("notification_failed", "alertmanager", 3)
        assert (delivery.counts["retried"], delivery.counts["failed"]) == (4, 2)
        await in_thread(alertmanager.start)
        delivery.offer([alert()])
        await in_thread(receiver.wait_for, lambda payloads: len(payloads) == 1)
    assert delivery.counts["sent"] == 1


async def test_an_alertmanager_that_stands_still_is_waited_for_within_bounds(
    alertmanager: Alertmanager, receiver: WebhookReceiver
) -> None:
    assert alertmanager._process is not None
    async with Place() as place:
        notifier = AlertmanagerNotifier(alertmanager.url, timeout=0.5)
        delivery = place.delivery(notifier, attempts=100, first_delay=0.01, max_delay=0.1)
        alertmanager._process.send_signal(signal.SIGSTOP)
        try:
            delivery.offer([alert()])
            await place.told("notification_failed", "alertmanager", 2)
        finally:
            alertmanager._process.send_signal(signal.SIGCONT)
        await in_thread(receiver.wait_for, lambda payloads: len(payloads) == 1)
        await place.told("notified", "alertmanager", 1)
    assert delivery.counts["failed"] == 0


def test_prometheus_and_alertmanager_agree_on_an_alert(
    alertmanager: Alertmanager, receiver: WebhookReceiver, start_prometheus: Callable[..., Prometheus], tmp_path: Path
) -> None:
    rule = {"alert": "TargetDown", "expr": "up == 0", "labels": {"severity": "critical"}}
    rules = tmp_path / "rules.yml"
    rules.write_text(json.dumps({"groups": [{"name": "all", "rules": [rule]}]}))
    port = free_port()
    start_prometheus({"app": f"127.0.0.1:{port}"}, rule_files=[rules], alertmanagers=[alertmanager.address])
    firing = receiver.wait_for(lambda payloads: len(payloads) == 1)
    assert (firing[0]["status"], firing[0]["commonLabels"]["alertname"]) == ("firing", "TargetDown")
    with MetricsPage(port):
        resolved = receiver.wait_for(lambda payloads: len(payloads) == 2)
    assert resolved[1]["status"] == "resolved"


class MetricsPage:
    """Something to scrape."""

    def __init__(self, port: int) -> None:
        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Page)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def test_amtool_knows_a_good_file_from_a_bad_one(alertmanager: Alertmanager, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yml", tmp_path / "bad.yml"
    good.write_text(json.dumps(alertmanager.config))
    bad.write_text(json.dumps({**alertmanager.config, "route": {"receiver": "nobody"}}))
    assert amtool_check_config(good) == []
    assert any("nobody" in line for line in amtool_check_config(bad))


def test_the_harness_has_alertmanager_post_elsewhere(alertmanager: Alertmanager, receiver: WebhookReceiver) -> None:
    async def tell() -> None:
        notifier = AlertmanagerNotifier(alertmanager.url)
        await notifier.notify([alert()])
        await notifier.close()

    with WebhookReceiver() as other:
        alertmanager.reload(other.url)
        asyncio.run(tell())
        other.wait_for(lambda payloads: len(payloads) == 1)
    assert receiver.requests == []


# --- servers in trouble -----------------------------------------------------------------------------------------


class Troubled:
    """A server on a real socket that answers requests as it is told to; use it as a context manager.

    `mood` is one of: well, error, hang, reset, cut, garbage, trickle, slow.
    """

    def __init__(self, mood: str, port: int = 0) -> None:
        self.mood = mood
        self.requests = 0
        self._over = threading.Event()
        troubled = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                troubled._answer(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = False

            def handle_error(self, *_: object) -> None:
                pass  # the other side went away

        self._server = Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, connection: socket.socket) -> None:
        mood = self.mood
        with contextlib.suppress(OSError):
            connection.settimeout(PATIENCE)
            head, _, body = self._read_head(connection).partition(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
            )
            while len(body) < length:
                body += connection.recv(65_536)
            self.requests += 1
            getattr(self, f"_{mood}")(connection)

    def _read_head(self, connection: socket.socket) -> bytes:
        read = b""
        while b"\r\n\r\n" not in read:
            if not (chunk := connection.recv(65_536)):
                raise ConnectionError
            read += chunk
        return read

    def _well(self, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def _error(self, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 500 Oh\r\nContent-Length: 9999999\r\n\r\nwho reads this")

    def _hang(self, _: socket.socket) -> None:
        self._over.wait()

    def _reset(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _cut(self, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 O")

    def _garbage(self, connection: socket.socket) -> None:
        connection.sendall(b"\x00\xffwhat?\r\n\r\n" * 1_000)

    def _trickle(self, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not self._over.wait(0.05):
            connection.sendall(b"x")

    def _slow(self, connection: socket.socket) -> None:
        self._over.wait(0.2)
        self._well(connection)


@pytest.mark.both_loops
@pytest.mark.parametrize("mood", ["error", "hang", "reset", "cut", "garbage", "trickle"])
@pytest.mark.parametrize("make", [WebhookNotifier, AlertmanagerNotifier])
async def test_a_server_in_trouble_holds_nothing_up_and_gets_what_comes_once_it_is_well(
    make: type[WebhookNotifier], mood: str
) -> None:
    told: list[str | None] = []
    silent = mood in {"hang", "trickle"}  # only these use up their time; a busy machine must not make others do so
    with Troubled(mood) as server:
        async with Place() as place:
            notifier = make(server.url, timeout=0.5 if silent else PATIENCE)
            bad = place.delivery(notifier, attempts=3, first_delay=0.01, max_delay=0.02, capacity=3)
            good = place.delivery(CallbackNotifier(lambda alert: told.append(alert.lane)))
            for delivery in (bad, good):
                delivery.offer([alert(), alert(lane="other")])
            await place.told("notified", "<lambda>", 2)
            assert told == ["query", "other"]
            assert bad.pending == 2  # the good one did not wait for it

            await place.told("notification_failed", notifier.name, 3)
            assert (bad.counts["retried"], bad.counts["failed"]) == (4, 2)
            assert server.requests == 3 or silent
            bad.offer([alert(lane=str(number)) for number in range(10)])  # more than may wait
            assert bad.counts["dropped"] == 7
            server.mood = "well"
            await place.told("notified", notifier.name, 1)
    assert bad.counts["sent"] == 3


async def test_a_slow_server_is_waited_for() -> None:
    with Troubled("slow") as server:
        async with Place() as place:
            notifier = WebhookNotifier(server.url)
            delivery = place.delivery(notifier)
            delivery.offer([alert()])
            await place.told("notified", "webhook", 1)
    assert (delivery.counts["retried"], server.requests) == (0, 1)


async def test_a_port_that_nobody_listens_on_is_tried_until_somebody_does() -> None:
    port = free_port()
    async with Place() as place:
        notifier = WebhookNotifier(f"http://127.0.0.1:{port}")
        delivery = place.delivery(notifier, attempts=1_000, first_delay=0.01, max_delay=0.05)
        delivery.offer([alert()])
        await place.told("notification_failed", "webhook", 3)
        with Troubled("well", port) as server:
            await place.told("notified", "webhook", 1)
            assert server.requests == 1
    assert delivery.counts["sent"] == 1


async def test_a_port_with_a_full_backlog_is_no_trap() -> None:
    """Connections are neither refused nor taken: the kernel drops them."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(3):
            other = waiting.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(("127.0.0.1", port))
        async with Place() as place:
            delivery = place.delivery(
                WebhookNotifier(f"http://127.0.0.1:{port}", timeout=0.2), attempts=2, first_delay=0
            )
            delivery.offer([alert()])
            await place.told("notification_failed", "webhook", 2)
    assert delivery.counts["failed"] == 1


async def test_closing_while_a_server_hangs_takes_no_longer_than_it_may() -> None:
    with Troubled("hang") as server:
        async with Place() as place:
            delivery = place.delivery(AlertmanagerNotifier(server.url))
            delivery.offer([alert(), alert(lane="other")])
            await in_thread(poll, lambda: server.requests or None, PATIENCE, lambda: "a request")
            began = time.monotonic()
            await delivery.close(0.3)
            assert 0.3 <= time.monotonic() - began < 5
        assert delivery.counts["dropped"] == 2
    assert not accepts(int(server.url.rpartition(":")[2]))
