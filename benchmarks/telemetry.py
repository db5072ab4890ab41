"""Runs with telemetry on: what lies outside the queue, the same for every contestant, and one timed run of each.

A run's time ends when all that it has to tell is out: the queue is closed and the tracer provider shut down. What
threads do later than the last result is part of the price.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.collector import Counted, Discard
from benchmarks.workload import LANE, LIMIT, WrongResult, check, no_op
from lane_obs import LaneConfig, QueueManager

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from prometheus_client import CollectorRegistry

NEEDED: Final = {
    "structlog": "structlog",
    "prometheus_client": "prometheus-client",
    "opentelemetry.sdk": "opentelemetry-sdk",
}
DEFAULT_SPANS: Final = 2_048
"""What the SDK's batch processor has room for, unless told otherwise."""


def missing() -> str:
    """The packages that the telemetry rows need and this environment has not, by name; empty when all are there."""
    return ", ".join(package for module, package in NEEDED.items() if not _is_there(module))


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is not there either
        return False


class Outside:
    """What telemetry goes to: a registry, the null device, a tracer provider of the SDK. For one run.

    Args:
        count: commands that will run; every buffer has room for all that they tell, so that nobody is faster by
            losing something.
        ratio: share of traces that are sampled.
        exporter: makes the exporter of spans; by default one that discards them.
        span_room: spans that the batch processor has room for, if not for all.
        endpoint: where the pipeline of `OtelSink`'s own sends spans.
    """

    def __init__(
        self,
        count: int,
        *,
        ratio: float = 1.0,
        exporter: Callable[[], SpanExporter | Discard] = Discard,
        span_room: int | None = None,
        endpoint: str = "",
    ) -> None:
        self.count = count
        self.endpoint = endpoint
        self._ratio = ratio
        self._make_exporter = exporter
        self._span_room = span_room or max(4 * count, DEFAULT_SPANS)
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @functools.cached_property
    def registry(self) -> CollectorRegistry:
        """A registry of its own."""
        from prometheus_client import CollectorRegistry

        return CollectorRegistry()

    @functools.cached_property
    def null(self) -> Any:
        """The null device, for bytes."""
        return self._open.enter_context(open(os.devnull, "wb"))

    @functools.cached_property
    def null_text(self) -> Any:
        """The null device, for text."""
        return self._open.enter_context(open(os.devnull, "w", encoding="utf-8"))

    @functools.cached_property
    def spans(self) -> Counted:
        """The exporter."""
        return Counted(self._make_exporter())

    @functools.cached_property
    def provider(self) -> TracerProvider:
        """The SDK's provider with its batch processor."""
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

        provider = TracerProvider(sampler=ParentBasedTraceIdRatio(self._ratio), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(self.spans, max_queue_size=self._span_room))  # type: ignore[arg-type]
        return provider

    def flush(self) -> int:
        """Ends the spans' way out, if there are any, and returns how many were delivered."""
        if "provider" in self.__dict__:
            self.provider.shutdown()
            return self.spans.delivered
        return 0


def _structlog(outside: Outside) -> Any:
    from lane_obs.sinks.structlog import StructlogSink

    return StructlogSink(outside.null, capacity=4 * outside.count)


def _prometheus(outside: Outside) -> Any:
    from lane_obs.sinks.prometheus import PrometheusSink

    return PrometheusSink(outside.registry)


def _otel(outside: Outside) -> Any:
    from lane_obs.sinks.otel import OtelSink

    return OtelSink(tracer_provider=outside.provider)


def _otel_pipeline(outside: Outside) -> Any:
    from lane_obs.sinks.otel import OtelSink, SpanPipeline

    return OtelSink(pipeline=SpanPipeline(endpoint=outside.endpoint, protocol="grpc"))


def _watchdog(_outside: Outside) -> Any:
    from lane_obs.sinks.watchdog import LoopWatchdog

    return LoopWatchdog()


def _recorder(_outside: Outside) -> Any:
    from lane_obs.sinks.recorder import FlightRecorder

    return FlightRecorder(on_signal=False, on_crash=False)


SINKS: Final[Mapping[str, Callable[[Outside], Any]]] = {
    "metrics": _prometheus,
    "logs": _structlog,
    "traces": _otel,
    "watchdog": _watchdog,
    "flight recorder": _recorder,
}
"""Sinks by what they are for."""

PIPELINE: Final = "traces, own pipeline"
MAKERS: Final[dict[str, Callable[[Outside], Any]]] = {**SINKS, PIPELINE: _otel_pipeline}
"""All that a run may have."""


class Spent(NamedTuple):
    """What one run took.

    Attributes:
        seconds: from the first submit until everything is out.
        answered: from the first submit to the last result.
        cpu: processor time of all threads in `seconds`.
        spans: spans delivered.
    """

    seconds: float
    answered: float
    cpu: float
    spans: int

    @property
    def closing(self) -> float:
        """Seconds that it took to end, once the last result was there."""
        return self.seconds - self.answered


class Stopwatch:
    """Times one run."""

    def __init__(self) -> None:
        self._cpu, self._start = time.process_time(), time.perf_counter()
        self._answered = 0.0

    def answered(self) -> None:
        """The last result is there."""
        self._answered = time.perf_counter() - self._start

    def stop(self, spans: int) -> Spent:
        """Everything is out."""
        return Spent(time.perf_counter() - self._start, self._answered, time.process_time() - self._cpu, spans)


async def by_lane_obs(outside: Outside, names: Sequence[str]) -> Spent:
    """Runs no-op commands in one lane of a queue with these sinks, by name: of `SINKS`, or `PIPELINE`.

    Raises:
        WrongResult: a sink other than that for spans has lost something.
    """
    manager = QueueManager({LANE: LaneConfig(0, LIMIT)}, sinks=[MAKERS[name](outside) for name in names])
    await manager.start()
    watch = Stopwatch()
    handles = [await manager.submit(LANE, no_op) for _ in range(outside.count)]
    results = [await handle for handle in handles]
    watch.answered()
    await manager.close()
    spent = watch.stop(outside.flush())
    check(results, outside.count)
    for sink in manager.stats().sinks:
        if sink.errors or (sink.dropped and sink.name != "OtelSink"):
            raise WrongResult(f"{sink.name} has failed {sink.errors} times and dropped {dict(sink.dropped)}")
    return spent


async def by_hand(outside: Outside) -> Spent:
    """Runs the same commands by workers that are instrumented by hand."""
    from benchmarks.by_hand import HandQueue

    queue = HandQueue(outside.registry, outside.provider, outside.null_text)
    queue.start()
    watch = Stopwatch()
    futures = [queue.submit(LANE, no_op) for _ in range(outside.count)]
    results = [await future for future in futures]
    watch.answered()
    await queue.close()
    outside.null_text.flush()
    spent = watch.stop(outside.flush())
    check(results, outside.count)
    return spent
