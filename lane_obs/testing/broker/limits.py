"""How much runs at once, and how often something starts, over all members."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lane_obs.config import LaneConfig, RateLimit
from lane_obs.errors import UnknownLane
from lane_obs.testing.broker.trial import MOMENT, Trial, done, equal, new, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_SLOW: Final = 0.001
"""Tokens a second of limits that let nothing more through while a check runs."""


def _ids(lane: str, count: int) -> list[str]:
    return [f"{lane}{number}" for number in range(count)]


async def never_more_than_wanted(trial: Trial) -> None:
    """A claim gives at most what is wanted, and all of it that there is."""
    member = await trial.member({"a": LaneConfig(1, 100)})
    await member.put("a", *_ids("a", 10))
    equal(len(await member.claim(0)), 0, "commands claimed where none was wanted")
    equal(len(await member.claim(3)), 3, "commands claimed where 3 were wanted")
    equal(len(await member.claim(50)), 7, "commands claimed where all were wanted")


async def a_lane_has_a_maximum(trial: Trial) -> None:
    """`max_concurrency` of a lane holds over all members."""
    lanes = {"a": LaneConfig(1, 3)}
    one, two = await trial.member(lanes), await trial.member(lanes)
    await one.put("a", *_ids("a", 8))
    first, second = await one.claim(2), await two.claim(9)
    equal((len(first), len(second)), (2, 1), "commands claimed of a lane in which 3 may run")
    equal(await one.claim_ids(9), [], "claims of a lane that is at its maximum")
    equal(await two.claim_ids(9, done(second[0])), ["a3"], "claims after one has ended")
    equal(await one.claim_ids(9, done(first[0], "backoff", delay=50.0)), ["a4"], "claims after one has backed off")


async def the_queue_has_a_maximum(trial: Trial) -> None:
    """`max_concurrency` of the queue holds over all lanes and members."""
    lanes = {"a": LaneConfig(0, 9), "b": LaneConfig(0, 9, priority=1)}
    one, two = await trial.member(lanes, 4), await trial.member(lanes, 4)
    await one.put("b", *_ids("b", 5))
    await one.put("a", *_ids("a", 3))
    equal(await two.claim_ids(2), ["a0", "a1"], "the first claim")
    claimed = await one.claim(9)
    equal([command.id for command in claimed], ["a2", "b0"], "the second claim")
    equal(await two.claim_ids(9), [], "claims at the queue's maximum")
    equal(
        await two.claim_ids(
            9,
        ),
        [],
        "claims at the queue's maximum",
    )
    equal(await one.claim_ids(9, done(claimed[0])), ["b1"], "claims after one has ended")


async def reservations_hold(trial: Trial) -> None:
    """No other lane takes the slots that one has reserved, however important it is."""
    lanes = {"first": LaneConfig(1, 9), "second": LaneConfig(2, 9, priority=5), "third": LaneConfig(0, 9, priority=9)}
    one, two = await trial.member(lanes, 5), await trial.member(lanes, 5)
    await one.put("first", *_ids("f", 9))
    equal(await one.claim_ids(9), ["f0", "f1", "f2"], "claims while two slots are reserved for another lane")
    await one.put("third", "t0")
    equal(await two.claim_ids(9), [], "claims of a lane without a slot")
    await one.put("second", *_ids("s", 4))
    claimed = await two.claim(9)
    equal([command.id for command in claimed], ["s0", "s1"], "claims of reserved slots")
    equal(
        await one.claim_ids(
            9,
        ),
        [],
        "claims at the queue's maximum",
    )
    equal(await two.claim_ids(9, done(claimed[0])), ["s2"], "claims after one in a reserved slot has ended")


async def a_bucket_limits(trial: Trial) -> None:
    """Never more than the burst and what has flowed in since; then the member is told that there is more."""
    lanes = {"a": LaneConfig(1, 50, rate_limit=RateLimit.per_second(10, burst=3)), "b": LaneConfig(1, 9, priority=5)}
    one, two = await trial.member(lanes), await trial.member(lanes)
    await one.put("a", *_ids("a", 8))
    await one.put("b", "b0")
    began, got = trial.clock.now(), 0

    async def claim() -> bool:
        nonlocal got
        for member in (one, two):
            claimed = await member.claim_ids(9)
            got += sum(name[0] == "a" for name in claimed)
            most = 3 + 10 * (trial.clock.now() - began)
            assert got <= most + 1e-6, f"{got} commands started where {most} may"
        return got == 8

    first = await one.turn(9)
    equal([claimed.id for claimed in first.claimed], ["a0", "a1", "a2", "b0"], "claims of a full bucket, and beside it")
    assert first.next_due is not None, "next_due is None while a rate limit holds a lane back"
    got = 3
    await trial.until(lambda: one.ear.work, "a member is told that a rate limit lets more through")
    await trial.until(claim, "a rate limit lets all through")


async def a_window_limits(trial: Trial) -> None:
    """No window of that length sees more starts."""
    lanes = {"a": LaneConfig(1, 50, rate_limit=RateLimit.sliding_window(2, 0.3))}
    member = await trial.member(lanes)
    await member.put("a", *_ids("a", 6))
    starts: list[tuple[float, float]] = []

    async def claim() -> bool:
        before = trial.clock.now()
        claimed = await member.claim(9)
        starts.extend((before, trial.clock.now()) for _ in claimed)
        return len(starts) == 6

    await trial.until(claim, "a sliding window lets all through")
    for first, third in zip(starts, starts[2:], strict=False):
        assert third[1] - first[0] >= 0.299, f"three starts within {third[1] - first[0]} s, where two may be in 0.3 s"


async def lanes_share_a_limit(trial: Trial) -> None:
    """A limit with a name is one for all lanes that have it."""
    limit = RateLimit.shared("both", RateLimit.per_second(_SLOW, burst=3))
    lanes = {"a": LaneConfig(1, 9, rate_limit=limit), "b": LaneConfig(1, 9, rate_limit=limit), "c": LaneConfig(1, 9)}
    one, two = await trial.member(lanes), await trial.member(lanes)
    for lane in "abc":
        await one.put(lane, *_ids(lane, 4))
    claimed = await two.claim_ids(9) + await one.claim_ids(9)
    counts = {lane: sum(name[0] == lane for name in claimed) for lane in "abc"}
    equal((counts["a"] + counts["b"], counts["c"]), (3, 4), "starts of lanes a and b, which share a limit of 3, and c")


async def the_queue_has_a_limit(trial: Trial) -> None:
    """The queue's own rate limits hold for all lanes together."""
    lanes = {"a": LaneConfig(1, 9), "b": LaneConfig(1, 9, priority=1)}
    limits = [RateLimit.per_second(_SLOW, burst=3)]
    one, two = await trial.member(lanes, None, limits), await trial.member(lanes, None, limits)
    await one.put("b", *_ids("b", 4))
    await one.put("a", "a0", "a1")
    equal(await two.claim_ids(1) + await one.claim_ids(9), ["a0", "a1", "b0"], "starts in a queue with a limit of 3")


