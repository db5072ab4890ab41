"""A broker of which only that is there what metrics and alerts read, with figures as a test wants them."""

from __future__ import annotations

from typing import Any

from lane_obs import QueueManager
from lane_obs.distributed.view import BrokerHealth, BrokerStats, LaneDepth, Member


def depth(**counts: Any) -> LaneDepth:
    """A lane; what is not given is nothing."""
    nothing = {"ready": 0, "delayed": 0, "backoff": 0, "running": 0, "dead": 0, "oldest_ready_age": None}
    policies = {"paused": False, "priority": 0, "min_concurrency": 0, "max_concurrency": 8, "max_pending": None}
    return LaneDepth(**{**nothing, **policies, **counts})


def whole(lanes: dict[str, LaneDepth] | None = None, *members: Member, **counts: Any) -> BrokerStats:
    """A whole queue; what is not given is nothing."""
    nothing = {"max_concurrency": None, "submitted": 0, "ended": {}, "returned": 0, "letters": 0, "evicted": 0}
    return BrokerStats(lanes=lanes or {}, members=list(members), **{**nothing, **counts})


WORKER = Member(id="one:1:1", works=True, concurrency=32, running=3, lease_left=20.0)
SUBMITTER = Member(id="two:2:1", works=False, concurrency=0)


class KnownQueue(QueueManager):
    """A queue that works without a broker, and shows one."""

    broker: Any = None


class KnownBroker:
    """A broker that is as it is told to be, and that this process has joined."""

    member = "one:1:1"

    def __init__(self, health: BrokerHealth | None = None, stats: BrokerStats | None = None) -> None:
        self.now = health or BrokerHealth(ready=True)
        self.stats_now = stats

    def health(self) -> BrokerHealth:
        """As told."""
        return self.now

    def leading_stats(self) -> BrokerStats | None:
        """As told."""
        return self.stats_now
