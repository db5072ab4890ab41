"""One queue for many processes: the `Broker` port and what implements it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lane_obs.distributed.local import LocalBroker
from lane_obs.distributed.partitioned import PartitionedBroker
from lane_obs.distributed.port import Broker, Listener

if TYPE_CHECKING:
    from lane_obs.distributed.redis import RedisBroker

__all__ = ["Broker", "Listener", "LocalBroker", "PartitionedBroker", "RedisBroker"]


def __getattr__(name: str) -> Any:
    """Loads `RedisBroker` when it is first asked for: it needs the extra `redis`.

    Raises:
        AttributeError: another name.
    """
    if name == "RedisBroker":
        from lane_obs.distributed.redis import RedisBroker

        return RedisBroker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
