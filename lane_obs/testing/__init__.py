"""What tests of programs that embed the queue need: virtual time and a sink that remembers."""

from lane_obs.clock import VirtualClock, sleep, sleep_until
from lane_obs.sinks.memory import MemorySink

__all__ = ["MemorySink", "VirtualClock", "sleep", "sleep_until"]
