"""Reads every metric of one queue at one moment, on any thread: nothing here waits for the event loop or asks it."""

from __future__ import annotations

import functools
import importlib.metadata
import threading
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from lane_obs.core.histogram import QUICK_BOUNDS, Histogram
from lane_obs.metrics import catalogue
from lane_obs.metrics.brokered import add_cluster, add_link, whole_of
from lane_obs.metrics.catalogue import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lane_obs.metrics.lane_tally import LaneTally
    from lane_obs.metrics.tally import Tally

Labels: TypeAlias = tuple[str, ...]
Rows: TypeAlias = dict[Metric, list[tuple[Labels, Any]]]
"""By metric: values of its labels after `queue`, and a number or, in those of type histogram, a `Histogram`.

A `Histogram` is the live one: copy what is needed of it.
"""

# How a metric is read from what the events say of a lane, or from the lane's statistics: one value, or values by the
# last label.
_FROM_TALLY: Final[dict[Metric, Callable[[LaneTally], Any]]] = {
    catalogue.SUBMITTED: lambda lane: lane.submitted,
    catalogue.FINISHED: lambda lane: {"ok": lane.completed, **lane.unsuccessful},
    catalogue.ATTEMPTS: lambda lane: {"ok": lane.completed, **lane.attempts},
    catalogue.RETRIES: lambda lane: lane.retries,
    catalogue.DEAD_LETTERED: lambda lane: lane.dead,
    catalogue.RECOVERED: lambda lane: lane.recovered,
    catalogue.BOOSTED: lambda lane: lane.boosted,
    catalogue.EVICTED: lambda lane: lane.evicted,
    catalogue.REQUEUED: lambda lane: lane.requeued,
    catalogue.QUEUE_WAIT: lambda lane: lane.wait,
    catalogue.DURATION: lambda lane: lane.durations,
    catalogue.END_TO_END: lambda lane: lane.end_to_end,
    catalogue.BUSY: lambda lane: sum(part.total for part in lane.durations.copy().values()),
}
_FROM_STATS: Final[dict[Metric, Callable[[Any], Any]]] = {
    catalogue.DEAD_LETTERS: lambda lane: lane.dead,
    catalogue.DEPTH: lambda lane: {state: getattr(lane, state) for state in catalogue.STATES},
    catalogue.ACTIVE: lambda lane: lane.running,
    catalogue.STUCK: lambda lane: lane.stuck,
    catalogue.LIMIT: lambda lane: lane.max_concurrency,
    catalogue.RESERVED: lambda lane: lane.min_concurrency,
    # The clock was read before the lane: what became ready in between would be younger than nothing.
    catalogue.OLDEST_READY: lambda lane: max(lane.oldest_ready_age or 0.0, 0.0),
    catalogue.OLDEST_ACTIVE: lambda lane: max(lane.oldest_active_age or 0.0, 0.0),
    catalogue.BLOCKED: lambda lane: {cause: lane.blocked[cause] for cause in catalogue.BLOCKED_BY},
    catalogue.RATE_LEFT: lambda lane: {} if lane.rate_limit_left is None else lane.rate_limit_left,
    catalogue.PARTITIONS: lambda lane: {} if lane.partitions is None else lane.partitions,
    catalogue.PARTITION_DEPTH: lambda lane: dict(lane.largest_partitions),
    catalogue.PARTITION_AGE: lambda lane: dict(lane.partition_ages),
    catalogue.INFO: lambda lane: {str(lane.priority): 1},
}
_FROM_STORAGE: Final[dict[Metric, Callable[[Any], Any]]] = {
    catalogue.STORAGE_FAILED: lambda storage: int(not storage.ready),
    catalogue.STORAGE_COMMANDS: lambda storage: storage.commands,
    catalogue.STORAGE_PENDING: lambda storage: storage.pending,
    catalogue.STORAGE_FAILURES: lambda storage: storage.failures,
    catalogue.STORAGE_DROPPED: lambda storage: storage.dropped,
    catalogue.STORAGE_BYTES: lambda storage: storage.file_bytes,
}
_FROM_SINKS: Final[dict[Metric, Callable[[list[Any]], Any]]] = {
    catalogue.SINK_EVENTS: lambda same: sum(sink.events for sink in same),
    catalogue.SINK_BATCHES: lambda same: sum(sink.batches for sink in same),
    catalogue.SINK_DROPPED: lambda same: _dropped(same),
    catalogue.SINK_ERRORS: lambda same: sum(sink.errors for sink in same),
    catalogue.SINK_DISABLED: lambda same: sum(sink.disabled for sink in same),
    catalogue.SINK_DEPTH: lambda same: sum(sink.pending for sink in same),
}


_EMPTY: Final = Histogram(QUICK_BOUNDS)


