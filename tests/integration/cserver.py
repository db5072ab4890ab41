"""An independent simulation to compare replays with. It imports nothing of the product.

A c-server queue over a heap, in whole nanoseconds: jobs wait in lanes and run to their end once they started (no
pre-emption). A lane may start a job when it runs fewer than its `most` and, with a limit on the whole, when it
runs fewer than its `least` (a reserved slot) or there is a slot that nobody holds. A lane holds the larger of what
it runs and what it reserves. The lowest priority number goes first, of equals the lane that was served least
recently (never: in the order of their oldest jobs); within a lane first come, first served. A job may fail at the
end of its first runs; it comes back to its old place in its lane after the lane's pause, as often as it is allowed
to. Everything that happens at one instant is taken in before anything starts.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Job:
    at: int  # ns
    lane: str
    work: int  # ns, of each run
    failures: int = 0  # so many runs fail


@dataclass
class LaneState:
    priority: int
    most: int
    least: int = 0
    retries: int = 0
    pause: int = 0  # ns, before a retry
    running: int = 0
    served: int = 0
    waiting: list[int] = field(default_factory=list)  # a heap


@dataclass
class Times:
    start: int  # of the first run
    end: int  # of the last run
    runs: int
    succeeded: bool = False


def simulate(jobs: list[Job], lanes: dict[str, LaneState], limit: int | None) -> list[Times]:
    """When each job starts and ends. Jobs are numbered by arrival: (time, place in the list)."""
    times: dict[int, Times] = {}
    arrive, finish = 0, 1
    events = [(job.at, number, arrive) for number, job in enumerate(jobs)]
    heapq.heapify(events)
    starts = 0
    while events:
        now = events[0][0]
        while events and events[0][0] == now:
            _, number, kind = heapq.heappop(events)
            job, lane = jobs[number], lanes[jobs[number].lane]
            if kind == arrive:
                heapq.heappush(lane.waiting, number)
                continue
            lane.running -= 1
            mine = times[number]
            mine.end, mine.succeeded = now, mine.runs > job.failures
            if not mine.succeeded and mine.runs <= lane.retries:
                heapq.heappush(events, (now + lane.pause, number, arrive))
        while (lane := choose(lanes, limit)) is not None:
            number = heapq.heappop(lane.waiting)
            starts += 1
            lane.served = starts
            lane.running += 1
            mine = times.setdefault(number, Times(now, now, 0))
            mine.runs += 1
            heapq.heappush(events, (now + jobs[number].work, number, finish))
    return [times[number] for number in range(len(jobs))]


def choose(lanes: dict[str, LaneState], limit: int | None) -> LaneState | None:
    able = [lane for lane in lanes.values() if lane.waiting and may_start(lane, lanes, limit)]
    return min(able, key=lambda lane: (lane.priority, lane.served, lane.waiting[0]), default=None)


def may_start(lane: LaneState, lanes: dict[str, LaneState], limit: int | None) -> bool:
    if lane.running >= lane.most:
        return False
    if limit is None:
        return True
    held = sum(max(other.running, other.least) for other in lanes.values())
    running = sum(other.running for other in lanes.values())
    return running < limit and (lane.running < lane.least or held < limit)
