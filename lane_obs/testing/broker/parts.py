"""Partitions: one command of each at a time, in submit order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lane_obs.config import LaneConfig, Partitions
from lane_obs.testing.broker.trial import Trial, done, equal, new

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_LANES: Final = {"a": LaneConfig(1, 50, partitions=Partitions.per_key())}


async def a_partition_is_exclusive(trial: Trial) -> None:
    """One command of a partition runs at a time; those without one are free."""
    one, two = await trial.member(_LANES), await trial.member(_LANES)
    await one.submit(*(new(name, part=name[0]) for name in ("p1", "p2", "q1", "p3", "q2")), new("x1"), new("x2"))
    claimed = await one.claim(9)
    equal([command.id for command in claimed], ["p1", "q1", "x1", "x2"], "claims of two partitions and none")
    equal(await two.claim_ids(9), [], "claims while each partition has one that runs")
    equal(await two.claim_ids(9), [], "claims while each partition has one that runs")
    await one.succeed(claimed[0])
    (second,) = await two.claim_all(1)
    equal(second.id, "p2", "what follows in a partition")
    equal(await one.claim_ids(9, done(claimed[1], "failed")), ["q2"], "what follows after a failure")
    equal(await one.claim_ids(9), [], "claims while each partition has one that runs")
    equal(await two.claim_ids(9, done(second)), ["p3"], "what is last in a partition")


async def a_retry_keeps_its_partition(trial: Trial) -> None:
    """While a command backs off, none of its partition passes it."""
    member = await trial.member(_LANES)
    await member.submit(*(new(name, part=name[0]) for name in ("p1", "p2", "q1")))
    claimed = await member.claim(9)
    equal([command.id for command in claimed], ["p1", "q1"], "claims of two partitions")
    equal(await member.claim_ids(9, done(claimed[0], "backoff", delay=0.1)), [], "claims while p1 backs off")
    again = await member.claim_one()
    equal((again.id, again.attempt), ("p1", 2), "what is next in its partition")
    equal(await member.claim_ids(9, done(again)), ["p2"], "what follows it")


async def what_comes_back_keeps_its_partition(trial: Trial) -> None:
    """What is given back, or lost with its member, goes before the others of its partition."""
    one, two = await trial.member(_LANES), await trial.member(_LANES)
    await one.submit(*(new(name, part="p") for name in ("p1", "p2", "p3")))
    (first,) = await one.claim(9)
    await one.claim(0, done(first, "ready"))
    (first,) = await two.claim_all(1)
    equal((first.id, first.attempt), ("p1", 1), "what was given back")
    two.broker.stop_beat()
    again = await one.claim_one()
    equal((again.id, again.deaths), ("p1", 1), "what was lost with its member")
    equal(await one.claim_ids(9), [], "claims while p1 runs")
    equal(await one.claim_ids(9, done(again)), ["p2"], "what follows it")
    await one.close()
    equal((await (await trial.member(_LANES)).claim_one()).id, "p2", "what its member has left behind")


async def what_waits_given_back_keeps_its_partition(trial: Trial) -> None:
    """Given back for a while, a command is not passed by the others of its partition; cancelled, it makes way."""
    one, two = await trial.member(_LANES), await trial.member(_LANES)
    await one.submit(new("p0", part="p", delay=0.4), *(new(name, part=name[0]) for name in ("p1", "p2", "q1")))
    first, other = await one.claim(9)
    equal((first.id, other.id), ("p1", "q1"), "claims of two partitions")
    equal(await two.claim_ids(9, *()), [], "claims while p1 runs")
    equal(await one.claim_ids(9, done(first, "ready", delay=0.1)), [], "claims while p1 waits")
    first = await two.claim_one()
    equal((first.id, first.attempt), ("p1", 1), "what is next in its partition")
    equal(await two.claim_ids(0, done(first, "ready", delay=50.0)), [], "claims of none")
    await trial.state(one, "p0", "ready")
    equal(await one.claim_ids(9), [], "claims while p1 waits again")
    equal(await one.broker.cancel("p1"), "cancelled", "cancel() of one that was given back for a while")
    zero = await one.claim_one()
    equal(zero.id, "p0", "what follows it")
    await one.claim(0, done(zero, "ready"))
    equal((await two.claim_one()).id, "p0", "what was given back at once")


async def what_never_started_gives_way_in_its_partition(trial: Trial) -> None:
    """A command that was given back has not started: one with a lower number that becomes ready then goes first."""
    member = await trial.member(_LANES)
    for name, delay in (("p", 0.0), ("q", 0.1)):
        await member.submit(new(f"{name}1", part=name, delay=0.8), new(f"{name}2", part=name))
        second = await member.claim_one()
        equal(second.id, f"{name}2", "what is ready in a partition")
        await member.claim(0, done(second, "ready", delay=delay))
        await trial.state(member, f"{name}1", "ready")
        await trial.state(member, f"{name}2", "ready")
        claimed = await member.claim(9)
        equal([one.id for one in claimed], [f"{name}1"], "what goes first in its partition")
        equal(await member.claim_ids(9, done(claimed[0])), [f"{name}2"], "what follows it")


async def a_cancelled_head_makes_way(trial: Trial) -> None:
    """When what waits at the head of its partition, or backs off, is cancelled, the next one follows."""
    member = await trial.member(_LANES)
    await member.submit(*(new(name, part="p") for name in ("p1", "p2", "p3", "p4")))
    equal(await member.broker.cancel("p1"), "cancelled", "cancel() of the head of a partition")
    (second,) = await member.claim(9)
    equal(second.id, "p2", "what follows a head that was cancelled")
    equal(await member.broker.cancel("p3"), "cancelled", "cancel() of one behind")
    await member.claim(0, done(second, "backoff", delay=50.0))
    equal(await member.claim_ids(9), [], "claims while p2 backs off")
    equal(await member.broker.cancel("p2"), "cancelled", "cancel() of one that backs off")
    equal((await member.claim_one()).id, "p4", "what follows one that was cancelled while it backed off")


async def partitions_are_of_a_lane(trial: Trial) -> None:
    """Partitions of one name in two lanes are two; a lane's limits hold over all its partitions."""
    lanes = {
        "a": LaneConfig(1, 2, partitions=Partitions.per_key()),
        "b": LaneConfig(1, 9, partitions=Partitions.per_key()),
    }
    member = await trial.member(lanes)
    await member.submit(*(new(f"a{number}", "a", part=f"p{number}") for number in range(4)))
    await member.submit(*(new(f"b{number}", "b", part="p0") for number in range(2)))
    claimed = await member.claim(9)
    equal(sorted(command.id for command in claimed), ["a0", "a1", "b0"], "claims of two lanes with partitions")
    ended = next(command for command in claimed if command.id == "a1")
    equal(await member.claim_ids(9, done(ended)), ["a2"], "claims after one has ended")


CHECKS: Final[tuple[Callable[[Trial], Awaitable[None]], ...]] = (
    a_partition_is_exclusive, a_retry_keeps_its_partition, what_comes_back_keeps_its_partition,
    what_waits_given_back_keeps_its_partition, what_never_started_gives_way_in_its_partition,
    a_cancelled_head_makes_way, partitions_are_of_a_lane,
)  # fmt: skip
