"""Metrics of several processes in one exposition: every series with the label `process`, and counters that only grow.

A process counts from zero. What one counted that is gone is added to what its successor counts, so that a scraper sees
one counter that never goes backwards; its gauges go with it. What a process counted after the last look, and did not
tell when it ended (it was killed), is lost. Only its last successor's lanes are kept: the cost of a scrape depends on
what is live, not on how many processes there were.
"""

from __future__ import annotations

import logging
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from prometheus_client import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from lane_obs.http.fetch import fetch
from lane_obs.metrics.supervised import PROCESS, WORKER_RESTARTS, WORKER_SCRAPE_FAILURES, WORKER_UP

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0"
_GROWING: Final = frozenset({"counter", "histogram", "summary"})
_logger = logging.getLogger("lane_obs.http")

_Key = tuple[str, tuple[tuple[str, str], ...]]


class Worker(NamedTuple):
    """A process to ask, or the place of one.

    Attributes:
        name: value of the label.
        run: number of the process in its place.
        url: where its pages are; `None` while it has none.
        state: what it does, in a word.
        restarted: how many processes followed another in this place, by why.
    """

    name: str
    run: int
    url: str | None
    state: str
    restarted: Mapping[str, int]


class Workers(Protocol):
    """What knows the processes."""

    def __call__(self) -> Sequence[Worker]:
        """All of them, as they are now; from any thread."""


class MergedMetrics(Collector):
    """Asks all processes at each scrape and joins what they say.

    Args:
        workers: the processes.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._places: dict[str, _Place] = {}
        self._lock = threading.Lock()
        self._last_words: queue.SimpleQueue[tuple[str, int, str]] = queue.SimpleQueue()

    def note_last_words(self, name: str, run: int, text: str) -> None:
        """Takes the metrics that a process gave at its end; from any thread, and never waits."""
        self._last_words.put((name, run, text))
        if self._lock.acquire(blocking=False):
            try:
                self._take_last_words()
            finally:
                self._lock.release()

    def collect(self) -> Iterator[Family]:
        """All families: those of the processes, then the supervisor's own."""
        with self._lock:  # one after the other: what a scrape saw must not be more than what the next one sees
            self._take_last_words()
            workers = self._workers()
            self._ask(workers)
            joined: dict[str, Family] = {}
            for worker in workers:
                for family in self._place(worker.name).families():
                    _join(joined, family, worker.name)
            joined |= {family.name: family for family in self._own(workers)}
        yield from joined.values()

    def _place(self, name: str) -> _Place:
        return self._places.setdefault(name, _Place())

    def _take_last_words(self) -> None:
        while True:
            try:
                name, run, text = self._last_words.get_nowait()
            except queue.Empty:
                return
            self._place(name).end(run, _parsed(text))

    def _ask(self, workers: Sequence[Worker]) -> None:
        live = [worker for worker in workers if worker.url is not None]
        for worker in workers:
            self._place(worker.name).forget_gauges()
        if not live:
            return
        with ThreadPoolExecutor(len(live), "lane-obs-scrape") as pool:
            for worker, families in zip(live, pool.map(_scrape, live), strict=True):
                place = self._place(worker.name)
                if families is None:
                    place.failures += 1
                else:
                    place.take(worker.run, families)

    def _own(self, workers: Sequence[Worker]) -> Iterator[Family]:
        up = Family(WORKER_UP.name, WORKER_UP.help, "gauge")
        restarts = Family(WORKER_RESTARTS.name.removesuffix("_total"), WORKER_RESTARTS.help, "counter")
        failures = Family(WORKER_SCRAPE_FAILURES.name.removesuffix("_total"), WORKER_SCRAPE_FAILURES.help, "counter")
        for worker in workers:
            label = {PROCESS: worker.name}
            up.add_sample(WORKER_UP.name, label, float(worker.state == "ready"))
            for reason, count in worker.restarted.items():
                restarts.add_sample(WORKER_RESTARTS.name, {**label, "reason": reason}, count)
            failures.add_sample(WORKER_SCRAPE_FAILURES.name, label, self._place(worker.name).failures)
        yield from (up, restarts, failures)


