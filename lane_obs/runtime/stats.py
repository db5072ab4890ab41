"""Snapshots of a queue, as plain frozen records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lane_obs.core.state import State  # noqa: TC001 - msgspec reads the annotation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lane_obs.bus import SinkStats
    from lane_obs.events import WaitByCause


class LaneStats(msgspec.Struct, frozen=True):
    """One lane at one moment. Counts are commands; ages are seconds.

    Attributes:
        ready, delayed, backoff, running: live commands by state.
        stuck: running commands that ignore their cancellation; part of `running`.
        dead: dead letters kept.
        oldest_ready_age: age of the longest-ready command, `None` when none is ready. Delayed and backing-off
            commands do not count.
        oldest_active_age: age of the attempt that runs for the longest time, `None` when none runs.
        blocked: seconds so far in which the lane had ready work and could not start it, by cause.
        ended: commands that ended, by final state.
        priority, min_concurrency, max_concurrency, max_pending: the policies in force.
        paused: whether the lane is paused.
        waiting_submitters: callers of `submit` that wait for room.
        rate_limit_left: what the tightest of its rate limits would let through now; `None` without one.
        partitions: partitions with live commands; `None` in a lane without partitions.
        largest_partitions: ready commands of the partitions that have most of them, ten at most, by name; empty where
            there are more than a thousand partitions, too many to look through.
        partition_ages: how long the next command of a partition has been ready, of the ten partitions where that is
            longest, by name; empty as above.
    """

    ready: int
    delayed: int
    backoff: int
    running: int
    stuck: int
    dead: int
    oldest_ready_age: float | None
    oldest_active_age: float | None
    blocked: Mapping[str, float]
    ended: Mapping[str, int]
    priority: int
    min_concurrency: int
    max_concurrency: int
    max_pending: int | None
    paused: bool
    waiting_submitters: int
    rate_limit_left: float | None = None
    partitions: int | None = None
    largest_partitions: Mapping[str, int] = {}
    partition_ages: Mapping[str, float] = {}

    @property
    def pending(self) -> int:
        """Commands that wait: ready, delayed and backing off."""
        return self.ready + self.delayed + self.backoff


class StorageStats(msgspec.Struct, frozen=True):
    """A queue's storage at one moment.

    Attributes:
        ready: whether it takes changes.
        error: why not, in words; `None` when it does.
        recovered: whether all that was stored has been brought back.
        commands: commands stored.
        letters: dead letters stored.
        pending: changes that wait to be committed, or to be tried again.
        failures: transactions that failed so far.
        dropped: changes lost so far, because too many waited.
        file_bytes: size of its files.
        kept: stored commands that cannot run here, by reason: `unknown_lane`, `unregistered`.
    """

    ready: bool
    error: str | None
    recovered: bool
    commands: int
    letters: int
    pending: int
    failures: int
    dropped: int
    file_bytes: int
    kept: Mapping[str, int]


class RemovedLanes(msgspec.Struct, frozen=True):
    """What was counted in lanes that were removed.

    Attributes:
        lanes: how many there were.
        ended: commands that ended in them, by final state.
        blocked: seconds in which they had ready work and could not start it, by cause.
    """

    lanes: int
    ended: Mapping[str, int]
    blocked: Mapping[str, float]


class QueueStats(msgspec.Struct, frozen=True):
    """A whole queue at one moment.

    Attributes:
        lanes: statistics by lane name.
        max_concurrency: the queue-wide bound; `None` for none.
        submitted: commands taken in so far, requeued ones again.
        removed: what was counted in lanes that are gone: with the lanes' own it adds up to `submitted`.
        dead_letters: dead letters kept.
        dead_letters_evicted: dead letters that gave way so far.
        sinks: what became of the events, by sink.
        storage: the storage; `None` for none.
    """

    lanes: Mapping[str, LaneStats]
    max_concurrency: int | None
    submitted: int
    removed: RemovedLanes
    dead_letters: int
    dead_letters_evicted: int
    sinks: tuple[SinkStats, ...]
    storage: StorageStats | None = None

    @property
    def total_pending(self) -> int:
        """Commands of all lanes that wait."""
        return sum(lane.pending for lane in self.lanes.values())

    @property
    def total_active(self) -> int:
        """Commands of all lanes that run."""
        return sum(lane.running for lane in self.lanes.values())


class Explanation(msgspec.Struct, frozen=True):
    """Why a live command has not ended yet.

    Attributes:
        id, lane, state, attempt: which command, and where it is.
        cause: what it waits for now, one of `lane_obs.CAUSES`; `None` while it runs.
        wait_by_cause: its waiting so far.
        ahead_in_lane: ready commands of its lane that start before it; 0 unless it is ready.
        ahead_in_other_lanes: ready commands in more important lanes; 0 unless it is ready.
        due_in_seconds: when its delay or back-off is over, or its lane's rate limit lets the next command through; else
            `None`.
        text: all this in one sentence.
    """

    id: str
    lane: str
    state: State
    attempt: int
    cause: str | None
    wait_by_cause: WaitByCause
    ahead_in_lane: int
    ahead_in_other_lanes: int
    due_in_seconds: float | None
    text: str


class DrainReport(msgspec.Struct, frozen=True):
    """What a drain did.

    Attributes:
        seconds: how long it took, on the queue's clock.
        ended: commands that ended meanwhile, by final state.
        left: commands that are left, by lane and state; empty when all ended.
    """

    seconds: float
    ended: Mapping[str, int]
    left: Mapping[str, Mapping[str, int]]

    @property
    def total_left(self) -> int:
        """How many commands are left."""
        return sum(sum(states.values()) for states in self.left.values())
