"""Queues and what is done to them, at random."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from lane_obs import LaneConfig, Partitions, PriorityBoost, RateLimit, RetryPolicy

if TYPE_CHECKING:
    import random


class Broken(Exception):
    """What commands here fail with."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What a command does: `kind` names a method of `Bench`, with `seconds` of work and a count."""

    kind: str
    seconds: float
    count: int


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A queue and what is done to it."""

    lanes: dict[str, LaneConfig]
    limit: int | None
    letters: int
    close_timeout: float
    seed: int
    start_after: int
    operations: list[tuple[str, dict[str, Any]]]
    last: list[tuple[str, dict[str, Any]]]
    """Done in the very turn in which the ending begins."""
    ending: str


SECONDS = [0.0, 0.5, 1.0, 1.0, 2.0, 3.7]
POLICIES = [
    RetryPolicy.fixed(2, 0.0, jitter="none"),
    RetryPolicy.fixed(1, 1.0, jitter="none"),
    RetryPolicy.exponential(3, initial_delay=0.5),
    RetryPolicy.fixed(2, 0.5, retry_on=(BaseException,)),
    RetryPolicy.fixed(2, 0.5, give_up_on=(Broken,)),
    RetryPolicy.none(),
]
KINDS = {
    "ok": 8, "at_once": 2, "flaky": 4, "fail_at_once": 2, "retry_after": 2, "nasty": 2, "raise_cancelled": 1,
    "cancel_its_task": 1, "cancel_its_command": 1, "hang": 2, "swallow": 2, "swallow_and_fail": 1, "stubborn": 0.3,
    "spawn": 1,
}  # fmt: skip
OPERATIONS = {
    "submit": 24, "submit_many": 1, "cancel": 4, "cancel_submitter": 2, "await": 4, "cancel_waiter": 2,
    "take_the_id_of_another": 1, "pause": 1, "resume": 2, "set_lane": 2, "advance": 14, "turn": 8, "requeue": 3,
    "explain": 2, "drain_aside": 0.5, "drain": 0.5, "start_again": 0.5, "shutdown": 0.1, "close": 0.1,
}  # fmt: skip
"""By weight."""
LAST = [
    "submit",
    "cancel",
    "cancel",
    "cancel",
    "cancel",
    "cancel_submitter",
    "await",
    "pause",
    "resume",
    "set_lane",
    "requeue",
    "turn",
]


def choose(rng: random.Random, weights: dict[str, float]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def some_work(rng: random.Random) -> Work:
    kind = choose(rng, KINDS)
    return Work(kind, rng.choice(SECONDS), rng.randint(0, 3))


BOOSTS = [
    PriorityBoost.standard(floor=-3),
    PriorityBoost.standard(4.0, floor=-9),
    PriorityBoost.aggressive(floor=-9),
    PriorityBoost.custom(((0.9, 1), (0.3, 2)), 8.0, floor=-1),
    PriorityBoost.ageing(1.0, floor=-4),
    PriorityBoost.ageing(0.7, 2, floor=-1),
]
PARTITIONS = [Partitions.per_key(), Partitions.per_key(), Partitions.by_key(2), Partitions.per_key(fair=True)]
SHARED = RateLimit.shared("all", RateLimit.per_second(2, burst=3))
LIMITS = [RateLimit.per_second(1.5, burst=2), RateLimit.per_minute(20, burst=2), SHARED, SHARED]
KEYS = ["x", "y", "z", "w"]


def some_order(rng: random.Random, chances: dict[str, float]) -> dict[str, Any]:
    """Boosts, partitions and rate limits of a lane, each with a chance."""
    fields: dict[str, Any] = {}
    for name, values in {"partitions": PARTITIONS, "boost": BOOSTS, "rate_limit": LIMITS}.items():
        if rng.random() < chances[name]:
            fields[name] = rng.choice(values)
    if "boost" in fields and "partitions" in fields and fields["partitions"].fair:
        del fields["boost"]
    if "boost" in fields:
        fields["on_expiry"] = rng.choice(["expire", "run"])
    return fields


def some_lane(rng: random.Random, *, crowded: bool, chances: dict[str, float]) -> LaneConfig:
    maximum = rng.randint(1, 3)
    bound = rng.choice([1, 1, 2]) if crowded else rng.choice([None, None, 1, 2, 4])
    return LaneConfig(
        min(rng.choice([0, 1, 1, 2]), maximum),
        maximum,
        priority=rng.choice([0, 0, 1, 2]),
        timeout=rng.choice([None, None, None, 1.5]),
        retry=rng.choice(POLICIES),
        max_pending=bound,
        overflow="wait" if bound is None else rng.choice(["wait", "wait", "reject", "drop_oldest"]),
        pressure_threshold=rng.choice([None, 2]),
        **some_order(rng, chances),
    )


def some_options(rng: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, values in {
        "timeout": [None, 0.7, 2.0],
        "deadline": [0.5, 1.0, 3.0, 8.0],
        "delay": [0.0, 1.0, 2.5],
        "retry": POLICIES,
        "key": ["k1", "k2"],
        "own_id": [True],
    }.items():
        if rng.random() < 0.15:
            options[name] = rng.choice(values)
    if rng.random() < 0.6:
        options["partition_key"] = rng.choice(KEYS)
    if rng.random() < 0.2:
        options["cost"] = rng.choice([0, 0.5, 2])
    return options


def some_arguments(rng: random.Random, name: str, lanes: list[str]) -> dict[str, Any]:
    maximum = rng.randint(1, 4)
    every: dict[str, dict[str, Any]] = {
        "submit": {
            "lane": rng.choice(lanes),
            "work": some_work(rng),
            "mode": rng.choice(["wait", "nowait"]),
            "form": rng.choice(["function", "function", "function", "command", "coroutine"]),
            "options": some_options(rng),
        },
        "submit_many": {"lane": rng.choice(lanes), "works": [some_work(rng) for _ in range(rng.randint(1, 3))]},
        "take_the_id_of_another": {"index": rng.randrange(100), "lane": rng.choice(lanes)},
        "cancel": {"index": rng.randrange(100), "by_id": rng.random() < 0.5},
        "set_lane": {
            "lane": rng.choice(lanes),
            "changes": {
                "min_concurrency": rng.randint(0, min(2, maximum)),
                "max_concurrency": maximum,
                "priority": rng.randint(0, 2),
            },
        },
        "advance": {"seconds": rng.choice([0.0, 0.25, 0.5, 1.0, 2.0])},
        "drain": {"timeout": rng.choice([0.0, 1.0, 3.0])},
        "drain_aside": {"timeout": rng.choice([None, 0.5, 3.0])},
    }
    if name in {"pause", "resume"}:
        return {"lane": rng.choice(lanes)}
    if name in {"cancel_submitter", "await", "cancel_waiter", "requeue"}:
        return {"index": rng.randrange(100)}
    return every.get(name, {})


SELDOM = {"partitions": 0.25, "boost": 0.25, "rate_limit": 0.1}


def some_scenario(rng: random.Random, steps: int, chances: dict[str, float] = SELDOM) -> Scenario:
    """A queue and operations on it, all drawn from `rng`."""
    names = ["a", "b", "c"][: rng.randint(1, 3)]
    crowded = rng.random() < 0.4
    if crowded:  # much waits for room
        names = names[:1]
    lanes = {name: some_lane(rng, crowded=crowded, chances=chances) for name in names}
    spare = rng.choice([None, 1, 1, 2, 3])
    limit = None if spare is None else sum(lane.min_concurrency for lane in lanes.values()) + spare
    drawn = [choose(rng, OPERATIONS) for _ in range(steps)]
    return Scenario(
        lanes,
        limit,
        letters=rng.choice([1, 3, 1000]),
        close_timeout=rng.choice([0.0, 3.0, 3.0]),
        seed=rng.randrange(1000),
        start_after=rng.choice([0, 0, 0, 5]),
        operations=[(name, some_arguments(rng, name, names)) for name in drawn],
        last=[(name, some_arguments(rng, name, names)) for name in rng.choices(LAST, k=rng.randint(0, 6))],
        ending=rng.choice(["close", "close", "two_closes", "stop", "drain"]),
    )
