"""A `RedisBroker` does what a `LocalBroker` does, at a real server whose scripts have the test's own time."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs.clock import SystemClock, sleep
from lane_obs.distributed import LocalBroker
from lane_obs.distributed.redis import program
from lane_obs.distributed.redis.heartbeat import Heartbeat
from tests.integration.test_redis_broker import OnTrial
from tests.property.broker_twins import LEASE, Twins
from tests.property.twin_time import HandClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.servers.server import Server

TIME = "{lane_obs:twins}:time"


class Still(OnTrial):
    """A member that beats only when it is told to."""

    async def open(self, *args: Any, **options: Any) -> None:
        await super().open(*args, **options)
        while not self.beats:
            await sleep(SystemClock(), 0.001)
        self.stop_beat()

    async def beat(self) -> None:
        """Beats once."""
        heartbeat = self._inbox._heartbeat
        assert heartbeat is not None
        await asyncio.get_running_loop().run_in_executor(None, Heartbeat._beat, heartbeat)
        await sleep(SystemClock(), 0.0)


@pytest.fixture
def _own_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts take the time from a key."""
    read = program._read

    def read_other(name: str) -> str:
        text = read(name)
        if name == "core":
            assert text.count("call('TIME')") == 1
        return text.replace("call('TIME')", f"{{ 0, call('GET', '{TIME}') }}")

    program.load.cache_clear()
    monkeypatch.setattr(program, "_read", read_other)
    yield
    program.load.cache_clear()


@pytest.mark.usefixtures("_own_time")
@pytest.mark.parametrize("seed", [0, 1, 318, 320])
async def test_both_do_the_same(server: Server, seed: int) -> None:
    clock = HandClock(lambda micros: server.ask("SET", TIME, micros))
    first = LocalBroker(lease=LEASE, result_ttl=1.0, clock=clock)

    def make() -> tuple[LocalBroker, Still]:
        return first.join(), Still(server.url, queue="twins", lease=LEASE, result_ttl=1.0)

    twins = Twins(clock, random.Random(seed), make)
    try:
        await twins.run(150)
    finally:
        for twin in twins.members:
            for side in twin.sides:
                await side.broker.close()
        server.ask("DEL", TIME)
