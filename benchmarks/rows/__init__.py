"""The rows of the budget table: each module has `figures(sizes)`, which measures and yields its lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.rows import (
    distributed,
    durable,
    durable_queue,
    idle,
    lanes,
    monitor,
    pending,
    scale,
    telemetry,
    throughput,
    urgent,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.figure import Figure, Sizes

ROWS: Final[dict[str, Callable[[Sizes], Iterator[Figure]]]] = {
    "throughput": throughput.figures,
    "idle": idle.figures,
    "urgent": urgent.figures,
    "pending": pending.figures,
    "lanes": lanes.figures,
    "scale": scale.figures,
    "storage": durable.figures,
    "durable": durable_queue.figures,
    "monitor": monitor.figures,
    "telemetry": telemetry.figures,
    "distributed": distributed.figures,
}
"""Rows by name, in the order of the table."""
