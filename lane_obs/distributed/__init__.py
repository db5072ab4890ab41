"""One queue for many processes: the `Broker` port and what implements it."""

from lane_obs.distributed.local import LocalBroker
from lane_obs.distributed.port import Broker, Listener

__all__ = ["Broker", "Listener", "LocalBroker"]