async def costs_count(trial: Trial) -> None:
    """A command takes what it costs; what it did not cost after all is given back at its end."""
    lanes = {"a": LaneConfig(1, 9, rate_limit=RateLimit.per_second(_SLOW, burst=5))}
    one, two = await trial.member(lanes), await trial.member(lanes)
    await one.submit(new("c1", cost=3.0), new("free", cost=0.0), new("c2", cost=3.0), new("c3", cost=2.5))
    claimed = await one.claim(9)
    equal([command.id for command in claimed], ["c1", "free"], "starts while 5 tokens are there")
    equal(await two.claim_ids(9), [], "starts while 2 tokens are there")
    equal(await one.claim_ids(9, done(claimed[0], cost=1.5)), ["c2"], "starts after a command has cost less")
    equal(await two.claim_ids(9), [], "starts while half a token is there")


async def a_limit_is_for_the_head(trial: Trial) -> None:
    """A lane that waits for tokens tries anew once another command, which costs less, goes first in it."""
    lanes = {"a": LaneConfig(1, 9, rate_limit=RateLimit.per_second(_SLOW, burst=4)), "b": LaneConfig(1, 9, priority=9)}
    member = await trial.member(lanes)
    await member.submit(new("c1", cost=1.0), new("c2", cost=3.5), new("c3", cost=1.0), new("c4", cost=3.5))
    await member.put("b", "b1", "b2", "b3", "b4")
    (first,) = await member.claim(1)
    equal(await member.claim_ids(1), ["b1"], "starts beside a lane that waits for tokens")
    equal(await member.claim_ids(1, done(first, "ready")), ["c1"], "starts after a cheaper one was given back")
    equal(await member.claim_ids(1), ["b2"], "starts beside a lane that waits for tokens")
    await member.broker.cancel("c2")
    equal(await member.claim_ids(2), ["c3", "b3"], "starts after the head was cancelled")
    await member.broker.cancel("c4")
    await member.submit(new("c5", cost=1.0))
    equal(await member.claim_ids(1), ["c5"], "starts after all that waited was cancelled")
    await member.submit(new("c6", cost=4.0), new("c7", cost=0.0))
    equal(await member.claim_ids(1), ["b4"], "starts beside a lane that waits for tokens")
    await member.broker.cancel("c6")
    equal(await member.claim_ids(1), ["c7"], "starts of what costs nothing")


async def policies_are_replaced(trial: Trial) -> None:
    """Whoever joins puts its policies in force; lanes that it does not name stay."""
    one = await trial.member({"a": LaneConfig(1, 1), "b": LaneConfig(0, 1, priority=5)}, 2)
    await one.put("a", *_ids("a", 4))
    await one.put("b", *_ids("b", 4))
    equal(await one.claim_ids(9), ["a0", "b0"], "claims by the first policies")
    two = await trial.member({"a": LaneConfig(1, 3, priority=7), "c": LaneConfig(0, 2)}, 4)
    await two.put("c", "c0")
    await two.put("b", "b4")
    equal(await one.claim_ids(9), ["c0", "a1"], "claims by the policies of the second member")
    depths = (await one.broker.stats()).lanes
    found = {name: (depth.priority, depth.max_concurrency) for name, depth in depths.items()}
    equal(found, {"a": (7, 3), "b": (5, 1), "c": (0, 2)}, "priorities and limits in force")
    equal((await one.broker.stats()).max_concurrency, 4, "max_concurrency in force")


