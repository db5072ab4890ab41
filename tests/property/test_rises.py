"""The levels of waiting commands at all times, whichever of the timers that change them is whose."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from lane_obs import LaneConfig, Partitions, PriorityBoost, State
from lane_obs.core.engine import Engine
from lane_obs.core.ready import ReadyQueue
from lane_obs.core.record import Record

if TYPE_CHECKING:
    from lane_obs.core.lane import Lane


class Timed(Record, eq=False):
    """A command with a deadline, as the core sees it."""

    life: float | None = None

    @property
    def deadline(self) -> float | None:
        return self.life


def ready_of(lane: Lane) -> list[Record]:
    assert not isinstance(lane.ready, ReadyQueue)
    return lane.ready.list_ready()


@given(
    seed=st.integers(0, 2**32),
    lives=st.sampled_from([[40.0], [40.0, 20.0, None], [7.0, 8.0, 9.0, 400.0]]),
    parted=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_every_waiting_command_has_its_level_at_all_times(seed: int, lives: list[float | None], parted: bool) -> None:
    rng, boost, now = random.Random(seed), PriorityBoost.standard(), 0.0
    lane_config = LaneConfig(0, 3, priority=5, boost=boost, partitions=Partitions.per_key() if parted else None)
    engine = Engine({"a": lane_config}, None, now)
    lane, backing_off = engine.lanes["a"], []
    ways = [
        "submit",
        "submit",
        "submit",
        "start",
        "start",
        "end",
        "end",
        "back off",
        "return",
        "cancel",
        "wait",
        "wait",
    ]
    for seq in range(1, 400):
        way = rng.choice(ways) if rng.random() < 0.99 else "configure"
        running, waiting = list(lane.running), ready_of(lane)
        if way == "submit":
            engine.submit(Timed(seq, lane, now, life=rng.choice(lives), part=rng.choice("abc")), now)
        elif way == "start":
            engine.start_next(now)
        elif way == "end" and running:
            engine.succeed(rng.choice(running), now)
        elif way == "back off" and running:
            backing_off.append(rng.choice(running))
            engine.back_off(backing_off[-1], now)
        elif way == "return" and backing_off:
            engine.make_ready(backing_off.pop(), now)
        elif way == "cancel" and waiting:
            engine.finish(rng.choice(waiting), State.CANCELLED, now)
        elif way == "configure":
            engine.configure(lane, dataclasses.replace(lane_config, priority=rng.choice([0, 3, 5, 6])), now)
        elif way == "wait":
            now += rng.choice([0.5, 1.0, 4.0])
            while engine.timers.next_at() <= now:
                due = engine.timers.next_at()
                for kind, about in engine.timers.pop_due(due):
                    engine.order.on_timer(kind, about, due)
        priority = lane.config.priority
        for one in ready_of(lane):
            assert one.level == boost.level(priority, now - one.submitted_at, one.deadline)[0]
        if not lane.counts[State.READY]:
            assert len(engine.timers) == 0
