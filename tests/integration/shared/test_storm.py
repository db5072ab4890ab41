"""Storms of managers that share a queue: they do what they like, all at once, and everything comes to its end."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import (
    LaneConfig,
    LaneObsError,
    MemorySink,
    Partitions,
    PriorityBoost,
    QueueManager,
    RateLimit,
    RetryPolicy,
)
from lane_obs import command as register
from lane_obs.distributed import LocalBroker, PartitionedBroker
from lane_obs.errors import ResultLost

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from lane_obs import CommandHandle
    from lane_obs.distributed import Broker
    from lane_obs.distributed.view import BrokerStats

    Join = Callable[..., Broker]

_RETRY = RetryPolicy.fixed(2, 0.01)
LANES = {
    "plain": LaneConfig(2, 6, retry=_RETRY),
    "drops": LaneConfig(0, 4, priority=1, max_pending=6, overflow="drop_oldest", retry=_RETRY),
    "waits": LaneConfig(0, 4, max_pending=3, retry=_RETRY),
    "boosted": LaneConfig(0, 3, priority=4, boost=PriorityBoost.ageing(0.01, 1), retry=_RETRY),
    "keys": LaneConfig(0, 6, partitions=Partitions.per_key(), retry=_RETRY),
    "bucket": LaneConfig(0, 4, rate_limit=RateLimit.per_second(90, burst=6), retry=_RETRY),
}
_GOES = LaneConfig(0, 2, max_pending=2)
_FINAL = {f"queue.command.{end}" for end in ("completed", "failed", "timeout", "cancelled", "expired")}
_running: Counter[str] = Counter()
_twice: list[str] = []


@register("storm.work")
async def work(places: list[str], seconds: float, ends: str) -> str:
    _running.update(places)
    try:
        _twice.extend(place for place in places if _running[place] > 1)
        await asyncio.sleep(seconds)
        if ends == "hangs":
            await asyncio.Event().wait()
        if ends == "fails":
            raise ConnectionError("as it was told")
        return places[0]
    finally:
        _running.subtract(places)


class Storm:
    """One storm.

    Args:
        join: gives brokers of one queue.
        rng: decides everything but when answers come.
    """

    def __init__(self, join: Join, rng: random.Random) -> None:
        self._join = join
        self._rng = rng
        self._managers: list[QueueManager] = []
        self._sinks: list[MemorySink] = []
        self._handles: list[CommandHandle[Any]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0

    async def run(self, steps: int) -> None:
        """Takes so many steps, lets everything end, and checks what came of it."""
        doings = (
            self._submit,
            self._submit,
            self._submit,
            self._cancel,
            self._await,
            self._await,
            self._pause,
            self._lanes,
        )
        for works in (True, True, False):
            await self._start(works=works)
        for _ in range(steps):
            self._do(self._rng.choice(doings)(self._rng.choice(self._managers)))
            if self._rng.random() < 0.05:
                leaving = self._managers.pop(self._rng.randrange(3))
                await self._start(works=self._rng.random() < 0.8)
                self._do(_stop(leaving))
            await asyncio.sleep(self._rng.choice((0, 0, 0.001, 0.01)))
        await self._end()

    async def _start(self, *, works: bool) -> None:
        self._sinks.append(MemorySink())
        broker = self._join(concurrency=self._rng.choice((1, 2, 8)))
        manager = QueueManager(LANES, broker=broker, work=works, sinks=self._sinks[-1:], max_concurrency=12)
        await manager.start()
        self._managers.append(manager)

    def _do(self, doing: Coroutine[Any, Any, None]) -> None:
        async def done() -> None:
            try:
                await doing
            except ResultLost as lost:
                assert "has left its broker" in str(lost)  # noqa: PT017 - of many this alone may be
            except LaneObsError:  # a lane is gone or full, a command failed, the queue is closed
                pass

        self._tasks.add(asyncio.ensure_future(done()))

    # --- what managers do ---------------------------------------------------------------------------------------

    async def _submit(self, manager: QueueManager) -> None:
        rng, lane = self._rng, self._rng.choice([*LANES, "goes", "goes"])
        self._number += 1
        key = rng.choice("pqr") if lane == "keys" else None
        ends = rng.choice(("well", "well", "fails", "hangs"))
        options: dict[str, Any] = {
            "partition_key": key,
            "timeout": 0.02 if ends == "hangs" else None,
            "deadline": rng.choice((None, None, 0.02, 50)),
            "delay": rng.choice((0, 0, 0, 0.02)),
        }
        places = [str(self._number), *([] if key is None else [key])]
        submit = asyncio.ensure_future(manager.submit(lane, work, places, rng.choice((0, 0.01)), ends, **options))
        if rng.random() < 0.1:
            await asyncio.wait([submit], timeout=0.01)
            submit.cancel()
        handle = (await asyncio.gather(submit, return_exceptions=True))[0]
        if not isinstance(handle, BaseException):
            self._handles.append(handle)
            await handle

    async def _cancel(self, _: QueueManager) -> None:
        if self._handles:
            self._rng.choice(self._handles[-5:]).cancel()

    async def _await(self, manager: QueueManager) -> None:
        """For a while, and maybe again at once."""
        if self._handles:
            handle = self._rng.choice(self._handles[-5:])
            waiting = asyncio.ensure_future(manager.result(handle.id))
            await asyncio.wait([waiting], timeout=self._rng.choice((0, 0.002, 0.02)))
            waiting.cancel()
            await asyncio.wait([waiting])
            await manager.result(handle.id)

    async def _pause(self, manager: QueueManager) -> None:
        ask = self._rng.choice((manager.cluster.pause, manager.cluster.resume, manager.cluster.resume))
        await ask(self._rng.choice(list(LANES)))

    async def _lanes(self, manager: QueueManager) -> None:
        if "goes" not in manager.lanes:
            manager.add_lane("goes", _GOES)
        elif self._rng.random() < 0.5:
            await manager.remove_lane("goes")

    # --- its end ------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        await self._start(works=True)
        last = self._managers[-1]
        last.add_lane("goes", _GOES)
        for _ in range(200):
            for lane in LANES:
                await last.cluster.resume(lane)
            if all(task.done() for task in self._tasks):
                break
            await asyncio.wait(self._tasks, timeout=0.1)
        assert all(task.done() for task in self._tasks), f"left: {[task for task in self._tasks if not task.done()]}"
        await asyncio.gather(*self._tasks)
        while _alive(stats := await last.cluster.stats()):
            await asyncio.sleep(0.01)
        for manager in self._managers:
            await manager.stop()
        assert not _twice, f"at work twice at once: {_twice}"
        assert sum(stats.ended.values()) == stats.submitted
        self._check_events(stats.submitted)

    def _check_events(self, count: int) -> None:
        """The end of each command was told of once, by whichever manager."""
        taken, ended = Counter[str](), Counter[str]()
        for event in (event for sink in self._sinks for event in sink.events):
            if event.key == "queue.command.submitted":
                taken[event.payload["command_id"]] += 1
            elif event.key in _FINAL:
                ended[event.payload["command_id"]] += 1
        lost = taken - ended
        told = [(e.key, e.payload) for sink in self._sinks for e in sink.events if e.payload.get("command_id") in lost]
        assert not lost, f"taken in and without an end: {told}"
        assert set(ended.values()) == {1}, "two ends"
        assert len(ended) == count  # of a lane that others forget meanwhile some may be kept whose submit is refused


@pytest.fixture(autouse=True)
def nothing_noted() -> None:
    _running.clear()
    _twice.clear()


async def _stop(manager: QueueManager) -> None:
    await manager.stop()


def _alive(stats: BrokerStats) -> int:
    return sum(lane.ready + lane.delayed + lane.backoff + lane.running for lane in stats.lanes.values())


@pytest.mark.parametrize("seed", range(2))
async def test_all_comes_to_its_end_and_is_told_of_once(join: Join, seed: int) -> None:
    await Storm(join, random.Random(seed)).run(150)


@pytest.mark.parametrize("seed", range(2))
async def test_all_of_a_queue_in_partitions_does(seed: int) -> None:
    parts = [LocalBroker(f"storm.{number}") for number in range(2)]

    def join(concurrency: int) -> Broker:
        return PartitionedBroker([part.join(concurrency=concurrency) for part in parts])

    await Storm(join, random.Random(seed)).run(150)
