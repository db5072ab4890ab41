"""What a scrape costs: rendering the metrics, and how long the queue's event loop waits meanwhile.

usage: python -m benchmarks.scrape URL COUNT

As a program it is the scraper, in a process of its own: it prints the start and end of each scrape as JSON, by the
clock that all processes share.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import subprocess
import sys
import time
import urllib.parse
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import start_http_server

from benchmarks.telemetry import Outside
from benchmarks.workload import check, no_op
from lane_obs import LaneConfig, QueueManager
from lane_obs.http import MetricsServer
from lane_obs.http.exposition import render
from lane_obs.sinks.prometheus import PrometheusSink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ACCEPT = "application/openmetrics-text;version=1.0.0"
"""What a Prometheus server asks for."""

_ROOT = Path(__file__).parents[1]
_PAUSE = 0.03
_MARGIN = 0.005


def lanes_for(series: int) -> int:
    """How many lanes have about so many series."""
    one, two = (asyncio.run(_count(lanes)) for lanes in (1, 2))
    return max(round((series - one) / (two - one)) + 1, 1)


async def _count(lanes: int) -> int:
    with Outside(lanes) as outside:
        async with observed(lanes, outside):
            return series_of(outside.registry)


def observed(lanes: int, outside: Outside, *more: Any) -> QueueManager:
    """A queue of so many lanes with metrics."""
    return QueueManager(
        {f"lane-{number}": LaneConfig(0, 4) for number in range(lanes)},
        sinks=[PrometheusSink(outside.registry), *more],
    )


async def use(manager: QueueManager) -> None:
    """Runs a command in each lane, so that what is shown is not all zero."""
    handles = [manager.submit_nowait(lane, no_op) for lane in manager.lanes]
    check([await handle for handle in handles], len(handles))
    await asyncio.sleep(0)


def text_of(registry: Any) -> bytes:
    """The metrics as they go out, rendered without a pause."""
    return render(registry, ACCEPT, lambda: None).text


def series_of(registry: Any) -> int:
    """How many series it shows."""
    return sum(1 for line in text_of(registry).splitlines() if line and not line.startswith(b"#"))


class Rendered(NamedTuple):
    """A scrape without its network."""

    series: int
    seconds: float


async def rendering(lanes: int, rounds: int) -> Rendered:
    """Seconds of processor time to collect and render, the least of the rounds."""
    with Outside(lanes) as outside:
        async with observed(lanes, outside) as manager:
            await use(manager)
            series, least = series_of(outside.registry), float("inf")
            for _ in range(rounds):
                before = time.thread_time()
                text_of(outside.registry)
                least = min(least, time.thread_time() - before)
    return Rendered(series, least)


class Gaps(NamedTuple):
    """How long the loop did not turn, the longest time in each window, in seconds."""

    series: int
    scraped: list[float]
    """While a scrape was under way."""
    free: list[float]
    """In as long a time between two scrapes."""


async def gaps(lanes: int, scrapes: int, *, theirs: bool = False) -> Gaps:
    """Scrapes a queue over HTTP while its event loop turns without a rest.

    Args:
        lanes: how many lanes the queue has.
        scrapes: how many times.
        theirs: serve by prometheus_client's own server in a thread instead of by ours.
    """
    with Outside(lanes) as outside, contextlib.ExitStack() as stack:
        server = MetricsServer(0, registry=outside.registry)
        async with observed(lanes, outside, server) as manager:
            await use(manager)
            series = series_of(outside.registry)
            url = stack.enter_context(_their_server(outside.registry)) if theirs else f"{server.url}/metrics"
            command = [sys.executable, "-m", "benchmarks.scrape", url, str(scrapes)]
            with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as scraper:
                turns = await _turn_until_ended(scraper)
                assert scraper.stdout is not None
                windows: list[tuple[float, float]] = json.loads(scraper.stdout.read())
    # The scraper rests at least twice as long as each scrape has taken.
    between = [(end + _MARGIN, end + _MARGIN + (end - start)) for start, end in windows]
    return Gaps(
        series, [longest(turns, *window) for window in windows], [longest(turns, *window) for window in between]
    )


@contextlib.contextmanager
def _their_server(registry: Any) -> Iterator[str]:
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def _turn_until_ended(process: subprocess.Popen[str]) -> list[float]:
    turns: list[float] = []
    while process.poll() is None:
        for _ in range(1_000):
            await asyncio.sleep(0)
            turns.append(time.perf_counter())
    return turns


def longest(turns: Sequence[float], start: float, end: float) -> float:
    """The longest time without a turn that reaches into a window, from the turns' rising times."""
    first = max(bisect_left(turns, start) - 1, 0)
    inside = turns[first : bisect_left(turns, end) + 1]
    return max((after - before for before, after in itertools.pairwise(inside)), default=0.0)


def scrape(url: str, count: int) -> list[tuple[float, float]]:
    """Gets a page so many times over one connection: start and end of each."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    found: list[tuple[float, float]] = []
    for _ in range(count):
        time.sleep(max(_PAUSE, 2 * (found[-1][1] - found[-1][0]) + 2 * _MARGIN) if found else _PAUSE)
        start = time.perf_counter()
        connection.request("GET", parts.path, headers={"Accept": ACCEPT})
        connection.getresponse().read()
        found.append((start, time.perf_counter()))
    connection.close()
    time.sleep(2 * (found[-1][1] - found[-1][0]) + _MARGIN)
    return found


if __name__ == "__main__":
    print(json.dumps(scrape(sys.argv[1], int(sys.argv[2]))))
