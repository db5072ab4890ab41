"""Prometheus metrics: facts are folded into plain numbers, which become samples only when somebody scrapes."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import weakref
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY
from prometheus_client import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample
from prometheus_client.utils import floatToGoString

from lane_obs.config import check_methods, check_name, to_count
from lane_obs.errors import ConfigError, NotStarted
from lane_obs.metrics import BUCKETS, CATALOGUE, Reader, Tally
from lane_obs.metrics.bounds import Bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prometheus_client import CollectorRegistry

    from lane_obs.core.fact import Fact
    from lane_obs.core.histogram import Exemplar as Example
    from lane_obs.core.histogram import Histogram
    from lane_obs.metrics import Metric
    from lane_obs.metrics.bounds import Buckets

_text: Callable[[float], str] = floatToGoString
_logger = logging.getLogger("lane_obs.sinks")


class PrometheusSink:
    """Shows one queue's metrics in a registry of `prometheus_client`, until the queue is closed.

    Several queues share one registry under different names. One of a name already there takes its place. A scrape
    reads, on whatever thread it runs, and waits for nobody: a blocked event loop does not matter to it.

    Args:
        registry: where the metrics are shown; default the client's own `REGISTRY`.
        queue: value of the label `queue`.
        buckets: upper bounds in seconds, rising, of the histograms of waiting, running and both; or such bounds by
            lane name, where other lanes have the default ones.
        command_types: how many types of commands have run times of their own (label `command_type`): those that are
            seen first. All that come later share the type `other`. 0 (default): no such label.

    Raises:
        ConfigError: a value that is not allowed.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        queue: str = "default",
        buckets: Buckets = BUCKETS,
        command_types: int = 0,
    ) -> None:
        self.registry: CollectorRegistry = REGISTRY if registry is None else registry
        check_methods("registry", self.registry, ("register", "unregister"), "give a CollectorRegistry")
        self._name = check_name("queue", queue)
        self._bounds = Bounds(buckets)
        self._command_types = to_count("command_types", command_types)
        self._bus: Any = None
        # Weak, so that a queue that was forgotten instead of closed can go, and its series with it.
        self._queue: Callable[[], Any] = _nothing

    def attach(self, queue: Any) -> None:
        """Begins at zero for this queue and shows it; the queue calls this once, when it is built.

        Raises:
            ConfigError: it shows another queue still, there are bounds for a lane that the queue has not, or the
                registry has other metrics of these names.
        """
        if self._queue() is not None:
            raise ConfigError("sinks", self, "give each queue a PrometheusSink of its own")
        bounds = self._bounds.of_lanes(queue.lanes)
        self.tally = Tally(bounds, self._command_types, self._bounds.of)
        self._reader = Reader(self.tally, queue.bus)
        self._series = {metric: _Series(metric, self._name) for metric in CATALOGUE}
        self._bus, self._queue = queue.bus, weakref.ref(queue)
        try:
            _show(self.registry, self._name, self)
        except ConfigError:
            self._bus, self._queue = None, _nothing
            raise

    def close(self) -> None:
        """Takes the queue's metrics out of the registry."""
        _hide(self.registry, self._name, self)
        self._bus, self._queue = None, _nothing

    def handle_facts(self, facts: Sequence[Fact]) -> None:
        """Counts a batch.

        Raises:
            NotStarted: it belongs to no queue.
        """
        if self._bus is None:
            raise NotStarted("a PrometheusSink works for a queue: give it as one of its sinks, not wrapped")
        self.tally.fold(facts, self._bus.wall_offset)

    def samples(self) -> dict[Metric, list[Sample]]:
        """The samples of every metric now, on any thread; none when there is no queue."""
        queue = self._queue()
        if queue is None:
            return {}
        rows = self._reader.read(queue.stats(), queue.broker)
        return {metric: series.samples(rows[metric]) for metric, series in self._series.items()}


def _nothing() -> None:
    return None


# --- from numbers to samples ------------------------------------------------------------------------------------


