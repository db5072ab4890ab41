"""Any interleaving of submits, failures, retries, cancels, crashes and restarts comes to what a plain model says."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lane_obs import LaneConfig, MemorySink, QueueManager, RetryPolicy, VirtualClock, command, current
from lane_obs.clock import sleep
from lane_obs.storage import MemoryStorage
from tests.conftest import run_clean

if TYPE_CHECKING:
    from lane_obs.storage.record import StoredCommand

LANES = {
    "line": LaneConfig(0, 1, max_crashes=3),
    "wide": LaneConfig(0, 3, max_crashes=2),
    "once": LaneConfig(0, 2, on_crash="dead_letter"),
}
KEYS = ("k1", "k2", "k3")
WEIGHTS = {"submit": 12, "advance": 14, "cancel": 3, "crash": 3, "close": 1, "requeue": 3, "pause": 1, "resume": 2}
SECONDS = (0.0, 0.25, 1.5, 6.0)
DELAYS = (0.0, 0.0, 0.0, 0.4, 3.0)
DEADLINES = (None, None, None, 2.13, 9.13)  # never at the very instant of anything else
FAILS = (0, 0, 1, 2, 99)


class Kept(MemoryStorage):
    """A storage in memory that outlives its queue."""

    def rows(self) -> dict[str, StoredCommand]:
        return dict(self._commands)


class Deaf(MemoryStorage):
    """Takes what a killed queue still says."""


@dataclasses.dataclass
class Expected:
    """What the model knows of a command."""

    id: str
    seq: int
    lane: str
    fails: int
    retries: int
    pause: float
    life: float | None
    key: str | None
    not_before: float
    deadline: float | None
    attempt: int = 0
    deaths: int = 0
    running: bool = False


class World:
    """The model; commands tell it of their attempts."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.live: dict[str, Expected] = {}
        self.dead: dict[str, tuple[str, int, Expected]] = {}
        self.succeeded: set[str] = set()
        self.deaf = False
        self.recovering = False
        self.early: list[tuple[str, int]] = []
        """Attempts that began before their submit had returned."""

    def starts(self, key: str, attempt: int) -> None:
        if self.deaf:
            return
        now, found = self.clock.wall(), self.live.get(key)
        assert found is not None, f"{key} runs, and should not: {self.dead.get(key)}, {key in self.succeeded}"
        assert not found.running
        assert attempt == found.attempt + 1
        assert now >= found.not_before - 1e-6
        assert found.deadline is None or now < found.deadline + 1e-6
        if found.lane == "line":
            ahead = [
                other.id for other in self.live.values()
                if other.lane == "line" and other.seq < found.seq and not other.running and other.not_before < now
                and (other.deadline is None or other.deadline > now + 1e-6)
            ]  # fmt: skip
            assert not ahead, f"{key} overtakes {ahead}"
        found.running, found.attempt = True, attempt

    def ends(self, key: str, *, well: bool) -> None:
        if self.deaf:
            return
        found = self.live[key]
        found.running = False
        if well:
            self.succeeded.add(key)
            del self.live[key]
        elif found.attempt <= found.retries:
            found.not_before = self.clock.wall() + found.pause
        else:
            self.bury(found, "ConnectionError")

    def bury(self, found: Expected, error_type: str) -> None:
        del self.live[found.id]
        found.running = False
        self.dead[found.id] = (error_type, found.attempt, found)

    def expire(self) -> None:
        """Ends what has passed its deadline."""
        for found in list(self.live.values()):
            if found.deadline is not None and found.deadline <= self.clock.wall() + 1e-6:
                self.bury(found, "CommandExpired")

    def crash(self) -> None:
        """The process dies; what ran then counts as having died, once another looks."""
        for found in list(self.live.values()):
            if found.running:
                found.running, config = False, LANES[found.lane]
                found.deaths += 1
                if config.on_crash == "dead_letter" or found.deaths >= config.max_crashes:
                    self.bury(found, "ProcessDied")


world: World


@command("machine.work")
async def work(fails: int, seconds: float) -> int:
    me, of = current(), world
    of.starts(me.id, me.attempt)
    await sleep(of.clock, seconds)
    if me.attempt <= fails:
        of.ends(me.id, well=False)
        raise ConnectionError(me.id)
    of.ends(me.id, well=True)
    return me.attempt


