"""What events say about one lane, as plain numbers."""

from __future__ import annotations

from operator import add
from typing import TYPE_CHECKING, Final

from lane_obs.core.histogram import Histogram
from lane_obs.metrics.catalogue import OTHER_TYPE, OUTCOMES, RETRY_REASONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.events import TraceIds

_COUNTS: Final = (
    "submitted", "recovered", "boosted", "completed", "dead", "evicted", "requeued", "returned", "leases_lost", "stale",
    "unsuccessful_total", "attempts_total", "retries_total",
)  # fmt: skip


class LaneTally:
    """What the events say about one lane.

    Attributes:
        submitted, recovered, boosted, dead, evicted, requeued: commands and dead letters so far.
        returned, leases_lost, stale: what lost leases led to, see the catalogue.
        completed: commands that succeeded; each ended one attempt with `ok`, too.
        unsuccessful, attempts: commands and attempts that ended otherwise, by outcome.
        retries: attempts that another one follows, by reason.
        unsuccessful_total, attempts_total, retries_total: the sums of these three.
        last_bad: the trace of the attempt that failed last; `None` when none has, or none is traced.
        last_end: when a command last ended, in the clock's seconds; `None` before the first.
        wait, end_to_end: see the catalogue.
        durations: run times of attempts by type of command; all under `None` when types are not told apart.
        duration: the run times under `None`.
    """

    __slots__ = (
        "attempts",
        "attempts_total",
        "boosted",
        "bounds",
        "completed",
        "dead",
        "duration",
        "durations",
        "end_to_end",
        "evicted",
        "last_bad",
        "last_end",
        "leases_lost",
        "recovered",
        "requeued",
        "retries",
        "retries_total",
        "returned",
        "stale",
        "submitted",
        "unsuccessful",
        "unsuccessful_total",
        "wait",
    )  # fmt: skip

    submitted: int
    recovered: int
    boosted: int
    completed: int
    dead: int
    evicted: int
    requeued: int
    returned: int
    leases_lost: int
    stale: int
    unsuccessful_total: int
    attempts_total: int
    retries_total: int
    unsuccessful: dict[str, int]
    attempts: dict[str, int]
    retries: dict[str, int]
    wait: Histogram
    duration: Histogram
    end_to_end: Histogram

    def __init__(self, bounds: Sequence[float], *, by_type: bool = False) -> None:
        self.submitted = self.completed = self.recovered = self.dead = self.evicted = self.requeued = 0
        self.boosted = self.returned = self.leases_lost = self.stale = 0
        self.unsuccessful_total = self.attempts_total = self.retries_total = 0
        self.last_end: float | None = None
        self.last_bad: TraceIds | None = None
        self.unsuccessful = dict.fromkeys(OUTCOMES[1:], 0)
        self.attempts = dict.fromkeys(OUTCOMES[1:], 0)
        self.retries = dict.fromkeys(RETRY_REASONS, 0)
        self.bounds = tuple(bounds)
        self.wait = Histogram(bounds)
        self.duration = Histogram(bounds)
        self.end_to_end = Histogram(bounds)
        self.durations: dict[str | None, Histogram] = {OTHER_TYPE if by_type else None: self.duration}

    def add(self, other: LaneTally) -> None:
        """Adds what another lane of the same bounds has counted: its counts, and the histogram of its waits."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("unsuccessful", "attempts", "retries"):
            mine, others = getattr(self, name), getattr(other, name)
            for key, count in others.items():
                mine[key] += count
        # Replaced, not changed: what was read before stays as it was.
        self.wait.counts = list(map(add, self.wait.counts, other.wait.counts))
        self.wait.total += other.wait.total
