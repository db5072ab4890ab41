"""Storms over a broker: members do what they like while time is short; all commands are accounted for at any moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lane_obs.config import LaneConfig, Partitions, PriorityBoost, RateLimit
from lane_obs.distributed.record import NewCommand
from lane_obs.testing.broker.trial import Trial, TrialMember, done

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from lane_obs.distributed.record import Claimed, End

_MOST: Final = 5
LANES: Final = {
    "plain": LaneConfig(1, 3),
    "drops": LaneConfig(0, 2, priority=1, max_pending=4, overflow="drop_oldest"),
    "full": LaneConfig(0, 4, max_pending=5, overflow="reject"),
    "late": LaneConfig(0, 3, on_expiry="run"),
    "boosted": LaneConfig(0, 3, priority=4, boost=PriorityBoost.standard(0.04, floor=-1)),
    "ages": LaneConfig(0, 3, priority=5, boost=PriorityBoost.ageing(0.01, 1)),
    "keys": LaneConfig(0, 4, partitions=Partitions.per_key()),
    "bucket": LaneConfig(0, 4, priority=-1, rate_limit=RateLimit.per_second(60, burst=2)),
    "window": LaneConfig(0, 4, partitions=Partitions.per_key(), rate_limit=RateLimit.sliding_window(2, 0.03)),
    "rising": LaneConfig(0, 2, priority=3, partitions=Partitions.per_key(), boost=PriorityBoost.ageing(0.02, 2)),
}
_STATES: Final = ("succeeded", "succeeded", "failed", "timed_out", "cancelled", "backoff", "backoff", "ready", "ready")
_FINAL: Final = {"succeeded", "failed", "timed_out", "cancelled", "expired"}


class Storm:
    """One storm. It ends with everything ended.

    Args:
        trial: a fresh queue.
        rng: decides everything.
        longest: seconds that may pass between two things that are done.
    """

    def __init__(self, trial: Trial, rng: random.Random, longest: float = 0.03) -> None:
        self._trial = trial
        self._rng = rng
        self._longest = longest
        self._held: dict[TrialMember, list[Claimed]] = {}
        self._number = 0
        self._taken = 0

    async def run(self, steps: int) -> None:
        """Takes so many steps, then ends what is left."""
        rng = self._rng
        for _ in range(3):
            await self._join()
        doings = (
            self._submit, self._submit, self._submit, self._turn, self._turn, self._turn, self._turn, self._cancel,
            self._pause, self._leave, self._letters, self._look,
        )  # fmt: skip
        for number in range(steps):
            await rng.choice(doings)(rng.choice(list(self._held)))
            if rng.random() < 0.4:
                await self._trial.pass_time(self._longest * rng.random() ** 2)
            if number % 10 == 9:
                await self._check()
        await self._end_all()

    async def _join(self) -> None:
        self._held[await self._trial.member(LANES, _MOST, letters=6)] = []

    # --- what members do ----------------------------------------------------------------------------------------

    async def _submit(self, member: TrialMember) -> None:
        commands = [self._new() for _ in range(self._rng.choice((1, 1, 1, 3)))]
        self._taken += sum(one.answer == "accepted" for one in await member.broker.submit(commands))

    def _new(self) -> NewCommand:
        rng, lane = self._rng, self._rng.choice(list(LANES))
        self._number += 1
        return NewCommand(
            f"c{self._number}",
            lane,
            b"%d" % self._number,
            delay=rng.choice((0.0, 0.0, 0.005, 0.02, 50.0)),
            deadline=rng.choice((None, None, 0.004, 0.02, 0.06, 50.0)),
            cost=rng.choice((0.0, 1.0, 1.0, 1.5)),
            key=rng.choice((None, None, "k1", "k2")),
            part=rng.choice("pqr") if LANES[lane].partitions is not None else None,
        )

    async def _turn(self, member: TrialMember) -> None:
        rng, held = self._rng, self._held[member]
        rng.shuffle(held)
        ends = [self._end(held.pop()) for _ in range(min(len(held), rng.randrange(3)))]
        held += await member.claim(rng.randrange(4), *ends)

    def _end(self, claimed: Claimed) -> End:
        rng, state = self._rng, self._rng.choice(_STATES)
        fields: dict[str, Any] = {"cost": rng.choice((None, None, 0.0, 3.0))}
        if state in {"backoff", "ready"}:
            fields["delay"] = rng.choice((0.0, 0.005, 0.02, 50.0))
        elif state != "succeeded" and rng.random() < 0.5:
            fields["letter"] = b"letter"
        return done(claimed, state, **fields)

    async def _cancel(self, member: TrialMember) -> None:
        await member.broker.cancel(f"c{self._rng.randrange(self._number + 1)}")

    async def _pause(self, member: TrialMember) -> None:
        await member.broker.set_paused(self._rng.choice(list(LANES)), paused=self._rng.random() < 0.3)

    async def _leave(self, member: TrialMember) -> None:
        """It gives back what it holds, and another one joins."""
        if self._rng.random() < 0.3:
            del self._held[member]
            await member.close()
            await self._join()

    async def _letters(self, member: TrialMember) -> None:
        ids = [one.id for one in await member.broker.letters()]
        some = self._rng.sample(ids, min(len(ids), 2))
        if self._rng.random() < 0.7:
            self._taken += len(await member.broker.requeue(some))
        else:
            await member.broker.remove_letters(some)

    async def _look(self, member: TrialMember) -> None:
        await member.broker.find(f"c{self._rng.randrange(self._number + 1)}")

    # --- what must hold -----------------------------------------------------------------------------------------

    async def _check(self) -> None:
        """Each command that was taken in is in just one state; no limit is passed."""
        for member in self._held:
            await member.claim(0)  # now it has been told of all that it was given
        stats = await next(iter(self._held)).broker.stats()
        waiting = {name: lane.ready + lane.delayed + lane.backoff for name, lane in stats.lanes.items()}
        running = {name: lane.running for name, lane in stats.lanes.items()}
        mine = {member.id: len(held) + len(member.ear.claimed) for member, held in self._held.items()}
        assert stats.submitted == self._taken
        assert {one.id: one.running for one in stats.members} == mine
        assert sum(running.values()) == sum(mine.values()) <= _MOST
        assert sum(waiting.values()) + sum(running.values()) + sum(stats.ended.values()) == self._taken
        assert set(stats.ended) <= _FINAL
        assert stats.letters == sum(lane.dead for lane in stats.lanes.values()) <= 6
        for name, lane in stats.lanes.items():
            assert 0 <= lane.running <= LANES[name].max_concurrency, name
            assert min(lane.ready, lane.delayed, lane.backoff, lane.dead) >= 0, name
            assert (lane.oldest_ready_age is None) == (lane.ready == 0), name

    async def _end_all(self) -> None:
        first, *_ = self._held
        for lane in LANES:
            await first.broker.set_paused(lane, paused=False)
        for number in range(1, self._number + 1):  # delays are far
            if (found := await first.broker.find(f"c{number}")) is not None and found.state != "running":
                await first.broker.cancel(f"c{number}")
        await self._trial.until(self._is_done, "nothing is left")
        await self._check()
        await first.broker.remove_letters()

    async def _is_done(self) -> bool:
        for member, held in self._held.items():
            ends: Sequence[End] = [done(one) for one in held]
            held[:] = await member.claim(9, *ends)
        stats = await next(iter(self._held)).broker.stats()
        return sum(stats.ended.values()) == self._taken
