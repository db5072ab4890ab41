"""Cancels, deadlines, and what is found of a live command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lane_obs.config import LaneConfig
from lane_obs.distributed.record import FactKind
from lane_obs.testing.broker.trial import Trial, TrialMember, done, equal, new

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lane_obs.distributed.view import Found


async def a_cancel_ends_what_waits(trial: Trial) -> None:
    """What is ready, delayed or backing off is cancelled at once, whoever asks; who watches is told."""
    member, other = await trial.member(), await trial.member()
    await member.put("a", "backoff")
    await member.claim(0, done(await member.claim_one(), "backoff", delay=0.2))
    await member.submit(new("ready"), new("delayed", delay=0.2), new("stays"))
    ids = ["backoff", "ready", "delayed"]
    equal(await member.broker.watch(ids), [], "results of live commands")
    for command_id in ids:
        equal(await other.broker.cancel(command_id), "cancelled", f"cancel() of a command that is {command_id}")
        equal(await other.broker.cancel(command_id), "unknown", "cancel() of a command that was cancelled")
    await trial.until(lambda: len(member.ear.results) == 3, "a watcher is told of cancels")
    found = sorted((one.id, one.state, one.data) for one in member.ear.results)
    equal(found, sorted((command_id, "cancelled", b"") for command_id in ids), "results told")
    facts = await trial.fact(FactKind.CANCELLED, *ids)
    equal({fact.id: fact.attempt for fact in facts}, {"backoff": 1, "ready": 0, "delayed": 0}, "attempts, by the facts")
    equal(await member.claim_ids(9), ["stays"], "claims")
    await trial.pass_time(0.4)
    equal(await member.claim_ids(9), [], "claims after all times of what was cancelled have passed")
    equal(await member.broker.letters(), [], "letters of commands that were cancelled")
    equal((await member.broker.stats()).ended["cancelled"], 3, "stats().ended")


async def a_cancel_tells_who_runs(trial: Trial) -> None:
    """Whoever runs the command is told, and nobody else; it ends when that one says so."""
    member, other = await trial.member(), await trial.member()
    await member.put("a", "c1", "c2")
    first, second = await other.claim_all(2)
    equal(await member.broker.cancel("c1"), "running", "cancel() of a command that runs")
    await trial.until(lambda: other.ear.cancelled, "whoever runs a command is told to cancel it")
    equal((set(other.ear.cancelled), member.ear.cancelled), ({"c1"}, []), "commands to be cancelled")
    found = await member.broker.find("c1")
    assert found is not None, "a command that is told to stop is found no more"
    equal((found.state, found.member), ("running", other.id), "a command that is told to stop")
    await other.claim(0, done(first, "cancelled", result=b"stopped"), done(second))
    (result,) = await member.broker.watch(["c1"])
    equal((result.state, result.data), ("cancelled", b"stopped"), "its result")
    equal(await member.broker.cancel("c2"), "unknown", "cancel() of a command that has ended")
    equal(await member.broker.cancel("c3"), "unknown", "cancel() of a command that there is not")


async def a_cancel_is_not_forgotten(trial: Trial) -> None:
    """A command that was cancelled while it ran does not run again, whatever its attempt comes to."""
    member, other = await trial.member(), await trial.member()
    await member.put("a", "c1", "c2")
    first, _ = await other.claim_all(2)
    equal(await member.broker.watch(["c1", "c2"]), [], "results of live commands")
    for command_id in ("c1", "c2"):
        equal(await member.broker.cancel(command_id), "running", "cancel() of a command that runs")
    await other.claim(0, done(first, "backoff"))
    other.broker.stop_beat()
    await trial.until(lambda: len(member.ear.results) == 2, "what was told to stop has ended")
    equal({(one.id, one.state) for one in member.ear.results}, {("c1", "cancelled"), ("c2", "cancelled")}, "results")


async def what_waits_given_back_can_end(trial: Trial) -> None:
    """A command that was given back for a while can be cancelled, expires, and is found as one that never started."""
    member, other = await trial.member(), await trial.member()
    await member.put("a", "c1", "c2")
    await member.put("a", "c3", deadline=0.4)
    ends = [done(one, "ready", delay=50.0) for one in await other.claim_all(3)]
    equal(await member.broker.cancel("c2"), "running", "cancel() of a command that runs")
    await other.claim(0, *ends)
    found = await _found(member, "c1")
    equal((found.state, found.attempt, found.member), ("backoff", 0, ""), "a command that was given back for a while")
    assert found.due is not None, "it is due at no time"
    assert 40 < found.due <= 50, f"it is due in {found.due} s"
    depth = (await member.broker.stats()).lanes["a"]
    equal((depth.backoff, depth.running), (2, 0), "commands that back off and run")
    equal(await member.broker.cancel("c1"), "cancelled", "cancel() of a command that was given back for a while")
    facts = await trial.fact(FactKind.CANCELLED, "c1", "c2")
    equal({fact.id: fact.attempt for fact in facts}, {"c1": 0, "c2": 1}, "attempts of what was cancelled")
    (fact,) = await trial.fact(FactKind.EXPIRED, "c3")
    equal(fact.attempt, 0, "attempts of what has expired")


async def deadlines_end_what_waits(trial: Trial) -> None:
    """What still waits at its deadline is a dead letter: ready, delayed or backing off."""
    lanes = {"a": LaneConfig(1, 9), "runs": LaneConfig(1, 9, on_expiry="run")}
    member, other = await trial.member(lanes), await trial.member(lanes, work=False)
    await member.put("a", "backoff", deadline=0.8)
    (first,) = await member.claim_all(1)
    await member.claim(0, done(first, "backoff", delay=50.0))
    await member.broker.set_paused("a", paused=True)
    await member.broker.set_paused("runs", paused=True)
    await member.submit(new("ready", deadline=0.2), new("delayed", deadline=0.3, delay=50.0), new("stays"))
    await member.put("runs", "late", deadline=0.1)
    equal(await other.broker.watch(["ready"]), [], "results of live commands")
    facts = await trial.fact(FactKind.EXPIRED, "ready", "delayed", "backoff")
    equal({fact.id: fact.attempt for fact in facts}, {"backoff": 1, "ready": 0, "delayed": 0}, "attempts, by the facts")
    await trial.until(lambda: other.ear.results, "a watcher is told of a command that has expired")
    equal([(one.id, one.state, one.data) for one in other.ear.results], [("ready", "expired", b"")], "results told")
    letters = {(one.id, one.state, one.cause, one.letter) for one in await member.broker.letters()}
    equal(letters, {(name, "expired", "expired", b"") for name in ("ready", "delayed", "backoff")}, "letters")
    for lane in lanes:
        await member.broker.set_paused(lane, paused=False)
    equal(sorted(one.id for one in await member.claim_all(2)), ["late", "stays"], "claims")


async def deadlines_leave_what_runs(trial: Trial) -> None:
    """What runs is left to whoever runs it, who knows how long it has; when it comes back late it has expired."""
    member = await trial.member()
    await member.put("a", "early", deadline=0.8)
    await member.succeed(await member.claim_one())
    await member.put("a", "c1", "c2", deadline=0.8)
    await member.put("a", "c3")
    first, second, third = await member.claim_all(3)
    for claimed in (first, second):
        assert claimed.deadline is not None, "a claim tells of no deadline"
        assert 0 < claimed.deadline <= 0.801, f"a deadline in {claimed.deadline} s in place of at most 0.8 s"
    equal(third.deadline, None, "the deadline of a command that has none")
    await trial.pass_time(1.0)
    equal(trial.facts(FactKind.EXPIRED), [], "facts of expiry, of commands that run")
    await member.claim(0, done(first, result=b"late"), done(second, "backoff"), done(third))
    results = {one.id: one.state for one in await member.broker.watch(["c1", "c3"])}
    equal(results, {"c1": "succeeded", "c3": "succeeded"}, "results")
    await trial.fact(FactKind.EXPIRED, "c2")


async def what_comes_back_late_leaves_nothing(trial: Trial) -> None:
    """However a command comes back after its deadline, alone or with others, it has expired, and only that."""
    member = await trial.member()
    ways = [("ready", 0.0), ("backoff", 0.0), ("ready", 0.05), ("backoff", 0.05)]
    expired: list[str] = []
    for together in (*([way] for way in ways), ways):
        ids = [f"c{len(expired) + n}" for n in range(len(together))]
        await member.put("a", *ids, deadline=0.3)
        claimed = await member.claim_all(len(ids))
        await trial.pass_time(0.4)
        ends = [done(one, state, delay=delay) for one, (state, delay) in zip(claimed, together, strict=True)]
        equal(await member.claim(0, *ends), [], "claims of what has expired")
        expired += ids
        await trial.fact(FactKind.EXPIRED, *expired)
        await trial.pass_time()  # the delays are over
        equal(await member.claim(9), [], "claims of what has expired")
    lane = (await member.broker.stats()).lanes["a"]
    equal((lane.ready, lane.delayed, lane.backoff, lane.running), (0, 0, 0, 0), "what is left")
    await member.put("a", "next")
    await member.succeed(await member.claim_one())


async def a_live_command_is_found(trial: Trial) -> None:
    """`find` tells of each state, and of nothing once it has ended."""
    lanes = {"a": LaneConfig(1, 2), "b": LaneConfig(1, 9, priority=-5)}
    member, other = await trial.member(lanes), await trial.member(lanes)
    await member.put("a", "r1", "r2", "w1", "w2", "w3")
    await member.put("a", "d1", delay=50.0)
    running, backs = await other.claim_all(2)
    await other.claim(0, done(backs, "backoff", delay=40.0))
    first = await _found(member, "w1")
    equal((first.state, first.ahead, first.attempt, first.due, first.member), ("ready", 0, 0, None, ""), "w1")
    equal(((await _found(member, "w3")).ahead, first.lane, first.body), (2, "a", b"w1"), "those ahead of w3, and w1")
    found = await _found(member, "r1")
    equal((found.state, found.attempt, found.member, found.due), ("running", 1, other.id, None), "r1")
    for command_id, state, delay in (("r2", "backoff", 40.0), ("d1", "delayed", 50.0)):
        found = await _found(member, command_id)
        equal((found.state, found.member, found.ahead), (state, "", 0), command_id)
        assert found.due is not None, f"{command_id} is due at no time"
        assert delay - 10 < found.due <= delay, f"{command_id} is due in {found.due} s"
        assert 0 <= found.age < 10, f"{command_id} has an age of {found.age} s"
    await other.succeed(running)
    equal(await member.broker.find("r1"), None, "a command that has ended")
    equal(await member.broker.find("unknown"), None, "a command that there is not")


async def _found(member: TrialMember, command_id: str) -> Found:
    found = await member.broker.find(command_id)
    assert found is not None, f"find() does not find {command_id}"
    equal(found.id, command_id, "the id of what is found")
    return found


CHECKS: Final[tuple[Callable[[Trial], Awaitable[None]], ...]] = (
    a_cancel_ends_what_waits, a_cancel_tells_who_runs, a_cancel_is_not_forgotten, what_waits_given_back_can_end,
    deadlines_end_what_waits, deadlines_leave_what_runs, what_comes_back_late_leaves_nothing,
    a_live_command_is_found,
)  # fmt: skip
