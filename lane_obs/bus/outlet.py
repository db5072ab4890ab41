"""One sink on the bus: what it wants, and its record of success."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lane_obs.bus.sink import AnySink, FactSink, Sink, ThreadedSink
from lane_obs.core.fact import KINDS, told, traced
from lane_obs.core.histogram import QUICK_BOUNDS, Histogram
from lane_obs.errors import ConfigError
from lane_obs.events import LaneEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lane_obs.core.fact import Fact

MAX_FAILURES: Final = 10
"""A sink that fails this many batches in a row gets no more."""

_MAKES_ANY: Final = frozenset({told, traced})
_logger = logging.getLogger("lane_obs.bus")


class SinkStats(msgspec.Struct, frozen=True):
    """What became of the events handed to one sink.

    Attributes:
        name: class name of the sink.
        events: events it took.
        batches: batches they came in.
        errors: batches at which it raised.
        dropped: events lost, by reason: `error` (its batch raised), `disabled` (it was cut off), and its own.
        disabled: whether it was cut off.
        pending: events that wait in its buffer.
        flush_seconds: the time it has spent on batches.
        lag_seconds: how long the oldest event of its last batch had waited when the sink was done with it.
    """

    name: str
    events: int
    batches: int
    errors: int
    dropped: Mapping[str, int]
    disabled: bool
    pending: int
    flush_seconds: float
    lag_seconds: float


class Timing:
    """How long a sink takes.

    Attributes:
        flush: seconds spent on each batch.
        lag: seconds from the oldest event of a batch until the sink was done with the batch.
        last_lag: the latest of these.
    """

    __slots__ = ("flush", "lag", "last_lag")

    def __init__(self) -> None:
        self.flush = Histogram(QUICK_BOUNDS)
        self.lag = Histogram(QUICK_BOUNDS)
        self.last_lag = 0.0

    def note(self, oldest: float, began: float, ended: float) -> None:
        """Notes a batch, by the clock's seconds."""
        self.flush.observe(ended - began)
        self.last_lag = ended - oldest if ended > oldest else 0.0
        self.lag.observe(self.last_lag)


class Outlet:
    """One sink and its record of success.

    Args:
        sink: the sink.

    Raises:
        ConfigError: it has no `handle` and `close`, or wants what is no event.
    """

    __slots__ = (
        "_builders", "_kinds", "batches", "disabled", "dropped", "errors", "events", "failures_in_a_row", "is_idle",
        "name", "sink", "take", "threaded", "timing",
    )  # fmt: skip

    def __init__(self, sink: AnySink) -> None:
        if isinstance(sink, type) or not isinstance(sink, Sink | FactSink):
            raise ConfigError("sinks", sink, "give objects with handle(events) and close()")
        self.sink = sink
        self.name = type(sink).__name__
        self.threaded = sink if isinstance(sink, ThreadedSink) else None
        self.events = self.batches = self.errors = self.failures_in_a_row = 0
        self.disabled = False
        self.dropped: dict[str, int] = {}
        wants = _wanted(sink)
        self.is_idle = wants is not None and not wants
        """Whether it wants no events at all."""
        self._kinds = wants
        self._builders = None if wants is None else {build for build, kind in KINDS.items() if kind in wants} | wants
        self.timing: Timing = getattr(sink, "timing", None) or Timing()
        """A sink that works in a thread keeps its own."""
        self.take: Callable[[Sequence[Fact], int, dict[int, LaneEvent], float], int] = (
            self._take_facts if isinstance(sink, FactSink) else self._take_events
        )

    def _take_facts(self, facts: Sequence[Fact], _seq: int, _built: dict[int, LaneEvent], _wall: float) -> int:
        self.sink.handle_facts(facts)  # type: ignore[union-attr]
        return len(facts)

    def _take_events(self, facts: Sequence[Fact], seq: int, built: dict[int, LaneEvent], wall_offset: float) -> int:
        """Builds the events it wants, each once for all sinks, and hands them over."""
        kinds, builders = self._kinds, self._builders
        events: list[LaneEvent] = []
        for number, fact in enumerate(facts, seq):
            build = fact[0]
            if builders is not None and build not in builders and (build not in _MAKES_ANY or fact[3] not in kinds):  # type: ignore[operator]
                continue
            event = built.get(number)
            if event is None:
                at = fact[1]
                event = built[number] = build(number, at, at + wall_offset, *fact[2:])
            events.append(event)
        if events:
            self.sink.handle(events)  # type: ignore[union-attr]
        return len(events)

    def drop(self, reason: str, count: int) -> None:
        """Counts lost events."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def close(self) -> None:
        """Closes the sink; what it raises is logged and counted."""
        try:
            self.sink.close()
        except Exception as error:  # a sink must not keep the queue from closing
            self.errors += 1
            _logger.warning("sink %s failed to close", self.name, exc_info=error)

    def stats(self) -> SinkStats:
        """Its record so far."""
        own: Mapping[str, int] = getattr(self.sink, "dropped", {})
        pending: int = getattr(self.sink, "pending", 0)
        return SinkStats(
            self.name, self.events, self.batches, self.errors, {**self.dropped, **own}, self.disabled, pending,
            self.timing.flush.total, self.timing.last_lag,
        )  # fmt: skip


def _wanted(sink: object) -> frozenset[Any] | None:
    wants = getattr(sink, "wants", None)
    if wants is None:
        return None
    if not isinstance(wants, Collection) or not all(isinstance(k, type) and issubclass(k, LaneEvent) for k in wants):
        raise ConfigError("wants", wants, "give a collection of event classes, or None for all")
    return frozenset(wants)
