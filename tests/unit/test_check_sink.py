"""Every sink that ships passes the conformance suite, and what is wrong with a bad one is found."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from lane_obs import BackgroundSink, EventEmitter, MemorySink
from lane_obs.http import MetricsServer
from lane_obs.sinks.otel import OtelSink
from lane_obs.sinks.prometheus import PrometheusSink
from lane_obs.sinks.recorder import FlightRecorder
from lane_obs.sinks.structlog import StructlogSink
from lane_obs.sinks.watchdog import LoopWatchdog
from lane_obs.testing import check_sink

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    "make",
    [
        MemorySink,
        lambda: EventEmitter(10),
        lambda: BackgroundSink(MemorySink()),
        lambda: StructlogSink(io.BytesIO(), level="debug"),
        lambda: PrometheusSink(CollectorRegistry()),
        lambda: OtelSink(TracerProvider()),
        lambda: FlightRecorder(on_signal=False, on_crash=False),
        LoopWatchdog,
        lambda: MetricsServer(0, registry=CollectorRegistry()),
    ],
)
async def test_a_sink_that_ships_conforms(make: Callable[[], Any]) -> None:
    assert await check_sink(make) is None


class Good:
    def handle(self, events: Any) -> None:
        self.last = events

    def close(self) -> None:
        self.last = None


class Raises(Good):
    def handle(self, events: Any) -> None:
        raise OSError("disk full")


class RaisesAtClose(Good):
    def close(self) -> None:
        raise OSError("disk full")


class Changes:
    def handle_facts(self, facts: Any) -> None:
        facts.clear()

    def close(self) -> None:
        pass


class LeavesAThread(Good):
    def __init__(self) -> None:
        self.end = threading.Event()
        ENDS.append(self.end)

    def handle(self, events: Any) -> None:
        threading.Thread(target=self.end.wait, daemon=True).start()


ENDS: list[threading.Event] = []


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (object, "has no handle"),
        (Raises, "raised"),
        (RaisesAtClose, "close"),
        (Changes, "changed a batch"),
        (LeavesAThread, "threads behind"),
    ],
)
async def test_what_is_wrong_with_a_sink_is_found(make: Callable[[], Any], fault: str) -> None:
    try:
        with pytest.raises(AssertionError, match=fault):
            await check_sink(make)
    finally:
        for end in ENDS:
            end.set()


async def test_a_good_sink_of_ones_own_conforms() -> None:
    assert await check_sink(Good) is None