class _Series:
    """Makes samples of one metric of one queue. A label set is made once and shared by all scrapes that show it.

    One that a scrape does not show is let go: lanes are removed, and a program may give them ever new priorities.
    """

    def __init__(self, metric: Metric, queue: str) -> None:
        self._name = metric.name
        self._queue = queue
        self._label_names = (*metric.labels, *metric.opt_in)
        self._known: dict[Any, Any] = {}
        self.samples: Callable[[Iterable[tuple[tuple[str, ...], Any]]], list[Sample]] = (
            self._of_histograms if metric.kind == "histogram" else self._of_numbers
        )

    def _of_numbers(self, rows: Iterable[tuple[tuple[str, ...], float]]) -> list[Sample]:
        name, before, shown = self._name, self._known, {}
        samples = []
        for values, number in rows:
            labels = shown[values] = before.get(values) or self._labels(values)
            samples.append(Sample(name, labels, number))
        self._known = shown
        return samples

    def _of_histograms(self, rows: Iterable[tuple[tuple[str, ...], Histogram]]) -> list[Sample]:
        bucket_name, count_name, sum_name = f"{self._name}_bucket", f"{self._name}_count", f"{self._name}_sum"
        before, shown = self._known, {}
        samples: list[Sample] = []
        for values, histogram in rows:
            key = values, histogram.bounds
            labels, buckets = shown[key] = before.get(key) or self._with_buckets(*key)
            total, count, counts = histogram.total, 0, list(accumulate(histogram.counts.copy()))
            for bucket, count, example in zip(buckets, counts, histogram.exemplars, strict=True):
                samples.append(Sample(bucket_name, bucket, count, None, example and _exemplar(example)))
            samples += (Sample(count_name, labels, count), Sample(sum_name, labels, total))
        self._known = shown
        return samples

    def _labels(self, values: tuple[str, ...]) -> dict[str, str]:
        return {"queue": self._queue, **dict(zip(self._label_names, values, strict=False))}

    def _with_buckets(
        self, values: tuple[str, ...], bounds: tuple[float, ...]
    ) -> tuple[dict[str, str], list[dict[str, str]]]:
        labels = self._labels(values)
        return labels, [{**labels, "le": _text(bound)} for bound in (*bounds, math.inf)]


def _exemplar(example: Example) -> Exemplar:
    seconds, trace, wall = example
    return Exemplar({"trace_id": trace.trace_hex, "span_id": trace.span_hex}, seconds, wall)


# --- one collector a registry -----------------------------------------------------------------------------------


class _Queues(Collector):
    """All queues of one registry: a family may stand there only once, whoever has values for it."""

    def __init__(self) -> None:
        # Weak, so that a queue that was forgotten instead of closed leaves no stale series. Replaced, never changed:
        # a scrape may be reading it.
        self.sinks: dict[str, weakref.ref[PrometheusSink]] = {}

    def alive(self) -> dict[str, PrometheusSink]:
        """The sinks by name whose queues still exist."""
        found = {name: ref() for name, ref in self.sinks.items()}
        return {name: sink for name, sink in found.items() if sink is not None and sink._queue() is not None}  # noqa: SLF001 - one module

    def describe(self) -> Iterator[Family]:
        """The families without samples, for the registry's check of names."""
        return (_family(metric) for metric in CATALOGUE)

    def collect(self) -> Iterator[Family]:
        """The families with the values of now; none at all when no queue is left."""
        queues = [samples for sink in self.alive().values() if (samples := sink.samples())]
        for metric in CATALOGUE if queues else ():
            family = _family(metric)
            family.samples = list(chain.from_iterable(samples[metric] for samples in queues))
            yield family


def _family(metric: Metric) -> Family:
    return Family(metric.name.removesuffix("_total"), metric.help, metric.kind, metric.unit)


_collectors: weakref.WeakKeyDictionary[CollectorRegistry, _Queues] = weakref.WeakKeyDictionary()
_changing = threading.Lock()


def _show(registry: CollectorRegistry, name: str, sink: PrometheusSink) -> None:
    with _changing:
        collector = _collectors.get(registry)
        if collector is None:
            collector = _Queues()
            try:
                registry.register(collector)
            except ValueError as error:
                raise ConfigError("registry", registry, f"it has other metrics of these names ({error})") from error
            _collectors[registry] = collector
        alive = collector.alive()
        if alive.get(name, sink) is not sink:
            _logger.warning(
                "a second queue named %r is to be shown in one registry; it takes the first one's place", name
            )
        collector.sinks = {other: weakref.ref(shown) for other, shown in alive.items()} | {name: weakref.ref(sink)}


def _hide(registry: CollectorRegistry, name: str, sink: PrometheusSink) -> None:
    with _changing:
        collector = _collectors.get(registry)
        if collector is None:
            return
        alive = collector.alive()
        if alive.get(name) is sink:  # else another of this name took over
            del alive[name]
        collector.sinks = {other: weakref.ref(shown) for other, shown in alive.items()}
        if not alive:
            del _collectors[registry]
            with contextlib.suppress(KeyError):  # its owner took it out before
                registry.unregister(collector)
