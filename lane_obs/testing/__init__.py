"""What tests of programs that embed the queue need: virtual time, a sink that remembers, and a check of one's own."""

from lane_obs.clock import VirtualClock, sleep, sleep_until
from lane_obs.sinks.memory import MemorySink
from lane_obs.testing.broker import BROKER_CHECKS, BrokerOnTrial, check_broker
from lane_obs.testing.sink import check_sink
from lane_obs.testing.storage import check_storage

__all__ = [
    "BROKER_CHECKS",
    "BrokerOnTrial",
    "MemorySink",
    "VirtualClock",
    "check_broker",
    "check_sink",
    "check_storage",
    "sleep",
    "sleep_until",
]
