"""A lane with boosts against a plain sort at each start, and the bound on starvation against floods."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from lane_obs import PriorityBoost, State
from lane_obs.core.boosted import BoostedQueue
from lane_obs.core.record import Record

SEEDS = st.integers(0, 2**32)
FLOOR = 64


def key(record: Record) -> tuple[int, int]:
    return record.level, record.seq


@dataclass
class Model:
    """A queue with the list of what is in it, driven at random; `check` compares them."""

    rng: random.Random
    levels: int
    queue: BoostedQueue = field(default_factory=BoostedQueue)
    plain: list[Record] = field(default_factory=list)
    away: list[Record] = field(default_factory=list)
    """Commands that were taken out, or ended inside, and may come back."""
    seq: int = 0
    now: float = 0.0

    def add(self) -> None:
        self.seq += 1
        base = self.levels if self.rng.random() < 0.9 else self.rng.randint(0, self.levels)
        self.plain.append(Record(self.seq, None, self.now, since=self.now, level=base))
        self.queue.add(self.plain[-1])

    def put_back(self) -> None:
        if not self.away:
            return
        back = self.away.pop(self.rng.randrange(len(self.away)))
        if back.state is State.CANCELLED:  # a requeue: another command with the same number
            back = Record(back.seq, None, self.now)
        back.state, back.since = State.READY, self.now
        back.level = self.rng.randint(0, self.levels)
        self.plain.append(back)
        self.queue.put_back(back)

    def change(self) -> None:
        if self.plain:
            one = self.rng.choice(self.plain)
            one.level = self.rng.randint(-1, self.levels)
            self.queue.changed(one)

    def end(self) -> None:
        if self.plain:
            one = self.plain.pop(self.rng.randrange(len(self.plain)))
            one.state = State.CANCELLED
            self.away.append(one)
            if self.rng.random() < 0.2:
                self.queue.peek()  # before it is told of
            self.queue.forget(one)

    def start(self) -> None:
        if self.plain:
            one = self.queue.pop()
            assert one is min(self.plain, key=key)
            one.state = State.RUNNING
            self.plain.remove(one)
            self.away.append(one)

    def check(self) -> None:
        head = min(self.plain, key=key, default=None)
        assert self.queue.peek() is head
        assert self.queue.head_level() == (None if head is None else head.level)
        assert self.queue.oldest_since() == min((one.since for one in self.plain), default=None)
        if self.plain:
            one = self.rng.choice(self.plain)
            assert self.queue.ahead_of(one.seq) == sum(key(other) < key(one) for other in self.plain)

    def bounded(self) -> None:
        assert len(self.queue._fresh) + len(self.queue.raised) <= 2 * len(self.plain) + FLOOR
        assert len(self.queue._inside) <= 2 * len(self.plain) + FLOOR
        assert len(self.queue._inside) - self.queue._ghosts == len(self.plain)


@given(
    seed=SEEDS,
    steps=st.sampled_from([30, 300, 4_000]),
    levels=st.sampled_from([0, 1, 4, 1_000]),
    weights=st.sampled_from([(4, 1, 2, 1, 2), (3, 3, 3, 3, 3), (2, 1, 9, 1, 2), (3, 1, 1, 5, 1), (9, 3, 9, 1, 1)]),
)
@settings(max_examples=40, deadline=None)
def test_commands_come_out_as_from_a_plain_sort(
    seed: int, steps: int, levels: int, weights: tuple[int, int, int, int, int]
) -> None:
    rng = random.Random(seed)
    model = Model(rng, levels)
    moves = [model.add, model.put_back, model.change, model.end, model.start]
    for number in range(steps):
        model.now = float(number // 3)
        rng.choices(moves, weights)[0]()
        model.bounded()
        if rng.random() < 0.2:
            model.check()
    while model.plain:
        model.start()
        model.bounded()
    model.check()


# --- deadlines --------------------------------------------------------------------------------------------------

BOOSTS = st.sampled_from([
    PriorityBoost.standard(60, floor=-9),
    PriorityBoost.aggressive(60),
    PriorityBoost.custom(((1, 1), (0.9, 2), (0.33, 5), (0, 50)), floor=-99),
])  # fmt: skip


@given(seed=SEEDS, boost=BOOSTS, priority=st.integers(-2, 9))
@settings(max_examples=20, deadline=None)
def test_commands_with_deadlines_start_by_their_effective_priority_at_that_moment(
    seed: int, boost: PriorityBoost, priority: int
) -> None:
    """Levels change only when the age that `level` told is reached, as a timer would have them."""
    rng = random.Random(seed)
    queue, waiting, now = BoostedQueue(), {}, 1e6
    deadlines: dict[Record, float | None] = {}
    for seq in range(1, 251):
        now += rng.choice([0.0, 0.1, rng.expovariate(1.0)])
        record = Record(seq, None, now, since=now)
        deadlines[record] = rng.choice([None, 5.0, 40.0, rng.uniform(0.5, 100.0)])
        record.level, waiting[record] = boost.level(priority, 0.0, deadlines[record])
        queue.add(record)
        for one, change in waiting.items():
            while now - one.submitted_at >= change - 1e-6:  # closer times are one
                level, change = boost.level(priority, now - one.submitted_at, deadlines[one])
                assert level < one.level
                one.level, waiting[one] = level, change
                queue.changed(one)
        for _ in range(rng.choice([0, 0, 1, 2])):
            if waiting:
                plain = {one: boost.level(priority, now - one.submitted_at, deadlines[one])[0] for one in waiting}
                started = queue.pop()
                assert started is min(waiting, key=lambda one: (plain[one], one.seq))
                started.state = State.RUNNING
                del waiting[started]


# --- the bound on starvation ------------------------------------------------------------------------------------


@dataclass
class Line:
    """A lane that is first come, first served, with the level of its head at any time."""

    priority: int
    boost: PriorityBoost | None
    submitted: list[float] = field(default_factory=list)
    served: int = 0

    def level(self, now: float) -> int:
        if self.boost is None:
            return self.priority
        return self.boost.level(self.priority, now - self.submitted[0])[0]


@given(
    seed=SEEDS,
    every=st.sampled_from([0.5, 3.0, 10.0]),
    by=st.integers(1, 3),
    gap=st.integers(1, 6),
    floods=st.integers(1, 4),
    aged=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_an_ageing_command_starts_within_the_bound_under_a_flood(
    seed: int, every: float, by: int, gap: int, floods: int, aged: bool
) -> None:
    """One slot, and more important lanes to which two commands are submitted for each one that starts.

    From the bound on, each of these lanes gets one turn more at most by commands that are submitted then, as lanes of
    one level take turns. Without ageing, older ones of theirs do not help it either, and none goes first once the
    command's level is below theirs.
    """
    rng = random.Random(seed)
    boost = PriorityBoost.ageing(every, by, floor=-12)
    most = rng.randint(-2, 2)
    bound, below = boost.bound(most + gap, most), boost.bound(most + gap, most - 1)
    assert bound == every * math.ceil(gap / by)
    lanes = [Line(most, boost if aged else None) for _ in range(floods)]
    victim = Line(most + gap, boost, [0.0])
    now, turns, passed_by = 0.0, 0, []
    while True:
        for lane in lanes:
            lane.submitted += [now, now]
        chosen = min([*lanes, victim], key=lambda lane: (lane.level(now), lane.served))
        if chosen is victim:
            break
        turns += 1
        chosen.served = turns
        passed_by.append((chosen.submitted.pop(0), now))
        now += rng.uniform(0.1, 0.5) * every
    assert sum(submitted >= bound for submitted, _ in passed_by) <= floods
    if not aged:
        assert sum(started >= bound for _, started in passed_by) <= floods
        assert not any(started >= below for _, started in passed_by)


@given(
    priority=st.integers(1, 12),
    other=st.integers(-6, 11),
    by=st.integers(1, 4),
    floor=st.integers(-8, 3),
    submitted=st.floats(0, 500),
    passed=st.floats(0, 500),
)
@settings(max_examples=300, deadline=None)
def test_nothing_submitted_after_the_bound_ever_gets_a_lower_level(
    priority: int, other: int, by: int, floor: int, submitted: float, passed: float
) -> None:
    """With the same ageing and with none, at any time later."""
    boost = PriorityBoost.ageing(10, by, floor=floor)
    bound = boost.bound(priority, other)
    if bound == math.inf:
        assert boost.level(priority, 1e9)[0] > other
        return
    now = bound + submitted + passed
    own, _ = boost.level(priority, now)
    assert own <= other
    assert own <= boost.level(other, passed)[0]
