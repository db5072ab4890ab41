"""Dead letters, and the sums over all commands."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from lane_obs.config import LaneConfig
from lane_obs.distributed.record import FactKind
from lane_obs.testing.broker.trial import Trial, TrialMember, done, equal, new

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from lane_obs.distributed.record import Claimed

_FINAL: Final = ("succeeded", "failed", "timed_out", "cancelled", "expired")


async def _bury(member: TrialMember, lane: str, *ids: str) -> None:
    await member.put(lane, *ids)
    for claimed in await member.claim_all(len(ids)):
        await member.claim(0, done(claimed, "failed", result=b"r", letter=b"letter of " + claimed.body))


async def an_end_leaves_a_letter(trial: Trial) -> None:
    """An end with a letter leaves one, with all that it says; an end without leaves none."""
    member, other = await trial.member(), await trial.member()
    await member.put("a", "c1", "c2", "c3")
    first, second, third = await member.claim_all(3)
    ends = (done(first, "timed_out", letter=b"\x00late"), done(second, "failed"), done(third, letter=b""))
    await member.claim(0, *ends)
    letters = await other.broker.letters()
    found = [(one.id, one.lane, one.body, one.state, one.letter, one.cause, one.attempt) for one in letters]
    wanted = [("c1", "a", b"c1", "timed_out", b"\x00late", "", 1), ("c3", "a", b"c3", "succeeded", b"", "", 1)]
    equal(found, wanted, "letters")
    stats = await other.broker.stats()
    equal((stats.letters, stats.lanes["a"].dead, stats.evicted), (2, 2, 0), "letters, by stats()")


async def letters_come_in_pages(trial: Trial) -> None:
    """Oldest first, of one lane or all, so many at a time."""
    member = await trial.member({"a": LaneConfig(1, 9), "b": LaneConfig(1, 9)})
    await _bury(member, "a", "a1", "a2", "a3")
    await _bury(member, "b", "b1", "b2")
    await _bury(member, "a", "a4")
    wanted = ["a1", "a2", "a3", "b1", "b2", "a4"]
    ids: list[str] = []
    while page := await member.broker.letters(limit=2, after=ids[-1] if ids else None):
        assert len(page) <= 2, f"a page of {len(page)} letters, where 2 were asked for"
        ids += [one.id for one in page]
    equal(ids, wanted, "letters, page by page")
    await _bury(member, "b", "a2")
    equal([one.id for one in await member.broker.letters()], ["a1", *wanted[2:], "a2"], "letters, one of them again")
    await member.broker.remove_letters(["a2"])
    await _bury(member, "b", "b3")
    equal([one.id for one in await member.broker.letters(lane="b")], ["b1", "b2", "b3"], "letters of a lane")
    equal([one.id for one in await member.broker.letters(lane="a", after="a1")], ["a3", "a4"], "letters of a lane")
    equal(await member.broker.letters(lane="unknown"), [], "letters of a lane that there is not")


async def letters_run_again(trial: Trial) -> None:
    """A letter that is requeued is a command again, without attempts and deadline, and a letter no more."""
    member, other = await trial.member(), await trial.member()
    await member.submit(new("c1", deadline=500.0, key="k"), new("c2"))
    for claimed in await member.claim_all(2):
        await member.claim(0, done(claimed, "backoff"))
    for claimed in await member.claim_all(2):
        await member.claim(0, done(claimed, "failed", letter=b"no"))
    equal(await other.broker.requeue(["c2", "unknown", "c1"]), ["c2", "c1"], "requeue()")
    equal(await other.broker.requeue(["c2"]), [], "requeue() of what is a letter no more")
    equal(await other.broker.letters(), [], "letters after all were requeued")
    again = sorted(await member.claim_all(2), key=lambda one: one.id)
    found = [(one.id, one.body, one.attempt, one.deaths, one.deadline) for one in again]
    equal(found, [("c1", b"c1", 1, 0, None), ("c2", b"c2", 1, 0, None)], "what was requeued")
    equal(await other.broker.watch(["c1"]), [], "results of what was requeued and lives")
    await member.claim(0, *(done(one, "failed", letter=b"again") for one in again))
    equal(sorted(one.letter for one in await member.broker.letters()), [b"again", b"again"], "letters")


async def letters_are_removed(trial: Trial) -> None:
    """Some or all are forgotten."""
    member = await trial.member()
    await _bury(member, "a", "c1", "c2", "c3", "c4")
    equal(await member.broker.remove_letters(["c2", "unknown", "c4"]), 2, "letters removed")
    equal([one.id for one in await member.broker.letters()], ["c1", "c3"], "letters left")
    equal(await member.broker.remove_letters(), 2, "letters removed")
    equal(await member.broker.letters(), [], "letters left")
    equal((await member.broker.stats()).letters, 0, "stats().letters")


async def letters_give_way(trial: Trial) -> None:
    """Of more than are kept, the oldest give way, and a member is told."""
    member = await trial.member(letters=3)
    await _bury(member, "a", "c1", "c2", "c3", "c4", "c5")
    equal([one.id for one in await member.broker.letters()], ["c3", "c4", "c5"], "letters kept")
    facts = await trial.fact(FactKind.EVICTED, "c1", "c2")
    equal({(fact.lane, fact.id, fact.body) for fact in facts}, {("a", "c1", b"c1"), ("a", "c2", b"c2")}, "evictions")
    stats = await member.broker.stats()
    equal((stats.letters, stats.evicted), (3, 2), "letters and evictions, by stats()")


async def sums_are_whole(trial: Trial) -> None:
    """Each command that was taken in is in just one state at all times."""
    rng = random.Random(20_261_129)  # noqa: S311 - no secret
    lanes = {
        "a": LaneConfig(1, 3),
        "b": LaneConfig(1, 2, priority=1, max_pending=4, overflow="drop_oldest"),
        "c": LaneConfig(0, 9, priority=2, max_pending=6, overflow="reject"),
    }
    members = [await trial.member(lanes, 6, letters=5) for _ in range(2)]
    held: list[list[Claimed]] = [[], []]
    taken = 0
    for number in range(120):
        which = rng.randrange(2)
        member, mine = members[which], held[which]
        lane = rng.choice("abc")
        fields = {"delay": rng.choice((0.0, 0.0, 0.01, 50.0)), "deadline": rng.choice((None, None, 0.05))}
        (receipt,) = await member.broker.submit([new(f"c{number}", lane, **fields)])
        taken += receipt.answer == "accepted"
        ends = [done(mine.pop(rng.randrange(len(mine))), rng.choice((*_FINAL, "backoff", "ready"))) for _ in mine[:2]]
        mine += await member.claim(rng.randrange(3), *ends)
        if number % 7 == 0:
            await member.broker.cancel(f"c{rng.randrange(number + 1)}")
        if number % 10 == 0:
            await _check_sums(members, taken, len(held[0]) + len(held[1]))
    await _check_sums(members, taken, len(held[0]) + len(held[1]))
    assert taken > 60, f"only {taken} of 120 commands were taken in"


async def _check_sums(members: Sequence[TrialMember], taken: int, running: int) -> None:
    for member in members:
        await member.claim(0)  # now it has been told of all that it was given
        running += len(member.ear.claimed)
    stats = await members[0].broker.stats()
    live = {name: (lane.ready + lane.delayed + lane.backoff, lane.running) for name, lane in stats.lanes.items()}
    equal(stats.submitted, taken, "stats().submitted")
    equal(sum(waiting + runs for waiting, runs in live.values()) + sum(stats.ended.values()), taken, "all commands")
    equal(sum(runs for _, runs in live.values()), running, "running commands")
    equal(sum(one.running for one in stats.members), running, "running commands, by member")
    assert set(stats.ended) <= set(_FINAL), f"final states in stats().ended: {stats.ended}"
    assert all(0 <= lane.running <= lane.max_concurrency for lane in stats.lanes.values()), f"a limit broken: {stats}"
    for name, lane in stats.lanes.items():
        equal(lane.oldest_ready_age is None, lane.ready == 0, f"whether lane {name} has no oldest ready command")


CHECKS: Final[tuple[Callable[[Trial], Awaitable[None]], ...]] = (
    an_end_leaves_a_letter, letters_come_in_pages, letters_run_again, letters_are_removed, letters_give_way,
    sums_are_whole,
)  # fmt: skip
