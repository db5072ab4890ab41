from __future__ import annotations

import dataclasses
import inspect
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lane_obs import CAUSES, LaneConfig, Partitions, PriorityBoost, State, WaitByCause
from lane_obs.core.engine import Engine
from lane_obs.core.ready import ReadyQueue
from lane_obs.core.record import Record
from lane_obs.core.state import FINAL
from tests.property.model import WAITING, PlainCommand, PlainLane, PlainQueue
from tests.property.walk import plain_boost

if TYPE_CHECKING:
    from lane_obs.core.lane import Lane

pytestmark = pytest.mark.timeout(400)  # a failure takes its time to become small

ANY = st.integers(0, 1_000)
"""Which of those at hand: an index modulo their number."""
SECONDS = st.one_of(st.sampled_from([1.0, 2.5, 0.001]), st.floats(1e-6, 1e4))
ENDS_OF_RUNNING = [State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.CANCELLED, State.EXPIRED]
ENDS_OF_READY = [State.CANCELLED, State.EXPIRED, State.FAILED]
ENDS_OF_DELAYED = [State.CANCELLED, State.EXPIRED]
PRIORITIES = [0, 0, 0, 1, -5]
DUE_WITHIN = 1e-6


@st.composite
def limits(draw: st.DrawFn) -> tuple[int, int]:
    maximum = draw(st.integers(1, 4))
    return draw(st.sampled_from([0, 1, min(2, maximum)])), maximum


LANES = st.lists(st.tuples(limits(), st.sampled_from(PRIORITIES)), min_size=1, max_size=4)
ORDERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "boosted": {"boost": PriorityBoost.standard(floor=-9)},
    "aged": {"boost": PriorityBoost.ageing(7.3, floor=-3)},
    "keyed": {"partitions": Partitions.per_key()},
    "boosted and keyed": {"boost": PriorityBoost.aggressive(floor=-9), "partitions": Partitions.per_key()},
}
KEYS = [None, "x", "x", "y"]
DEADLINES = [None, 1.7, 33.3]


class OwnRecord(Record):
    """A record with a deadline, as handles have one."""

    whole: float | None = None

    @property
    def deadline(self) -> float | None:
        return self.whole


