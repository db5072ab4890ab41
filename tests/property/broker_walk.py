"""Walks over a broker: whatever its members do, it does what the plain model says."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

from lane_obs.distributed.record import Claimed, NewCommand, Receipt
from lane_obs.testing.broker.trial import Trial, TrialMember, done
from tests.property.broker_model import FINAL, LANES, MAX, Model, Plain

if TYPE_CHECKING:
    from collections.abc import Sequence

Step: TypeAlias = tuple[int, int, int]
"""What is done, and two numbers that say with what."""

NAMES = tuple(LANES)
FAR = 1000.0
WORKERS = 3


class Walk:
    """One walk. What waits for a time waits for one that is far, or is waited for at once.

    Args:
        trial: a fresh queue.
    """

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.model = Model()
        self.members: list[TrialMember] = []
        self.gone: list[TrialMember] = []
        self.number = 0
        self.watched: list[str] = []
        self.heard: dict[TrialMember, int] = {}
        """How often each worker had been told of work before the latest submit."""

    async def run(self, steps: Sequence[Step]) -> None:
        """Takes the steps, comparing after each, and everything at the end."""
        self.keeper = await self.trial.member(LANES, MAX, letters=10_000, work=False)
        self.members = [await self._worker() for _ in range(WORKERS)]
        doings = (
            self.submit, self.submit, self.submit, self.claim, self.claim, self.claim, self.end, self.end, self.end,
            self.back_off, self.give_back, self.cancel, self.pause, self.lose, self.leave, self.requeue, self.stale,
            self.submit_again, self.find, self.set_aside, self.step_back,
        )  # fmt: skip
        for what, one, two in steps:
            await doings[what % len(doings)](one, two)
        await self.compare()
        await self._compare_ends()

    async def _worker(self) -> TrialMember:
        return await self.trial.member(LANES, MAX, letters=10_000)

    # --- what members do ----------------------------------------------------------------------------------------

    async def submit(self, one: int, two: int) -> None:
        """A batch of up to 4 commands, some of them for later, some with keys."""
        batch = [self._new(one + number, two // (number + 1)) for number in range(one % 4 + 1)]
        await self._submit(two % (WORKERS + 1), batch)

    def _new(self, one: int, two: int) -> NewCommand:
        self.number += 1
        lane = NAMES[two % len(NAMES)]
        return NewCommand(
            f"c{self.number}",
            lane,
            b"%d" % self.number,
            delay=FAR if one % 7 == 6 else 0.0,
            cost=(0.0, 0.5, 1.0, 1.0, 2.5)[one % 5],
            key=f"k{two % 3}" if one % 6 == 5 else None,
            part=(None, "p", "q", "r")[one % 4] if lane == "parts" else None,
        )

    async def _submit(self, giver: int, batch: list[NewCommand]) -> None:
        member = [*self.members, self.keeper][giver]
        wanted = [
            Receipt(*self.model.submit(
                new.id, new.lane, self._number(member), key=new.key, part=new.part, cost=new.cost, later=new.delay > 0,
            ))
            for new in batch
        ]  # fmt: skip
        self.heard = {worker: worker.ear.work for worker in self.members}
        found = await member.broker.submit(batch)
        assert found == wanted, f"{batch} gave {found} in place of {wanted}"
        taken = [receipt.id for receipt in found if receipt.answer == "accepted"]
        self.watched += taken
        for result in await self.keeper.broker.watch(taken):
            self.keeper.ear.results.append(result)  # dropped by one of the same batch
        await self._take_given()

    async def _take_given(self) -> None:
        """Workers that were idle may have been given something."""
        running = {one.id: one.running for one in (await self.keeper.broker.stats()).members}
        for member in self.members:
            count = running[member.id] - len(self.model.holds(self._number(member)))
            given = await self._given(member, count)
            assert len(given) == count
            for got in given:
                self._started(got, member)
            given.clear()

    async def _given(self, member: TrialMember, count: int) -> list[Claimed]:
        """What came to a worker unasked. It may be told only that there is work, and asks then."""

        async def has_come() -> bool:
            if len(member.ear.claimed) < count and member.ear.work > self.heard[member]:
                await member.turn(0)
            return len(member.ear.claimed) >= count

        await self.trial.until(has_come, "a worker is told of what it was given")
        return member.ear.claimed

    def _number(self, member: TrialMember) -> int:
        return self.trial.members.index(member)

    async def submit_again(self, one: int, two: int) -> None:
        """The same once more, by the same member or another."""
        live = list(self.model.live.values())
        if live:
            known = live[one % len(live)]
            new = NewCommand(known.id, known.lane, b"again", cost=known.cost, key=known.key, part=known.part)
            await self._submit(two % (WORKERS + 1), [new])

    async def claim(self, one: int, two: int) -> None:
        """A worker claims up to 4."""
        await self._turn(one % WORKERS, two % 5)

    async def _turn(self, which: int, want: int, *ends: Any) -> None:
        member = self.members[which]
        claimed = await member.claim(want, *ends)
        for got in claimed:
            self._started(got, member)
        may = self.model.startable()
        assert len(claimed) == want or not may, f"{len(claimed)} of {want} were claimed, where {may} may start"

    def _started(self, got: Claimed, member: TrialMember) -> None:
        plain = self.model.start(got.id, self._number(member), got.token)
        assert (got.lane, got.attempt, got.deaths) == (plain.lane, plain.attempt, plain.deaths)

    async def end(self, one: int, two: int) -> None:
        """A worker ends up to 2 commands, and claims as many or more."""
        which, state = one % WORKERS, FINAL[two % 5] if two % 2 else "succeeded"
        ends = []
        for number, plain in enumerate(self._held(which)[: one % 2 + 1]):
            letter, cost = state != "succeeded" and number == 0, (None, None, 0.5, 2.0)[two % 4]
            ends.append(self._end(plain, state, letter=b"letter" if letter else None, cost=cost))
            self.model.end(plain, state, letter=letter, cost=cost)
        await self._turn(which, two % 4, *ends)

    def _held(self, which: int) -> list[Plain]:
        return self.model.holds(self._number(self.members[which]))

    @staticmethod
    def _end(plain: Plain, state: str, **fields: Any) -> Any:
        return done(plain, state, **fields)  # type: ignore[arg-type]  # it has an id and a token

    async def back_off(self, one: int, two: int) -> None:
        """A worker has one command back off, for no time or for long."""
        which = one % WORKERS
        for plain in self._held(which)[:1]:
            later = two % 3 == 0
            self.model.end(plain, "backoff", letter=False, cost=None)
            await self._turn(which, 0, self._end(plain, "backoff", delay=FAR if later else 0.0))
            if plain.state == "backoff" and not later:
                await self.trial.state(self.keeper, plain.id, "ready")
                plain.state = "ready"

    async def give_back(self, one: int, two: int) -> None:
        """A worker gives one command back as it was."""
        which = one % WORKERS
        for plain in self._held(which)[-1:]:
            end = self._end(plain, "ready")
            self.model.end(plain, "ready", letter=False, cost=None)
            await self._turn(which, two % 3, end)

    async def set_aside(self, one: int, two: int) -> None:
        """A worker gives one command back for a moment or for long, with what it took of rate limits or without."""
        which = one % WORKERS
        for plain in self._held(which)[-1:]:
            delay, cost = FAR if two % 3 == 0 else 0.01, (None, 0.0)[two % 2]
            self.model.end(plain, "ready", letter=False, cost=cost, later=True)
            await self._turn(which, two % 4, self._end(plain, "ready", delay=delay, cost=cost))
            if plain.state == "backoff" and delay < FAR:
                await self.trial.state(self.keeper, plain.id, "ready")
                plain.state = "ready"

    async def step_back(self, one: int, two: int) -> None:
        """A worker hands in nothing and wants nothing."""
        await self._turn(one % WORKERS, 0)

    async def cancel(self, one: int, two: int) -> None:
        """Anyone cancels a command that lives, or one that does not."""
        live = list(self.model.live)
        command_id = live[one % len(live)] if live and two % 5 else "c1"
        wanted = self.model.cancel(command_id)
        assert await self.members[two % WORKERS].broker.cancel(command_id) == wanted

    async def pause(self, one: int, two: int) -> None:
        """A lane is paused, or resumed."""
        lane, paused = NAMES[one % len(NAMES)], two % 3 == 0
        changed = (lane in self.model.paused) is not paused
        assert await self.members[two % WORKERS].broker.set_paused(lane, paused=paused) is changed
        (self.model.paused.add if paused else self.model.paused.discard)(lane)

    async def lose(self, one: int, two: int) -> None:
        """A worker is lost, and another one joins; what it ran comes back, or does not."""
        if two % 3:
            return
        lost = self.members.pop(one % WORKERS)
        held = self.model.holds(self._number(lost))
        for plain in held:
            self.model.lose(plain)
        lost.broker.stop_beat()

        async def is_gone() -> bool:
            return lost.id not in {member.id for member in (await self.keeper.broker.stats()).members}

        await self.trial.until(is_gone, "a lost member is gone")
        for plain in held:
            if plain.id in self.model.live:
                await self.trial.state(self.keeper, plain.id, "ready")
                plain.state = "ready"
        lost.broker.start_beat()
        stale = [self._end(plain, "succeeded") for plain in held]
        assert (await lost.turn(0, *stale)).stale == [plain.id for plain in held]
        await lost.close()
        self.gone.append(lost)
        self.members.insert(one % WORKERS, await self._worker())

    async def leave(self, one: int, two: int) -> None:
        """A worker leaves, and another one joins."""
        if two % 3:
            return
        left = self.members.pop(one % WORKERS)
        await left.close()
        for plain in self.model.holds(self._number(left)):
            self.model.give_back(plain)
        self.gone.append(left)
        self.members.insert(one % WORKERS, await self._worker())

    async def requeue(self, one: int, two: int) -> None:
        """Dead letters run again."""
        dead = list(self.model.dead)
        ids = [*dead[one % len(dead) :][: two % 3 + 1], "unknown"] if dead else ["unknown"]
        member = self.members[two % WORKERS]
        wanted = [letter_id for letter_id in ids if self.model.requeue(letter_id, self._number(member))]
        assert await member.broker.requeue(ids) == wanted
        self.watched += wanted
        assert await self.keeper.broker.watch(wanted) == []

    async def stale(self, one: int, two: int) -> None:
        """Ends that must be refused change nothing."""
        live = list(self.model.live.values())
        if live:
            plain = live[one % len(live)]
            member = self.members[two % WORKERS]
            token = plain.token - (plain.holder == self._number(member))
            refused = done(plain, FINAL[two % 5], letter=b"stale")  # type: ignore[arg-type]
            refused = type(refused)(plain.id, token, refused.state, letter=b"stale")
            assert (await member.turn(0, refused)).stale == [plain.id]

    async def find(self, one: int, two: int) -> None:
        """What is found of a command, and how the queue is."""
        live = list(self.model.live.values())
        if live:
            plain = live[one % len(live)]
            found = await self.members[two % WORKERS].broker.find(plain.id)
            assert found is not None
            holder = "" if plain.holder is None else self.trial.members[plain.holder].id
            facts = (found.lane, found.state, found.attempt, found.member)
            assert facts == (plain.lane, plain.state, plain.attempt, holder), f"{plain} is found as {found}"
        await self.compare()

    # --- what must hold -----------------------------------------------------------------------------------------

    async def compare(self) -> None:
        """The sums of the broker are those of the model."""
        model, stats = self.model, await self.keeper.broker.stats()
        for lane, depth in stats.lanes.items():
            found = (depth.ready, depth.delayed, depth.backoff, depth.running, depth.dead, depth.paused)
            dead = sum(one.lane == lane for one, _, _ in model.dead.values())
            wanted = (*(len(model.of(lane, state)) for state in ("ready", "delayed", "backoff", "running")), dead)
            assert found == (*wanted, lane in model.paused), f"lane {lane}: {found} in place of {wanted}"
        assert {state: count for state, count in stats.ended.items() if count} == dict(model.ended)
        assert (stats.submitted, stats.returned, stats.letters) == (model.submitted, model.returned, len(model.dead))
        runs = {one.id: one.running for one in stats.members if one.running}
        wanted_runs = Counter(
            self.trial.members[one.holder].id for one in model.live.values() if one.holder is not None
        )
        assert runs == dict(wanted_runs)

    async def _compare_ends(self) -> None:
        model, trial = self.model, self.trial
        letters = await self.keeper.broker.letters(limit=10_000)
        found = {one.id: (one.lane, one.state, one.cause) for one in letters}
        wanted = {one.id: (one.lane, state, cause) for one, state, cause in model.dead.values()}
        assert found == wanted, f"letters: {found} in place of {wanted}"
        kinds = {"returned", "poisoned", "dropped", "cancelled"}

        def facts() -> Counter[tuple[str, str]]:
            told = [fact for member in trial.members for fact in member.ear.facts]
            return Counter((str(fact.kind), fact.id) for fact in told if fact.kind in kinds)

        with contextlib.suppress(AssertionError):  # the one below says more
            await trial.until(lambda: facts().total() >= model.facts.total(), "members are told of all facts")
        missing, more = model.facts - facts(), facts() - model.facts
        assert not missing, f"facts that no member was told of: {missing}"
        assert not more, f"facts that members were told of: {more}"
        ends = model.ended.total()
        await trial.until(lambda: len(self.keeper.ear.results) >= ends, "the keeper is told of all ends")
        assert len(self.keeper.ear.results) == ends
        last = {result.id: result.state for result in self.keeper.ear.results}
        assert {
            command_id: state for command_id, state in last.items() if command_id not in model.live
        } == model.results
