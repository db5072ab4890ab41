"""Checks a trace against the lanes it is to run through, before anything runs."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from lane_obs.config import to_rate_limits
from lane_obs.errors import TraceError

if TYPE_CHECKING:
    from lane_obs.config import QueueConfig
    from lane_obs.simulation.trace import Trace, TraceCommand


def fit(trace: Trace, config: QueueConfig, *, skip_bad_rows: bool = False) -> Trace:
    """Returns the trace if each of its commands can run to an end in these lanes.

    Args:
        trace: what to check.
        config: the lanes.
        skip_bad_rows: move rows that do not fit to `Trace.skipped` instead of raising the first. Time is then
            counted from the first command that is left.

    Raises:
        TraceError: a row names an unknown lane, or hangs and has neither a deadline nor a lane with a timeout.
    """
    misfits = [error for error in (_misfit(trace.path, command, config) for command in trace.commands) if error]
    if not misfits:
        return trace
    misfits.sort(key=attrgetter("line"))
    if not skip_bad_rows:
        raise misfits[0]
    bad = {error.line for error in misfits}
    left = [command for command in trace.commands if command.line not in bad]
    first_ns = left[0].at_ns if left else 0
    return msgspec.structs.replace(
        trace,
        commands=tuple(msgspec.structs.replace(command, at_ns=command.at_ns - first_ns) for command in left),
        skipped=tuple(sorted((*trace.skipped, *misfits), key=attrgetter("line"))),
    )


def _misfit(path: str, command: TraceCommand, config: QueueConfig) -> TraceError | None:
    lane = config.lanes.get(command.lane)
    if lane is None:
        known = ", ".join(map(repr, config.lanes))
        return TraceError(path, command.line, "lane", command.lane, f"give one of the known lanes: {known}")
    if command.outcome == "hang" and command.deadline_ns is None and lane.timeout is None:
        wanted = f"it would never end: give the row a deadline, or lane {command.lane!r} a timeout"
        return TraceError(path, command.line, "outcome", "hang", wanted)
    limits = (*lane.rate_limits, *to_rate_limits("rate_limit", config.rate_limit))
    most = min((limit.most for limit in limits), default=command.cost)
    if command.cost > most:
        wanted = f"lane {command.lane!r} never lets more than {most:g} through at once"
        return TraceError(path, command.line, "cost", f"{command.cost:g}", wanted)
    return None
