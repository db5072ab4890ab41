"""A queue that two members share, to which everything happens that dashboards show of one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from lane_obs import LaneConfig, MemorySink, QueueManager, RetryPolicy, command
from lane_obs.clock import SystemClock, sleep
from lane_obs.distributed import LocalBroker
from lane_obs.distributed.record import NewCommand
from lane_obs.observability import Metrics, Observability
from lane_obs.runtime.brokered.body import Body, encode_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry


FRONT, BACK = "front", "back"
"""The names of the two members' queues in one registry: processes would share one name."""
LANES = {"shared": LaneConfig(0, 8, retry=RetryPolicy(1, 0.5, jitter="none"))}
_LEASE = 0.5
_held: list[asyncio.Future[None]] = []


@command("shared_shop.note")
async def note() -> None:
    pass


@command("shared_shop.fail")
async def fail() -> None:
    raise ValueError("bad")


@command("shared_shop.hold")
async def hold() -> None:
    _held.append(asyncio.get_running_loop().create_future())
    await _held[-1]


class SharedShop:
    """Two members: one that submits, and one that works from the third round on.

    Args:
        registry: shows both.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        _held.clear()
        broker = LocalBroker(lease=_LEASE)
        self._told = MemorySink(10_000)
        self._front = self._member(broker, FRONT, registry, work=False)
        self._broker = broker.join()
        self._back = self._member(self._broker, BACK, registry, work=True)

    def _member(self, broker: LocalBroker, name: str, registry: CollectorRegistry, *, work: bool) -> QueueManager:
        observe = Observability(
            logs=False, metrics=Metrics(registry=registry), traces=False, watchdog=False, recorder=False, queue=name
        )
        sinks: list[Any] = [self._told] if work else []
        return QueueManager(LANES, broker=broker, work=work, observe=observe, sinks=sinks, dead_letters=1)

    async def start(self) -> None:
        """The member that submits is there; nobody works."""
        await self._front.start()

    async def burst(self, number: int) -> None:
        """What happens in one round. In the first two nobody works, and in one the lane is paused."""
        if number == 2:
            await self._back.start()
        elif number == 3:
            await self._front.cluster.pause("shared")
        elif number == 4:
            await self._front.cluster.resume("shared")
        for work in (note, note, fail, fail):
            await self._front.submit("shared", work)
        await self._front.submit("shared", note, delay=1.0)
        if number not in {0, 1, 3}:
            await self._pass_on(f"newer {number}")
            await self._lose_lease()

    async def _pass_on(self, command_id: str) -> None:
        """Somebody submits what the worker does not know, and thinks better of it."""
        passed = self._count("queue.command.passed_on")
        newer = NewCommand(command_id, "shared", encode_body(Body("shared_shop.newer", b"[]")))
        await self._broker.submit([newer])
        await _until(lambda: self._count("queue.command.passed_on") > passed)
        await self._front.cluster.cancel(command_id)

    async def _lose_lease(self) -> None:
        """A command runs for longer than its worker has a lease on it, and ends nevertheless; then it runs again."""
        stale, running = self._count("queue.command.stale"), len(_held)
        await self._front.submit("shared", hold)
        await _until(lambda: len(_held) > running)
        lost = self._count("queue.command.lease_lost")
        self._broker.stop_beat()
        await _until(lambda: self._count("queue.command.lease_lost") > lost)
        release()
        await _until(lambda: self._count("queue.command.stale") > stale)
        self._broker.start_beat()
        await _until(lambda: len(_held) > running + 1)
        release()

    def _count(self, key: str) -> int:
        return sum(event.key == key for event in self._told.events)

    async def aclose(self) -> None:
        """Both leave."""
        release()
        await self._back.close()
        await self._front.close()


def release() -> None:
    """Lets all commands end that wait for it."""
    for future in _held:
        if not future.done():
            future.set_result(None)


async def _until(holds: Callable[[], bool]) -> None:
    clock = SystemClock()
    end = clock.now() + 20
    while not holds():
        assert clock.now() < end
        await sleep(clock, 0.02)
