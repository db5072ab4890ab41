"""Reads what rules look at: lanes directly, counters from what the events say. A list comprehension a column."""

from __future__ import annotations

import itertools
import operator
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final

from lane_obs.alerts.expression import NONE
from lane_obs.core.histogram import QUICK_BOUNDS, Histogram
from lane_obs.metrics import BUCKETS, LaneTally, Tally, catalogue
from lane_obs.metrics.brokered import roles_of, whole_of
from lane_obs.metrics.catalogue import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lane_obs.alerts.expression import Leaf
    from lane_obs.core.fact import Fact

_completed = attrgetter("completed")


def _outcomes(field: str) -> Callable[[Sequence[LaneTally], Sequence[str]], list[int]]:
    """Reads ends or attempts by outcome: those with `ok` are counted once, for both. Every step is a `map` in C."""
    counts, total = attrgetter(field), attrgetter(f"{field}_total")

    def read(lanes: Sequence[LaneTally], wanted: Sequence[str]) -> list[int]:
        others = [name for name in OUTCOMES[1:] if not wanted or name in wanted]
        left_out = [name for name in OUTCOMES[1:] if name not in others]
        if len(left_out) < len(others):
            column = map(total, lanes)
            for name in left_out:
                column = map(operator.sub, column, map(itemgetter(name), map(counts, lanes)))
        else:
            column = map(sum, zip(*(map(itemgetter(name), map(counts, lanes)) for name in others), strict=True))
        if not wanted or "ok" in wanted:
            column = map(operator.add, column, map(_completed, lanes))
        return list(column)

    return read


_FROM_TALLY: Final[dict[catalogue.Metric, Callable[[Sequence[LaneTally], Sequence[str]], list[Any]]]] = {
    catalogue.SUBMITTED: lambda lanes, _: [lane.submitted for lane in lanes],
    catalogue.FINISHED: _outcomes("unsuccessful"),
    catalogue.ATTEMPTS: _outcomes("attempts"),
    catalogue.RETRIES: lambda lanes, _: [lane.retries_total for lane in lanes],
    catalogue.DEAD_LETTERED: lambda lanes, _: [lane.dead for lane in lanes],
    catalogue.RETURNED: lambda lanes, _: [lane.returned for lane in lanes],
}
# The names of columns, by metric and by what narrows it.
_FROM_LANES: Final[dict[catalogue.Metric, Callable[[Sequence[str]], Sequence[str]]]] = {
    catalogue.DEPTH: lambda states: states,
    catalogue.ACTIVE: lambda _: ("running",),
    catalogue.STUCK: lambda _: ("stuck",),
    catalogue.LIMIT: lambda _: ("max_concurrency",),
    catalogue.OLDEST_READY: lambda _: ("oldest_ready_age",),
    catalogue.OLDEST_ACTIVE: lambda _: ("oldest_active_age",),
    catalogue.BLOCKED: lambda causes: [f"blocked_{cause}" for cause in causes],
}
# Of a lane of the whole queue, as a broker has it; in all processes but the one that leads there is no value.
_FROM_CLUSTER: Final[dict[catalogue.Metric, Callable[[Any, Sequence[str]], float]]] = {
    catalogue.CLUSTER_DEPTH: lambda lane, states: sum(getattr(lane, state) for state in states),
    catalogue.CLUSTER_OLDEST: lambda lane, _: lane.oldest_ready_age or 0.0,
}


class MonitorSink:
    """The monitor's ear on the bus: it counts, where no metrics sink does so already, and times the monitor's looks.

    Args:
        tally: counts of its own; `None` to count nothing.

    Attributes:
        tick_seconds: how long the monitor's looks took.
    """

    def __init__(self, tally: Tally | None) -> None:
        self.tick_seconds = Histogram(QUICK_BOUNDS)
        self.wants = () if tally is None else None
        self._tally = tally

    def handle_facts(self, facts: Sequence[Fact]) -> None:
        """Counts a batch."""
        if self._tally is not None:
            self._tally.fold(facts, 0.0)

    def close(self) -> None:
        """Has nothing to let go of."""


