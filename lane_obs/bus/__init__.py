"""The event bus, and what a sink is."""

from lane_obs.bus.bus import Bus
from lane_obs.bus.outlet import MAX_FAILURES, SinkStats
from lane_obs.bus.sink import AnySink, FactSink, Observer, Sink, ThreadedSink

__all__ = ["MAX_FAILURES", "AnySink", "Bus", "FactSink", "Observer", "Sink", "SinkStats", "ThreadedSink"]
