"""A connection is opened again whenever it breaks, for ever, at a pace that stays in bounds."""

from __future__ import annotations

import asyncio
import itertools
from random import Random
from typing import TYPE_CHECKING

import pytest

from lane_obs.distributed.redis.keeper import Backoff, Keeper
from lane_obs.distributed.redis.refusal import Lost, Refusal, Remedy
from lane_obs.distributed.redis.route import Unreachable
from lane_obs.distributed.redis.url import Address
from lane_obs.distributed.redis.wire import Wire

if TYPE_CHECKING:
    from lane_obs import VirtualClock

HERE = Address("127.0.0.1", 1)


class Latest(Random):
    """Always draws the largest number there is below 1."""

    def random(self) -> float:
        return 1 - 2**-53


class Server:
    """Refuses so many connections, then takes them; notes when it was asked."""

    def __init__(self, clock: VirtualClock, refusals: int, *, denied: bool = False) -> None:
        self.clock = clock
        self.refusals = refusals
        self.denied = denied
        self.asked_at: list[float] = []
        self.told: list[str] = []

    async def dial(self) -> Wire:
        self.asked_at.append(self.clock.now())
        if len(self.asked_at) <= self.refusals:
            raise Unreachable("refused", denied=self.denied)
        return Wire(HERE, self.clock, 5)

    def keeper(self, rng: Random | None = None) -> Keeper:
        return Keeper(self.dial, self.clock, rng or Latest(), lambda _: self.told.append("up"), self.told.append)

    @property
    def gaps(self) -> list[float]:
        return [round(after - before, 6) for before, after in itertools.pairwise(self.asked_at)]


async def test_B06_3000_failures_later_the_pace_is_at_its_cap_and_the_connection_comes_up(clock: VirtualClock) -> None:
    server = Server(clock, 3_000)
    keeper = server.keeper()
    wire = await clock.run(keeper.wait_up(None))
    assert wire is not None
    assert server.gaps[:7] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    assert set(server.gaps[6:]) == {2.0}
    assert (len(server.gaps), server.told) == (3_000, ["refused"] * 3_000 + ["up"])
    await keeper.close()


async def test_B06_a_rest_never_overflows(clock: VirtualClock) -> None:
    backoff = Backoff(clock, Latest())
    backoff.tries = 10**9
    before = clock.now()
    await clock.run(backoff.rest())
    assert clock.now() - before == pytest.approx(2)
    await clock.run(backoff.rest(before + 3))
    assert clock.now() - before == pytest.approx(3)


async def test_a_connection_that_did_nothing_does_not_quicken_the_pace(clock: VirtualClock) -> None:
    server = Server(clock, 0)
    keeper = server.keeper()
    for proved in (False, False, False, True, False):
        wire = await clock.run(keeper.wait_up(None))
        assert wire is not None
        wire.proved = proved
        wire.drop("broken")
        await clock.advance(0)
    await clock.run(keeper.wait_up(None))
    assert server.gaps == [0.05, 0.1, 0.2, 0.05, 0.1]
    await keeper.close()


async def test_who_is_not_patient_does_not_wait_for_a_server_that_denies_it(clock: VirtualClock) -> None:
    server = Server(clock, 10, denied=True)
    keeper = server.keeper()
    before = clock.now()
    assert await clock.run(keeper.wait_up(before + 5, patient=False)) is None
    assert (keeper.denied, keeper.reason, clock.now()) == (True, "refused", before)
    assert await clock.run(keeper.wait_up(before + 1)) is None
    assert clock.now() == before + 1
    assert await clock.run(keeper.wait_up(None)) is not None
    await keeper.close()


async def test_a_fault_of_any_kind_does_not_end_the_tries(clock: VirtualClock) -> None:
    server = Server(clock, 0)
    keeper = server.keeper()
    faults = [ValueError("odd"), RuntimeError("odd again")]

    async def dial() -> Wire:
        if faults:
            raise faults.pop()
        return await server.dial()

    keeper._dial = dial
    assert await clock.run(keeper.wait_up(None)) is not None
    assert server.told == ["RuntimeError: odd again", "ValueError: odd", "up"]
    await keeper.close()


async def test_closing_it_ends_every_wait(clock: VirtualClock) -> None:
    keeper = Server(clock, 10).keeper()
    waits = [keeper.wait_up(None), keeper.wait_up(clock.now() + 100)]
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await clock.advance(0.01)
    await keeper.close()
    assert await asyncio.gather(*tasks) == [None, None]
    assert await keeper.wait_up(None) is None
    await keeper.close()


async def test_a_broken_connection_answers_that_it_is(clock: VirtualClock) -> None:
    wire = Wire(HERE, clock, 5)
    wire.drop("gone")
    answer = await wire.ask(b"anything")
    assert isinstance(answer, Lost)
    assert answer.reason == "gone"


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("NOSCRIPT No matching script.", Remedy.RELOAD),
        ("MOVED 1 127.0.0.1:7000", Remedy.MOVE),
        ("READONLY You can't write against a read only replica.", Remedy.RECONNECT),
        ("OOM command not allowed when used memory > 'maxmemory'.", Remedy.GIVE_UP),
        ("LOADING Redis is loading the dataset in memory", Remedy.WAIT),
        ("NOPERM User default has no permissions", Remedy.DENIED),
        ("ERR something else", Remedy.NONE),
        ("", Remedy.NONE),
    ],
)
def test_what_mends_an_error_reply(text: str, remedy: Remedy) -> None:
    assert Refusal(text).remedy is remedy
