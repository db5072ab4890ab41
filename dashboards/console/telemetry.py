"""Whether the telemetry is well: its sinks, and the processes that Prometheus scrapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dashboards.console.language import asked, part
from dashboards.console.table import Column, cells, heads, queries
from dashboards.panels import BYTES, COUNT, PER_SECOND, SECONDS
from dashboards.promql import increase, process, quantile, rate, reached, started, total
from lane_obs.metrics import catalogue as c

if TYPE_CHECKING:
    from dashboards.levels import Levels

MOST: Final = 50
"""So many processes are shown; those that are not reached first."""


_SINKS: Final = {
    "taken": Column("Events", rate(c.SINK_EVENTS, "sink"), PER_SECOND),
    "lag": Column("Lag p99", quantile(0.99, c.SINK_LAG, "sink"), SECONDS),
    "flush": Column("Batch p99", quantile(0.99, c.SINK_FLUSH, "sink"), SECONDS),
    "queued": Column("Waiting", total(c.SINK_DEPTH, "sink")),
    "failed": Column("Failures", increase(c.SINK_ERRORS, "sink")),
    "lost": Column("Lost", increase(c.SINK_DROPPED, "sink")),
    "off": Column("Cut off", total(c.SINK_DISABLED, "sink")),
}


def section(levels: Levels) -> str:
    """Two tables."""
    processes = {
        "age": Column("Up for", f"max by (instance) (time() - ({started()}) / 1000)", SECONDS),
        "cpu": Column("CPU", f"sum by (instance) ({process('process_cpu_seconds_total', 'rate')})"),
        "memory": Column("Memory", f"sum by (instance) ({process('process_resident_memory_bytes')})", BYTES),
        "loop": Column("Loop lag p99", _worst(levels, "loop_lag"), SECONDS, "loop_lag"),
        "drops": Column("Lost", _worst(levels, "telemetry_drops"), COUNT, "telemetry_drops"),
        "look": Column("Look p99", quantile(0.99, c.MONITOR_TICK, "instance"), SECONDS),
    }
    both = {**_SINKS, **processes}
    return part(
        "telemetry.html",
        columns=queries(both),
        sinks=asked(total(c.SINK_DISABLED, "sink")),
        sink_heads=heads(_SINKS),
        sink_cells=cells(levels, "sink", _SINKS),
        notifications=asked(increase(c.NOTIFICATIONS, "outcome")),
        processes=asked(f"bottomk({MOST}, max by (instance) ({reached()}))"),
        process_heads=heads(processes),
        process_cells=cells(levels, "instance", processes),
    )


def _worst(levels: Levels, measure: str) -> str:
    return " or ".join(levels[measure].values("instance"))
