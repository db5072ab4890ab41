"""The sink: it folds facts as the Prometheus sink does, and shows the numbers through a meter provider."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import get_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from lane_obs.bus.outlet import Timing
from lane_obs.config import check_methods, check_name, to_count, to_seconds
from lane_obs.errors import ConfigError, NotStarted
from lane_obs.metrics import BUCKETS, Reader, Tally, catalogue
from lane_obs.metrics.bounds import Bounds
from lane_obs.sinks.otel_metrics.export import Gate, exporter_maker
from lane_obs.sinks.otel_metrics.instruments import Instruments, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.metrics import MeterProvider as AnyMeterProvider

    from lane_obs.config import Duration
    from lane_obs.core.fact import Fact
    from lane_obs.metrics import Rows
    from lane_obs.metrics.bounds import Buckets

_KEPT_BY_OTHERS: Final = (
    catalogue.LOOP_LAG,
    catalogue.MONITOR_TICK,
    catalogue.STORAGE_COMMIT,
    catalogue.BROKER_TURN,
    catalogue.SINK_FLUSH,
    catalogue.SINK_LAG,
)
_MOST_EARLY: Final = 10_000
_logger = logging.getLogger("lane_obs.sinks")


class OtelMetricsSink:
    """Shows one queue's metrics through a meter provider of the OpenTelemetry SDK, until the queue is closed.

    They go to the provider given, else to the global one if the SDK's was set, else to a receiver of OTLP as the
    environment says: `OTEL_EXPORTER_OTLP_ENDPOINT`, `_PROTOCOL`, `_HEADERS`, `_TIMEOUT` (and the same with
    `_METRICS_`), `OTEL_METRICS_EXPORTER` (`otlp`, `console`, `none`), `OTEL_METRIC_EXPORT_INTERVAL`,
    `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SDK_DISABLED`. Nothing global is touched, and a provider
    that is not the sink's own is flushed at the end and left open.

    Args:
        meter_provider: the provider to use.
        queue: value of the attribute `queue`. Several queues share one provider under different names.
        buckets: as for `PrometheusSink`.
        command_types: as for `PrometheusSink`.
        endpoint: where metrics go, as in `OTEL_EXPORTER_OTLP_ENDPOINT`; the global provider is not asked then.
        protocol: `grpc` or `http`, likewise.
        headers: sent with each request.
        close_timeout: seconds that `close` gives the last export.

    Attributes:
        timing: how long a batch takes, for the statistics.

    Raises:
        ConfigError: a value that is not allowed, or a provider together with an endpoint.
    """

    failures_in_a_row = 0
    """None ever. It is closed in a thread, as the sinks that work in one are, for `close` waits for the receiver."""

    def __init__(
        self,
        meter_provider: AnyMeterProvider | None = None,
        *,
        queue: str = "default",
        buckets: Buckets = BUCKETS,
        command_types: int = 0,
        endpoint: str | None = None,
        protocol: str | None = None,
        headers: Mapping[str, str] | None = None,
        close_timeout: Duration = 5.0,
    ) -> None:
        self._names_receiver = any(given is not None for given in (endpoint, protocol, headers))
        if meter_provider is not None:
            check_methods("meter_provider", meter_provider, ("get_meter",), "give a MeterProvider")
            if self._names_receiver:
                raise ConfigError("meter_provider", meter_provider, "give a provider or an endpoint, not both")
        self._make = exporter_maker(endpoint, protocol, headers) if meter_provider is None else lambda: None
        self._provider = meter_provider
        self._own: MeterProvider | None = None
        self.name = check_name("queue", queue)
        self._bounds = Bounds(buckets)
        self._command_types = to_count("command_types", command_types)
        self._close_timeout = to_seconds("close_timeout", close_timeout, zero=True)
        self.timing = Timing()
        self._bus: Any = None
        self._now: Callable[[], float] | None = None
        self._queue: Callable[[], Any] = lambda: None
        self._instruments: Instruments | None = None
        self._early: list[Fact] | None = None
        """What came before the provider was found at the start."""

    def take_failure(self) -> Exception | None:
        """Nothing: an export that fails harms nobody, the next one says the same and more."""
        return None

    # --- life ---------------------------------------------------------------------------------------------------

    def attach(self, queue: Any) -> None:
        """Begins at zero for this queue; the queue calls this once, when it is built.

        Raises:
            ConfigError: it shows another queue still, or there are bounds for a lane that the queue has not.
        """
        if self._queue() is not None:
            raise ConfigError("sinks", self, "give each queue an OtelMetricsSink of its own")
        self._tally = Tally(self._bounds.of_lanes(queue.lanes), self._command_types, self._bounds.of)
        self._reader = Reader(self._tally, queue.bus)
        self._bus, self._now, self._queue = queue.bus, queue.clock.now, weakref.ref(queue)
        self._early = [] if self._provider is None else None
        if self._provider is not None:
            self._show(Instruments.on(self._provider))

    def start(self) -> None:
        """Finds the provider, or makes one of its own with an exporter: what is missing for it is told now."""
        if self._instruments is not None or self._provider is not None:
            return
        found = None if self._names_receiver else get_meter_provider()
        if isinstance(found, MeterProvider):
            self._provider = found
            self._show(Instruments.on(found))
        elif os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true" and (made := self._make()) is not None:
            reader = PeriodicExportingMetricReader(Gate(made))
            self._own = MeterProvider([reader], shutdown_on_exit=False)
            self._show(Instruments(self._own))
        self._early = None

    def _show(self, instruments: Instruments) -> None:
        self._recorder = Recorder(instruments, self._tally, self.name, by_type=self._command_types > 0)
        self._instruments = instruments
        instruments.add(self)
        self._recorder.record(self._early or ())

    def close(self) -> None:
        """Has the last values exported, for `close_timeout` seconds at most, and shows the queue no more."""
        self._early = None
        instruments, self._instruments = self._instruments, None
        if instruments is None:
            return
        if self._own is not None:
            self._own.shutdown(self._close_timeout * 1_000)
        else:
            self._flush()
        instruments.remove(self)
        self._bus, self._queue = None, lambda: None

    def _flush(self) -> None:
        """Has somebody else's provider export what is there: a receiver that hangs must not keep us."""
        flush = getattr(self._provider, "force_flush", None)
        if flush is None:
            return

        def run() -> None:
            try:
                flush(self._close_timeout * 1_000)
            except Exception as error:  # the SDK's own way to tell that a reader failed
                _logger.warning("the last metrics of queue %r were not exported", self.name, exc_info=error)

        thread = threading.Thread(target=run, name="lane-obs-flush", daemon=True)
        thread.start()
        thread.join(self._close_timeout)

    # --- in and out ---------------------------------------------------------------------------------------------

    def handle_facts(self, facts: Sequence[Fact]) -> None:
        """Counts a batch.

        Raises:
            NotStarted: it belongs to no queue.
        """
        if self._bus is None or self._now is None:
            raise NotStarted("an OtelMetricsSink works for a queue: give it as one of its sinks, not wrapped")
        began = self._now()
        self._tally.fold(facts, self._bus.wall_offset)
        if self._instruments is not None:
            self._recorder.record(facts)
        elif self._early is not None and len(self._early) < _MOST_EARLY:
            self._early += facts
        if facts:
            self.timing.note(facts[0][1], began, self._now())

    def read(self) -> Rows:
        """All rows now; none when there is no queue. Histograms that others keep are brought up to date."""
        queue = self._queue()
        if queue is None:
            return {}
        if self._instruments is not None and (gone := self._recorder.take_gone()):
            self._instruments.forget(self.name, gone)
        rows = self._reader.read(queue.stats(), queue.broker)
        for metric in _KEPT_BY_OTHERS:
            for values, histogram in rows[metric]:
                self._recorder.catch_up(metric, values, histogram)
        return rows
