"""The ASGI app. Its endpoints only read; they run in threads, so that none of them holds up an event loop."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from lane_obs.http.exposition import render
from lane_obs.http.heartbeat import Heartbeat
from lane_obs.runtime.manager import QueueManager

if TYPE_CHECKING:
    import asyncio

    from prometheus_client import CollectorRegistry
    from starlette.requests import Request

    from lane_obs.config import Duration
    from lane_obs.runtime.queue import CommandQueue

_logger = logging.getLogger("lane_obs.http")


def create_app(
    manager: CommandQueue, *, registry: CollectorRegistry | None = None, stale_after: Duration = 10.0
) -> Starlette:
    """Makes an app with `/metrics`, `/livez`, `/readyz` and `/stats` of one queue.

    It runs alone or is mounted into a Starlette or FastAPI app, in the queue's thread or another. To see that a
    command blocks the loop it has to run in another thread, as `MetricsServer` does it.

    Args:
        manager: the queue.
        registry: what `/metrics` shows; by default prometheus_client's own `REGISTRY`.
        stale_after: for how many seconds the queue's event loop may owe an answer before `/livez` fails.

    Raises:
        ConfigError: a bad `stale_after`.
    """
    endpoints = _Endpoints(
        manager, REGISTRY if registry is None else registry, Heartbeat(lambda: _loop(manager), stale_after)
    )
    return Starlette(
        routes=[
            Route("/metrics", endpoints.metrics, methods=["GET"]),
            Route("/livez", endpoints.livez, methods=["GET"]),
            Route("/readyz", endpoints.readyz, methods=["GET"]),
            Route("/stats", endpoints.stats, methods=["GET"]),
        ]
    )


class _Endpoints:
    """No coroutines: Starlette calls each in a thread."""

    def __init__(self, queue: CommandQueue, registry: CollectorRegistry, heartbeat: Heartbeat) -> None:
        self._queue = queue
        self._registry = registry
        self._heartbeat = heartbeat

    def metrics(self, request: Request) -> Response:
        names = request.query_params.getlist("name[]")
        registry = self._registry.restricted_registry(names) if names else self._registry
        try:
            text, content_type = render(registry, ",".join(request.headers.getlist("accept")))
        except Exception as error:  # a collector is anyone's code
            _logger.warning("the metrics cannot be rendered", exc_info=error)
            return Response(f"a collector failed: {type(error).__name__}\n", 500, media_type="text/plain")
        return Response(text, headers={"content-type": content_type})

    def livez(self, _request: Request) -> Response:
        pulse = self._heartbeat.check()
        return _json({"status": pulse.status, "age_seconds": pulse.age_seconds}, 200 if pulse.alive else 503)

    def readyz(self, _request: Request) -> Response:
        reason = _not_ready(self._queue)
        return _json({"status": "ready"}) if reason is None else _json({"status": "not_ready", "reason": reason}, 503)

    def stats(self, _request: Request) -> Response:
        return _json(self._queue.stats())


def _json(content: Any, status: int = 200) -> Response:
    # What is asked for is the state at this moment.
    return Response(msgspec.json.encode(content), status, {"cache-control": "no-store"}, "application/json")


def _not_ready(queue: CommandQueue) -> str | None:
    """Why the queue should get no traffic; `None` when it may."""
    refusing = isinstance(queue, QueueManager) and queue.is_shutting_down()
    if not queue.is_started():
        return "closed" if refusing else "not_started"
    if refusing:
        return "draining"
    if queue.broker is not None and not queue.broker.health().ready:
        return "broker_down"
    storage = queue.stats().storage
    if storage is None:
        return None
    return "storage_failed" if not storage.ready else None if storage.recovered else "recovering"


def _loop(queue: CommandQueue) -> asyncio.AbstractEventLoop | None:
    return queue._dispatcher.loop  # noqa: SLF001 - it is nobody else's business
