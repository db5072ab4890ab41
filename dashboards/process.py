"""The process: whether its event loop keeps up, what it takes of the machine, and how its telemetry fares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards import cluster
from dashboards.board import Row, render
from dashboards.links import PROCESS
from dashboards.panels import (
    BYTES,
    COUNT,
    PER_SECOND,
    RATIO,
    SECONDS,
    Query,
    Words,
    fact,
    graph,
    heat_map,
    number,
    quantiles,
    watch,
    watch_now,
)
from dashboards.promql import alert_states, pick, process, quantile, rate, started, total
from lane_obs.metrics import catalogue as c

if TYPE_CHECKING:
    from dashboards.levels import Levels


def text(rules: Levels) -> str:
    """The dashboard as JSON, with the levels of these rules."""
    about = "One process, or several: event loop, scheduler, CPU and memory, and the telemetry's own cost and losses."
    rows = [_now(rules), _loop(rules), _machine(), _sinks(rules), _monitor(), _storage(rules), cluster.link(rules)]
    rows.append(cluster.supervised())
    return render(PROCESS, "lane_obs / Process", about, "30s", rows)


def _now(rules: Levels) -> Row:
    panels = [
        fact(
            Words("Version", "Version of lane_obs."),
            Query(f"count by (version) ({pick(c.BUILD_INFO)})", "{{version}}"),
            named=True,
        ),
        fact(
            Words("Started", "When the process started."),
            Query(started(), "{{instance}}"),
            unit="dateTimeFromNow",
        ),
        number(
            Words("CPU", "Cores in use."),
            Query(process("process_cpu_seconds_total", "rate"), "{{instance}}"),
            unit=COUNT,
        ),
        number(
            Words("Memory", "Resident memory."),
            Query(process("process_resident_memory_bytes"), "{{instance}}"),
            unit=BYTES,
        ),
        watch_now(
            Words("Loop lag p99", "How late the event loop runs what is due.", rules["loop_lag"]),
            "instance",
            none="no watchdog",
        ),
        number(
            Words("Running commands", "Commands that run."),
            Query(total(c.ACTIVE, "instance"), "{{instance}}"),
            unit=COUNT,
        ),
    ]
    return Row("Now", panels)


def _loop(rules: Levels) -> Row:
    panels = [
        heat_map(
            Words("Event loop lag", "How late the watchdog's heartbeats ran: what blocks the loop blocks every lane."),
            Query(rate(c.LOOP_LAG, "le", suffix="_bucket")),
        ),
        watch(
            Words("Event loop lag p99", "99 % of the heartbeats were at most so late.", rules["loop_lag"]),
            "instance",
        ).span(12),
        graph(
            Words("Dispatch delay", "The part of each wait that only the scheduler is to blame for: half, and 99 %."),
            *quantiles(c.DISPATCH_DELAY, "instance", 0.5, 0.99),
            unit=SECONDS,
        ),
        graph(
            Words(
                "Slots in use by lane",
                "Run time of the attempts that ended, by the second: which lane the process works for.",
            ),
            Query(rate(c.BUSY, "lane"), "{{lane}}"),
            unit=COUNT,
            stacked=True,
        ),
        graph(
            Words("Commands ended", "Commands that ended, by the second."),
            Query(rate(c.FINISHED, "instance"), "{{instance}}"),
            unit=PER_SECOND,
        ),
    ]
    return Row("Event loop", panels)


def _machine() -> Row:
    panels = [
        graph(
            Words("CPU time", "Cores in use. Python code of one process uses little more than one."),
            Query(process("process_cpu_seconds_total", "rate"), "{{instance}}"),
            unit=COUNT,
        ),
        graph(
            Words("Memory in use", "Resident and virtual memory."),
            Query(process("process_resident_memory_bytes"), "{{instance}} resident"),
            Query(process("process_virtual_memory_bytes"), "{{instance}} virtual"),
            unit=BYTES,
        ),
        graph(
            Words("Garbage collections", "Runs of the garbage collector by generation, by the second."),
            Query(process("python_gc_collections_total", "rate"), "{{instance}} generation {{generation}}"),
            unit=PER_SECOND,
        ),
        graph(
            Words(
                "Garbage collected", "Objects that the garbage collector freed, and those it could not, by the second."
            ),
            Query(process("python_gc_objects_collected_total", "rate"), "{{instance}} generation {{generation}}"),
            Query(process("python_gc_objects_uncollectable_total", "rate"), "{{instance}} kept {{generation}}"),
            unit=PER_SECOND,
        ),
        graph(
            Words("Open files", "File descriptors in use, and the most that there may be."),
            Query(process("process_open_fds"), "{{instance}} open"),
            Query(process("process_max_fds"), "{{instance}} limit"),
            unit=COUNT,
        ),
    ]
    return Row("Machine", panels)


def _sinks(rules: Levels) -> Row:
    panels = [
        graph(
            Words("Events by sink", "Events that sinks took, by the second."),
            Query(rate(c.SINK_EVENTS, "sink"), "{{sink}}"),
            unit=PER_SECOND,
        ),
        graph(
            Words("Events in a batch", "Events that a sink gets at once, on average."),
            Query(f"{rate(c.SINK_EVENTS, 'sink')} / ({rate(c.SINK_BATCHES, 'sink')} > 0)", "{{sink}}"),
            unit=COUNT,
        ),
        graph(
            Words(
                "Time for a batch p99",
                "How long sinks take for a batch. On the event loop, where nothing else runs then.",
            ),
            Query(quantile(0.99, c.SINK_FLUSH, "sink"), "{{sink}}"),
            unit=SECONDS,
        ),
        graph(
            Words("Share of time in sinks", "Time that sinks took, by the second: the price of the telemetry."),
            Query(rate(c.SINK_FLUSH, "sink", suffix="_sum"), "{{sink}}"),
            unit=RATIO,
            stacked=True,
        ),
        graph(
            Words("Lag by sink", "From the oldest event of a batch until the sink was done with it: half, and 99 %."),
            *quantiles(c.SINK_LAG, "sink", 0.5, 0.99),
            unit=SECONDS,
        ),
        graph(
            Words("Events waiting", "Events in the sinks' buffers."),
            Query(total(c.SINK_DEPTH, "sink"), "{{sink}}"),
            unit=COUNT,
        ),
        watch(
            Words("Events lost in all", "Events that sinks lost.", rules["telemetry_drops"]),
            "instance",
        ),
        graph(
            Words("Losses by sink and reason", "Events that sinks lost, by the second."),
            Query(rate(c.SINK_DROPPED, "sink", "reason"), "{{sink}} {{reason}}"),
            unit=PER_SECOND,
            stacked=True,
        ),
        graph(
            Words(
                "Failures by sink", "Batches at which a sink failed, by the second, and how many sinks were cut off."
            ),
            Query(rate(c.SINK_ERRORS, "sink"), "{{sink}} failures"),
            Query(total(c.SINK_DISABLED, "sink"), "{{sink}} cut off"),
            unit=COUNT,
        ),
    ]
    return Row("Sinks", panels)


def _monitor() -> Row:
    panels = [
        graph(
            Words("Monitor's look", "How long the monitor takes for one look at all lanes: half, and 99 %."),
            *quantiles(c.MONITOR_TICK, "instance", 0.5, 0.99),
            unit=SECONDS,
        ),
        graph(
            Words("Notifications by notifier", "What became of the notifications of alerts, by the second."),
            Query(rate(c.NOTIFICATIONS, "notifier", "outcome"), "{{notifier}} {{outcome}}"),
            unit=PER_SECOND,
            none="No notifier",
        ),
        graph(
            Words("Alerts firing in the monitor", "Alerts that fire in the monitor of each instance."),
            Query(f"sum by (instance) ({alert_states()} > bool 0)", "{{instance}}"),
            unit=COUNT,
        ),
    ]
    return Row("Monitor", panels)


def _storage(rules: Levels) -> Row:
    none = "No storage"
    panels = [
        watch(Words("Storage failed", "1 while the storage cannot commit.", rules["storage_failed"]), "instance"),
        graph(
            Words("Stored commands", "Commands stored, and those of them that cannot run here, by why."),
            Query(total(c.STORAGE_COMMANDS, "instance"), "{{instance}}"),
            Query(total(c.KEPT, "reason"), "kept: {{reason}}"),
            unit=COUNT,
            none=none,
        ),
        graph(
            Words("Commit time", "How long transactions of the storage take: half, and 99 %."),
            *quantiles(c.STORAGE_COMMIT, "instance", 0.5, 0.99),
            unit=SECONDS,
            none=none,
        ),
        graph(
            Words("Commands recovered", "Commands of an earlier process that came back, by the second."),
            Query(rate(c.RECOVERED, "lane"), "{{lane}}"),
            unit=PER_SECOND,
            none=none,
        ),
        graph(
            Words(
                "Storage trouble",
                "Changes that wait to be committed; failed transactions and lost changes, by the second.",
            ),
            Query(total(c.STORAGE_PENDING, "instance"), "{{instance}} waiting"),
            Query(rate(c.STORAGE_FAILURES, "instance"), "{{instance}} failed"),
            Query(rate(c.STORAGE_DROPPED, "instance"), "{{instance}} lost"),
            unit=COUNT,
            none=none,
        ),
        graph(
            Words("Storage size", "Size of the storage's files."),
            Query(total(c.STORAGE_BYTES, "instance"), "{{instance}}"),
            unit=BYTES,
            none=none,
        ),
    ]
    return Row("Storage", panels)