class Machine:
    """A queue that is restarted on one storage, and what is done to it."""

    def __init__(self, seed: int) -> None:
        global world
        self.rng = random.Random(seed)
        self.clock = VirtualClock()
        self.storage = Kept()
        self.world = world = World(self.clock)
        self.manager: QueueManager
        self.number = 0
        self.paused: set[str] = set()

    async def start(self, *, waits: bool = True) -> None:
        self.sink = MemorySink()
        self.paused.clear()
        self.world.deaf = False
        self.world.expire()
        self.manager = QueueManager(LANES, storage=self.storage, clock=self.clock, sinks=[self.sink], seed=1)
        await self.manager.start()
        if waits:
            await self.sink.wait_for("queue.recovery.complete")

    async def play(self, steps: int) -> None:
        await self.start()
        for _ in range(steps):
            name = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            await getattr(self, name)()
            await self.check()
        await self.end()

    # --- what is done -------------------------------------------------------------------------------------------

    async def submit(self) -> None:
        rng = self.rng
        lane, fails, retries = rng.choice(list(LANES)), rng.choice(FAILS), rng.randrange(3)
        delay, life, pause = rng.choice(DELAYS), rng.choice(DEADLINES), rng.choice((0.5, 4.0))
        options: dict[str, Any] = {"retry": RetryPolicy.fixed(retries, pause, jitter="none")}
        options |= {"delay": delay, "deadline": life, "key": rng.choice((None, None, *KEYS))}
        self.number += 1
        if rng.random() < 0.3:
            options["id"] = f"own-{self.number}"
        if rng.random() < 0.3:
            options["timeout"] = 1_000.0
        self.manager.pause(lane)  # so that it is known here before it runs
        handle = await self.manager.submit(lane, work, fails, rng.choice(SECONDS), **options)
        key, same = options["key"], [one for one in self.world.live.values() if one.key == options["key"]]
        if key is not None and same:
            assert handle.id == same[0].id, "one key, two commands"
        else:
            assert handle.id not in self.world.live
            now = self.clock.wall()
            self.world.live[handle.id] = Expected(
                handle.id, handle.seq, lane, fails, retries, pause, life, key, now + delay,
                None if life is None else now + life,
            )  # fmt: skip
        if lane not in self.paused:
            self.manager.resume(lane)

    async def advance(self) -> None:
        await self.clock.advance(self.rng.choice((0.0, 0.1, 1.0, 5.0)))

    async def cancel(self) -> None:
        if self.world.live:
            key = self.rng.choice(sorted(self.world.live))
            handle = self.manager.get(key)
            assert handle is not None, f"{key} is not to be found"
            handle.cancel()
            del self.world.live[key]

    async def pause(self) -> None:
        lane = self.rng.choice(list(LANES))
        self.manager.pause(lane)
        self.paused.add(lane)

    async def resume(self) -> None:
        lane = self.rng.choice(list(LANES))
        self.manager.resume(lane)
        self.paused.discard(lane)

    async def requeue(self) -> None:
        if self.world.dead:
            key = self.rng.choice(sorted(self.world.dead))
            found = self.world.dead[key][2]
            if found.key is not None and any(one.key == found.key for one in self.world.live.values()):
                return
            self.manager.dead_letters.requeue(key)
            del self.world.dead[key]
            now = self.clock.wall()
            found.attempt, found.deaths, found.not_before = 0, 0, now
            found.deadline = None if found.life is None else now + found.life
            self.world.live[key] = found

    async def crash(self) -> None:
        journal = self.manager._keeper.journal
        assert journal is not None
        self.world.deaf = True
        journal.storage = Deaf()
        await journal.storage.open()
        await self.manager.close()
        self.world.crash()
        await self._away()

    async def close(self) -> None:
        self.world.deaf = True
        for found in self.world.live.values():
            found.running = False
        await self.manager.close()
        await self._away()

    async def _away(self) -> None:
        await self.clock.advance(self.rng.choice((0.0, 0.0, 2.0, 7.0)))
        await self.start(waits=self.rng.random() < 0.5)
        if not self.sink.of("queue.recovery.complete") and self.rng.random() < 0.5:
            await self.submit()

    # --- what must hold -----------------------------------------------------------------------------------------

    async def check(self) -> None:
        await self.sink.wait_for("queue.recovery.complete")
        await self.clock.advance(0.0)
        self.world.expire()
        rows, now = self.storage.rows(), self.clock.wall()
        assert rows.keys() == self.world.live.keys()
        for key, found in self.world.live.items():
            row, handle = rows[key], self.manager.get(key)
            assert handle is not None
            assert (row.seq, row.lane, row.key) == (found.seq, found.lane, found.key)
            assert (row.attempt, row.deaths) == (found.attempt, found.deaths), (row, found)
            assert handle.attempt == found.attempt
            assert (str(handle.state) == "running") == found.running == (row.state == "running"), (row, handle)
            assert row.deadline == pytest.approx(found.deadline)
            if found.not_before > now + 1e-6:
                assert row.not_before == pytest.approx(found.not_before), (row, found)
                assert str(handle.state) in {"delayed", "backoff"}
        letters = {letter.id: letter for letter in await self.storage.load_dead_letters()}
        expected = {key: (kind, attempts) for key, (kind, attempts, _) in self.world.dead.items()}
        assert {key: (letter.error_type, letter.attempts) for key, letter in letters.items()} == expected
        assert {letter.id for letter in self.manager.dead_letters.list()} == letters.keys()
        self._check_sums()

    def _check_sums(self) -> None:
        now = self.clock.wall()
        for name, stats in self.manager.stats().lanes.items():
            mine = [found for found in self.world.live.values() if found.lane == name]
            running = sum(found.running for found in mine)
            assert (stats.running, stats.pending) == (running, len(mine) - running)
            ready = [found.id for found in mine if not found.running and found.not_before < now - 1e-6]
            free = LANES[name].max_concurrency - running
            assert name in self.paused or not ready or not free, f"{ready} wait for nothing"

    async def end(self) -> None:
        for lane in LANES:
            self.manager.resume(lane)
        self.paused.clear()
        await self.clock.run(self.manager.drain())
        await self.check()
        assert self.world.live == {}
        await self.clock.run(self.manager.close())


async def play(seed: int, steps: int) -> None:
    await Machine(seed).play(steps)


@pytest.mark.parametrize(("steps", "examples"), [(6, 150), (25, 120), (100, 25)])
def test_whatever_happens_comes_to_what_the_model_says(steps: int, examples: int) -> None:
    @given(seed=st.integers(0, 2**32))
    @settings(max_examples=examples, deadline=None)
    def run(seed: int) -> None:
        run_clean(play, seed=seed, steps=steps)

    run()
