"""A queue that is divided among several brokers."""

from lane_obs.distributed.partitioned.broker import PartitionedBroker

__all__ = ["PartitionedBroker"]
