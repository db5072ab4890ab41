"""The instruments on one provider, and what makes measurements of facts and of histograms that others keep."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from functools import partial
from itertools import chain, repeat
from math import inf, nextafter
from operator import mul
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from opentelemetry.context import Context
from opentelemetry.metrics import Observation
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from lane_obs.core.fact import completed, started, told
from lane_obs.core.histogram import QUICK_BOUNDS
from lane_obs.core.wait import between
from lane_obs.events import CommandCancelled, CommandExpired, CommandFailed, CommandRetry, CommandTimedOut, LaneRemoved
from lane_obs.metrics import BUCKETS, CATALOGUE, catalogue
from lane_obs.sinks.otel_metrics.pruning import prune

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider
    from opentelemetry.metrics import Histogram as Instrument

    from lane_obs.core.fact import Fact
    from lane_obs.core.histogram import Histogram
    from lane_obs.events import TraceIds
    from lane_obs.metrics import Metric, Rows, Tally

_SCOPE: Final = "lane_obs"
_UNSUCCESSFUL: Final = {CommandFailed, CommandTimedOut, CommandCancelled, CommandExpired}
_BY_LANE: Final = (catalogue.QUEUE_WAIT, catalogue.DURATION, catalogue.END_TO_END)
_READ: Final = tuple(metric for metric in CATALOGUE if metric.kind != "histogram")
_SLICE: Final = 64
_LEAST: Final = 1e-9
# Without one, the SDK would take the span that is current for the one that a value belongs to.
_NO_SPAN: Final = set_span_in_context(INVALID_SPAN, Context())
_logger = logging.getLogger("lane_obs.sinks")


def name_of(metric: Metric) -> str:
    """Its name in OpenTelemetry: a namespace, and neither the unit nor `_total`, which Prometheus adds again."""
    return metric.name.removesuffix("_total").removesuffix("_seconds").replace("_", ".", 1)


def attributes_of(metric: Metric, queue: str, values: Sequence[str]) -> dict[str, str]:
    """The attributes of one row."""
    return {"queue": queue, **dict(zip((*metric.labels, *metric.opt_in), values, strict=False))}


class Shown(Protocol):
    """A queue that is shown."""

    name: str

    def read(self) -> Rows:
        """All rows now."""


class Instruments:
    """The instruments on one provider, for all queues that are shown there: the SDK never lets go of one.

    Args:
        provider: where they are made.
    """

    _known: ClassVar[weakref.WeakKeyDictionary[MeterProvider, Instruments]] = weakref.WeakKeyDictionary()
    _finding = threading.Lock()

    @classmethod
    def on(cls, provider: MeterProvider) -> Instruments:
        """The only ones on a provider that others may use, too."""
        with cls._finding:
            found = cls._known.get(provider)
            if found is None:
                found = cls._known[provider] = cls(provider)
            return found

    def __init__(self, provider: MeterProvider) -> None:
        self._provider = weakref.ref(provider)  # weak: the SDK's is the key under which this is found
        meter = self._meter = provider.get_meter(_SCOPE)
        self._queues: dict[str, weakref.ref[Shown]] = {}
        self._lock = threading.Lock()
        self._making = threading.Lock()  # another: histograms are made on the loop, which must not wait for a reading
        self._rows: list[tuple[str, Rows]] = []
        self._left: set[Metric] = set()
        self._histograms: dict[tuple[Metric, tuple[float, ...]], Instrument] = {}
        for metric in _READ:
            make = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
            make(name_of(metric), [partial(self._observe, metric)], metric.unit[:1], metric.help)

    def add(self, queue: Shown) -> None:
        """Shows a queue from now on; it takes the place of one of its name."""
        with self._lock:
            shown = self._queues.get(queue.name)
            if shown is not None and shown() not in {None, queue}:
                _logger.warning(
                    "a second queue named %r is to be shown by one provider; it takes the first one's place", queue.name
                )
            self._queues[queue.name] = weakref.ref(queue)

    def remove(self, queue: Shown) -> None:
        """Shows a queue no more."""
        with self._lock:
            shown = self._queues.get(queue.name)
            if shown is not None and shown() is queue:  # else another of this name took over
                del self._queues[queue.name]

    def forget(self, queue: str, lanes: Collection[str]) -> None:
        """Shows lanes of a queue no more: they were removed."""
        provider = self._provider()
        if provider is not None:
            prune(provider, _SCOPE, queue, lanes)

    def histogram(self, metric: Metric, bounds: tuple[float, ...]) -> Instrument:
        """The instrument of one metric and these bounds."""
        with self._making:
            found = self._histograms.get((metric, bounds))
            if found is None:
                found = self._histograms[metric, bounds] = self._meter_for(metric, bounds).create_histogram(
                    name_of(metric), "s", metric.help, explicit_bucket_boundaries_advisory=bounds
                )
            return found

    def _meter_for(self, metric: Metric, bounds: tuple[float, ...]) -> Meter:
        """A meter has one instrument of a name, and an instrument one set of bounds."""
        usual = BUCKETS if metric in _BY_LANE else QUICK_BOUNDS
        provider = self._provider()
        if bounds == usual or provider is None:
            return self._meter
        return provider.get_meter(_SCOPE, attributes={"buckets": bounds})

    def _observe(self, metric: Metric, _options: CallbackOptions) -> Iterable[Observation]:
        """Called for each instrument in turn, in the thread that collects: the first call reads for all of them."""
        with self._lock:
            if metric not in self._left:
                queues = [(name, ref()) for name, ref in self._queues.items()]
                self._rows = [(name, queue.read()) for name, queue in queues if queue is not None]
                self._left = set(_READ)
            self._left.remove(metric)
            rows = [(name, found[metric]) for name, found in self._rows if found]
            if not self._left:
                self._rows = []
        return [
            Observation(number, attributes_of(metric, name, values)) for name, some in rows for values, number in some
        ]


class Recorder:
    """Records what the histograms of one queue are made of.

    Args:
        instruments: where it is recorded.
        tally: has folded whatever is recorded here, and knows the bounds and the types that are told apart.
        queue: value of the attribute `queue`.
        by_type: whether types of commands are told apart.
    """

    def __init__(self, instruments: Instruments, tally: Tally, queue: str, *, by_type: bool) -> None:
        self._instruments = instruments
        self._tally = tally
        self._queue = queue
        self._by_type = by_type
        self._targets: dict[tuple[Metric, tuple[str, ...]], tuple[Instrument, dict[str, str]]] = {}
        self._gone: set[str] = set()
        self._seen: dict[tuple[Metric, tuple[str, ...]], tuple[list[int], float]] = {}

    def record(self, facts: Sequence[Fact]) -> None:
        """Records the values that a batch tells of; the same that `Tally.fold` counts."""
        for fact in facts:
            build = fact[0]
            if build is started:
                self._start(fact)
            elif build is completed:
                _, at, command = fact
                self._end(command, at - command.started_at, at - command.submitted_at, command.trace)
            elif build is told:
                self._tell(fact)
            elif build is LaneRemoved:
                self._gone.add(fact[2])

    def take_gone(self) -> set[str]:
        """The lanes that were removed since last asked and are not there again; nothing is kept of them here."""
        gone, self._gone = self._gone, set()
        gone -= self._tally.lanes.keys()
        if gone:  # replaced, not changed: the event loop may be adding to it
            self._targets = {key: made for key, made in self._targets.copy().items() if not gone.intersection(key[1])}
        return gone

    def _start(self, fact: Fact) -> None:
        _, at, command, attempt, trace, ready, since, start, waited = fact
        if attempt == 1:
            if command.home.name in self._tally.lanes:  # else it was removed in the same batch
                before = 0.0 if waited is None else waited.partition + waited.broker
                self._put(catalogue.QUEUE_WAIT, (command.home.name,), at - since + before, trace)
            self._put(catalogue.DISPATCH_DELAY, (), between(ready, since, start, at).scheduler, None)

    def _tell(self, fact: Fact) -> None:
        command, kind, trace = fact[2], fact[3], fact[5]
        if kind in _UNSUCCESSFUL:
            self._end(command, fact[10], fact[8], trace)
        elif kind is CommandRetry:
            self._end(command, fact[8], None, trace)

    def _end(self, command: Any, seconds: float | None, whole: float | None, trace: TraceIds | None) -> None:
        lane = command.home.name
        if lane not in self._tally.lanes:
            return
        if seconds is not None:
            values: tuple[str, ...] = (lane,)
            if self._by_type:
                name = command.command_type
                values = (lane, name if name in self._tally.lanes[lane].durations else catalogue.OTHER_TYPE)
            self._put(catalogue.DURATION, values, seconds, trace)
        if whole is not None:
            self._put(catalogue.END_TO_END, (lane,), whole, trace)

    def _put(self, metric: Metric, values: tuple[str, ...], seconds: float, trace: TraceIds | None) -> None:
        instrument, attributes = self._targets.get((metric, values)) or self._target(metric, values)
        instrument.record(max(seconds, 0.0), attributes, _context_of(trace))

    def _target(self, metric: Metric, values: tuple[str, ...]) -> tuple[Instrument, dict[str, str]]:
        bounds = self._tally.lanes[values[0]].bounds if metric in _BY_LANE else QUICK_BOUNDS
        made = self._instruments.histogram(metric, bounds), attributes_of(metric, self._queue, values)
        self._targets[metric, values] = made
        return made

    def catch_up(self, metric: Metric, values: tuple[str, ...], histogram: Histogram) -> None:
        """Records what came to a histogram that somebody else keeps: as many values in each bucket, the same sum."""
        key, total, counts = (metric, values), histogram.total, histogram.counts.copy()
        before, recorded = self._seen.get(key) or ([0] * len(counts), 0.0)
        fresh = [now - then for now, then in zip(counts, before, strict=True)]
        if not any(fresh):
            return
        instrument, attributes = self._targets.get(key) or self._target(metric, values)
        each = likely(histogram.bounds, fresh, total - recorded)
        for number, seconds in enumerate(chain.from_iterable(map(repeat, each, fresh)), 1):
            instrument.record(seconds, attributes, _NO_SPAN)
            if number % _SLICE == 0:
                time.sleep(0)  # the event loop waits for the interpreter's lock meanwhile
        recorded += sum(map(mul, each, fresh))
        self._seen[key] = counts, recorded


def likely(bounds: Sequence[float], counts: Sequence[int], total: float) -> list[float]:
    """One value for each bucket, such that so many of each have this sum, as far as the buckets allow.

    Args:
        bounds: upper bounds of the buckets but the last.
        counts: values in each bucket.
        total: their sum.
    """
    lows = (0.0, *bounds[:-1])
    floor = sum(count * low for count, low in zip(counts, lows, strict=False))
    room = sum(count * (high - low) for count, low, high in zip(counts, lows, bounds, strict=False))
    above = nextafter(bounds[-1], inf)
    if counts[-1]:
        above = max(above, (total - floor - room / 2) / counts[-1])
    part = min(max((total - above * counts[-1] - floor) / room, _LEAST), 1.0) if room else 1.0
    return [*(min(low + part * (high - low), high) for low, high in zip(lows, bounds, strict=True)), above]


def _context_of(trace: TraceIds | None) -> Context:
    if trace is None or not trace.sampled:
        return _NO_SPAN
    span = SpanContext(trace.trace_id, trace.span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(span), Context())
