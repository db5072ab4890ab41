"""Partitions against a plain model: order and exclusion by key, what is held, nothing stuck, nothing kept; turns."""

from __future__ import annotations

import gc
import math
import random
import tracemalloc
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lane_obs import State
from lane_obs.core.fair import FairQueue
from lane_obs.core.line import Line
from lane_obs.core.partition import PartitionedQueue
from lane_obs.core.ready import ReadyQueue
from lane_obs.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS = st.integers(0, 2**32)
READY, RUNNING, BACKOFF, DELAYED = State.READY, State.RUNNING, State.BACKOFF, State.DELAYED
WAYS = [
    "submit",
    "submit",
    "delay",
    "due",
    "due",
    "start",
    "start",
    "start",
    "succeed",
    "back off",
    "retry",
    "cancel",
    "claim",
]


class PlainOrder:
    """Commands by number. It takes none twice, and knows which one ends."""

    def __init__(self) -> None:
        self.inside: set[Record] = set()

    def add(self, record: Record) -> None:
        assert all(record.seq > one.seq for one in self.inside)
        self.put_back(record)

    def put_back(self, record: Record) -> None:
        assert record not in self.inside
        self.inside.add(record)

    def forget(self, record: Record) -> None:
        self.inside.remove(record)

    def peek(self) -> Record | None:
        return min(self.inside, key=lambda one: one.seq, default=None)

    def pop(self) -> Record:
        first = self.peek()
        assert first is not None
        self.inside.remove(first)
        return first


class Bench:
    """A queue, and beside it all live commands as a plain list that says what the queue has to do."""

    def __init__(self, queue: PartitionedQueue, rng: random.Random, keys: list[Any]) -> None:
        self.queue = queue
        self.rng = rng
        self.keys = keys
        self.live: list[Record] = []
        self.ready_since: dict[Record, float] = {}
        self.seq = 0
        self.now = 0.0
        self.came: list[Record] = []
        self.done: dict[Any, list[int]] = defaultdict(list)

    # --- what has to be -----------------------------------------------------------------------------------------

    def of(self, *states: State) -> list[Record]:
        return [one for one in self.live if one.state in states]

    def lined_up(self) -> set[Record]:
        """Of each partition the command that has started, or the lowest that is ready, when it is ready itself."""
        by_part: dict[Any, list[Record]] = defaultdict(list)
        for one in self.live:
            by_part[one.part].append(one)
        result = {one for one in by_part.pop(None, []) if one.state is READY}
        for members in by_part.values():
            begun = [one for one in members if one.attempt]
            assert len(begun) <= 1, "two of one partition have started and not ended"
            ready = [one for one in members if one.state is READY]
            first = begun[0] if begun else min(ready, key=lambda one: one.seq, default=None)
            if first is not None and first.state is READY:
                result.add(first)
        return result

    def check(self) -> None:
        queue, lined_up, ready = self.queue, self.lined_up(), self.of(READY)
        assert queue.held == len(ready) - len(lined_up)
        first = queue.peek()
        if isinstance(queue._order, FairQueue):
            assert (first in lined_up) if lined_up else first is None
        else:
            assert first is min(lined_up, key=lambda one: one.seq, default=None)
        assert queue.oldest_since() == min((self.ready_since[one] for one in ready), default=None)
        middle = self.rng.randint(0, self.seq + 1)
        assert queue.ahead_of(middle) == sum(one.seq < middle for one in ready)
        assert {one for one in ready if queue.is_held(one)} == set(ready) - lined_up
        waiting = Counter(one.part for one in ready)
        running = {one.part for one in self.of(RUNNING)}
        known = {one.part for one in self.of(READY, RUNNING, BACKOFF) if one.part is not None}
        assert set(queue.parts) == known
        assert sorted(queue.list_parts(), key=str) == sorted(
            ((part, waiting[part], part in running) for part in known), key=str
        )
        following = {one.part: one for one in sorted(ready, key=lambda one: (one.attempt > 0, -one.seq))}
        assert dict(queue.list_since()) == {
            part: self.ready_since[one] for part, one in following.items() if part is not None
        }

    # --- what happens -------------------------------------------------------------------------------------------

    def step(self, way: str) -> None:
        before, alone = self.lined_up(), None
        self.came = []
        self.now += self.rng.choice([0.0, 1.0])
        if way == "submit" or way == "delay":
            self.seq += 1
            part = self.rng.choice(self.keys)
            cost = self.rng.choice([0.0, 0.25, 1.0, 7.5])
            alone = Record(self.seq, None, self.now, READY, since=self.now, part=part, cost=cost)
            self.live.append(alone)
            if way == "submit":
                self.ready_since[alone] = self.now
                self.queue.add(alone)
            else:
                alone.state = DELAYED
        elif way == "claim":
            self.claim()
        elif way == "start":
            if before:
                self.start(before)
        else:
            alone = self.move(way)
        came = [*self.came, *self.queue.take_lined_up()]
        assert len(came) == len(set(came))
        assert set(came) == self.lined_up() - before - {alone}
        for one in came:
            one.since = self.now  # as the engine does, which counts the wait up to here by its cause

    def claim(self) -> None:
        """One comes in that backed off in an earlier process; in that, no other of its partition had begun."""
        begun = {one.part for one in self.live if one.attempt}
        free = [key for key in self.keys if key is None or key not in begun]
        if free:
            self.seq += 1
            back = Record(self.seq, None, self.now, BACKOFF, attempt=1, since=self.now, part=self.rng.choice(free))
            self.live.append(back)
            self.queue.claim(back)

    def start(self, lined_up: set[Record]) -> None:
        head = self.queue.peek()
        record = self.queue.pop()
        assert record is head
        assert record in lined_up
        record.state = RUNNING
        record.attempt += 1
        record.started_at = self.now
        running = Counter(one.part for one in self.of(RUNNING) if one.part is not None)
        assert max(running.values(), default=0) <= 1

    def move(self, way: str) -> Record | None:
        states = {"due": [DELAYED], "retry": [BACKOFF], "succeed": [RUNNING], "back off": [RUNNING]}
        choice = self.of(*states.get(way, [READY, DELAYED, BACKOFF, RUNNING]))
        if not choice:
            return None
        record = self.rng.choice(choice)
        old = record.state
        if way in {"due", "retry"}:
            record.state, record.since = READY, self.now
            self.ready_since[record] = self.now
            self.queue.put_back(record)
            return record
        if way == "back off":
            record.state = BACKOFF
            self.queue.back_off(record)
            return None
        record.state = State.SUCCEEDED if way == "succeed" else State.CANCELLED
        self.live.remove(record)
        if record.state is State.SUCCEEDED:
            self.done[record.part].append(record.seq)
        if old is READY:
            self.queue.forget(record)
        elif (moved := self.queue.ended(record)) is not None:
            self.came.append(moved)
        return None

    def run_dry(self) -> None:
        """Starts and ends whatever may start until nothing lives: nothing is stuck."""
        while self.live:
            before = len(self.live), len(self.of(DELAYED, BACKOFF))
            for way in ("due", "retry"):
                while self.move(way) is not None:
                    pass
            while self.lined_up():
                self.start(self.lined_up())
            while self.of(RUNNING):
                self.move("succeed")
            self.queue.take_lined_up()
            assert (len(self.live), len(self.of(DELAYED, BACKOFF))) < before
        assert (self.queue.held, self.queue.peek(), self.queue.oldest()) == (0, None, None)
        if isinstance(self.queue._order, FairQueue):
            assert self.queue._order._stale == 0


