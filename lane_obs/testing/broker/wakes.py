"""Members that wait are told of work; one member leads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lane_obs.config import LaneConfig
from lane_obs.errors import BrokerError
from lane_obs.testing.broker.trial import MOMENT, Trial, TrialMember, done, equal, new, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def _woken(trial: Trial, member: TrialMember, wanted: list[str], why: str) -> None:
    """Waits until an idle member is told of work, and claims it; then it is idle again."""
    await trial.until(lambda: member.ear.work, f"an idle member is told of work, {why}")
    equal([one.id for one in await member.claim_all(len(wanted))], wanted, f"claims, {why}")
    await _idle(member)


async def _idle(member: TrialMember) -> None:
    equal(await member.claim_ids(9), [], "claims of a member that is to be idle")
    member.ear.work = 0


async def an_idle_member_is_told_of_work(trial: Trial) -> None:
    """After a submit, a delay, an end that frees a slot, a resume: whatever makes a command one that may start."""
    lanes = {"a": LaneConfig(1, 2), "b": LaneConfig(1, 9)}
    member, other = await trial.member(lanes), await trial.member(lanes, work=False)
    await _idle(member)
    await trial.pass_time(MOMENT)
    equal(member.ear.work, 0, "times that a member was told of work where there was none")
    await other.put("a", "c1")
    await _woken(trial, member, ["c1"], "after a submit")
    await other.put("a", "c2", delay=0.1)
    await _woken(trial, member, ["c2"], "after a delay")
    await member.claim(0)
    worker = await trial.member(lanes)
    await other.put("b", "b1")
    running = await member.claim_one()
    await _idle(worker)
    await member.claim(0, done(running, "backoff", delay=0.1))
    await _woken(trial, worker, ["b1"], "after a back-off")
    await member.broker.set_paused("b", paused=True)
    await other.put("b", "b2")
    await _idle(worker)
    await other.broker.set_paused("b", paused=False)
    await _woken(trial, worker, ["b2"], "after a resume")


async def an_idle_member_gets_what_a_claim_gives(trial: Trial) -> None:
    """Whether it is told of work or given it: in order, within the limits, no more than it asked for, nothing late."""
    lanes = {"a": LaneConfig(1, 2), "b": LaneConfig(1, 9, priority=5), "c": LaneConfig(1, 9, priority=9)}
    member, other = await trial.member(lanes), await trial.member(lanes, work=False)
    equal(await member.claim_ids(3), [], "claims of a member that is to be idle")
    await other.put("a", "a1", "a2", "a3")
    first, second = await member.claim_all(2)
    equal([first.id, second.id], ["a1", "a2"], "what a lane of two slots gave to an idle member")
    equal(await member.claim_ids(1), [], "claims of a lane whose slots are taken")
    await other.put("b", "b1", "b2", "b3")
    await trial.pass_time(MOMENT)
    equal([one.id for one in member.ear.claimed][1:], [], "what a member was given beyond the one that it asked for")
    equal([one.id for one in await member.claim_all(3, each=1)], ["b1", "b2", "b3"], "claims of another lane")
    await member.broker.set_paused("b", paused=True)
    await other.put("b", "b4", deadline=0.05)
    await _idle(member)
    await trial.pass_time(0.1)
    await other.put("c", "c1")
    await member.broker.set_paused("b", paused=False)
    equal([one.id for one in await member.claim_all(1)], ["c1"], "claims beside what is paused, and then late")
    equal(await member.claim_ids(9), [], "claims of what is late")
    equal([one.id for one in await member.claim(1, done(first))], ["a3"], "the claim of a slot")


async def an_idle_member_is_told_of_a_slot(trial: Trial) -> None:
    """What ends at one member makes room at another, even if the first wants no more."""
    lanes = {"a": LaneConfig(1, 1)}
    busy, idle = await trial.member(lanes), await trial.member(lanes)
    await busy.put("a", "c1", "c2", "c3")
    first = await busy.claim_one()
    await _idle(idle)
    await busy.succeed(first)
    await trial.until(lambda: idle.ear.work, "an idle member is told of a slot")
    equal((await idle.claim_one()).id, "c2", "the claim of a slot")
    await _idle(busy)
    await idle.close()
    await trial.until(lambda: busy.ear.work, "an idle member is told of what one that leaves gives back")
    equal((await busy.claim_one()).id, "c2", "the claim of what was given back")


async def who_steps_back_lets_others_go_first(trial: Trial) -> None:
    """A member that hands nothing in and wants nothing has others told of what is due, though it kept the time."""
    lanes = {"a": LaneConfig(1, 9)}
    first, second = await trial.member(lanes), await trial.member(lanes)
    await first.put("a", "c1")
    claimed = await first.claim_one()
    equal(await first.claim_ids(9, done(claimed, "ready", delay=0.2)), [], "claims of what was given back for a while")
    await _idle(second)
    first.ear.work = 0
    await trial.until(lambda: first.ear.work or second.ear.work, "an idle member is told of what is due")
    equal(await first.claim_ids(0), [], "claims of a member that wants nothing")
    await _woken_by_time(trial, second, "c1")
    await _idle(first)
    await second.close()
    await _woken_by_time(trial, first, "c1")


async def _woken_by_time(trial: Trial, member: TrialMember, wanted: str) -> None:
    """A member that is told of work asks, as often as it is told, until it has it."""
    got: list[str] = []

    async def claim() -> bool:
        if member.ear.work:
            member.ear.work = 0
            got.extend(await member.claim_ids(9))
        return bool(got)

    await trial.until(claim, f"{wanted} is claimed by a member that is told of it")
    equal(got, [wanted], "claims of a member that was told of work")


async def an_idle_member_takes_over(trial: Trial) -> None:
    """Work that one idle member leaves, since it wants no more, is told to the next."""
    members = [await trial.member({"a": LaneConfig(1, 99)}) for _ in range(3)]
    for member in members:
        await _idle(member)
    await members[0].put("a", *(f"c{number}" for number in range(6)))
    got: list[str] = []

    async def claim() -> bool:
        for member in members:
            if member.ear.work or member.ear.claimed:
                member.ear.work = 0
                got.extend(await member.claim_ids(2))
        return len(got) == 6

    await trial.until(claim, "idle members that are told of work have claimed all")
    equal(sorted(got), [f"c{number}" for number in range(6)], "claims")


async def one_member_leads(trial: Trial) -> None:
    """One member exports what is about the whole queue; when it leaves, another does."""
    members = [await trial.member() for _ in range(3)]
    await members[0].put("a", "c1")

    def leading() -> list[TrialMember]:
        return [member for member in members if member.broker.health().leads]

    await trial.until(leading, "a member leads")
    (leader,) = leading()

    def is_known() -> bool:
        stats = leader.broker.leading_stats()
        return stats is not None and stats.lanes["a"].ready == 1 and len(stats.members) == 3

    await trial.until(is_known, "the member that leads knows how the queue is")
    others = [member for member in members if member is not leader]
    equal([member.broker.leading_stats() for member in others], [None, None], "leading_stats() of the others")
    await trial.until(lambda: any(state.leads for state in leader.ear.states), "a member is told that it leads")
    await leader.close()
    await trial.until(lambda: [member for member in leading() if member is not leader], "another member leads")
    (second,) = leading()
    await trial.until(lambda: any(state.leads for state in second.ear.states), "another member is told that it leads")


async def members_are_shown(trial: Trial) -> None:
    """`stats` has all open members, with what they run."""
    worker, submitter = await trial.member(), await trial.member(work=False)
    assert worker.id and worker.id != submitter.id, f"member ids: {worker.id!r} and {submitter.id!r}"  # noqa: PT018
    await submitter.put("a", "c1", "c2")
    claimed = await worker.claim_all(2)
    found = {one.id: (one.works, one.running) for one in (await submitter.broker.stats()).members}
    equal(found, {worker.id: (True, 2), submitter.id: (False, 0)}, "members, by stats()")
    await worker.succeed(*claimed)
    health = worker.broker.health()
    equal((health.ready, health.error, health.failures), (True, "", 0), "health() of an open member")


async def a_closed_member_does_nothing(trial: Trial) -> None:
    """After `close` nothing is claimed or told any more, and it may be open again."""
    member, other = await trial.member(), await trial.member()
    await _idle(member)
    await member.broker.watch([])
    await member.close()
    await other.put("a", "c1")
    await trial.pass_time(MOMENT)
    equal(member.ear.work, 0, "times that a closed member was told of work")
    await refused(member.broker.submit([new("c2")]), BrokerError, "submit() of a closed member")
    equal(await other.claim_ids(9), ["c1"], "claims")


async def an_idle_member_stays_idle(trial: Trial) -> None:
    """A turn that wants nothing, such as one that only hands in ends, leaves an idle member idle."""
    member, other = await trial.member(), await trial.member(work=False)
    await other.put("a", "c1")
    claimed = await member.claim(2)
    await member.claim(0, *(done(one) for one in claimed))
    await member.claim(0)
    await other.put("a", "c2")
    await _woken(trial, member, ["c2"], "after a turn that wanted none")


CHECKS: Final[tuple[Callable[[Trial], Awaitable[None]], ...]] = (
    an_idle_member_is_told_of_work, an_idle_member_gets_what_a_claim_gives, an_idle_member_is_told_of_a_slot,
    who_steps_back_lets_others_go_first, an_idle_member_takes_over, an_idle_member_stays_idle, one_member_leads,
    members_are_shown, a_closed_member_does_nothing,
)  # fmt: skip
