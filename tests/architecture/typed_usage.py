"""A program that uses the library the way its users do. It is never run: mypy reads it, as strictly as it can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import Any, assert_type

import lane_obs
from lane_obs import (
    Command,
    CommandHandle,
    CommandQueue,
    DeadLetter,
    DrainReport,
    DrainTimeout,
    EventEmitter,
    Explanation,
    LaneConfig,
    LaneEvent,
    LaneStats,
    MemorySink,
    MonitorConfig,
    QueueConfig,
    QueueManager,
    QueueManagerBuilder,
    QueueMonitor,
    QueueStats,
    RetryPolicy,
    Sink,
    State,
    VirtualClock,
    WaitByCause,
    command,
    load_lanes,
)


class Fetch(Command[bytes]):
    command_type = "fetch"

    def __init__(self, url: str) -> None:
        self.url = url

    async def execute(self) -> bytes:
        return self.url.encode()


class OwnSink:
    def handle(self, events: Sequence[LaneEvent]) -> None:
        assert_type(events[0].payload, dict[str, Any])
        assert_type(events[0].timestamp, datetime)

    def close(self) -> None:
        return


async def lines() -> AsyncIterator[object]:
    yield Fetch("/")


@command("double")
async def double(number: int) -> int:
    return 2 * number


def blocking(number: int) -> float:
    return number / 2


async def submits(manager: QueueManager) -> None:
    assert_type(await manager.submit("query", double, 1), CommandHandle[int])
    assert_type(await (await manager.submit("query", double, 1, timeout=3, deadline=timedelta(minutes=1))), int)
    assert_type(await (await manager.submit("query", blocking, 1)), float)
    assert_type(await (await manager.submit("query", Fetch("/"))), bytes)
    assert_type(await (await manager.submit("query", Fetch, "/")), bytes)
    assert_type(await (await manager.submit("query", double(2))), int)
    assert_type(await (await manager.submit("query", "double", 2)), Any)
    assert_type(manager.submit_nowait("query", double, 1), CommandHandle[int])
    assert_type(manager.submit_nowait("query", Fetch("/"), retry=RetryPolicy.exponential(3)), CommandHandle[bytes])
    handles = await manager.submit_many("query", [double, (double, 1), Fetch("/")])
    assert_type(handles, list[CommandHandle[Any]])
    streamed = await manager.submit_many("query", (item for item in [double, (double, 1)]))
    assert_type(streamed, list[CommandHandle[Any]])
    async for handle in manager.submit_stream("query", lines()):
        assert_type(handle, CommandHandle[Any])
    assert_type(manager.submit_threadsafe("query", "double", 1), Future[Any])


async def looks(manager: QueueManager, handle: CommandHandle[int]) -> None:
    assert_type(await asyncio.gather(handle, handle), tuple[int, int])
    assert_type(handle.result(), int)
    assert_type(handle.state, State)
    assert_type(handle.wait_by_cause, WaitByCause)
    assert_type(manager.get(handle.id), CommandHandle[Any] | None)
    assert_type(manager.explain(handle.id), Explanation)
    assert_type(manager.stats(), QueueStats)
    assert_type(manager.stats().lanes, Mapping[str, LaneStats])
    assert_type(manager.dead_letters.list(), list[DeadLetter])
    assert_type(manager.set_lane("query", max_concurrency=3), LaneConfig)
    manager.add_lane("talk", LaneConfig(0, 1))
    await manager.remove_lane("talk", timeout=timedelta(seconds=5), cancel=True)
    assert_type(manager.queue(), CommandQueue)
    assert_type(lane_obs.current().deadline_left, float | None)


async def ends(manager: QueueManager) -> None:
    try:
        assert_type(await manager.drain(timedelta(seconds=30)), DrainReport)
    except DrainTimeout as error:
        assert_type(error.report.left, Mapping[str, Mapping[str, int]])


async def watches(manager: QueueManager, emitter: EventEmitter) -> None:
    async for event in emitter.subscribe_filtered(lambda event: event.key == "queue.started"):
        assert_type(event, LaneEvent)
    monitor = QueueMonitor.with_config(manager.queue(), MonitorConfig(interval=5.0))
    await monitor.start()
    assert_type((await monitor.stats()).total_pending, int)


async def main() -> int:
    sinks: list[Sink] = [OwnSink(), MemorySink(), EventEmitter(100)]
    config = load_lanes("lanes.toml")
    assert_type(config, QueueConfig)
    lanes = {"api": LaneConfig(1, 5, priority=0, timeout=timedelta(seconds=30), overflow="reject", max_pending=9)}
    async with QueueManager(lanes=lanes, max_concurrency=32, sinks=sinks, clock=VirtualClock()) as manager:
        assert_type(manager, QueueManager)
    built = QueueManagerBuilder(EventEmitter(100)).with_lane("api", LaneConfig(1, 4), 0).with_dlq(10).build()
    assert_type(built, QueueManager)
    return 0


assert_type(lane_obs.run(main()), int)
