"""What a broker adds to a queue's metrics: how this process is linked to it, and how the whole queue is."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from lane_obs.core.state import FINAL, State
from lane_obs.metrics import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lane_obs.metrics.catalogue import Metric
    from lane_obs.metrics.lane_tally import LaneTally

_FROM_TALLY: Final[dict[Metric, Callable[[LaneTally], int]]] = {
    catalogue.RETURNED: lambda lane: lane.returned,
    catalogue.LEASES_LOST: lambda lane: lane.leases_lost,
    catalogue.STALE: lambda lane: lane.stale,
}
_FROM_HEALTH: Final[dict[Metric, Callable[[Any], int]]] = {
    catalogue.BROKER_DOWN: lambda health: int(not health.ready),
    catalogue.BROKER_FAILURES: lambda health: health.failures,
    catalogue.BROKER_LEADS: lambda health: int(health.leads and health.ready),
}
_FROM_LANE: Final[dict[Metric, Callable[[Any], float]]] = {
    catalogue.CLUSTER_ACTIVE: lambda lane: lane.running,
    catalogue.CLUSTER_OLDEST: lambda lane: lane.oldest_ready_age or 0.0,
    catalogue.CLUSTER_LIMIT: lambda lane: lane.max_concurrency,
    catalogue.CLUSTER_PAUSED: lambda lane: int(lane.paused),
    catalogue.CLUSTER_LETTERS: lambda lane: lane.dead,
}
_FROM_WHOLE: Final[dict[Metric, Callable[[Any], int]]] = {
    catalogue.CLUSTER_SLOTS: lambda whole: sum(member.concurrency for member in whole.members if member.works),
    catalogue.CLUSTER_SUBMITTED: lambda whole: whole.submitted,
    catalogue.CLUSTER_RETURNED: lambda whole: whole.returned,
    catalogue.CLUSTER_EVICTED: lambda whole: whole.evicted,
}
_ENDS: Final = tuple(str(state) for state in State if state in FINAL)


def whole_of(broker: Any) -> Any:
    """How the whole queue is, if this process exports that; `None` while its link is lost, as it may lead no more."""
    return broker.leading_stats() if broker.health().ready else None


def add_link(rows: Any, broker: Any, lanes: Mapping[str, LaneTally]) -> None:
    """Adds what is about this process; before it has joined, and once it has left, there is no link to tell of.

    Args:
        rows: gets the rows, see `Rows`.
        broker: the queue's broker.
        lanes: what the events say, by lane.
    """
    for metric, read in _FROM_TALLY.items():
        rows[metric] += (((name,), read(lane)) for name, lane in lanes.items())
    if not broker.member:
        return
    health = broker.health()
    for metric, of_health in _FROM_HEALTH.items():
        rows[metric].append(((), of_health(health)))
    rows[catalogue.WORKER_INFO].append(((broker.member,), 1))


def add_cluster(rows: Any, whole: Any) -> None:
    """Adds what is about the whole queue, as one process exports it.

    Args:
        rows: gets the rows, see `Rows`.
        whole: the broker's statistics.
    """
    for name, lane in whole.lanes.items():
        rows[catalogue.CLUSTER_DEPTH] += (((name, state), getattr(lane, state)) for state in catalogue.STATES)
        for metric, of_lane in _FROM_LANE.items():
            rows[metric].append(((name,), of_lane(lane)))
    for metric, read in _FROM_WHOLE.items():
        rows[metric].append(((), read(whole)))
    rows[catalogue.CLUSTER_ENDED] += (((state,), whole.ended.get(state, 0)) for state in _ENDS)
    rows[catalogue.CLUSTER_MEMBERS] += (((role,), count) for role, count in roles_of(whole.members).items())


def roles_of(members: Iterable[Any]) -> dict[str, int]:
    """How many members there are of each role."""
    worker, submitter = catalogue.ROLES
    found = Counter(worker if member.works else submitter for member in members)
    return {role: found[role] for role in catalogue.ROLES}
