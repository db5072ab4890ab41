"""Rate limits in a real queue under virtual time, against a queue as simple as can be on exact fractions."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import pytest

from lane_obs import LaneConfig, Partitions, QueueManager, RateLimit, VirtualClock
from lane_obs.clock import sleep, sleep_until
from tests.conftest import run_clean
from tests.property.plain_queue import PlainBucket, PlainCommand, PlainLane, PlainWindow, play

_SAME = 1e-6


def some_limit(rng: random.Random, denominator: int) -> tuple[RateLimit, Any]:
    """A limit, and a plain one that is the same. Limits of two denominators are never due at the same time."""
    odd = Fraction(rng.randint(1, 99), denominator)
    if rng.random() < 0.3:
        amount, seconds = rng.randint(1, 6), rng.choice([1, 2, 5]) + odd
        return RateLimit.sliding_window(amount, float(seconds)), PlainWindow(Fraction(amount), seconds)
    per_second, burst = rng.choice([1, 2, 3, 7]) + odd, rng.randint(1, 5)
    return RateLimit.per_second(float(per_second), burst=burst), PlainBucket(per_second, Fraction(burst))


def some_queue(rng: random.Random) -> tuple[dict[str, LaneConfig], dict[str, PlainLane], list[PlainCommand]]:
    shared, plain_shared = some_limit(rng, 1009)
    lanes: dict[str, LaneConfig] = {}
    plain: dict[str, PlainLane] = {}
    for number in range(rng.randint(1, 3)):
        limits, plain_limits = [], []
        if rng.random() < 0.7:
            own, plain_own = some_limit(rng, 997)
            limits.append(own)
            plain_limits.append(plain_own)
        if rng.random() < 0.6:
            limits.append(RateLimit.shared("all", shared))
            plain_limits.append(plain_shared)
        slots, keyed = rng.randint(1, 4), rng.random() < 0.3
        name = f"lane{number}"
        partitions = Partitions.per_key() if keyed else None
        lanes[name] = LaneConfig(0, slots, priority=number, rate_limit=limits, partitions=partitions)
        plain[name] = PlainLane(number, slots, plain_limits, keyed)
    commands = []
    for number in range(rng.randint(1, 40)):
        lane = rng.choice(list(plain))
        most = min([limit.largest() for limit in plain[lane].limits], default=Fraction(3))
        cost = Fraction(rng.choice([1, 1, 1, 2, 3])) if most >= 1 else most
        # Thirds of a millisecond: times are no multiples of what a float holds exactly, and seldom meet.
        commands.append(
            PlainCommand(
                number,
                lane,
                Fraction(rng.randint(0, 12_000), 3_000),
                Fraction(rng.randint(1, 4_000), 3_001),
                min(cost, most),
                rng.choice(["x", "y", None]),
            )
        )
    return lanes, plain, commands


async def real_starts(lanes: dict[str, LaneConfig], commands: list[PlainCommand]) -> list[tuple[int, float]]:
    clock = VirtualClock()
    began = clock.now()
    starts: list[tuple[int, float]] = []

    async def work(number: int, seconds: float) -> None:
        starts.append((number, clock.now() - began))
        await sleep(clock, seconds)

    async def feed(manager: QueueManager) -> None:
        for command in sorted(commands, key=lambda command: (command.at, command.number)):
            await sleep_until(clock, began + float(command.at))
            await manager.submit(
                command.lane,
                work,
                command.number,
                float(command.seconds),
                cost=float(command.cost),
                partition_key=command.key,
            )
        await manager.drain()

    async with QueueManager(lanes, clock=clock) as manager:
        await clock.run(feed(manager))
    return starts


@pytest.mark.parametrize("part", range(10))
def test_each_start_is_at_the_first_instant_at_which_it_may_be_and_none_is_before(part: int) -> None:
    for seed in range(part * 100, part * 100 + 100):
        lanes, plain, commands = some_queue(random.Random(seed))
        # In the plain queue a lane's order is that of numbers, which must be that of submits.
        commands.sort(key=lambda command: (command.at, command.number))
        for number, command in enumerate(commands):
            command.number = number
        found = run_clean(real_starts, lanes=lanes, commands=commands)
        expected = play(plain, commands)
        assert dict(found).keys() == dict(expected).keys(), seed
        first = next(
            ((number, at, float(dict(expected)[number])) for number, at in found
             if abs(at - float(dict(expected)[number])) > _SAME), None,
        )  # fmt: skip
        assert first is None, (seed, first, lanes, commands)
