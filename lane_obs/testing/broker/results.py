"""Results and progress: told to those who watch, and kept for a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lane_obs.distributed.record import Progress, Result
from lane_obs.testing.broker.trial import MOMENT, Trial, done, equal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def a_watcher_is_told(trial: Trial) -> None:
    """Whoever watches a live command is told of its end, once."""
    submitter, second, worker = await trial.member(work=False), await trial.member(work=False), await trial.member()
    states = ("succeeded", "failed", "timed_out", "cancelled", "expired")
    await submitter.put("a", *states, "unwatched")
    equal(await submitter.broker.watch(states), [], "results of live commands")
    equal(await second.broker.watch(["succeeded"]), [], "results of live commands")
    claimed = await worker.claim_all(6)
    await worker.claim(0, *(done(one, one.id, result=one.body * 2) for one in claimed[:5]), done(claimed[5]))
    await trial.until(lambda: len(submitter.ear.results) == 5 and second.ear.results, "watchers are told of ends")
    wanted = [Result(state, state, state.encode() * 2) for state in states]
    equal(sorted(submitter.ear.results, key=lambda one: states.index(one.id)), wanted, "results told")
    equal(second.ear.results, wanted[:1], "results told to the second watcher")
    await submitter.put("a", "succeeded")
    await worker.succeed(await worker.claim_one())
    await trial.pass_time(MOMENT)
    equal(len(submitter.ear.results), 5, "results told, where the watch has ended")


async def a_late_watcher_is_answered(trial: Trial) -> None:
    """A command that has ended answers at once; one that there is not is unknown; the others are told later."""
    member, other = await trial.member(), await trial.member()
    await member.put("a", "c1", "c2")
    first, second = await member.claim_all(2)
    await member.claim(0, done(first, "failed", result=b"no"))
    found = {one.id: one for one in await other.broker.watch(["c1", "c2", "c3"])}
    equal(found, {"c1": Result("c1", "failed", b"no"), "c3": Result("c3", "unknown")}, "results of a late watch")
    await member.claim(0, done(second, result=b"yes"))
    await trial.until(lambda: other.ear.results, "a late watcher is told of an end")
    equal(other.ear.results, [Result("c2", "succeeded", b"yes")], "results told")
    equal(await other.broker.watch(["c2"]), [Result("c2", "succeeded", b"yes")], "a watch after the end")
    equal(await other.broker.watch([]), [], "a watch of nothing")


async def a_watch_ends(trial: Trial) -> None:
    """After `unwatch` a member is not told; ids that it does not watch are ignored."""
    member, other = await trial.member(), await trial.member()
    await member.put("a", "c1", "c2")
    await other.broker.watch(["c1", "c2"])
    await other.broker.unwatch(["c1", "unknown"])
    await member.succeed(*await member.claim_all(2))
    await trial.until(lambda: other.ear.results, "a watcher is told of an end")
    await trial.pass_time(MOMENT)
    equal([one.id for one in other.ear.results], ["c2"], "results told")


async def results_are_kept_for_a_time(trial: Trial) -> None:
    """A result is there for `result_ttl` seconds, and then unknown."""
    member = await trial.member()
    await member.put("a", "c1")
    before = trial.clock.now()
    await member.claim(0, done(await member.claim_one(), result=b"x"))

    async def is_gone() -> bool:
        (result,) = await member.broker.watch(["c1"])
        assert result in {Result("c1", "succeeded", b"x"), Result("c1", "unknown")}, f"a result of {result!r}"
        return result.state == "unknown"

    await trial.until(is_gone, "a result is no longer kept")
    kept = trial.clock.now() - before
    assert kept >= trial.result_ttl * 0.99, f"a result was kept for {kept} s in place of {trial.result_ttl} s"


async def a_result_is_of_the_latest_command(trial: Trial) -> None:
    """While a command lives, the result of an earlier one of its id is not given."""
    member = await trial.member()
    await member.put("a", "c1")
    await member.claim(0, done(await member.claim_one(), result=b"1"))
    await member.put("a", "c1")
    equal(await member.broker.watch(["c1"]), [], "results of a live command")
    await member.claim(0, done(await member.claim_one(), result=b"2"))
    await trial.until(lambda: member.ear.results, "a watcher is told of an end")
    equal(member.ear.results, [Result("c1", "succeeded", b"2")], "results told")


async def progress_is_told(trial: Trial) -> None:
    """What a running command tells reaches those who watch it, in order; by an old token it reaches nobody."""
    member, other = await trial.member(), await trial.member()
    await member.put("a", "c1", "c2")
    await other.broker.watch(["c1"])
    first, second = await member.claim_all(2)
    told = [Progress("c1", first.token, bytes([number, 255, 0])) for number in range(3)]
    await member.turn(0, progress=[told[0], told[1], Progress("c2", second.token, b"unwatched")])
    await member.turn(0, progress=[Progress("c1", first.token - 1, b"stale"), Progress("unknown", 1, b""), told[2]])
    await trial.until(lambda: len(other.ear.progress) >= 3, "a watcher is told of progress")
    equal(other.ear.progress, [Progress("c1", 0, one.data) for one in told], "progress told")
    equal(member.ear.progress, [], "progress told to a member that does not watch")
    await member.turn(0, done(first), done(second), progress=[Progress("c1", first.token, b"last")])
    await trial.until(lambda: other.ear.results, "a watcher is told of an end")
    equal(len(other.ear.progress), 4, "progress that comes together with the end")


CHECKS: Final[tuple[Callable[[Trial], Awaitable[None]], ...]] = (
    a_watcher_is_told, a_late_watcher_is_answered, a_watch_ends, results_are_kept_for_a_time,
    a_result_is_of_the_latest_command, progress_is_told,
)  # fmt: skip