class _Place:
    """What the processes of one place have counted."""

    def __init__(self) -> None:
        self.failures = 0
        self._run = 0
        self._ended = 0
        self._last: list[Family] = []
        self._live: list[Family] = []
        self._base: dict[str, tuple[Family, dict[_Key, float]]] = {}

    def take(self, run: int, families: list[Family]) -> None:
        """Takes what a process says now, unless it has said its last words."""
        if run <= self._ended:
            return
        if run != self._run:
            self._carry()
            self._run = run
        self._live = families
        self._last = [family for family in families if family.type in _GROWING]

    def end(self, run: int, families: list[Family]) -> None:
        """Takes what a process said last."""
        self.take(run, families)
        self.forget_gauges()
        self._carry()
        self._ended = max(run, self._ended)

    def forget_gauges(self) -> None:
        """Shows none but counters until the process says more."""
        self._live = []

    def families(self) -> Iterator[Family]:
        """What there is to show."""
        shown = self._live or self._last
        names = {family.name for family in shown}
        for family in shown:
            base = self._base.get(family.name)
            yield family if base is None or family.type not in _GROWING else _added(family, base[1])
        for name, (family, base_values) in self._base.items():
            if name not in names:
                yield _added(_empty(family), base_values)

    def _carry(self) -> None:
        """Adds what the process that is gone had counted to what its predecessors had."""
        if not self._last:
            return
        lanes = {sample.labels.get("lane") for family in self._last for sample in family.samples}
        before, self._base = self._base, {}
        for family in self._last:
            values = before.pop(family.name, (family, {}))[1]
            kept = {key: value for key, value in values.items() if dict(key[1]).get("lane") in lanes}
            for sample in family.samples:
                key = _key(sample)
                first = sample.name.endswith("_created")  # when it began to count is when the first one did
                kept[key] = kept.get(key, sample.value) if first else kept.get(key, 0.0) + sample.value
            self._base[family.name] = (_empty(family), kept)
        self._last = []


# --- families ---------------------------------------------------------------------------------------------------


def _scrape(worker: Worker) -> list[Family] | None:
    assert worker.url is not None
    try:
        status, body = fetch(worker.url, "/metrics", accept=OPENMETRICS)
    except OSError as error:
        _logger.warning("worker %s gave no metrics: %s", worker.name, error)
        return None
    if status != 200:
        _logger.warning("worker %s gave no metrics: %d %s", worker.name, status, body[:200].decode(errors="replace"))
        return None
    return _parsed(body.decode())


def _parsed(text: str) -> list[Family]:
    return list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def _empty(family: Family) -> Family:
    return Family(family.name, family.documentation, family.type, family.unit)


def _key(sample: Sample) -> _Key:
    return sample.name, tuple(sorted(sample.labels.items()))


def _added(family: Family, base: Mapping[_Key, float]) -> Family:
    """A family with what was counted before added to it."""
    found, left = _empty(family), dict(base)
    for sample in family.samples:
        before = left.pop(_key(sample), None)
        if before is not None:
            created = sample.name.endswith("_created")
            sample = sample._replace(value=before if created else sample.value + before)
        found.samples.append(sample)
    found.samples += [Sample(name, dict(labels), value) for (name, labels), value in left.items()]
    return found


def _join(joined: dict[str, Family], family: Family, worker: str) -> None:
    """Adds a process's samples to the family that all share."""
    shared = joined.setdefault(family.name, _empty(family))
    if shared.type == family.type:  # else two processes mean different things by the name: a roll is under way
        shared.samples += _labelled(family.samples, worker)


def _labelled(samples: Iterable[Sample], worker: str) -> list[Sample]:
    return [sample._replace(labels={PROCESS: worker, **sample.labels}) for sample in samples]