class Reader:
    """Reads one queue.

    Args:
        tally: what the queue's events say.
        bus: its event bus, which knows how long sinks take. A sink with an attribute `loop_lag` or `tick_seconds`, a
            `Histogram`, is taken for the loop's watchdog or the monitor's.
    """

    def __init__(self, tally: Tally, bus: Any) -> None:
        self._tally = tally
        self._bus = bus
        self._shown: dict[tuple[LaneTally, Labels], float] = {}
        self._showing = threading.Lock()

    def read(self, stats: Any, broker: Any = None) -> Rows:
        """Reads all metrics.

        Args:
            stats: the queue's statistics now.
            broker: its broker; `None` for none.
        """
        rows: Rows = {metric: [] for metric in catalogue.CATALOGUE}
        lanes = {name: tally for name, tally in self._tally.lanes.copy().items() if name in stats.lanes}
        for name, tally in lanes.items():
            lane = stats.lanes[name]
            for metric, read in _FROM_TALLY.items():
                rows[metric] += _spread(name, read(tally))
            for metric, read_stats in _FROM_STATS.items():
                rows[metric] += _spread(name, read_stats(lane))
            ended = 0.0 if tally.last_end is None else tally.last_end + self._bus.wall_offset
            rows[catalogue.LAST_FINISH].append(((name,), ended))
        rows[catalogue.BLOCKED] = self._never_down(rows[catalogue.BLOCKED], lanes)
        rows[catalogue.REJECTED] += self._tally.rejected.copy().items()
        rows[catalogue.DISPATCH_DELAY].append(((), self._tally.dispatch))
        rows[catalogue.LOOP_LAG].append(((), self._from_sink("loop_lag")))
        if stats.storage is not None:
            rows[catalogue.STORAGE_COMMIT].append(((), self._from_sink("commit_seconds")))
        rows[catalogue.MONITOR_TICK].append(((), self._from_sink("tick_seconds")))
        rows[catalogue.ALERT_STATE] += ((key, _alert_state(at)) for key, at in self._tally.alerts.copy().items())
        rows[catalogue.NOTIFICATIONS] += self._tally.notified.copy().items()
        rows[catalogue.BUILD_INFO].append(((_version(),), 1))
        self._add_sinks(rows, stats.sinks)
        if stats.storage is not None:
            _add_storage(rows, stats.storage)
        if broker is not None:
            self._add_broker(rows, broker, lanes)
        return rows

    def _add_broker(self, rows: Rows, broker: Any, lanes: dict[str, LaneTally]) -> None:
        rows[catalogue.BROKER_TURN].append(((), self._from_sink("broker_turn_seconds")))
        rows[catalogue.PASSED_ON] += (((reason,), count) for reason, count in self._tally.passed_on.items())
        add_link(rows, broker, lanes)
        if (whole := whole_of(broker)) is not None:
            add_cluster(rows, whole)

    def _from_sink(self, name: str) -> Histogram:
        found: Histogram | None = self._bus.histogram(name)
        return found or _EMPTY

    def _never_down(self, rows: list[tuple[Labels, float]], lanes: dict[str, LaneTally]) -> list[tuple[Labels, float]]:
        """These totals are sums of several numbers, which may have been read in the middle of a change."""
        with self._showing:
            before, self._shown = self._shown, {}
            for labels, total in rows:
                key = lanes[labels[0]], labels  # a lane may be removed, and another of its name added
                self._shown[key] = max(total, before.get(key, 0.0))
            return [(labels, total) for (_, labels), total in self._shown.items()]

    def _add_sinks(self, rows: Rows, sinks: Iterable[Any]) -> None:
        same: dict[str, list[Any]] = {}
        for sink in sinks:
            same.setdefault(sink.name, []).append(sink)
        times: dict[str, list[Any]] = {}
        for name, timing in self._bus.timings():
            times.setdefault(name, []).append(timing)
        for name, group in same.items():
            for metric, read in _FROM_SINKS.items():
                rows[metric] += _spread(name, read(group))
            rows[catalogue.SINK_FLUSH].append(((name,), _sum([timing.flush for timing in times[name]])))
            rows[catalogue.SINK_LAG].append(((name,), _sum([timing.lag for timing in times[name]])))


def _add_storage(rows: Rows, storage: Any) -> None:
    for metric, read in _FROM_STORAGE.items():
        rows[metric].append(((), read(storage)))
    rows[catalogue.KEPT] += (((reason,), count) for reason, count in storage.kept.items())


def _spread(name: str, value: Any) -> Iterable[tuple[Labels, Any]]:
    """The rows of one value, or of values by their last label."""
    if not isinstance(value, dict):
        return [((name,), value)]
    return [((name,) if key is None else (name, key), part) for key, part in value.copy().items()]


def _alert_state(severities: set[str]) -> int:
    return 2 if "critical" in severities else 1 if severities else 0


def _dropped(sinks: list[Any]) -> dict[str, int]:
    dropped = dict.fromkeys(catalogue.DROP_REASONS, 0)
    for reason, count in chain.from_iterable(sink.dropped.items() for sink in sinks):
        dropped[reason] = dropped.get(reason, 0) + count
    return dropped


def _sum(parts: list[Histogram]) -> Histogram:
    """One histogram of several; they have the same bounds."""
    if len(parts) == 1:
        return parts[0]
    whole = Histogram(parts[0].bounds)
    whole.counts = [sum(counts) for counts in zip(*(part.counts.copy() for part in parts), strict=True)]
    whole.total = sum(part.total for part in parts)
    return whole


@functools.cache
def _version() -> str:
    try:
        return importlib.metadata.version("lane-obs")
    except importlib.metadata.PackageNotFoundError:  # run from its source, not installed
        return "unknown"
