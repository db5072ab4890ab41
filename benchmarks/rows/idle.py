"""Idle queue: how soon a command starts, and what the queue does while there is nothing to do."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from typing import TYPE_CHECKING, Any

from benchmarks import peer
from benchmarks.figure import Figure, Sizes, at_most, quantile
from benchmarks.workload import LOOPS, no_op, on_loop
from lane_obs import QueueManager

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

ROW = "idle"
_GAP = (0.0005, 0.005)
_P99_MS = 0.5
_OWN_SWITCHES = 2
"""Context switches in an idle second that are the process's own: it goes to sleep once, and is woken once."""


async def _stamp() -> float:
    return time.perf_counter()


async def latency(samples: int, rng: random.Random) -> list[float]:
    """Milliseconds from the call of `submit` to the command's first step, for one command at a time."""
    waits = []
    async with QueueManager() as manager:
        for _ in range(samples):
            await asyncio.sleep(rng.uniform(*_GAP))
            before = time.perf_counter()
            handle = await manager.submit("query", _stamp)
            waits.append((await handle - before) * 1e3)
    return waits


async def task_latency(samples: int, rng: random.Random) -> list[float]:
    """The same for a bare `asyncio.create_task`: what the event loop itself takes."""
    waits = []
    for _ in range(samples):
        await asyncio.sleep(rng.uniform(*_GAP))
        before = time.perf_counter()
        waits.append((await asyncio.create_task(_stamp()) - before) * 1e3)
    return waits


class CountingLoop(asyncio.SelectorEventLoop):
    """asyncio's own event loop, counting its turns."""

    turns = 0

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()  # type: ignore[misc]


@dataclasses.dataclass(frozen=True, slots=True)
class Idle:
    """What a process did in some idle time."""

    turns: int
    """Turns of the event loop; 0 where it cannot count them."""
    switches: int
    """How often the process went to sleep and was woken."""
    cpu_ms: float


def _reading() -> tuple[int, int, float]:
    loop = asyncio.get_running_loop()
    turns = loop.turns if isinstance(loop, CountingLoop) else 0
    switches = 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    return turns, switches, time.process_time() * 1e3


async def _sleep_and_read(seconds: float) -> Idle:
    before = _reading()
    await asyncio.sleep(seconds)
    after = _reading()
    return Idle(after[0] - before[0], after[1] - before[1], after[2] - before[2])


async def idle_queue(seconds: float) -> Idle:
    """What the process does while a started queue, which has run some commands, has nothing to do."""
    async with QueueManager() as manager:
        for handle in await manager.submit_many("query", [no_op] * 100, timeout=60.0):
            await handle
        await asyncio.sleep(0.01)
        return await _sleep_and_read(seconds)


async def no_queue(seconds: float) -> Idle:
    """What the process does with no queue at all."""
    await asyncio.sleep(0.01)
    return await _sleep_and_read(seconds)


def counted(work: Callable[[float], Coroutine[Any, Any, Idle]], seconds: float) -> Idle:
    """What `work(seconds)` gives on asyncio's own event loop, its turns counted."""
    with asyncio.Runner(loop_factory=CountingLoop) as made:
        result: Idle = made.run(work(seconds))
    return result


def figures(sizes: Sizes) -> Iterator[Figure]:
    """Latency on each event loop, then wake-ups while idle, then the peer's."""
    for loop in LOOPS:
        yield from _latency_figures(loop, sizes)
    yield from _wake_up_figures(sizes)
    yield from _peer_figures(sizes)


def _latency_figures(loop: str, sizes: Sizes) -> Iterator[Figure]:
    ours = on_loop(loop, latency, sizes.samples, random.Random(1))
    bare = on_loop(loop, task_latency, sizes.samples, random.Random(1))
    for share, judged in ((0.5, False), (0.99, True)):
        mine, theirs = quantile(ours, share), quantile(bare, share)
        budget, holds = at_most(_P99_MS, mine, "ms") if judged else ("", None)
        what = f"submit to start, p{share * 100:g}, {loop}"
        yield Figure(ROW, what, mine, "ms", theirs, "asyncio.create_task", mine / theirs, budget, holds)


def _wake_up_figures(sizes: Sizes) -> Iterator[Figure]:
    seconds = sizes.idle_seconds
    turns, none = counted(idle_queue, seconds).turns, counted(no_queue, seconds).turns
    budget, holds = at_most(0, turns - none, "more")
    yield Figure(ROW, f"turns of the loop in {seconds:g} s, asyncio", turns, "", none, "no queue", None, budget, holds)
    ours, bare = on_loop(LOOPS[0], idle_queue, seconds), on_loop(LOOPS[0], no_queue, seconds)
    if resource is not None:
        budget, holds = at_most(_OWN_SWITCHES, ours.switches - bare.switches, "more")
        what = f"context switches in {seconds:g} s, {LOOPS[0]}"
        yield Figure(ROW, what, ours.switches, "", bare.switches, "no queue", None, budget, holds)
    yield Figure(ROW, f"CPU time in {seconds:g} s, {LOOPS[0]}", ours.cpu_ms, "ms", bare.cpu_ms, "no queue")


def _peer_figures(sizes: Sizes) -> Iterator[Figure]:
    found = peer.measure(sizes.peer_commands, sizes.idle_seconds)
    if found is None:
        yield Figure(ROW, "submit to start", None, "ms", None, f"{peer.NAME} (not installed)")
        return
    ours = on_loop(LOOPS[0], latency, sizes.peer_commands, random.Random(1))
    for share in (0.5, 0.99):
        mine, theirs = quantile(ours, share), quantile(found["waits_ms"], share)
        what = f"submit to start, p{share * 100:g}, {LOOPS[0]}"
        yield Figure(ROW, what, mine, "ms", theirs, peer.NAME, mine / theirs)
    idle = on_loop(LOOPS[0], idle_queue, sizes.idle_seconds)
    yield Figure(ROW, f"context switches in {sizes.idle_seconds:g} s", idle.switches, "", found["switches"], peer.NAME)
