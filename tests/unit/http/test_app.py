"""The app, called in process: what each page answers, and that it can be mounted."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter
from starlette.applications import Starlette
from starlette.routing import Mount

from lane_obs import CommandQueue, ConfigError, LaneConfig, QueueManager
from lane_obs.http import create_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

LANES = {"a": LaneConfig(1, 2)}


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


async def work() -> None: ...


async def test_it_is_ready_between_its_start_and_its_shutdown() -> None:
    manager = QueueManager(LANES)
    async with client(create_app(manager)) as http:

        async def ready() -> tuple[int, Any]:
            answer = await http.get("/readyz")
            return answer.status_code, answer.json()

        assert await ready() == (503, {"status": "not_ready", "reason": "not_started"})
        await manager.start()
        assert await ready() == (200, {"status": "ready"})
        await manager.shutdown()
        assert await ready() == (503, {"status": "not_ready", "reason": "draining"})
        await manager.drain()
        assert await ready() == (503, {"status": "not_ready", "reason": "draining"})
        await manager.close()
        assert await ready() == (503, {"status": "not_ready", "reason": "closed"})


async def test_livez_says_so_before_the_start_and_is_alive_after_it() -> None:
    manager = QueueManager(LANES)
    async with client(create_app(manager)) as http:
        before = await http.get("/livez")
        assert (before.status_code, before.json()) == (200, {"status": "not_started", "age_seconds": None})
        async with manager:
            after = await http.get("/livez")
        assert (after.status_code, after.json()["status"]) == (200, "alive")
        assert after.json()["age_seconds"] >= 0


async def test_depth_does_not_make_it_dead_or_unready() -> None:
    manager = QueueManager({"a": LaneConfig(1, 1)})
    async with client(create_app(manager)) as http:
        await manager.start()
        manager.pause("a")
        for _ in range(1_000):
            await manager.submit("a", work)
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200
        await manager.close()


async def test_stats_are_the_queues_own_as_json() -> None:
    async with QueueManager(LANES, max_concurrency=7) as manager, client(create_app(manager)) as http:
        await (await manager.submit("a", work))
        answer = await http.get("/stats")
        stats = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert stats["max_concurrency"] == 7
    assert stats["lanes"]["a"]["ended"]["succeeded"] == 1
    assert stats["submitted"] == 1


async def test_a_plain_queue_without_a_shutdown_can_be_shown_too() -> None:
    queue = CommandQueue(LANES)
    async with client(create_app(queue)) as http:
        assert (await http.get("/readyz")).json()["reason"] == "not_started"
        assert json.loads((await http.get("/stats")).text)["lanes"]["a"]["ready"] == 0


async def test_metrics_are_those_of_the_registry_given_or_of_the_librarys_own() -> None:
    registry = CollectorRegistry()
    Counter("mine", "Mine.", registry=registry).inc(3)
    manager = QueueManager(LANES)
    async with client(create_app(manager, registry=registry)) as http:
        assert "mine_total 3.0\n" in (await http.get("/metrics")).text
    async with client(create_app(manager)) as http:
        text = (await http.get("/metrics")).text
    assert all(f"# HELP {family.name}" in text for family in REGISTRY.collect())


async def test_an_empty_registry_is_shown_as_empty() -> None:
    async with client(create_app(QueueManager(LANES), registry=CollectorRegistry())) as http:
        answer = await http.get("/metrics")
    assert (answer.status_code, answer.text) == (200, "")


async def test_a_scrape_may_name_the_metrics_it_wants() -> None:
    registry = CollectorRegistry()
    Counter("one", "One.", registry=registry)
    Counter("two", "Two.", registry=registry)
    async with client(create_app(QueueManager(LANES), registry=registry)) as http:
        text = (await http.get("/metrics", params={"name[]": "one_total"})).text
    assert "one_total 0.0" in text
    assert "two" not in text


async def test_a_collector_that_raises_is_a_500_that_names_the_error_and_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        def collect(self) -> Iterator[Metric]:
            raise KeyError("a secret")

    registry = CollectorRegistry()
    registry.register(Broken())
    async with client(create_app(QueueManager(LANES), registry=registry)) as http:
        with caplog.at_level(logging.WARNING, "lane_obs.http"):
            answer = await http.get("/metrics")
        assert (await http.get("/livez")).status_code == 200
    assert (answer.status_code, answer.text) == (500, "a collector failed: KeyError\n")
    assert [record.exc_info is not None for record in caplog.records] == [True]


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz", "/stats"])
async def test_pages_are_read_only_and_answer_head(path: str) -> None:
    async with QueueManager(LANES) as manager, client(create_app(manager)) as http:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert (await http.request(method, path)).status_code == 405
        assert (await http.head(path)).status_code == 200


async def test_it_mounts_into_a_starlette_app() -> None:
    async with QueueManager(LANES) as manager:
        app = Starlette(routes=[Mount("/queue", create_app(manager))])
        async with client(app) as http:
            assert (await http.get("/queue/readyz")).json() == {"status": "ready"}
            assert (await http.get("/queue/metrics")).status_code == 200
            assert (await http.get("/readyz")).status_code == 404


async def test_two_queues_in_one_app_are_told_apart() -> None:
    async with QueueManager(LANES) as first:
        second = QueueManager({"b": LaneConfig(1, 2)})
        app = Starlette(routes=[Mount("/first", create_app(first)), Mount("/second", create_app(second))])
        async with client(app) as http:
            assert (await http.get("/first/readyz")).status_code == 200
            assert (await http.get("/second/readyz")).status_code == 503
            assert list((await http.get("/second/stats")).json()["lanes"]) == ["b"]


def test_a_bad_stale_after_is_named() -> None:
    with pytest.raises(ConfigError, match="stale_after"):
        create_app(QueueManager(LANES), stale_after=0)
