"""A replay in figures, by lane and in total."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from lane_obs.events import CAUSES, WaitByCause
from lane_obs.simulation.record import REJECTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lane_obs.config import QueueConfig
    from lane_obs.simulation.record import CommandRecord, Tally
    from lane_obs.simulation.replay import ReplayResult
    from lane_obs.simulation.trace import Trace


class Spread(msgspec.Struct, frozen=True):
    """Percentiles and maximum of durations in seconds; `None` where there are no values.

    The percentiles are exact, by nearest rank: of n sorted values, p95 is number ceil(0.95 n), a value that occurred.
    """

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


class LaneSummary(msgspec.Struct, frozen=True):
    """One lane, or all of them.

    Attributes:
        count: commands submitted or rejected.
        outcomes: how many had each outcome, zeros included.
        attempts: attempts of all commands.
        wait_seconds: waiting of a command; rejected ones, which never waited, are left out here and below.
        wait_by_cause_seconds: the waiting of all commands, split by cause.
        run_seconds: all attempts together.
        end_to_end_seconds: from submit to end of a command.
        peak_depth: the most commands that waited at one time, those included that were about to start.
        utilisation: `run_seconds` as a part of what the limit allowed in the time of the whole replay, 0 to 1.
    """

    count: int
    outcomes: dict[str, int]
    attempts: int
    wait_seconds: Spread
    wait_by_cause_seconds: WaitByCause
    run_seconds: float
    end_to_end_seconds: Spread
    peak_depth: int
    utilisation: float


class SkippedRow(msgspec.Struct, frozen=True):
    """A row of the trace that was left out, and why."""

    line: int
    column: str
    value: object
    allowed: str


class Summary(msgspec.Struct, frozen=True):
    """A whole replay.

    Attributes:
        trace: the file.
        elapsed_seconds: from the trace's start to the end of the last command, in the trace's time.
        not_submitted: commands that were left when the replay was stopped.
        skipped_rows: bad rows that were left out.
        lanes: by name, in the order of the configuration, unused ones included.
        total: all lanes; its utilisation is that of the queue's limit, or of the lanes' limits together.
    """

    trace: str
    elapsed_seconds: float
    not_submitted: int
    skipped_rows: tuple[SkippedRow, ...]
    lanes: dict[str, LaneSummary]
    total: LaneSummary


def summarize(result: ReplayResult, trace: Trace, config: QueueConfig) -> Summary:
    """Works out the figures of a replay."""
    elapsed = max((record.finished_at for record in result.records), default=0.0)
    by_lane: dict[str, list[CommandRecord]] = {name: [] for name in config.lanes}
    for record in result.records:
        by_lane[record.lane].append(record)
    limits = {name: lane.max_concurrency for name, lane in config.lanes.items()}
    whole = sum(limits.values())
    if config.max_concurrency is not None:
        whole = min(whole, config.max_concurrency)
    return Summary(
        trace=trace.path.encode("utf-8", "backslashreplace").decode(),  # a file's name may be any bytes
        elapsed_seconds=elapsed,
        not_submitted=result.not_submitted,
        skipped_rows=tuple(SkippedRow(row.line, row.column, row.value, row.allowed) for row in trace.skipped),
        lanes={name: _lane(records, result.lanes[name], limits[name] * elapsed) for name, records in by_lane.items()},
        total=_lane(result.records, result.total, whole * elapsed),
    )


def _lane(records: Sequence[CommandRecord], tally: Tally, available_seconds: float) -> LaneSummary:
    taken = [record for record in records if record.outcome != REJECTED]
    return LaneSummary(
        count=len(records),
        outcomes=dict(tally.outcomes),
        attempts=sum(record.attempts for record in records),
        wait_seconds=spread(record.wait_seconds for record in taken),
        wait_by_cause_seconds=WaitByCause(
            *(_sum(getattr(record.wait_by_cause, cause) for record in taken) for cause in CAUSES)
        ),
        run_seconds=round(tally.run_seconds, 9),
        end_to_end_seconds=spread(round(record.finished_at - record.submitted_at, 9) for record in taken),
        peak_depth=tally.peak_depth,
        utilisation=round(tally.run_seconds / available_seconds, 9) if available_seconds else 0.0,
    )


def _sum(seconds: Iterable[float]) -> float:
    return round(math.fsum(seconds), 9)


def spread(seconds: Iterable[float]) -> Spread:
    """The percentiles and maximum of some durations."""
    ranked = sorted(seconds)
    if not ranked:
        return Spread()
    # Whole numbers: 0.95 * 20 in floats is above 19 and would give the next rank.
    p50, p95, p99 = (ranked[-(-percent * len(ranked) // 100) - 1] for percent in (50, 95, 99))
    return Spread(p50, p95, p99, ranked[-1])
