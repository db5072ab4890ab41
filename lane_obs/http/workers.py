"""The pages of a supervisor: what its processes say, in one answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from lane_obs.http.fetch import fetch
from lane_obs.http.server import Running, check_address, listen, url_of
from lane_obs.http.text import write_families

if TYPE_CHECKING:
    from starlette.requests import Request

    from lane_obs.http.merged import MergedMetrics, Worker, Workers

_THREADS: Final = 32


class WorkersServer:
    """Serves `/metrics`, `/livez`, `/readyz` and `/stats` of several processes, from a thread.

    Args:
        workers: the processes.
        metrics: joins their metrics.
        port: TCP port; 0 for any free one.
        host: address to listen on. Whoever reaches it can read everything that the four pages show.

    Raises:
        ConfigError: a bad value.
    """

    def __init__(self, workers: Workers, metrics: MergedMetrics, port: int, host: str = "127.0.0.1") -> None:
        check_address(port, host)
        self._workers, self._metrics = workers, metrics
        self._port, self._host = port, host
        self._running: Running | None = None

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return url_of(self._host, self._port if self._running is None else self._running.port)

    def start(self) -> None:
        """Listens and serves.

        Raises:
            ConfigError: the port is in use or not allowed, or the host is not this machine's.
        """
        pages = {"/metrics": self._show_metrics, "/livez": self._livez, "/readyz": self._readyz, "/stats": self._stats}
        app = Starlette(routes=[Route(path, page, methods=["GET"]) for path, page in pages.items()])
        self._running = Running(app, listen(self._host, self._port))

    def close(self) -> None:
        """Ends it and frees the port."""
        running, self._running = self._running, None
        if running is not None:
            running.close()

    # No coroutines: Starlette calls each page in a thread.

    def _show_metrics(self, request: Request) -> Response:
        text, content_type = write_families(self._metrics.families(), ",".join(request.headers.getlist("accept")))
        return Response(text, headers={"content-type": content_type})

    def _livez(self, _request: Request) -> Response:
        return self._probe("/livez", "alive", "not_alive", without_page=True)

    def _readyz(self, _request: Request) -> Response:
        return self._probe("/readyz", "ready", "not_ready", without_page=False)

    def _probe(self, path: str, good: str, bad: str, *, without_page: bool) -> Response:
        """Well when all processes are; one without pages is what it says."""
        answers = self._ask(path)
        well = all(without_page if answer is None else answer[0] == 200 for _, answer in answers)
        told = {worker.name: _told(worker, answer) for worker, answer in answers}
        return _json({"status": good if well else bad, "workers": told}, 200 if well else 503)

    def _stats(self, _request: Request) -> Response:
        told = {}
        for worker, answer in self._ask("/stats"):
            fields: dict[str, Any] = {"run": worker.run, "state": worker.state, "restarted": worker.restarted}
            told[worker.name] = {**fields, "stats": _told(worker, answer) if answer is not None else None}
        return _json({"workers": told})

    def _ask(self, path: str) -> list[tuple[Worker, tuple[int, bytes] | None]]:
        """What each process answers; `None` for those without pages."""
        workers = self._workers()
        with ThreadPoolExecutor(_THREADS, "lane-obs-ask") as pool:
            return list(zip(workers, pool.map(lambda worker: _answer(worker, path), workers), strict=True))


def _answer(worker: Worker, path: str) -> tuple[int, bytes] | None:
    if worker.url is None:
        return None
    try:
        return fetch(worker.url, path)
    except OSError:
        return 0, b'{"status":"no_answer"}'


def _told(worker: Worker, answer: tuple[int, bytes] | None) -> Any:
    return {"status": worker.state} if answer is None else msgspec.Raw(answer[1])


def _json(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, {"cache-control": "no-store"}, "application/json")
