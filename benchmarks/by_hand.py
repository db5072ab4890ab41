"""The peer of the telemetry rows: `asyncio.PriorityQueue` and workers, instrumented by hand.

It is written the way the libraries' own documents show: `labels()` by keyword at every use and an `inc`/`dec` pair for
each gauge (prometheus_client), `start_as_current_span` for the producer and the consumer with the submitter's context
handed over (OpenTelemetry), one call of a logger with the usual chain, context variables bound before (structlog). It
makes the same spans with the same attributes as `OtelSink`, one JSON line with the same keys a command, and fewer
metrics than `PrometheusSink`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind
from prometheus_client import Counter, Gauge, Histogram

from benchmarks.workload import LIMIT, end_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TextIO

    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext, TracerProvider
    from prometheus_client import CollectorRegistry

BOUNDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip
"""Those of `PrometheusSink`."""

_COMMAND = "no_op"


class Metrics:
    """What is counted: less than `PrometheusSink` does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.submitted = Counter("hand_commands_submitted", "Commands submitted.", ["lane"], registry=registry)
        self.started = Counter("hand_commands_started", "Commands started.", ["lane"], registry=registry)
        self.finished = Counter("hand_commands_finished", "Commands finished.", ["lane", "outcome"], registry=registry)
        self.depth = Gauge("hand_queue_depth", "Commands that wait.", ["lane"], registry=registry)
        self.wait = Histogram(
            "hand_queue_wait_seconds", "Wait in the queue.", ["lane"], buckets=BOUNDS, registry=registry
        )
        self.duration = Histogram(
            "hand_duration_seconds", "Time to run a command.", ["lane"], buckets=BOUNDS, registry=registry
        )


def make_logger(file: TextIO) -> Any:
    """A logger with the chain that structlog's documents begin with, and their rule for trace ids. Not global."""
    return structlog.wrap_logger(
        structlog.PrintLogger(file),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _add_span,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )


def _add_span(_logger: Any, _method: str, fields: Any) -> Any:
    context = trace.get_current_span().get_span_context()
    fields["trace_id"] = format(context.trace_id, "032x")
    fields["span_id"] = format(context.span_id, "016x")
    return fields


class Job(NamedTuple):
    """A command in the queue."""

    priority: int
    number: int
    id: str
    lane: str
    work: Callable[[], Awaitable[int]]
    future: asyncio.Future[int]
    submitted_at: float
    context: Context
    submit_span: SpanContext


class HandQueue:
    """A priority queue, its workers and their instruments.

    Args:
        registry: for the metrics.
        provider: for the spans.
        file: for the log lines.
    """

    def __init__(self, registry: CollectorRegistry, provider: TracerProvider, file: TextIO) -> None:
        self._metrics = Metrics(registry)
        self._tracer = provider.get_tracer("by_hand")
        self._log = make_logger(file)
        self._queue: asyncio.PriorityQueue[Job] = asyncio.PriorityQueue()
        self._number = itertools.count(1)
        self._workers: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts the workers."""
        loop = asyncio.get_running_loop()
        self._workers = [loop.create_task(self._work()) for _ in range(LIMIT)]

    async def close(self) -> None:
        """Ends the workers."""
        await end_tasks(self._workers)

    def submit(self, lane: str, work: Callable[[], Awaitable[int]], priority: int = 0) -> asyncio.Future[int]:
        """Queues a command; the future gets its result."""
        number = next(self._number)
        command_id = f"command-{number}"
        with self._tracer.start_as_current_span(
            f"submit {lane}",
            kind=SpanKind.PRODUCER,
            attributes={
                "messaging.system": "lane",
                "messaging.operation.name": "submit",
                "messaging.operation.type": "send",
                "messaging.destination.name": lane,
                "messaging.message.id": command_id,
                "lane.priority": priority,
                "lane.command.type": _COMMAND,
            },
        ) as span:
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            context = otel_context.get_current()
            now = time.perf_counter()
            job = Job(priority, number, command_id, lane, work, future, now, context, span.get_span_context())
            self._queue.put_nowait(job)
            self._metrics.submitted.labels(lane=lane).inc()
            self._metrics.depth.labels(lane=lane).inc()
        return future

    async def _work(self) -> None:
        while True:
            await self._run(await self._queue.get())

    async def _run(self, job: Job) -> None:
        lane, metrics = job.lane, self._metrics
        started_at = time.perf_counter()
        wait = started_at - job.submitted_at
        metrics.depth.labels(lane=lane).dec()
        metrics.started.labels(lane=lane).inc()
        metrics.wait.labels(lane=lane).observe(wait)
        with self._tracer.start_as_current_span(
            f"process {lane}",
            context=job.context,
            kind=SpanKind.CONSUMER,
            links=[Link(job.submit_span)],
            attributes={
                "messaging.system": "lane",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": lane,
                "messaging.message.id": job.id,
                "lane.priority": job.priority,
                "lane.command.type": _COMMAND,
                "lane.attempt": 1,
                "lane.max_attempts": 1,
                "lane.queue.wait": wait,
            },
        ) as span:
            structlog.contextvars.clear_contextvars()
            structlog.contextvars.bind_contextvars(command_id=job.id, lane=lane, command_type=_COMMAND, attempt=1)
            try:
                result = await job.work()
            except Exception as error:
                span.set_attribute("lane.outcome", "error")
                self._end(job, "error", started_at, wait)
                job.future.set_exception(error)
            else:
                span.set_attribute("lane.outcome", "ok")
                self._end(job, "ok", started_at, wait)
                job.future.set_result(result)

    def _end(self, job: Job, outcome: str, started_at: float, wait: float) -> None:
        now = time.perf_counter()
        self._metrics.duration.labels(lane=job.lane).observe(now - started_at)
        self._metrics.finished.labels(lane=job.lane, outcome=outcome).inc()
        self._log.info(
            "queue.command.completed",
            outcome=outcome,
            queue_wait_s=wait,
            duration_s=now - started_at,
        )
