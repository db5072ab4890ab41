"""Leases and fencing tokens: one accepted end for each attempt, and nothing is lost with a member."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from lane_obs.config import LaneConfig
from lane_obs.distributed.record import End, FactKind
from lane_obs.testing.broker.trial import Trial, done, equal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def tokens_grow(trial: Trial) -> None:
    """Each claim of the queue has a larger token than all before, whoever makes it."""
    lanes = {"a": LaneConfig(1, 99), "b": LaneConfig(1, 99)}
    members = [await trial.member(lanes) for _ in range(2)]
    for lane in lanes:
        await members[0].put(lane, *(f"{lane}{number}" for number in range(10)))
    tokens: list[int] = []
    for number in range(8):
        claimed = await members[number % 2].claim(2)
        tokens += [one.token for one in claimed]
        await members[number % 2].claim(0, *(done(one, "ready") for one in claimed[:1]))
    equal(tokens, sorted(set(tokens)), "tokens in the order of claims")


async def a_claim_is_of_one_member(trial: Trial) -> None:
    """Members that claim at the same time get different commands."""
    lanes = {"a": LaneConfig(1, 500)}
    members = [await trial.member(lanes) for _ in range(4)]
    ids = [f"c{number}" for number in range(200)]
    await members[0].put("a", *ids)
    taken: list[str] = []
    while len(taken) < 200:
        for got in await asyncio.gather(*(member.claim_ids(9) for member in members)):
            taken += got
    equal(sorted(taken), sorted(ids), "claims of four members")


async def stale_ends_are_refused(trial: Trial) -> None:
    """An end by an old token, a second end, and an end of what another member has: refused, and nothing changes."""
    member, other = await trial.member(), await trial.member()
    await member.put("a", "c1", "c2")
    first, second = await member.claim(2)
    await member.claim(0, done(first, "backoff"))
    again = await other.claim_one()
    equal((await member.turn(0, done(first))).stale, ["c1"], "an end by an old token")
    equal((await member.turn(0, done(again))).stale, ["c1"], "an end of what another member has")
    equal((await other.turn(0, done(again, result=b"1"))).stale, [], "the end by whoever has it")
    equal((await other.turn(0, done(again, "failed", result=b"2", letter=b""))).stale, ["c1"], "a second end")
    mixed = (End("unknown", 1, "succeeded"), done(second), done(first, "failed"))
    equal((await member.turn(0, *mixed)).stale, ["unknown", "c1"], "ends of which one is fine")
    results = {one.id: (one.state, one.data) for one in await member.broker.watch(["c1", "c2"])}
    equal(results, {"c1": ("succeeded", b"1"), "c2": ("succeeded", b"")}, "results")
    equal((member.broker.health().stale, other.broker.health().stale), (4, 1), "health().stale")
    equal((await member.broker.stats()).ended["succeeded"], 2, "stats().ended")


async def a_lost_lease_returns_the_command(trial: Trial) -> None:
    """What a lost member ran is ready for others, attempt and death counted; its late ends are refused."""
    member, other = await trial.member(), await trial.member()
    await member.put("a", "c1", "c2", "c3")
    claimed = await other.claim(2)
    other.broker.stop_beat()
    (third,) = await member.claim(9)
    equal(third.id, "c3", "what is left for others while the lease holds")
    again = await member.claim_all(2)
    found = [(one.id, one.attempt, one.deaths, one.body) for one in again]
    equal(found, [("c1", 2, 1, b"c1"), ("c2", 2, 1, b"c2")], "what comes back")
    assert min(one.token for one in again) > max(one.token for one in claimed), "tokens of what comes back"
    facts = await trial.fact(FactKind.RETURNED, "c1", "c2")
    equal({(fact.lane, fact.body, fact.attempt, fact.member) for fact in facts},
          {("a", b"c1", 1, other.id), ("a", b"c2", 1, other.id)}, "the facts of what comes back")  # fmt: skip
    equal((await member.broker.stats()).returned, 2, "stats().returned")
    other.broker.start_beat()
    equal(sorted((await other.turn(0, *map(done, claimed))).stale), ["c1", "c2"], "late ends of a lost member")
    await trial.until(lambda: len(other.ear.lost) == 2, "a member is told of its lost leases")
    equal(sorted(other.ear.lost), ["c1", "c2"], "lost leases that a member is told of")
    equal((other.broker.health().lost, other.broker.health().stale), (2, 2), "health() of a lost member")
    await member.succeed(*again, third)


async def a_lost_member_comes_back(trial: Trial) -> None:
    """A member whose lease was lost works on once it is awake."""
    member, other = await trial.member(), await trial.member()
    await member.put("a", "c1")
    (claimed,) = await other.claim(1)
    other.broker.stop_beat()
    again = await member.claim_one()
    other.broker.start_beat()
    equal((await other.turn(0, done(claimed))).stale, ["c1"], "late ends of a lost member")
    await member.put("a", "c2")
    second = await other.claim_one()
    await trial.pass_time(2 * trial.lease)
    await other.succeed(second)
    await member.succeed(again)
    equal((await member.broker.stats()).ended["succeeded"], 2, "stats().ended")


async def leases_are_renewed(trial: Trial) -> None:
    """An open member keeps what it runs for as long as it likes, without a call."""
    member, other = await trial.member(), await trial.member()
    await member.put("a", "c1")
    (claimed,) = await other.claim(1)
    await trial.pass_time(3 * trial.lease)
    equal(await member.claim_ids(9), [], "claims of what another member runs")
    left = {one.id: one.lease_left for one in (await member.broker.stats()).members}
    assert 0 < left[other.id] <= trial.lease, f"lease_left is {left[other.id]} of a lease of {trial.lease} s"
    await other.succeed(claimed)
    equal(trial.facts(FactKind.RETURNED), [], "facts of lost leases")


async def a_command_that_kills_is_poisoned(trial: Trial) -> None:
    """Its lease was lost `max_crashes` times: it is a dead letter."""
    lanes = {"a": LaneConfig(1, 9, max_crashes=2), "b": LaneConfig(1, 9, on_crash="dead_letter")}
    member = await trial.member(lanes, work=False)
    await member.put("a", "c1")
    await member.put("b", "d1")
    equal(await member.broker.watch(["c1", "d1"]), [], "results of commands that wait")
    for wanted in (["c1", "d1"], ["c1"]):
        victim = await trial.member(lanes)
        equal(sorted(one.id for one in await victim.claim_all(len(wanted))), wanted, "claims of a member that dies")
        victim.broker.stop_beat()
    facts = await trial.fact(FactKind.POISONED, "c1", "d1")
    equal({(fact.id, fact.lane, fact.attempt) for fact in facts}, {("c1", "a", 2), ("d1", "b", 1)}, "facts of poison")
    equal([fact.id for fact in trial.facts(FactKind.RETURNED)], ["c1"], "facts of lost leases")
    await trial.until(lambda: len(member.ear.results) == 2, "a member is told of the ends of poisoned commands")
    equal({(one.id, one.state) for one in member.ear.results}, {("c1", "failed"), ("d1", "failed")}, "results")
    letters = {(one.id, one.cause, one.state, one.attempt) for one in await member.broker.letters()}
    equal(letters, {("c1", "poisoned", "failed", 2), ("d1", "poisoned", "failed", 1)}, "letters")


async def a_close_gives_back_at_once(trial: Trial) -> None:
    """What a member that leaves still holds is ready again at once: the attempt counts, but it is no death."""
    member, other = await trial.member(), await trial.member()
    await member.put("a", "c1", "c2")
    await other.claim_all(2)
    await other.close()
    await other.close()
    again = await member.claim(9)
    equal([(one.id, one.attempt, one.deaths) for one in again], [("c1", 2, 0), ("c2", 2, 0)], "what was given back")
    equal(trial.facts(FactKind.RETURNED), [], "facts of lost leases")
    equal([one.id for one in (await member.broker.stats()).members], [member.id], "members")
    assert not other.broker.health().ready, "a closed member is ready"


async def a_lost_lease_frees_its_slots(trial: Trial) -> None:
    """Slots of a lost member are free for others, and the queue's limits hold again."""
    lanes = {"a": LaneConfig(1, 2)}
    member, other = await trial.member(lanes, 2), await trial.member(lanes, 2)
    await member.put("a", "c1", "c2", "c3", "c4")
    await other.claim_all(2)
    other.broker.stop_beat()
    await trial.until(lambda: len(trial.facts(FactKind.RETURNED)) + len(other.ear.lost), "leases are lost")
    claimed = await member.claim_all(2)
    equal(await member.claim_ids(9), [], "claims at the maximum")
    await member.succeed(*claimed)
    rest = await member.claim_all(2)
    equal(sorted(one.id for one in [*claimed, *rest]), ["c1", "c2", "c3", "c4"], "all that was run after the loss")


CHECKS: Final[tuple[Callable[[Trial], Awaitable[None]], ...]] = (
    tokens_grow, a_claim_is_of_one_member, stale_ends_are_refused, a_lost_lease_returns_the_command,
    a_lost_member_comes_back, leases_are_renewed, a_command_that_kills_is_poisoned, a_close_gives_back_at_once,
    a_lost_lease_frees_its_slots,
)  # fmt: skip