class EngineMachine(RuleBasedStateMachine):
    """Drives the engine as the dispatcher does, and a plain model beside it."""

    @initialize(
        lanes=LANES,
        spare=st.sampled_from([None, 0, 0, 1, 1, 2, 3]),
        now=st.sampled_from([0.0, 1_000_000.0]),
        orders=st.lists(st.sampled_from(["plain", "plain", *ORDERS]), min_size=4, max_size=4),
    )
    def build(self, lanes: list[tuple[tuple[int, int], int]], spare: int | None, now: float, orders: list[str]) -> None:
        reserved = sum(minimum for (minimum, _), _ in lanes)
        limit = None if spare is None else max(1, reserved + spare)
        named = {f"lane-{number}": lane for number, lane in enumerate(lanes)}
        fields = {name: ORDERS[orders[number % 4]] for number, name in enumerate(named)}
        configs = {
            name: LaneConfig(*bounds, priority=priority, **fields[name]) for name, (bounds, priority) in named.items()
        }
        self.now = now
        self.engine = Engine(configs, limit, now)
        self.model = PlainQueue(
            [
                PlainLane(name, *bounds, priority, boost=plain_boost(configs[name].boost))
                for name, (bounds, priority) in named.items()
            ],
            limit,
        )
        self.model.now = now
        self.picks = random.Random(len(lanes) + sum(priority for _, priority in lanes))
        self.pairs: list[tuple[Record, PlainCommand]] = []
        self.seq = 0
        self.requeueable: list[tuple[int, PlainLane]] = []
        self.mid_dispatch = False

    # --- helpers ------------------------------------------------------------------------------------------------

    def lane(self, index: int) -> tuple[Lane, PlainLane]:
        name = list(self.model.lanes)[index % len(self.model.lanes)]
        return self.engine.lane(name), self.model.lanes[name]

    def has(self, *states: State) -> bool:
        return any(command.state in states for _, command in self.pairs)

    def can(self, name: str) -> bool:
        """Whether there is something that this step could be done to."""
        needs = {
            "make_ready": (State.DELAYED, State.BACKOFF),
            "finish": (State.RUNNING,),
            "back_off": (State.RUNNING,),
            "end_a_ready_one": (State.READY,),
            "end_a_delayed_one": (State.DELAYED, State.BACKOFF),
        }
        if name == "requeue":
            return bool(self.requeueable)
        return name not in needs or self.has(*needs[name])

    def pick(self, index: int, *states: State) -> tuple[Record, PlainCommand]:
        found = [pair for pair in self.pairs if pair[1].state in states]
        return found[index % len(found)]

    def enter(self, seq: int, lane: PlainLane, *, delayed: bool, returning: bool = False) -> None:
        home = self.engine.lane(lane.name)
        key = self.picks.choice(KEYS) if home.config.partitions is not None else None
        deadline = self.picks.choice(DEADLINES) if home.config.boost is not None else None
        record = OwnRecord(seq, home, self.now, part=key, whole=deadline)
        self.engine.submit(record, self.now, delayed=delayed, returning=returning)
        self.pairs.append((record, self.model.submit(seq, lane, delayed=delayed, key=key, deadline=deadline)))

    def start_one(self) -> tuple[Record, PlainCommand] | None:
        """Starts what the engine chooses and compares it with what the model would choose."""
        choices = self.model.choices()
        record = self.engine.start_next(self.now)
        self.mid_dispatch = record is not None
        if record is None:
            assert not choices, "a command may start and the engine started none"
            return None
        pair = next(pair for pair in self.pairs if pair[0] is record)
        assert pair[1] in choices, f"started {pair[1]}, wanted {choices}"
        self.model.start(pair[1])
        assert record.started_at == self.now
        self.check_wait(record.wait, pair[1])
        assert record.wait.total == pytest.approx(self.now - record.submitted_at - record.ran, abs=1e-6)
        return pair

    def end(self, pair: tuple[Record, PlainCommand], state: State) -> None:
        record, command = pair
        self.engine.finish(record, state, self.now)
        self.model.end(command, state)
        self.pairs.remove(pair)
        self.requeueable.append((command.seq, command.lane))
        self.check_wait(record.wait, command)
        self.check_wait(self.engine.wait_so_far(record, self.now), command)
        assert record.finished_at == self.now
        assert record.ran == pytest.approx(command.ran, abs=1e-6)
        assert record.wait.total + record.ran == pytest.approx(self.now - record.submitted_at, abs=1e-6)

    @staticmethod
    def check_wait(wait: WaitByCause, command: PlainCommand) -> None:
        assert wait.as_dict() == pytest.approx(command.waits, abs=1e-6)
        assert wait.total == pytest.approx(sum(command.waits.values()), abs=1e-6)

    # --- in -----------------------------------------------------------------------------------------------------

    @rule(index=ANY, count=st.integers(1, 4), delayed=st.booleans())
    def submit(self, index: int, count: int, delayed: bool) -> None:
        for _ in range(count):
            self.seq += 1
            self.enter(self.seq, self.lane(index)[1], delayed=delayed)

    @precondition(lambda self: self.can("requeue"))
    @rule(index=ANY)
    def requeue(self, index: int) -> None:
        seq, lane = self.requeueable.pop(index % len(self.requeueable))
        self.enter(seq, lane, delayed=False, returning=True)

    # --- the life of one ----------------------------------------------------------------------------------------

    @precondition(lambda self: self.can("make_ready"))
    @rule(index=ANY)
    def make_ready(self, index: int) -> None:
        record, command = self.pick(index, State.DELAYED, State.BACKOFF)
        self.engine.make_ready(record, self.now)
        command.state = State.READY

    @rule()
    def start_next(self) -> None:
        self.start_one()

    @rule()
    def dispatch(self) -> None:
        while self.start_one() is not None:
            pass

    @rule(state=st.sampled_from(ENDS_OF_RUNNING), every=st.integers(1, 3))
    def dispatch_commands_that_end_within_their_start(self, state: State, every: int) -> None:
        started = 0
        while (pair := self.start_one()) is not None:
            started += 1
            if started % every == 0:
                self.end(pair, state)

    @precondition(lambda self: self.can("finish"))
    @rule(index=ANY, state=st.sampled_from(ENDS_OF_RUNNING))
    def finish(self, index: int, state: State) -> None:
        self.end(self.pick(index, State.RUNNING), state)

    @precondition(lambda self: self.can("back_off"))
    @rule(index=ANY)
    def back_off(self, index: int) -> None:
        record, command = self.pick(index, State.RUNNING)
        self.engine.back_off(record, self.now)
        command.state = State.BACKOFF

    @precondition(lambda self: self.can("end_a_ready_one"))
    @rule(index=ANY, state=st.sampled_from(ENDS_OF_READY))
    def end_a_ready_one(self, index: int, state: State) -> None:
        self.end(self.pick(index, State.READY), state)

    @precondition(lambda self: self.can("end_a_delayed_one"))
    @rule(index=ANY, state=st.sampled_from(ENDS_OF_DELAYED))
    def end_a_delayed_one(self, index: int, state: State) -> None:
        self.end(self.pick(index, State.DELAYED, State.BACKOFF), state)

    # --- lanes --------------------------------------------------------------------------------------------------

    @rule(index=ANY, paused=st.booleans())
    def set_paused(self, index: int, paused: bool) -> None:
        lane, plain = self.lane(index)
        assert self.engine.set_paused(lane, self.now, paused=paused) is (plain.paused is not paused)
        plain.paused = paused

    @rule(index=ANY, bounds=limits(), priority=st.sampled_from(PRIORITIES))
    def configure(self, index: int, bounds: tuple[int, int], priority: int) -> None:
        lane, plain = self.lane(index)
        minimum, maximum = bounds
        if self.model.limit is not None:
            others = sum(other.minimum for other in self.model.lanes.values() if other is not plain)
            minimum = min(minimum, self.model.limit - others)
        changed = dataclasses.replace(lane.config, min_concurrency=minimum, max_concurrency=maximum, priority=priority)
        self.engine.configure(lane, changed, self.now)
        plain.minimum, plain.maximum, plain.priority = minimum, maximum, priority

    @rule(index=ANY)
    def reserve_slots_that_others_use(self, index: int) -> None:
        """The one way in which a lane can be below its reservation while the whole queue is in use."""
        for other in range(len(self.model.lanes)):
            self.configure(other, bounds=(0, 4), priority=other)
            self.submit(other, count=2, delayed=False)
        self.dispatch()
        self.configure(index, bounds=(4, 4), priority=0)

    # --- time ---------------------------------------------------------------------------------------------------

    @rule(seconds=SECONDS)
    def advance(self, seconds: float) -> None:
        if self.mid_dispatch:  # the dispatcher never stops half-way: no time passes within a dispatch
            self.dispatch()
        until = self.now + seconds
        timers = self.engine.timers
        # The model rounds ages to a microsecond: what is due within that is due.
        while (due := timers.next_at()) <= until + DUE_WITHIN:
            self.pass_time(max(min(due, until), self.now))
            for kind, about in timers.pop_due(self.now + DUE_WITHIN):
                self.engine.order.on_timer(kind, about, self.now)
        self.pass_time(until)

    def pass_time(self, until: float) -> None:
        before, self.now = self.now, until
        self.model.pass_time(until - before)
        self.model.now = until

    # --- looks, which must change nothing: therefore not after every step ------------------------------------------

    @rule()
    def look_at_the_waits(self) -> None:
        for record, command in self.pairs:
            if command.state in WAITING or not self.mid_dispatch:
                self.check_wait(self.engine.wait_so_far(record, self.now), command)

    @rule(index=ANY)
    def look_at_a_lane(self, index: int) -> None:
        lane, plain = self.lane(index)
        ready = self.model.of(plain, State.READY)
        records = {id(command): record for record, command in self.pairs}
        oldest = lane.oldest()
        if not isinstance(lane.ready, ReadyQueue):
            assert (oldest in records.values()) if ready else oldest is None
            return
        assert oldest is (records[id(self.model.head(plain))] if ready else None)
        assert lane.ready.oldest_since() == min((records[id(command)].since for command in ready), default=None)
        for command in ready:
            assert lane.ready.ahead_of(command.seq) == sum(other.seq < command.seq for other in ready)

    @rule()
    def look_at_the_causes(self) -> None:
        if self.mid_dispatch:
            self.dispatch()
        for record, command in self.pairs:
            if command.state is State.READY:
                cause = "partition" if record.home.is_held(record) else CAUSES[record.home.meter.cause]
                assert cause == self.model.cause(command)

    # --- always -------------------------------------------------------------------------------------------------

    @invariant()
    def every_command_is_in_one_state_and_none_is_lost(self) -> None:
        engine, model = self.engine, self.model
        for name, plain in model.lanes.items():
            lane = engine.lane(name)
            assert lane.counts == {state: model.count(plain, state) for state in State}
            assert lane.pending == len(model.of(plain, *WAITING))
        assert sum(engine.total(state) for state in State) == engine.submitted == model.submitted
        assert engine.live == len(model.live) == model.submitted - sum(engine.total(state) for state in FINAL)
        for record, command in self.pairs:
            assert (record.state, record.attempt) == (command.state, command.attempt)

    def teardown(self) -> None:
        """Lets everything end: whatever is still there runs exactly once more and nothing is left."""
        if not hasattr(self, "engine"):
            return
        for index, lane in enumerate(self.model.lanes.values()):
            self.set_paused(index, paused=False)
            # A lane without a reservation never starts where others reserve the whole queue.
            self.configure(index, bounds=(0, lane.maximum), priority=lane.priority)
        for _ in range(len(self.pairs) + 1):
            while self.has(State.DELAYED, State.BACKOFF):
                self.make_ready(0)
            self.dispatch()
            self.advance(1.0)
            while self.has(State.RUNNING):
                self.finish(0, State.SUCCEEDED)
        assert not self.pairs
        assert self.engine.live == 0
        assert len(self.engine.timers) == 0
        assert {lane.partitions for lane in self.engine.lanes.values()} <= {None, 0}
        self.every_command_is_in_one_state_and_none_is_lost()


