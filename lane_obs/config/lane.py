"""The policies of lanes, and what whole sets of lanes must satisfy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from lane_obs.config.boost import PriorityBoost
from lane_obs.config.check import Duration, check_name, to_choice, to_count, to_seconds
from lane_obs.config.partitions import Partitions
from lane_obs.config.rate_limit import RateLimit, check_shared, to_rate_limits
from lane_obs.config.retry import RetryPolicy
from lane_obs.errors import ConfigError


class Overflow(StrEnum):
    """What a lane with `max_pending` waiting commands does with one more."""

    WAIT = "wait"
    """`submit` waits for room (back-pressure); `submit_nowait` raises `LaneFullError`."""
    REJECT = "reject"
    """Raises `LaneFullError`."""
    DROP_OLDEST = "drop_oldest"
    """Takes it, and moves the lane's oldest ready command to the dead letters; `LaneFullError` when none is ready."""


class OnCrash(StrEnum):
    """What becomes of a command that ran when its process died."""

    RERUN = "rerun"
    """It runs again, that attempt counted: at least once, so it must not mind."""
    DEAD_LETTER = "dead_letter"
    """It becomes a dead letter."""


class OnExpiry(StrEnum):
    """What becomes of a command whose deadline has passed."""

    EXPIRE = "expire"
    """It ends as expired, a dead letter; one that runs is stopped."""
    RUN = "run"
    """It stays at its highest boost, and runs."""


@dataclasses.dataclass(frozen=True, slots=True)
class LaneConfig:
    """The policies of one lane.

    Args:
        min_concurrency: reserved slots. With a queue-wide `max_concurrency`, no other lane may take them;
            without one it has no effect. 0 or more, at most `max_concurrency`; default 1.
        max_concurrency: commands of this lane that may run at once, 1 or more; default 4.
        priority: lower runs first; any whole number, default 0. Equal priorities take turns.
        timeout: limit on one attempt in seconds; `None` (default) for none.
        retry: what happens to a failed attempt; default no retries.
        max_pending: bound on commands that wait (ready, delayed and backing off); `None` (default) for none.
        overflow: what a full lane does: `"wait"` (default), `"reject"` or `"drop_oldest"`; the latter two need
            `max_pending`.
        pressure_threshold: emit `queue.lane.pressure` when this many commands wait, and `queue.lane.idle` when
            none does any more; `None` (default) for neither.
        durable: keep the lane's commands in the queue's storage, so that they outlive the process; `None` (default):
            if the queue has a storage. A lane that is not durable pays nothing for it.
        on_crash: what becomes of a command that ran when its process died: `"rerun"` (default) or `"dead_letter"`.
        max_crashes: a command whose process died this many times while it ran becomes a dead letter, 1 or more;
            default 3.
        rate_limit: bounds how often its commands start: a `RateLimit`, or several that must all let a command through;
            `None` (default) for none.
        boost: raises the priority of commands as their deadlines come near, or as they get older; `None` (default)
            for never. Fixed for the lane's life.
        on_expiry: what becomes of a command whose deadline has passed: `"expire"` (default) or `"run"`.
        partitions: commands of one partition run one at a time, in order; `None` (default) for no partitions. Fixed
            for the lane's life.

    Raises:
        ConfigError: a value outside its range, with its name.
    """

    min_concurrency: int = 1
    max_concurrency: int = 4
    priority: int = dataclasses.field(default=0, kw_only=True)
    timeout: Duration | None = dataclasses.field(default=None, kw_only=True)
    retry: RetryPolicy = dataclasses.field(default=RetryPolicy(), kw_only=True)
    max_pending: int | None = dataclasses.field(default=None, kw_only=True)
    overflow: Overflow | str = dataclasses.field(default=Overflow.WAIT, kw_only=True)
    pressure_threshold: int | None = dataclasses.field(default=None, kw_only=True)
    durable: bool | None = dataclasses.field(default=None, kw_only=True)
    on_crash: OnCrash | str = dataclasses.field(default=OnCrash.RERUN, kw_only=True)
    max_crashes: int = dataclasses.field(default=3, kw_only=True)
    rate_limit: RateLimit | Sequence[RateLimit] | None = dataclasses.field(default=None, kw_only=True)
    boost: PriorityBoost | None = dataclasses.field(default=None, kw_only=True)
    on_expiry: OnExpiry | str = dataclasses.field(default=OnExpiry.EXPIRE, kw_only=True)
    partitions: Partitions | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        to_count("max_concurrency", self.max_concurrency, minimum=1)
        to_count("min_concurrency", self.min_concurrency)
        if self.min_concurrency > self.max_concurrency:
            raise ConfigError(
                "min_concurrency",
                self.min_concurrency,
                f"give at most max_concurrency, which is {self.max_concurrency}",
            )
        if isinstance(self.priority, bool) or not isinstance(self.priority, int):
            raise ConfigError("priority", self.priority, "give a whole number; lower runs first")
        if self.timeout is not None:
            object.__setattr__(self, "timeout", to_seconds("timeout", self.timeout))
        if not isinstance(self.retry, RetryPolicy):
            raise ConfigError("retry", self.retry, "give a RetryPolicy")
        for field in ("max_pending", "pressure_threshold"):
            if getattr(self, field) is not None:
                to_count(field, getattr(self, field), minimum=1)
        object.__setattr__(self, "overflow", to_choice("overflow", self.overflow, Overflow))
        if self.max_pending is None and self.overflow is not Overflow.WAIT:
            raise ConfigError("overflow", str(self.overflow), "give max_pending too: a lane without it is never full")
        self._check_durability()
        self._check_order()

    def _check_durability(self) -> None:
        if self.durable is not None and not isinstance(self.durable, bool):
            raise ConfigError("durable", self.durable, "give True, False, or None for whether there is a storage")
        object.__setattr__(self, "on_crash", to_choice("on_crash", self.on_crash, OnCrash))
        to_count("max_crashes", self.max_crashes, minimum=1)

    def _check_order(self) -> None:
        object.__setattr__(self, "rate_limit", to_rate_limits("rate_limit", self.rate_limit) or None)
        if self.boost is not None and not isinstance(self.boost, PriorityBoost):
            raise ConfigError("boost", self.boost, "give a PriorityBoost")
        object.__setattr__(self, "on_expiry", to_choice("on_expiry", self.on_expiry, OnExpiry))
        if self.partitions is not None and not isinstance(self.partitions, Partitions):
            raise ConfigError("partitions", self.partitions, "give Partitions")
        if self.partitions is not None and self.partitions.fair and self.boost is not None and not self.boost.is_ageing:
            wanted = "give ageing, or partitions that are not fair: turns and deadlines are two orders"
            raise ConfigError("boost", self.boost, wanted)

    @property
    def rate_limits(self) -> tuple[RateLimit, ...]:
        """Its rate limits; none is an empty tuple."""
        limits = self.rate_limit
        return () if limits is None else (limits,) if isinstance(limits, RateLimit) else tuple(limits)

    def with_rate_limit(self, *limits: RateLimit) -> LaneConfig:
        """A copy with other rate limits."""
        return dataclasses.replace(self, rate_limit=limits)

    def with_timeout(self, timeout: Duration) -> LaneConfig:
        """A copy with a limit on one attempt."""
        return dataclasses.replace(self, timeout=timeout)

    def with_retry_policy(self, policy: RetryPolicy) -> LaneConfig:
        """A copy with another retry policy."""
        return dataclasses.replace(self, retry=policy)

    def with_priority(self, priority: int) -> LaneConfig:
        """A copy with another priority."""
        return dataclasses.replace(self, priority=priority)

    def with_max_pending(self, max_pending: int, overflow: Overflow | str = Overflow.WAIT) -> LaneConfig:
        """A copy with a bound on waiting commands."""
        return dataclasses.replace(self, max_pending=max_pending, overflow=overflow)

    def with_pressure_threshold(self, threshold: int) -> LaneConfig:
        """A copy that reports pressure at this many waiting commands."""
        return dataclasses.replace(self, pressure_threshold=threshold)