async def a_maximum_comes_and_goes(trial: Trial) -> None:
    """The queue's own maximum changes with whoever joins, where nothing else does."""
    lanes = {"a": LaneConfig(0, 9), "b": LaneConfig(1, 9, priority=1)}
    member = await trial.member(lanes)
    await member.put("a", *_ids("a", 6))
    await member.put("b", *_ids("b", 2))
    equal(await member.claim_ids(2), ["a0", "a1"], "starts without a maximum")
    await trial.member(lanes, 4)
    equal(await member.claim_ids(9), ["a2", "b0"], "starts up to a maximum of 4, with a slot reserved")
    await trial.member(lanes, 5)
    equal(await member.claim_ids(9), ["a3"], "starts up to a maximum of 5")
    await trial.member(lanes)
    equal(await member.claim_ids(9), ["a4", "a5", "b1"], "starts without a maximum")


async def lanes_come_and_go(trial: Trial) -> None:
    """`declare` names lanes and changes them; one without live commands can be forgotten, its letters stay."""
    member, other = await trial.member(), await trial.member()
    await member.broker.declare({"b": LaneConfig(1, 1, priority=-1), "a": LaneConfig(1, 2)})
    await other.put("a", *_ids("a", 4))
    await other.put("b", *_ids("b", 2))
    claimed = await other.claim(9)
    equal([one.id for one in claimed], ["b0", "a0", "a1"], "claims by the policies that were declared")
    await other.claim(0, done(claimed[0], "failed", letter=b"x"))
    (last,) = await other.claim_all(1)
    equal([await one.broker.forget_lane("b") for one in (other, member)], [False, False], "forget_lane() of the same")
    await other.succeed(last)
    equal([await one.broker.forget_lane("b") for one in (other, member)], [True, False], "forget_lane(), twice")
    await refused(member.broker.submit([new("b2", "b")]), UnknownLane, "submit() to a lane that was forgotten")
    equal([one.id for one in await member.broker.letters()], ["b0"], "letters of a lane that was forgotten")
    equal(sorted((await member.broker.stats()).lanes), ["a"], "lanes that are left")
    equal(await member.broker.requeue(["b0"]), [], "requeue() to a lane that was forgotten")
    equal([one.id for one in await member.broker.letters()], ["b0"], "letters after a requeue that was of no use")
    equal(await member.broker.find("b0"), None, "a dead letter of a lane that was forgotten")
    await other.broker.declare({"b": LaneConfig(1, 3)})
    await member.put("b", *_ids("x", 4))
    equal(await other.claim_ids(9), ["x0", "x1", "x2"], "claims of a lane that is there again")
    equal(await member.broker.requeue(["b0"]), ["b0"], "requeue() to a lane that is there again")


async def a_look_changes_nothing(trial: Trial) -> None:
    """Whoever opens without lanes, to look, leaves all policies as they are, and never leads."""
    looker = await trial.member({}, None, (), letters=1, work=False)
    equal((await looker.broker.stats()).lanes, {}, "lanes of a queue that there is not")
    limits = [RateLimit.per_second(_SLOW, burst=3)]
    member = await trial.member({"a": LaneConfig(1, 9)}, 4, limits, letters=2)
    second = await trial.member({}, None, (), letters=1, work=False)
    await member.put("a", *_ids("a", 5))
    claimed = await member.claim(9)
    equal([one.id for one in claimed], ["a0", "a1", "a2"], "claims by the policies in force")
    await member.claim(0, *(done(one, "failed", letter=b"") for one in claimed))
    equal([one.id for one in await second.broker.letters()], ["a1", "a2"], "letters kept by the policies in force")
    stats = await second.broker.stats()
    equal((stats.max_concurrency, stats.lanes["a"].max_concurrency), (4, 9), "policies in force")
    await trial.until(lambda: member.broker.health().leads, "a member leads")
    equal([one.broker.health().leads for one in (looker, second)], [False, False], "whether whoever looks leads")
    await member.close()
    await trial.pass_time(MOMENT)
    equal([one.broker.health().leads for one in (looker, second)], [False, False], "whether whoever looks leads")


CHECKS: Final[tuple[Callable[[Trial], Awaitable[None]], ...]] = (
    never_more_than_wanted, a_lane_has_a_maximum, the_queue_has_a_maximum, reservations_hold, a_bucket_limits,
    a_window_limits, lanes_share_a_limit, the_queue_has_a_limit, costs_count, a_limit_is_for_the_head,
    policies_are_replaced, a_maximum_comes_and_goes, lanes_come_and_go, a_look_changes_nothing,
)  # fmt: skip