def inside(thing: Any) -> int:
    """How many items the containers of a queue hold, those of its order included."""
    names = type(thing).__slots__
    parts = [getattr(thing, name) for name in names if name != "add"]
    mine = sum(len(part) for part in parts if hasattr(part, "__len__"))
    return mine + sum(inside(part) for part in parts if isinstance(part, ReadyQueue | FairQueue))


@given(
    seed=SEEDS,
    steps=st.sampled_from([15, 100, 600]),
    keys=st.sampled_from([["a"], ["a", "b", None], [0, 1, 2, 3], [None]]),
    order=st.sampled_from([ReadyQueue, FairQueue, PlainOrder]),
    ways=st.sampled_from([WAYS, [*WAYS, *["delay", "due", "cancel"] * 3], [*WAYS, *["back off", "retry"] * 4]]),
)
@settings(max_examples=120, deadline=None)
def test_a_lane_with_partitions_does_as_the_plain_model(
    seed: int, steps: int, keys: list[Any], order: Callable[[], Any], ways: list[str]
) -> None:
    bench = Bench(PartitionedQueue(order()), random.Random(seed), keys)
    for _ in range(steps):
        bench.step(bench.rng.choice(ways))
        bench.check()
    bench.run_dry()
    assert len(bench.queue.parts) == 0
    assert inside(bench.queue) <= 400


@pytest.mark.parametrize("order", [ReadyQueue, FairQueue, PlainOrder])
def test_places_that_are_taken_by_lower_numbers_come_back(order: Callable[[], Any]) -> None:
    ways = ["submit", "delay", "delay", "due", "due", "start", "succeed", "cancel", "cancel", "cancel"]
    for seed in range(20):  # rare at random: a command loses its place, and is cancelled or gets it back
        bench = Bench(PartitionedQueue(order()), random.Random(seed), ["a", "b"])
        for _ in range(300):
            bench.step(bench.rng.choice(ways))
            bench.check()
        bench.run_dry()


