"""Lanes of all kinds, by chance."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from lane_obs.config import LaneConfig, Partitions, PriorityBoost, RateLimit

if TYPE_CHECKING:
    import random

SHARED: Final = (
    RateLimit.shared("s1", RateLimit.per_second(50, burst=2)),
    RateLimit.shared("s2", RateLimit.sliding_window(2, 0.03)),
)
_LIMITS: Final = (
    RateLimit.per_second(40, burst=1),
    RateLimit.per_second(100, burst=3),
    RateLimit.sliding_window(1, 0.02),
    RateLimit.sliding_window(3, 0.05),
    *SHARED,
)
_BOOSTS: Final = (
    PriorityBoost.standard(0.04, floor=-1),
    PriorityBoost.standard(),
    PriorityBoost.aggressive(0.1, floor=-9),
    PriorityBoost.custom(((0.5, 3), (0.25, 7)), 0.04),
    PriorityBoost.ageing(0.01, 1),
    PriorityBoost.ageing(0.02, 2, floor=-2),
)


def make_lanes(rng: random.Random) -> dict[str, LaneConfig]:
    """Some lanes of all kinds."""
    holder = LaneConfig(0, 1, rate_limit=SHARED)  # what nobody has is forgotten, or not
    return {"holder": holder, **{f"l{number}": make_lane(rng) for number in range(rng.randrange(2, 8))}}


def make_lane(rng: random.Random) -> LaneConfig:
    """A lane of any kind."""
    most = rng.randrange(1, 5)
    bound = rng.choice((None, None, 2, 4))
    return LaneConfig(
        rng.choice((0, 0, 0, min(most, 1), min(most, 2))),
        most,
        priority=rng.choice((0, 0, 1, 2, -1, 4)),
        max_pending=bound,
        overflow="wait" if bound is None else rng.choice(("wait", "reject", "drop_oldest", "drop_oldest")),
        on_crash=rng.choice(("rerun", "rerun", "dead_letter")),
        max_crashes=rng.choice((1, 2, 3)),
        rate_limit=rng.choice((None, None, None, rng.sample(_LIMITS, rng.choice((1, 1, 2))))),
        boost=rng.choice((None, None, *_BOOSTS)),
        on_expiry=rng.choice(("expire", "expire", "run")),
        partitions=rng.choice((None, None, Partitions.per_key(), Partitions.by_key(2))),
    )


def change_lane(rng: random.Random, old: LaneConfig, *, keeps_reserved: bool) -> LaneConfig:
    """Other policies for a lane: its boost and whether it has partitions are for its life."""
    new = make_lane(rng)
    reserved = old.min_concurrency if keeps_reserved else new.min_concurrency
    most = max(new.max_concurrency, reserved)
    return replace(new, min_concurrency=reserved, max_concurrency=most, boost=old.boost, partitions=old.partitions)
