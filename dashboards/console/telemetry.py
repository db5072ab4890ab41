"""Whether the telemetry is well: its sinks, and the processes that Prometheus scrapes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from dashboards.console.language import asked, grade, part
from dashboards.panels import BYTES, COUNT, PER_SECOND, SECONDS
from dashboards.promql import increase, process, quantile, rate, reached, started, total
from lane_obs.metrics import catalogue as c

if TYPE_CHECKING:
    from dashboards.levels import Levels

MOST: Final = 50
"""So many processes are shown; those that are not reached first."""


@dataclasses.dataclass(frozen=True)
class _Column:
    """One value of each row: its heading, the query, its unit, and the measure whose levels colour it."""

    heading: str
    query: str
    unit: str = COUNT
    measure: str = ""


_SINKS: Final = {
    "taken": _Column("Events", rate(c.SINK_EVENTS, "sink"), PER_SECOND),
    "lag": _Column("Lag p99", quantile(0.99, c.SINK_LAG, "sink"), SECONDS),
    "flush": _Column("Batch p99", quantile(0.99, c.SINK_FLUSH, "sink"), SECONDS),
    "queued": _Column("Waiting", total(c.SINK_DEPTH, "sink")),
    "failed": _Column("Failures", increase(c.SINK_ERRORS, "sink")),
    "lost": _Column("Lost", increase(c.SINK_DROPPED, "sink")),
    "off": _Column("Cut off", total(c.SINK_DISABLED, "sink")),
}


def section(levels: Levels) -> str:
    """Two tables."""
    processes = {
        "age": _Column("Up for", f"max by (instance) (time() - ({started()}) / 1000)", SECONDS),
        "cpu": _Column("CPU", f"sum by (instance) ({process('process_cpu_seconds_total', 'rate')})"),
        "memory": _Column("Memory", f"sum by (instance) ({process('process_resident_memory_bytes')})", BYTES),
        "loop": _Column("Loop lag p99", _worst(levels, "loop_lag"), SECONDS, "loop_lag"),
        "drops": _Column("Lost", _worst(levels, "telemetry_drops"), COUNT, "telemetry_drops"),
        "look": _Column("Look p99", quantile(0.99, c.MONITOR_TICK, "instance"), SECONDS),
    }
    both = {**_SINKS, **processes}
    return part(
        "telemetry.html",
        columns="\n".join(f"{{{{ ${name} := query {asked(column.query)} }}}}" for name, column in both.items()),
        sinks=asked(total(c.SINK_DISABLED, "sink")),
        sink_heads=_heads(_SINKS),
        sink_cells=_cells(levels, "sink", _SINKS),
        notifications=asked(increase(c.NOTIFICATIONS, "outcome")),
        processes=asked(f"bottomk({MOST}, max by (instance) ({reached()}))"),
        process_heads=_heads(processes),
        process_cells=_cells(levels, "instance", processes),
    )


def _worst(levels: Levels, measure: str) -> str:
    return " or ".join(levels[measure].values("instance"))


def _heads(columns: dict[str, _Column]) -> str:
    return "".join(f'<th scope="col" class="n">{column.heading}</th>' for column in columns.values())


def _cells(levels: Levels, label: str, columns: dict[str, _Column]) -> str:
    return "\n".join(
        part(
            "cell.html",
            column=name,
            label=label,
            unit=column.unit,
            grade=grade(levels[column.measure].specs, "$found.Value", '""') if column.measure else "",
            more="",
        )
        for name, column in columns.items()
    )
