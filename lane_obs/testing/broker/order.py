"""Which command a claim gets: priority, turns, submit order, pause, boosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lane_obs.config import LaneConfig, PriorityBoost
from lane_obs.distributed.record import FactKind
from lane_obs.errors import UnknownLane
from lane_obs.testing.broker.trial import Trial, done, equal, new, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def priority_decides(trial: Trial) -> None:
    """The lane with the lower number goes first, whatever was submitted first."""
    lanes = {"low": LaneConfig(1, 9, priority=7), "high": LaneConfig(1, 9, priority=-3), "mid": LaneConfig(1, 9)}
    member = await trial.member(lanes)
    await member.put("low", "l1", "l2")
    await member.put("mid", "m1", "m2")
    await member.put("high", "h1", "h2")
    equal(await member.claim_ids(3), ["h1", "h2", "m1"], "the first claim")
    await member.put("high", "h3")
    equal(await member.claim_ids(9), ["h3", "m2", "l1", "l2"], "the second claim")


async def equals_take_turns(trial: Trial) -> None:
    """Lanes of one priority take turns, over claims of all members."""
    lanes = {name: LaneConfig(1, 20) for name in "abc"}
    members = [await trial.member(lanes) for _ in range(2)]
    for lane in "abc":
        await members[0].put(lane, *(f"{lane}{number}" for number in range(6)))
    taken: list[str] = []
    for number, want in enumerate((1, 2, 3, 1, 5, 2, 4)):
        taken += await members[number % 2].claim_ids(want)
        counts = [sum(name[0] == lane for name in taken) for lane in "abc"]
        assert max(counts) - min(counts) <= 1, f"lanes of one priority do not take turns: {taken}"
    equal(len(taken), 18, "commands claimed")


async def a_lane_keeps_order(trial: Trial) -> None:
    """First submitted, first claimed, whoever submits and claims."""
    lanes = {"a": LaneConfig(1, 500)}
    members = [await trial.member(lanes) for _ in range(2)]
    ids = [f"c{number}" for number in range(60)]
    for start in range(0, 60, 12):
        await members[start // 12 % 2].put("a", *ids[start : start + 12])
    taken: list[str] = []
    while len(taken) < 60:
        got = await members[len(taken) % 2].claim_ids(7)
        assert got, f"only {len(taken)} of 60 commands can be claimed"
        taken += got
    equal(taken, ids, "claims")


async def a_delay_keeps_the_place(trial: Trial) -> None:
    """A command whose delay is over goes before what was submitted after it."""
    member = await trial.member()
    await member.submit(new("c1", delay=0.05), new("c2"), new("c3"))
    await trial.state(member, "c1", "ready")
    equal(await member.claim_ids(3), ["c1", "c2", "c3"], "claims")


async def a_back_off_keeps_the_place(trial: Trial) -> None:
    """A command whose back-off is over goes before what was submitted after it."""
    member = await trial.member()
    await member.put("a", "c1", "c2", "c3")
    (first,) = await member.claim(1)
    await member.claim(0, done(first, "backoff", delay=0.05))
    await trial.state(member, "c1", "ready")
    claimed = await member.claim(3)
    equal([one.id for one in claimed], ["c1", "c2", "c3"], "claims")
    equal([one.attempt for one in claimed], [2, 1, 1], "attempts")
    assert first.ran == claimed[1].ran == 0.0 <= claimed[0].ran, "seconds that earlier attempts ran"
    assert 0.04 < claimed[0].backed_off <= claimed[0].age, f"backed_off is {claimed[0].backed_off}"


async def a_back_off_holds(trial: Trial) -> None:
    """A command that backs off is claimed when that is over, not before; one of no time is over at once."""
    member = await trial.member()
    await member.put("a", "c1")
    (first,) = await member.claim(1)
    before = trial.clock.now()
    turn = await member.turn(1, done(first, "backoff", delay=0.2))
    equal(turn.claimed, [], "claims during a back-off")
    assert turn.next_due is not None, "next_due is None during a back-off"
    assert turn.next_due <= 0.2, f"next_due is {turn.next_due} during a back-off of 0.2 s"
    second = await member.claim_one()
    assert trial.clock.now() - before >= 0.199, "a command was claimed before its back-off was over"
    await member.claim(0, done(second, "backoff"))
    equal((await member.claim_one()).attempt, 3, "the attempt after a back-off of no time")


async def what_is_given_back_keeps_the_place(trial: Trial) -> None:
    """An end as `ready` gives the command back as it was: its attempt not counted, in its old place."""
    member, other = await trial.member(), await trial.member()
    await member.put("a", "c1", "c2", "c3")
    first, second = await member.claim(2)
    await member.claim(0, done(second, "ready"), done(first, "ready"))
    claimed = await other.claim(3)
    equal([one.id for one in claimed], ["c1", "c2", "c3"], "claims")
    equal([one.attempt for one in claimed], [1, 1, 1], "attempts after commands were given back")
    equal([one.deaths for one in claimed], [0, 0, 0], "deaths after commands were given back")


async def what_is_given_back_may_wait(trial: Trial) -> None:
    """Given back for a while it starts no earlier, at its old place, and nothing of it is counted.

    Neither is the attempt, nor the wait as delay or back-off. Its slot is free at once.
    """
    lanes = {"a": LaneConfig(0, 1), "b": LaneConfig(0, 9, priority=1)}
    member, other = await trial.member(lanes), await trial.member(lanes)
    await member.put("a", "c1", "c2", "c3")
    for _ in range(2):
        first, before = await member.claim_one(), trial.clock.now()
        turn = await member.turn(1, done(first, "ready", delay=0.2))
        equal(
            [(first.id, first.attempt)] + [(one.id, one.attempt) for one in turn.claimed],
            [("c1", 1), ("c2", 1)],
            "claims",
        )
        await trial.state(member, "c1", "backoff")
        await trial.state(other, "c1", "ready")
        assert trial.clock.now() - before >= 0.199, "a command that was given back for 0.2 s was ready earlier"
        await member.claim(0, done(turn.claimed[0], "ready"))
    claimed = await other.claim_one()
    equal((claimed.id, claimed.attempt, claimed.deaths), ("c1", 1, 0), "what was given back twice")
    equal((claimed.delayed, claimed.backed_off), (0.0, 0.0), "its delay and back-off")
    assert claimed.age >= 0.399, f"its age is {claimed.age}"
    await other.claim(0, done(claimed, "backoff", delay=0.1))
    (running,) = await member.claim(1)
    await trial.state(member, "c1", "ready")
    await member.succeed(running)
    again = await member.claim_one()
    equal((running.id, again.id, again.attempt), ("c2", "c1", 2), "a retry of what was given back")
    assert 0.099 <= again.backed_off <= again.age - 0.399, f"backed_off is {again.backed_off} of {again.age} s"


async def a_paused_lane_waits(trial: Trial) -> None:
    """Nothing of a paused lane starts, for any member; other lanes go on, and what runs may end."""
    lanes = {"a": LaneConfig(1, 9), "b": LaneConfig(1, 9, priority=5)}
    member, other = await trial.member(lanes), await trial.member(lanes)
    await member.put("a", "a1", "a2")
    await member.put("b", "b1")
    (running,) = await other.claim(1)
    changed = [await one.broker.set_paused("a", paused=True) for one in (member, other)]
    equal(changed, [True, False], "set_paused() of a lane, twice")
    equal(await member.claim_ids(9), ["b1"], "claims while lane a is paused")
    equal(await other.claim_ids(9, done(running)), [], "claims of another member while lane a is paused")
    assert (await member.broker.stats()).lanes["a"].paused, "stats() does not show that a lane is paused"
    changed = [await one.broker.set_paused("a", paused=False) for one in (other, member)]
    equal(changed, [True, False], "set_paused() of a paused lane, twice")
    equal([one.id for one in await member.claim_all(1)], ["a2"], "claims after lane a was resumed")
    await trial.until(lambda: trial.facts(FactKind.RESUMED), "a member is told that a lane was resumed")
    for kind in (FactKind.PAUSED, FactKind.RESUMED):
        equal([(fact.lane, fact.id) for fact in trial.facts(kind)], [("a", "")], f"facts of kind {kind}")
    await refused(
        member.broker.set_paused("unknown", paused=True), UnknownLane, "set_paused() of a lane that is not there"
    )


async def deadlines_boost(trial: Trial) -> None:
    """As its deadline comes near, a command passes those of more important lanes, and of its own."""
    boost = PriorityBoost.custom(((0.9, 10),), floor=0)
    lanes = {"boosted": LaneConfig(1, 9, priority=5, boost=boost), "plain": LaneConfig(1, 9, priority=3)}
    member = await trial.member(lanes)
    await member.submit(new("b1", "boosted"), new("b2", "boosted", deadline=500.0), new("b3", "boosted", deadline=8.0))
    await member.put("plain", "p1", "p2")
    equal(await member.claim_ids(1), ["p1"], "the claim before the boost")
    await trial.pass_time(0.9)
    equal(await member.claim_ids(9), ["b3", "p2", "b1", "b2"], "claims after the boost")


async def age_boosts(trial: Trial) -> None:
    """With ageing, what waits long enough passes a more important lane."""
    lanes = {
        "old": LaneConfig(1, 9, priority=5, boost=PriorityBoost.ageing(0.8, 4)),
        "plain": LaneConfig(1, 9, priority=3),
    }
    member = await trial.member(lanes)
    await member.put("old", "o1", "o2")
    await member.put("plain", "p1", "p2")
    equal(await member.claim_ids(1), ["p1"], "the claim before the boost")
    await trial.pass_time(0.9)
    await member.put("old", "o3")
    equal(await member.claim_ids(9), ["o1", "o2", "p2", "o3"], "claims after the boost")


CHECKS: Final[tuple[Callable[[Trial], Awaitable[None]], ...]] = (
    priority_decides, equals_take_turns, a_lane_keeps_order, a_delay_keeps_the_place, a_back_off_keeps_the_place,
    a_back_off_holds, what_is_given_back_keeps_the_place,
    what_is_given_back_may_wait, a_paused_lane_waits, deadlines_boost, age_boosts,
)  # fmt: skip
