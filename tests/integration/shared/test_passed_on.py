"""A rolling upgrade at a real server: a process of the old version does not know a type that a new one runs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import lane_obs
from lane_obs import LaneConfig, MemorySink, QueueManager
from lane_obs.distributed import RedisBroker

if TYPE_CHECKING:
    from tests.integration.servers.server import Server

QUEUE = "upgraded"
LANES = {"a": LaneConfig(0, 8)}
OLD = f"""
import asyncio, sys
import lane_obs
from lane_obs import LaneConfig, MemorySink, QueueManager
from lane_obs.distributed import RedisBroker

@lane_obs.command("passed.old")
async def old(number: int) -> str:
    return f"old {{number}}"

async def main(url):
    sink = MemorySink()
    async with QueueManager({{"a": LaneConfig(0, 8)}}, broker=RedisBroker(url, queue="{QUEUE}"), sinks=[sink]):
        while not any(event.key == "queue.command.passed_on" for event in sink.events):
            await asyncio.sleep(0.01)
        print("passed on", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(sum(event.key == "queue.command.passed_on" for event in sink.events))
        print(sum(event.key == "queue.command.dead_lettered" for event in sink.events))

lane_obs.run(main(sys.argv[1]))
"""


@lane_obs.command("passed.newer")
async def newer(number: int) -> str:
    return f"new {number}"


async def test_a_type_that_another_process_does_not_know_runs_here(server: Server) -> None:
    async with QueueManager(LANES, broker=RedisBroker(server.url, queue=QUEUE), work=False) as producer:
        with subprocess.Popen(
            [sys.executable, "-c", OLD, server.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                handles = await producer.submit_many("a", [(newer, number) for number in range(40)])
                assert await asyncio.to_thread(process.stdout.readline) == "passed on\n"
                sink = MemorySink()
                async with QueueManager(LANES, broker=RedisBroker(server.url, queue=QUEUE), sinks=[sink]):
                    assert [await handle for handle in handles] == [f"new {number}" for number in range(40)]
                    handles = await producer.submit_many("a", [(newer, number) for number in range(40)])
                    assert [await handle for handle in handles] == [f"new {number}" for number in range(40)]
                    stats = await producer.cluster.stats()
            finally:
                passed, dead, *_ = process.communicate("", timeout=30)[0].split()
        assert process.returncode == 0
        assert int(passed) >= 40
        assert dead == "0"
        assert stats.ended["succeeded"] == 80
        assert await producer.cluster.letters() == []
        attempts = {event.payload["attempt"] for event in sink.events if event.key == "queue.command.completed"}
        assert attempts == {1}
