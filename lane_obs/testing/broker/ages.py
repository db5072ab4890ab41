"""Which command of a lane is ready for the longest time: for the statistics, and for a full lane that drops it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lane_obs.config import LaneConfig, Partitions, PriorityBoost
from lane_obs.distributed.record import FactKind
from lane_obs.testing.broker.trial import Trial, TrialMember, done, equal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lane_obs.distributed.record import Claimed


def _lanes(**policies: Any) -> dict[str, LaneConfig]:
    return {
        "line": LaneConfig(0, 9, **policies),
        "levels": LaneConfig(0, 9, boost=PriorityBoost.custom(((0.99, 3),)), **policies),
        "keys": LaneConfig(0, 9, partitions=Partitions.per_key(), **policies),
    }


async def the_longest_ready_is_told(trial: Trial) -> None:
    """Also where another one is first in line: one that was given back, was boosted, or has a key that is free."""
    member = await trial.member(_lanes())
    began = trial.clock.now()
    first = await _put_first(trial, member)
    await member.claim(0, done(first, "ready"))
    lanes = (await member.broker.stats()).lanes
    most = trial.clock.now() - began
    for name, lane in lanes.items():
        age = lane.oldest_ready_age
        assert age is not None, f"lane {name} has {lane.ready} ready commands and no age of the oldest"
        assert 0.3 <= age <= most + 0.01, f"lane {name}: an age of {age} s where one is ready for 0.3 to {most} s"


async def the_longest_ready_gives_way(trial: Trial) -> None:
    """Of a full lane with an order of its own, not the one that would start next."""
    member = await trial.member(_lanes(max_pending=2, overflow="drop_oldest"))
    await _put_first(trial, member)
    await member.put("levels", "b3")
    await member.put("keys", "k4", part="q")
    facts = await trial.fact(FactKind.DROPPED, "b1", "k2")
    equal({fact.id: fact.lane for fact in facts}, {"b1": "levels", "k2": "keys"}, "lanes of what was dropped")
    equal((await member.broker.stats()).lanes["keys"].ready, 2, "what is ready in lane keys")


async def _put_first(trial: Trial, member: TrialMember) -> Claimed:
    """In each lane one command, and later another one that is before it in line; gives the one that is yet to be so."""
    await member.put("line", "l1")
    await member.put("keys", "k1", part="p")
    claimed = {one.id: one for one in await member.claim_all(2)}
    await member.put("line", "l2")
    await member.put("keys", "k2", part="p")
    await member.put("levels", "b1")
    await trial.pass_time(0.05)
    await member.put("keys", "k3", part="q")
    await member.put("levels", "b2", deadline=20.0)
    await trial.pass_time(0.3)
    return claimed["l1"]


CHECKS: Final[tuple[Callable[[Trial], Awaitable[None]], ...]] = (
    the_longest_ready_is_told, the_longest_ready_gives_way,
)  # fmt: skip
