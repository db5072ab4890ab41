"""What metrics and spans tell of a storage and of what comes back from it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from lane_obs import LaneConfig, MemorySink, QueueManager, StorageError, command
from lane_obs.clock import SystemClock
from lane_obs.command import registry as commands
from lane_obs.metrics import catalogue
from lane_obs.sinks.prometheus import PrometheusSink
from lane_obs.storage import LocalStorage, StoredCommand
from tests.unit.sinks.otel_support import Spans, context_of, ids, linked

if TYPE_CHECKING:
    from pathlib import Path

LANES = {"a": LaneConfig(0, 4)}


@command("told.note")
async def note(number: int) -> int:
    return number


@command("told.hang")
async def hang() -> None:
    await asyncio.Event().wait()


class Metrics:
    """A sink with a registry of its own, read by names of the catalogue."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.sink = PrometheusSink(self._registry)

    def samples(self) -> dict[tuple[str, str], float]:
        """Values by name and by the label that is not the queue's; buckets left out."""
        return {
            (sample.name, "".join(value for name, value in sample.labels.items() if name != "queue")): sample.value
            for family in self._registry.collect()
            for sample in family.samples
            if not sample.name.endswith(("_bucket", "_created"))
        }

    def of(self, metric: catalogue.Metric, label: str = "") -> float:
        suffix = "_count" if metric.kind == "histogram" else ""
        return self.samples()[metric.name + suffix, label]


async def store(folder: Path, *rows: tuple[str, str, str]) -> None:
    storage, wall = LocalStorage(folder), SystemClock().wall()
    await storage.open()
    for seq, (kind, lane, payload) in enumerate(rows, 1):
        stored = StoredCommand(
            id=f"c{seq}", seq=seq, lane=lane, command_type=kind, payload=payload.encode(), submitted_at=wall
        )
        await storage.save_command(stored)
    await storage.close()


async def test_every_metric_of_a_storage_moves(tmp_path: Path) -> None:
    folder, metrics, sink = tmp_path / "queue", Metrics(), MemorySink()
    await store(
        folder, ("told.note", "a", "[1]"), ("told.unknown", "a", "[]"), ("told.note", "gone", "[1]"),
        ("told.note", "a", '["x"]'),
    )  # fmt: skip
    storage = LocalStorage(folder, first_retry=0.02)
    manager = QueueManager(LANES, storage=storage, sinks=[metrics.sink, sink])
    await manager.start()
    await sink.wait_for("queue.recovery.complete")
    await manager.drain()
    assert metrics.of(catalogue.RECOVERED, "a") == 1
    assert metrics.of(catalogue.KEPT, "unregistered") == 1
    assert metrics.of(catalogue.KEPT, "unknown_lane") == 1
    assert metrics.of(catalogue.STORAGE_FAILED) == 0
    assert metrics.of(catalogue.STORAGE_COMMANDS) == 2
    assert metrics.of(catalogue.STORAGE_COMMIT) > 0
    assert metrics.of(catalogue.STORAGE_BYTES) > 4_096
    assert metrics.of(catalogue.DEAD_LETTERED, "a") == 1

    hangs = await manager.submit("a", hang)
    away = folder.rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        await manager.submit("a", note, 1)
    hangs.cancel()
    await sink.wait_for("queue.command.cancelled")
    while not metrics.of(catalogue.STORAGE_PENDING):
        await asyncio.sleep(0.001)
    assert metrics.of(catalogue.STORAGE_FAILED) == 1
    assert metrics.of(catalogue.STORAGE_FAILURES) >= 1
    assert metrics.of(catalogue.REJECTED, "astorage") == 1
    assert metrics.of(catalogue.STORAGE_DROPPED) == 0
    away.rename(folder)
    await sink.wait_for("queue.storage.back")
    assert metrics.of(catalogue.STORAGE_FAILED) == 0
    assert metrics.of(catalogue.STORAGE_PENDING) == 0
    assert metrics.of(catalogue.STORAGE_COMMANDS) == 2

    @command("told.unknown")
    async def known() -> None: ...

    await asyncio.sleep(0)  # told by a callback of the loop
    await manager.drain()
    assert metrics.of(catalogue.KEPT, "unregistered") == 0
    assert metrics.of(catalogue.RECOVERED, "a") == 2
    named = {metric.name for metric in catalogue.STORED}
    shown = {name.removesuffix("_count").removesuffix("_sum") for name, _ in metrics.samples()}
    assert named <= shown
    await manager.stop()
    commands.remove("told.unknown")


async def test_changes_that_did_not_fit_in_memory_are_counted(tmp_path: Path) -> None:
    folder, metrics, sink = tmp_path / "queue", Metrics(), MemorySink()
    storage = LocalStorage(folder, first_retry=0.02, keep_bytes=1)
    manager = QueueManager(LANES, storage=storage, sinks=[metrics.sink, sink])
    await manager.start()
    handle = await manager.submit("a", hang)
    while storage.health().commits < 2:  # its start is told a little later, and must not count below
        await asyncio.sleep(0.001)
    away = folder.rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        await manager.submit("a", note, 1)
    handle.cancel()
    while not metrics.of(catalogue.STORAGE_DROPPED):
        await asyncio.sleep(0.001)
    assert metrics.of(catalogue.STORAGE_DROPPED) == 1
    away.rename(folder)
    await sink.wait_for("queue.storage.back")
    await manager.stop()


async def test_a_recovered_command_links_to_the_span_it_was_submitted_in(tmp_path: Path) -> None:
    spans, folder = Spans(), tmp_path / "queue"
    manager = QueueManager(LANES, storage=LocalStorage(folder), sinks=[spans.sink()])
    await manager.start()
    manager.pause("a")
    with spans.tracer.start_as_current_span("request") as request:
        await manager.submit("a", note, 1)
    await manager.submit("a", note, 2)  # in no span
    await manager.close()

    later, sink = Spans(), MemorySink()
    manager = QueueManager(LANES, storage=LocalStorage(folder), sinks=[later.sink(), sink])
    await manager.start()
    await sink.wait_for("queue.recovery.complete")
    await manager.stop()
    first, second = later.named("process a")
    assert linked(first) == [ids(request.get_span_context())]
    assert linked(second) == []
    assert context_of(first).trace_id != request.get_span_context().trace_id
    assert later.names.count("submit a") == 0


async def test_commands_that_come_back_as_dead_letters_do_not_disturb_tracing(tmp_path: Path) -> None:
    spans, sink, folder = Spans(), MemorySink(), tmp_path / "queue"
    await store(folder, ("told.note", "a", '["x"]'), ("told.note", "a", "[2]"))
    manager = QueueManager(LANES, storage=LocalStorage(folder), sinks=[spans.sink(), sink])
    await manager.start()
    await sink.wait_for("queue.recovery.complete")
    await manager.drain()
    letter: Any = manager.dead_letters.get("c1")
    assert letter.error_type == "InvalidCommand"
    assert letter.rerun is None
    await manager.stop()
    assert all(stats.errors == 0 for stats in manager.bus.stats())
    assert spans.names.count("process a") == 1