DEFAULT_LANES: Final[Mapping[str, LaneConfig]] = MappingProxyType(
    {
        "system": LaneConfig(1, 5, priority=0),
        "control": LaneConfig(1, 3, priority=1),
        "query": LaneConfig(1, 10, priority=2),
        "session": LaneConfig(1, 5, priority=3),
        "skill": LaneConfig(1, 3, priority=4),
        "prompt": LaneConfig(1, 2, priority=5),
    }
)
"""The six built-in lanes with the priorities and limits of A3S Lane 0.1."""


def check_lanes(lanes: Mapping[str, LaneConfig], max_concurrency: int | None, rate_limit: object = None) -> None:
    """Checks a whole set of lanes.

    Raises:
        ConfigError: no lane, a bad name, a value that is no `LaneConfig`, reservations above the whole, reservations
            that leave a lane without any slot, or two rate limits of one name that differ.
    """
    if not isinstance(lanes, Mapping):
        raise ConfigError("lanes", lanes, "give a mapping of LaneConfig by name")
    if not lanes:
        raise ConfigError("lanes", lanes, "give at least one lane")
    for name, lane in lanes.items():
        check_name("lane name", name)
        if not isinstance(lane, LaneConfig):
            raise ConfigError(f"lanes.{name}", lane, "give a LaneConfig")
    own = to_rate_limits("rate_limit", rate_limit)
    check_shared([*own, *(limit for lane in lanes.values() for limit in lane.rate_limits)])
    if max_concurrency is None:
        return
    to_count("max_concurrency", max_concurrency, minimum=1)
    reserved = sum(lane.min_concurrency for lane in lanes.values())
    if reserved > max_concurrency:
        parts = " + ".join(f"{name} {lane.min_concurrency}" for name, lane in lanes.items() if lane.min_concurrency)
        raise ConfigError(
            "max_concurrency",
            max_concurrency,
            f"give at least {reserved}: the lanes reserve {reserved} slots (min_concurrency: {parts})",
        )
    starved = [name for name, lane in lanes.items() if not lane.min_concurrency]
    if starved and reserved == max_concurrency:
        raise ConfigError(
            "max_concurrency",
            max_concurrency,
            f"give more: all its slots are reserved, so lane {starved[0]!r} could never start",
        )


@dataclasses.dataclass(frozen=True, slots=True)
class QueueConfig:
    """A whole queue as read from a file.

    Args:
        lanes: by name, in the file's order.
        max_concurrency: queue-wide bound on running commands, 1 or more; `None` for none.
        rate_limit: of the whole queue, as in `LaneConfig`.

    Raises:
        ConfigError: see `check_lanes`.
    """

    lanes: Mapping[str, LaneConfig] = dataclasses.field(default_factory=lambda: DEFAULT_LANES)
    max_concurrency: int | None = None
    rate_limit: RateLimit | Sequence[RateLimit] | None = None

    def __post_init__(self) -> None:
        check_lanes(self.lanes, self.max_concurrency, self.rate_limit)
