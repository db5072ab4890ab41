"""Redis and Valkey: the one home of what speaks to them."""

from lane_obs.distributed.redis.broker import RedisBroker

__all__ = ["RedisBroker"]
