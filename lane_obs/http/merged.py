"""Metrics of several processes in one exposition: every series with the label `process`, and counters that only grow.

A process counts from zero. What one counted that is gone is added to what its successor counts, so that a scraper sees
one counter that never goes backwards; its gauges go with it. What a process counted after the last look, and did not
tell when it ended (it was killed), is lost. Only its last successor's lanes are kept: the cost of a scrape depends on
what is live, not on how many processes there were.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from prometheus_client.utils import floatToGoString

from lane_obs.http.fetch import fetch
from lane_obs.http.text import OPENMETRICS, Family, Series, read_families
from lane_obs.metrics.catalogue import CLUSTER
from lane_obs.metrics.supervised import PROCESS, WORKER_RESTARTS, WORKER_SCRAPE_FAILURES, WORKER_UP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from lane_obs.metrics import Metric

_MOST_THREADS: Final = 32
_GROWING: Final = frozenset({"counter", "histogram", "summary"})
# A broker's totals are the same whoever tells of them: they do not begin at zero in a process, and go with it.
_OF_ALL: Final = frozenset(metric.name.removesuffix("_total") for metric in CLUSTER)
_text: Callable[[float], str] = floatToGoString
_logger = logging.getLogger("lane_obs.http")

_Key = tuple[str, str]


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


class MergedMetrics:
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

    def families(self) -> list[Family]:
        """All families as they are now: those of the processes, then the supervisor's own."""
        with self._lock:  # one after the other: what a scrape saw must not be more than what the next one sees
            self._take_last_words()
            workers = self._workers()
            self._ask(workers)
            self._take_last_words()  # of one that has closed its queue meanwhile, and answered without
            joined: dict[str, Family] = {}
            for worker in workers:
                for family in self._place(worker.name).families():
                    _join(joined, family, worker.name)
            return [*joined.values(), *self._own(workers)]

    def _place(self, name: str) -> _Place:
        return self._places.setdefault(name, _Place())

    def _take_last_words(self) -> None:
        while True:
            try:
                name, run, text = self._last_words.get_nowait()
            except queue.Empty:
                return
            self._place(name).end(run, read_families(text))

    def _ask(self, workers: Sequence[Worker]) -> None:
        live = [worker for worker in workers if worker.url is not None]
        for worker in workers:
            self._place(worker.name).forget_gauges()
        if not live:
            return
        with ThreadPoolExecutor(min(len(live), _MOST_THREADS), "lane-obs-scrape") as pool:
            for worker, families in zip(live, pool.map(_scrape, live), strict=True):
                place = self._place(worker.name)
                if families is None:
                    place.failures += 1
                else:
                    place.take(worker.run, families)

    def _own(self, workers: Sequence[Worker]) -> Iterator[Family]:
        yield _family(WORKER_UP, {worker.name: float(worker.state == "ready") for worker in workers})
        restarts = {
            f'{worker.name}",reason="{reason}': count
            for worker in workers
            for reason, count in worker.restarted.items()
        }
        yield _family(WORKER_RESTARTS, restarts)
        yield _family(WORKER_SCRAPE_FAILURES, {worker.name: self._place(worker.name).failures for worker in workers})


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
        self._last = [family for family in families if family.type in _GROWING and family.name not in _OF_ALL]

    def end(self, run: int, families: list[Family]) -> None:
        """Takes what a process said last: it may be on its way while a scrape sees more."""
        seen = self._last if run == self._run else []
        self.take(run, families)
        self._last = _at_least(self._last, seen)
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
                yield _added(family, base_values)

    def _carry(self) -> None:
        """Adds what the process that is gone had counted to what its predecessors had."""
        if not self._last:
            return
        lanes = {series.lane for family in self._last for series in family.series}
        before, self._base = self._base, {}
        for family in self._last:
            values = before.get(family.name, (family, {}))[1]
            kept = {key: value for key, value in values.items() if Series(*key, "").lane in lanes}
            for series in family.series:
                key, value = (series.name, series.labels), float(series.value)
                kept[key] = _sum(series.name, kept.get(key), value)
            self._base[family.name] = (family.empty(), kept)
        self._last = []


# --- families ---------------------------------------------------------------------------------------------------


def _scrape(worker: Worker) -> list[Family] | None:
    assert worker.url is not None
    try:
        status, body = fetch(worker.url, "/metrics", accept=OPENMETRICS)
    except OSError as error:
        _logger.warning("process %s gave no metrics: %s", worker.name, error)
        return None
    if status != 200:
        _logger.warning("process %s gave no metrics: %d %s", worker.name, status, body[:200].decode(errors="replace"))
        return None
    return read_families(body.decode())


def _at_least(families: list[Family], seen: list[Family]) -> list[Family]:
    """Counters, none below what was seen of it."""
    values = {(series.name, series.labels): float(series.value) for family in seen for series in family.series}
    return [
        family._replace(
            series=[
                series._replace(
                    value=_text(max(float(series.value), values.get((series.name, series.labels), -math.inf)))
                )
                for series in family.series
            ]
        )
        for family in families
    ]


def _sum(name: str, before: float | None, now: float) -> float:
    """What is shown of a number and what was counted before; when it began to count is when the first one did."""
    if before is None:
        return now
    return before if name.endswith("_created") else before + now


def _added(family: Family, base: Mapping[_Key, float]) -> Family:
    """A family with what was counted before added to it."""
    found, left = family.empty(), dict(base)
    for series in family.series:
        before = left.pop((series.name, series.labels), None)
        shown = (
            series if before is None else series._replace(value=_text(_sum(series.name, before, float(series.value))))
        )
        found.series.append(shown)
    found.series.extend(Series(*key, _text(value)) for key, value in left.items())
    return found


def _join(joined: dict[str, Family], family: Family, process: str) -> None:
    """Adds a process's samples to the family that all share."""
    shared = joined.setdefault(family.name, family.empty())
    if shared.type == family.type:  # else two processes mean different things by the name: a roll is under way
        shared.series.extend(_labelled(family.series, process))


def _labelled(series: Iterable[Series], process: str) -> Iterator[Series]:
    label = f'{PROCESS}="{process}"'
    for name, labels, value, rest in series:
        yield Series(name, f"{label},{labels}" if labels else label, value, rest)


def _family(metric: Metric, values: Mapping[str, float]) -> Family:
    name = metric.name.removesuffix("_total")
    series = [Series(metric.name, f'{PROCESS}="{process}"', _text(value)) for process, value in values.items()]
    return Family(name, metric.kind, (f"# HELP {name} {metric.help}",), series)
