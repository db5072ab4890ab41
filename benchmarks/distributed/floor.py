"""What is left when only Redis works: bare scripts through redis-py, no job run, none of its own, no result."""

from __future__ import annotations

import json
import time
from typing import Final

from benchmarks.distributed.jobs import CONCURRENCY, PAYLOAD
from benchmarks.distributed.runs import Run
from benchmarks.distributed.server import Server
from benchmarks.workload import LOOPS, on_loop

_BATCH: Final = 100
_KEYS: Final = ("{floor}:ready", "{floor}:jobs", "{floor}:leases")
_BODY: Final = json.dumps({"id": "0123456789abcdef", "name": "bench.count", "args": [PAYLOAD]})
_LEASE: Final = 30

_ENQUEUE: Final = """
local ready, jobs = {}, {}
for at = 1, #ARGV, 2 do
  ready[at], ready[at + 1] = 0, ARGV[at]
  jobs[at], jobs[at + 1] = ARGV[at], ARGV[at + 1]
end
redis.call('HSET', KEYS[2], unpack(jobs))
return redis.call('ZADD', KEYS[1], unpack(ready))
"""
_CLAIM: Final = """
local taken = redis.call('ZPOPMIN', KEYS[1], ARGV[2])
local ids, leases = {}, {}
for at = 1, #taken, 2 do
  ids[#ids + 1] = taken[at]
  leases[#leases + 1], leases[#leases + 2] = ARGV[1], taken[at]
end
if #ids == 0 then return {ids, ids} end
redis.call('ZADD', KEYS[3], unpack(leases))
return {ids, redis.call('HMGET', KEYS[2], unpack(ids))}
"""
_ACKNOWLEDGE: Final = """
redis.call('HDEL', KEYS[2], unpack(ARGV))
return redis.call('ZREM', KEYS[3], unpack(ARGV))
"""


async def _enqueue(url: str, count: int) -> float:
    import redis.asyncio

    async with redis.asyncio.Redis.from_url(url) as client:
        enqueue = client.register_script(_ENQUEUE)
        start = time.perf_counter()
        for first in range(0, count, _BATCH):
            numbers = range(first, min(first + _BATCH, count))
            await enqueue(_KEYS, [part for number in numbers for part in (f"job-{number:012}", _BODY)])
        return time.perf_counter() - start


async def _drain(url: str, count: int) -> float:
    import redis.asyncio

    async with redis.asyncio.Redis.from_url(url) as client:
        claim, acknowledge = client.register_script(_CLAIM), client.register_script(_ACKNOWLEDGE)
        start, taken = time.perf_counter(), 0
        while taken < count:
            ids, _bodies = await claim(_KEYS, [time.time() + _LEASE, CONCURRENCY])
            taken += await acknowledge(_KEYS, ids)
        return time.perf_counter() - start


def enqueue(count: int) -> Run:
    """One script for a hundred jobs."""
    with Server() as server:
        return Run(on_loop(LOOPS[0], _enqueue, server.url, count) / count, server.use())


def drain(count: int) -> Run:
    """One script claims 32 jobs, another acknowledges them."""
    with Server() as server:
        on_loop(LOOPS[0], _enqueue, server.url, count)
        before = server.use()
        return Run(on_loop(LOOPS[0], _drain, server.url, count) / count, server.use().since(before))
