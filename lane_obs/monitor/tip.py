"""Which command tipped an alert, as far as one can be named: it leads from the alert into a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lane_obs.events import TraceIds
    from lane_obs.metrics import LaneTally, Tally

_BY_WAITING: Final = frozenset({"ready_depth", "pending", "oldest_ready_age", "starvation", "stall"})
_BY_RUNNING: Final = frozenset({"active", "saturation", "stuck"})
_BY_WAITED: Final = frozenset({"wait_p99"})


def trace_of(rule: str, lane: str, columns: Any, tally: Tally | None) -> TraceIds | None:
    """The trace of the command that tipped an alert of a lane; `None` when none is known.

    Args:
        rule: the rule's name.
        lane: the lane.
        columns: `Columns` of the queue.
        tally: what the events said, if that is counted.
    """
    if rule in _BY_WAITING or rule in _BY_RUNNING:
        found: TraceIds | None = columns.trace_behind(lane, running=rule in _BY_RUNNING)
        return found
    counted = None if tally is None else tally.lanes.get(lane)
    if counted is None:
        return None
    return _slowest(counted) if rule in _BY_WAITED else counted.last_bad or _slowest(counted)


def _slowest(lane: LaneTally) -> TraceIds | None:
    """Of those that waited in the longest bucket the last one that is traced."""
    return next((example[1] for example in reversed(lane.wait.exemplars) if example is not None), None)