@given(seed=SEEDS, keys=st.integers(1, 20), slots=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_commands_of_one_key_run_in_the_order_of_their_submits_whatever_the_order_of_ends(
    seed: int, keys: int, slots: int
) -> None:
    rng = random.Random(seed)
    queue = PartitionedQueue(ReadyQueue())
    records = [Record(seq, None, 0.0, part=rng.randrange(keys)) for seq in range(500)]
    started: dict[int, list[int]] = defaultdict(list)
    running: list[Record] = []
    waiting = 0
    for record in [*records, None]:
        if record is not None:
            queue.add(record)
            waiting += 1
        while (waiting > queue.held and len(running) < slots) or (record is None and running):
            if waiting > queue.held and len(running) < slots:
                running.append(queue.pop())
                waiting -= 1
                running[-1].state = RUNNING
                running[-1].attempt = 1
                started[running[-1].part].append(running[-1].seq)
                assert len({one.part for one in running}) == len(running)
            else:
                ended = running.pop(rng.randrange(len(running)))
                ended.state = State.SUCCEEDED
                queue.ended(ended)
        assert len(running) == min(slots, len(queue.parts))  # work-conserving
        if running and rng.random() < 0.6:
            ended = running.pop(rng.randrange(len(running)))
            ended.state = State.SUCCEEDED
            queue.ended(ended)
    assert waiting == 0
    assert sum(map(len, started.values())) == len(records)
    assert all(seqs == sorted(seqs) for seqs in started.values())


# --- memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [ReadyQueue, FairQueue])
def test_keys_that_come_and_go_leave_no_memory(order: Callable[[], Any]) -> None:
    queue = PartitionedQueue(order())

    def visit(first: int, last: int) -> None:
        for number in range(first, last):
            records = [Record(2 * number + one, None, 0.0, part=f"key {number}") for one in (0, 1)]
            for record in records:
                queue.add(record)
            if number % 3 == 0:
                records[0].state = State.CANCELLED
                queue.forget(records[0])
            while queue.peek() is not None:
                record = queue.pop()
                record.state = State.SUCCEEDED
                queue.ended(record)
            queue.take_lined_up()

    visit(0, 1_000)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        visit(1_000, 21_000)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000  # one byte a key
    assert inside(queue) < 100


@pytest.mark.parametrize(("order", "most"), [(ReadyQueue, 200), (FairQueue, 300)])
def test_a_partition_with_one_command_is_small_and_gives_its_memory_back(order: Callable[[], Any], most: int) -> None:
    many = 20_000
    records = [Record(number, None, 0.0, part=f"key {number}") for number in range(many)]
    queue = PartitionedQueue(order())
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for record in records:
            queue.add(record)
        full = tracemalloc.get_traced_memory()[0] - before
        for _ in range(many):
            record = queue.pop()
            record.state = State.SUCCEEDED
            queue.ended(record)
        queue.peek()  # lets go of the last round
        gc.collect()
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert full / many < most
    assert left < 50_000
    assert len(queue.parts) == 0


@pytest.mark.parametrize("order", [ReadyQueue, FairQueue])
def test_held_commands_that_are_cancelled_leave_no_memory(order: Callable[[], Any]) -> None:
    queue = PartitionedQueue(order())
    first = Record(0, None, 0.0, part="a")
    queue.add(first)
    queue.pop().state = RUNNING
    for seq in range(1, 20_001):
        record = Record(seq, None, 0.0, part="a")
        (queue.add if seq % 2 else queue.put_back)(record)
        record.state = State.CANCELLED
        queue.forget(record)
    line = queue.parts["a"]
    assert isinstance(line, Line)
    assert len(line.fresh) + len(line.returned) < 200
    assert (queue.held, queue.list_ready()) == (0, [])
    queue.ended(first)
    assert len(queue.parts) == 0


def test_a_partition_that_had_many_commands_is_small_again() -> None:
    queue = PartitionedQueue(ReadyQueue())
    for seq in range(1_000):
        queue.add(Record(seq, None, 0.0, part="a"))
    for _ in range(999):
        start_next(queue)
    assert isinstance(queue.parts["a"], Record)


# --- fair turns -------------------------------------------------------------------------------------------------

COSTS = [
    [1.0],
    [0.125, 1.0],
    [0.125, 0.5, 2.0, 12.5],
    [1.0, 1_200.0],
    [0.25, 3.0, 700.0, 100_000.0],
]
"""Sums of these are exact."""


def start_next(queue: PartitionedQueue) -> Record:
    record = queue.pop()
    record.state = RUNNING
    record.attempt = 1
    record.state = State.SUCCEEDED
    queue.ended(record)
    return record


@given(seed=SEEDS, keys=st.integers(2, 12), costs=st.sampled_from(COSTS))
@settings(max_examples=60, deadline=None)
def test_no_key_gets_more_than_its_share_by_more_than_the_paper_says(seed: int, keys: int, costs: list[float]) -> None:
    """Shreedhar and Varghese 1996, with all keys waiting all the time.

    From the start on, a key has been given as many quanta as there were rounds, and has left less than its next
    command costs (lemma 1). Rounds of two keys differ by one at most: what they got differs by less than the largest
    cost and a quantum, and so over any stretch of time by less than twice that.
    """
    rng = random.Random(seed)
    queue, largest = PartitionedQueue(FairQueue()), max(costs)
    seq = 0

    def submit(key: int) -> None:
        nonlocal seq
        seq += 1
        queue.add(Record(seq, None, 0.0, part=key, cost=rng.choice(costs)))

    for key in range(keys):
        submit(key)
        submit(key)
    got = dict.fromkeys(range(keys), 0.0)
    lowest, highest = {}, {}  # of the difference of two keys so far
    round_before = 0
    for _ in range(400):
        record = start_next(queue)
        got[record.part] += record.cost
        # Deficit round robin with a quantum of 1 starts it in the round in which all its key's costs are paid for.
        due = math.ceil(got[record.part])
        assert due >= round_before
        round_before = due
        submit(record.part)
        assert max(got.values()) - min(got.values()) < largest + 1
        for key in range(1, keys):
            apart = got[key] - got[0]
            lowest[key] = min(lowest.get(key, 0.0), apart)
            highest[key] = max(highest.get(key, 0.0), apart)
            assert highest[key] - lowest[key] < 2 * (largest + 1)


@given(seed=SEEDS, costs=st.sampled_from(COSTS[:3]))
@settings(max_examples=40, deadline=None)
def test_two_keys_that_always_wait_share_alike_while_others_come_go_and_are_cancelled(
    seed: int, costs: list[float]
) -> None:
    rng = random.Random(seed)
    queue, largest, seq = PartitionedQueue(FairQueue()), max(costs), 0
    waiting: dict[str, list[Record]] = defaultdict(list)
    got = {"a": 0.0, "b": 0.0}
    lowest = highest = 0.0
    for _ in range(600):
        for key in "aabbcde":
            if len(waiting[key]) < 2 and (key in "ab" or rng.random() < 0.1):
                seq += 1
                waiting[key].append(Record(seq, None, 0.0, part=key, cost=rng.choice(costs)))
                queue.add(waiting[key][-1])
        if rng.random() < 0.2:  # one that is cancelled has another behind it, or is of a key that comes and goes
            key = rng.choice("abcde")
            if waiting[key]:
                victim = waiting[key].pop(rng.randrange(len(waiting[key])))
                victim.state = State.CANCELLED
                queue.forget(victim)
            continue
        record = start_next(queue)
        waiting[record.part].remove(record)
        if record.part in got:
            got[record.part] += record.cost
            lowest, highest = min(lowest, got["a"] - got["b"]), max(highest, got["a"] - got["b"])
            assert highest - lowest < 2 * (largest + 1)
    assert min(got.values()) > 0


def test_a_flood_of_one_key_does_not_hold_up_another() -> None:
    queue = PartitionedQueue(FairQueue())
    for seq in range(5_000):
        queue.add(Record(seq, None, 0.0, part="flood"))
    for seq in range(5_000, 5_010):
        queue.add(Record(seq, None, 0.0, part="small"))
    started = [start_next(queue).part for _ in range(25)]
    assert started.count("small") == 10
    assert max(place for place, part in enumerate(started) if part == "small") <= 20


@pytest.mark.parametrize("keys", [10, 100, 3_000])
def test_the_work_of_a_choice_does_not_grow_with_the_keys(keys: int) -> None:
    class Counting(FairQueue):
        __slots__ = ("looked",)

        def __init__(self) -> None:
            super().__init__()
            self.looked = 0

        def _first(self) -> Any:
            before = sum(map(len, self._turns.values())) + len(self._rounds)
            found = super()._first()
            self.looked += 1 + before - sum(map(len, self._turns.values())) - len(self._rounds)
            return found

    rng, order = random.Random(3), Counting()
    queue, seq = PartitionedQueue(order), 0
    for _ in range(3):
        for key in range(keys):
            seq += 1
            queue.add(Record(seq, None, 0.0, part=key, cost=rng.choice([0.5, 1.0, 1_000.0, 1_000_000.0])))
    starts = 0
    while queue.peek() is not None:
        start_next(queue)
        starts += 1
    assert starts == seq
    assert (
        order.looked <= 6 * starts + 10
    )  # `peek` and `pop` look once each; the rest is turns and rounds that are over