class Source:
    """Reads the columns of one queue.

    Args:
        queue: the queue.
        leaves: what will be read.

    Attributes:
        columns: reads the queue's lanes.
        sink: the `MonitorSink` that the queue's bus has for it.
        tally: what the events say; `None` when nothing asks for it.
        layout: a number for each lane, in the order of the columns. One that is removed and added again gets another.
    """

    def __init__(self, queue: Any, leaves: Iterable[Leaf]) -> None:
        self._queue = queue
        self.columns = queue.columns
        counted = any(leaf.metric in _FROM_TALLY or leaf.metric is catalogue.QUEUE_WAIT for leaf in leaves)
        found: list[Tally] = [sink.tally for sink in queue.bus.sinks if isinstance(getattr(sink, "tally", None), Tally)]
        own = Tally(dict.fromkeys(queue.lanes, BUCKETS)) if counted and not found else None
        self.tally = found[0] if found else own
        self._numbers = itertools.count()
        self._places: dict[Any, int] = {}
        self._lanes: tuple[LaneTally, ...] = ()
        self._waits: dict[LaneTally, tuple[tuple[float, ...], list[int]]] = {}
        self.layout: tuple[int, ...] = ()
        self._lay_out()
        self.sink = MonitorSink(own)
        queue.bus.add(self.sink)

    def refresh(self) -> bool:
        """Looks which lanes there are; tells whether they are others than before."""
        changed: bool = self.columns.refresh()
        if changed or _NOTHING in self._lanes:
            self._lay_out()
        return changed

    def _lay_out(self) -> None:
        known = self._places
        self._places = {lane: known.get(lane) or next(self._numbers) + 1 for lane in self.columns.lanes}
        self.layout = tuple(self._places.values())
        if self.tally is not None:
            lanes = self.tally.lanes
            self._lanes = tuple(lanes.get(lane.name, _NOTHING) for lane in self.columns.lanes)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the lanes, in the order of the columns."""
        return tuple(lane.name for lane in self.columns.lanes)

    def read_removed(self, leaf: Leaf) -> Sequence[Any]:
        """What belongs to a queue's sum besides its lanes: of those that were removed, or that only others have."""
        metric, values = leaf.metric, leaf.labels[0][1] if leaf.labels else ()
        removed = () if self.tally is None else tuple(self.tally.removed.values())
        if metric is catalogue.QUEUE_WAIT:
            return [(lane.wait.bounds, lane.wait.counts) for lane in removed]
        if metric in _FROM_TALLY:
            return _FROM_TALLY[metric](removed, values)
        if metric in _FROM_LANES:
            return list(itertools.chain(*map(self.columns.read_removed, _FROM_LANES[metric](values))))
        if metric in _FROM_CLUSTER and (whole := self._whole()) is not None:
            others = whole.lanes.keys() - set(self.names)
            return [_FROM_CLUSTER[metric](whole.lanes[name], values) for name in others]
        return []

    def read(self, leaf: Leaf) -> Sequence[Any]:
        """The column of a leaf: a value for each lane, or one for the queue."""
        metric = leaf.metric
        values = leaf.labels[0][1] if leaf.labels else ()
        if metric is catalogue.QUEUE_WAIT:
            return self._read_waits()
        if metric in _FROM_TALLY:
            return _FROM_TALLY[metric](self._lanes, values)
        if metric in _FROM_LANES:
            first, *others = [self.columns.read(name) for name in _FROM_LANES[metric](values)]
            return [sum(numbers) for numbers in zip(first, *others, strict=True)] if others else first
        if metric in _FROM_CLUSTER:
            return self._read_cluster(metric, values)
        return [self._of_queue(metric, values)]

    def _whole(self) -> Any:
        """How the whole queue is, if this process leads."""
        return None if self._queue.broker is None else whole_of(self._queue.broker)

    def _read_cluster(self, metric: catalogue.Metric, values: Sequence[str]) -> list[float]:
        whole = self._whole()
        if whole is None:
            return [NONE] * len(self.names)
        read, lanes = _FROM_CLUSTER[metric], whole.lanes
        return [read(lanes[name], values) if name in lanes else 0.0 for name in self.names]

    def _read_waits(self) -> list[tuple[tuple[float, ...], list[int]]]:
        """Bounds and counts. A lane without a new wait keeps its pair: the past of idle lanes takes no room."""
        known, self._waits = self._waits, {}
        column = []
        for lane in self._lanes:
            pair = known.get(lane)
            if pair is None or pair[1] != lane.wait.counts:
                pair = lane.wait.bounds, lane.wait.counts.copy()
            self._waits[lane] = pair
            column.append(pair)
        return column

    def _of_queue(self, metric: catalogue.Metric, values: Sequence[str]) -> Any:
        if metric is catalogue.LOOP_LAG:
            lag = self._queue.bus.histogram("loop_lag") or _NO_LAG
            return lag.bounds, lag.counts.copy()
        if metric is catalogue.STORAGE_FAILED:
            storage = self._queue.storage
            return 0 if storage is None or storage.ready else 1
        if metric is catalogue.BROKER_DOWN:
            broker = self._queue.broker
            return int(broker is not None and bool(broker.member) and not broker.health().ready)
        if metric is catalogue.CLUSTER_MEMBERS:
            whole = self._whole()
            return NONE if whole is None else sum(roles_of(whole.members)[role] for role in values)
        assert metric is catalogue.SINK_DROPPED
        return sum(sum(sink.dropped.values()) for sink in self._queue.bus.stats())


_NO_LAG: Final = Histogram(QUICK_BOUNDS)
_NOTHING: Final = LaneTally(BUCKETS)
"""Stands for a lane that is so new that its event has not come yet."""
