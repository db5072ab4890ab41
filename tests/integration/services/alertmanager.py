"""A real Alertmanager, amtool, and a receiver of webhooks on a real socket."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.integration.services.process import Service, ServiceError, free_port, poll
from tests.integration.services.tools import require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Self


class WebhookReceiver:
    """Takes what is posted to it and keeps it. Use it as a context manager.

    Attributes:
        answers: status codes to answer with, in order; then 200.
        headers: sent with each answer.
        requests: `(path, headers, body)` of all that came, in order; the body as text.
    """

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.headers: dict[str, str] = {}
        self.requests: list[tuple[str, dict[str, str], str]] = []
        self._grown = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="webhook-receiver")

    @property
    def url(self) -> str:
        """Where it serves, without a path."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def payloads(self) -> list[Any]:
        """The bodies, decoded."""
        with self._grown:
            return [json.loads(body) for _, _, body in self.requests]

    @property
    def alerts(self) -> list[dict[str, Any]]:
        """All alerts of all payloads, in order."""
        return [alert for payload in self.payloads for alert in payload["alerts"]]

    def wait_for(self, check: Callable[[list[Any]], bool], seconds: float = 30.0) -> list[Any]:
        """The payloads, once `check` says that they are complete."""
        deadline = time.monotonic() + seconds
        with self._grown:
            while not check(found := [json.loads(body) for _, _, body in self.requests]):
                if not self._grown.wait(deadline - time.monotonic()):
                    raise ServiceError(f"not posted within {seconds} s; all that was: {found}")
            return found

    def _take(self, path: str, headers: dict[str, str], body: str) -> int:
        with self._grown:
            self.requests.append((path, headers, body))
            self._grown.notify_all()
            return self.answers.pop(0) if self.answers else 200

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self.send_response(receiver._take(self.path, dict(self.headers), body))
                for name, value in {"Content-Length": "0", **receiver.headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class Alertmanager(Service):
    """An Alertmanager with its data in `directory`, that posts each alert to a webhook, by itself.

    It waits for as good as no time before it posts, and repeats nothing.

    Args:
        directory: for its files.
        webhook: the address to post to.
    """

    def __init__(self, directory: Path, webhook: str) -> None:
        super().__init__()
        self._binary = require("prometheus-alertmanager")
        self._directory = directory
        self._webhook = webhook
        self._port = 0

    @property
    def address(self) -> str:
        """Its `host:port`."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://{self.address}"

    @property
    def config(self) -> dict[str, Any]:
        """What it is configured with."""
        return {
            "route": {
                "receiver": "webhook",
                "group_by": ["..."],
                "group_wait": "50ms",
                "group_interval": "200ms",
                "repeat_interval": "1h",
            },
            "receivers": [
                {"name": "webhook", "webhook_configs": [{"url": self._webhook, "send_resolved": True}]},
            ],
        }

    def pick_ports(self) -> None:
        self._port = free_port()

    def command(self) -> Sequence[str]:
        return [
            self._binary,
            f"--config.file={self._write_config()}",
            f"--storage.path={self._directory / 'data'}",
            f"--web.listen-address={self.address}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]

    def _write_config(self) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / "alertmanager.yml"
        path.write_text(json.dumps(self.config))  # YAML takes JSON
        return path

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def reload(self, webhook: str) -> None:
        """Has it post to another address from now on."""
        self._webhook = webhook
        self._write_config()
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/-/reload", method="POST"), timeout=10):
            pass

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that it takes to be firing, with `labels`, `annotations`, `startsAt`, `endsAt`, `fingerprint`."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found

    def wait_for_alerts(
        self, check: Callable[[list[dict[str, Any]]], bool], seconds: float = 20.0
    ) -> list[dict[str, Any]]:
        """The alerts that fire, once `check` says that they are as they should be."""

        def found() -> list[dict[str, Any]] | None:
            now = self.alerts()
            return now if check(now) else None

        return poll(found, seconds, lambda: f"the alerts wanted; there are: {self.alerts()}")


def amtool_check_config(path: Path) -> list[str]:
    """What `amtool check-config` finds wrong with a file."""
    done = subprocess.run(
        [require("amtool"), "check-config", str(path)], capture_output=True, text=True, timeout=30, check=False
    )
    return (done.stderr + done.stdout).splitlines() if done.returncode else []
