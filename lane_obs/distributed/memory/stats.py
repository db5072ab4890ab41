"""How a queue in memory is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lane_obs.core.state import FINAL, State
from lane_obs.distributed.view import BrokerStats, LaneDepth, Member

if TYPE_CHECKING:
    from lane_obs.core.lane import Lane
    from lane_obs.distributed.memory.queue import SharedQueue


def stats_of(queue: SharedQueue) -> BrokerStats:
    """How a queue is now. From any thread."""
    life, now = queue.life, queue.clock.now()
    dead = life.letters.count_by_lane()
    engine = life.engine
    return BrokerStats(
        lanes={name: _depth(lane, dead.get(name, 0), now) for name, lane in list(engine.lanes.items())},
        members=[
            Member(
                id=seat.id,
                works=seat.works,
                concurrency=seat.concurrency,
                running=len(seat.held),
                lease_left=seat.lease_left(now, queue.lease),
            )
            for seat in list(queue.seats.values())
        ],
        max_concurrency=engine.max_concurrency,
        submitted=engine.submitted,
        ended={str(state): engine.total(state) for state in State if state in FINAL},
        returned=life.returned,
        letters=len(life.letters),
        evicted=life.letters.evicted,
    )


def _depth(lane: Lane, dead: int, now: float) -> LaneDepth:
    counts, config = lane.counts, lane.config
    since = lane.ready.oldest_since()
    return LaneDepth(
        ready=counts[State.READY],
        delayed=counts[State.DELAYED],
        backoff=counts[State.BACKOFF],
        running=counts[State.RUNNING],
        dead=dead,
        oldest_ready_age=None if since is None else max(now - since, 0.0),
        paused=lane.paused,
        priority=config.priority,
        min_concurrency=config.min_concurrency,
        max_concurrency=config.max_concurrency,
        max_pending=config.max_pending,
    )
