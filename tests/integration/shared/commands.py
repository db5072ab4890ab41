"""Commands that the tests of shared queues run; what happens is noted here, since results travel as data."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections import Counter
from typing import Any

import lane_obs

runs: Counter[str] = Counter()
gates: dict[str, asyncio.Event] = {}
started: dict[str, asyncio.Event] = {}
active: Counter[str] = Counter()
highest: Counter[str] = Counter()
order: list[str] = []


def reset() -> None:
    for kept in (runs, gates, started, active, highest):
        kept.clear()
    order.clear()


def gate(name: str) -> asyncio.Event:
    return gates.setdefault(name, asyncio.Event())


def begun(name: str) -> asyncio.Event:
    return started.setdefault(name, asyncio.Event())


@dataclasses.dataclass
class Point:
    x: int
    y: int


@lane_obs.command("many.add")
async def add(a: int, b: int) -> int:
    runs["add"] += 1
    return a + b


@lane_obs.command("many.note")
async def note(name: str) -> None:
    order.append(name)


@lane_obs.command("many.point")
async def point(x: int) -> Point:
    return Point(x, x * 2)


@lane_obs.command("many.double")
def double(x: int) -> int:
    assert threading.current_thread() is not threading.main_thread()
    return 2 * x


@lane_obs.command("many.boom")
async def boom(text: str) -> None:
    runs["boom"] += 1
    raise ValueError(text)


@lane_obs.command("many.surrogate")
async def surrogate() -> None:
    raise ValueError("a\ud800b")


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@lane_obs.command("many.unreadable")
async def unreadable() -> None:
    raise Unreadable


@lane_obs.command("many.flaky")
async def flaky(name: str, failures: int) -> int:
    runs[name] += 1
    if runs[name] <= failures:
        raise ConnectionError("not yet")
    return runs[name]


@lane_obs.command("many.no_json")
async def no_json() -> Any:
    return object()


@lane_obs.command("many.huge")
async def huge(size: int) -> str:
    return "x" * size


@lane_obs.command("many.hold")
async def hold(name: str) -> str:
    runs[name] += 1
    active["all"] += 1
    highest["all"] = max(highest["all"], active["all"])
    begun(name).set()
    try:
        await gate(name).wait()
    finally:
        active["all"] -= 1
    return name


@lane_obs.command("many.step")
async def step(name: str) -> None:
    """Takes a turn of the loop while it counts how many of its name run at once."""
    active[name] += 1
    highest[name] = max(highest[name], active[name])
    order.append(name)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    active[name] -= 1


@lane_obs.command("many.telling")
async def telling(name: str) -> str:
    """Tells again and again: who awaits it hears only what is told from then on."""
    begun(name).set()
    while not gate(name).is_set():
        lane_obs.current().report({"share": 0.5})
        await asyncio.sleep(0.01)
    return "told"


@lane_obs.command("many.spend")
async def spend(cost: float) -> None:
    lane_obs.current().settle(cost)


@lane_obs.command("many.Sum")
@dataclasses.dataclass
class Sum(lane_obs.Command[int]):
    numbers: list[int]

    async def execute(self) -> int:
        return sum(self.numbers)