TestTheEngineDoesAsThePlainModelSays = EngineMachine.TestCase
TestTheEngineDoesAsThePlainModelSays.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)

STEPS = {
    "submit": 5, "requeue": 1, "make_ready": 3, "start_next": 2, "dispatch": 5, "finish": 6, "back_off": 2,
    "dispatch_commands_that_end_within_their_start": 1, "end_a_ready_one": 2, "end_a_delayed_one": 1,
    "set_paused": 2, "configure": 2, "reserve_slots_that_others_use": 0.3, "advance": 8,
    "look_at_the_waits": 1, "look_at_a_lane": 1, "look_at_the_causes": 1,
}  # fmt: skip
"""How often a long walk takes each step, by weight."""


def bounds(rng: random.Random) -> tuple[int, int]:
    maximum = rng.randint(1, 5)
    return min(rng.choice([0, 0, 1, 2, 3]), maximum), maximum


def arguments(name: str, rng: random.Random) -> dict[str, Any]:
    """Arguments for a step of the machine, at random."""
    ends = {
        "finish": ENDS_OF_RUNNING,
        "dispatch_commands_that_end_within_their_start": ENDS_OF_RUNNING,
        "end_a_ready_one": ENDS_OF_READY,
        "end_a_delayed_one": ENDS_OF_DELAYED,
    }
    every: dict[str, Any] = {
        "index": rng.randrange(1_000),
        "count": rng.randint(1, 4),
        "delayed": rng.random() < 0.25,
        "every": rng.randint(1, 3),
        "state": rng.choice(ends.get(name, ENDS_OF_RUNNING)),
        "paused": rng.random() < 0.4,
        "bounds": bounds(rng),
        "priority": rng.choice(PRIORITIES),
        "seconds": rng.choice([1.0, 0.25, rng.uniform(1e-6, 1e3)]),
    }
    return {key: every[key] for key in inspect.signature(getattr(EngineMachine, name)).parameters if key != "self"}


@given(seed=st.integers(0, 2**32))
@settings(max_examples=80, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_the_engine_does_as_the_plain_model_says_on_a_long_walk(seed: int) -> None:
    rng = random.Random(seed)
    machine = EngineMachine()
    lanes = [(bounds(rng), rng.choice(PRIORITIES)) for _ in range(rng.randint(1, 5))]
    orders = rng.choices(["plain", *ORDERS], k=4)
    machine.build(lanes, rng.choice([None, 0, 0, 1, 2, 3]), 1_000_000.0, orders)
    for name in rng.choices(list(STEPS), list(STEPS.values()), k=300):
        if machine.can(name):
            getattr(machine, name)(**arguments(name, rng))
            machine.every_command_is_in_one_state_and_none_is_lost()
    assert machine.model.starts > 0
    machine.teardown()
