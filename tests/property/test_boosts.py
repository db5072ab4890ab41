"""Boosts in a real queue under virtual time: the order of starts, how long a command can starve, what is told."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from lane_obs import LaneConfig, MemorySink, PriorityBoost, QueueManager, RetryPolicy, State, VirtualClock
from lane_obs.clock import sleep
from tests.conftest import run_clean
from tests.property.bench import Bench
from tests.property.scenario import Scenario, some_scenario
from tests.unit.runtime.support import Attempts, noop, outcome, running

STANDARD = ((0.75, 1), (0.5, 2), (0.25, 3), (0.1, 4))
BOOSTED = {"boost": 1.0, "partitions": 0.0, "rate_limit": 0.0}


async def play(scenario: Scenario) -> None:
    assert await Bench(scenario).run()


@pytest.mark.parametrize("part", range(4))
def test_whatever_is_done_to_a_queue_its_boosts_decide_each_start_and_each_is_told(part: int) -> None:
    """Delays, retries, cancels, deadlines, requeues, pauses, changes of lanes: `Walk` has the order and the events."""
    for seed in range(part * 60, part * 60 + 60):
        run_clean(play, scenario=some_scenario(random.Random(seed), 50, BOOSTED))


# --- the order against a plain sort -----------------------------------------------------------------------------


def level_of(priority: int, age: float, deadline: float | None) -> int:
    """The effective priority by the table of docs/boosts.md, with a floor far below."""
    left = 1.0 if deadline is None else 1 - (age + 1e-6) / deadline
    return priority - max((less for share, less in STANDARD if left <= share), default=0)


async def starts_of(seed: int, names: list[str], slots: int) -> int:
    """Feeds lanes at random and checks each start against a sort of what waits; gives how often one passed others."""
    rng, clock = random.Random(seed), VirtualClock()
    waiting: dict[int, tuple[str, int, float, float | None]] = {}
    order: list[tuple[int, list[int]]] = []
    priorities = {name: number for number, name in enumerate(names)}

    async def work(number: int, seconds: float) -> None:
        now = clock.now()
        lane, _priority, _, _ = waiting[number]
        # Every start takes a slot of its own instant: what waits has not changed since it was chosen.
        ranks = {
            other: (level_of(prio, now - at, deadline), 0 if name == lane else None, other)
            for other, (name, prio, at, deadline) in waiting.items()
        }
        mine = ranks[number]
        in_lane = [rank for rank in ranks.values() if rank[1] == 0]
        assert mine == min(in_lane, key=lambda rank: (rank[0], rank[2])), (seed, number, waiting)
        assert mine[0] == min(rank[0] for rank in ranks.values()), (seed, number, waiting)
        order.append((number, sorted(other for other in waiting if other < number)))
        del waiting[number]
        await sleep(clock, seconds)

    lanes = {
        name: LaneConfig(0, slots, priority=priority, boost=PriorityBoost.standard(floor=-9), on_expiry="run")
        for name, priority in priorities.items()
    }
    async with QueueManager(lanes, clock=clock, max_concurrency=1) as manager:
        for number in range(60):
            name = rng.choice(names)
            deadline = rng.choice([None, 3.0, 10.0, 31.0])
            waiting[number] = name, priorities[name], clock.now(), deadline
            await manager.submit(name, work, number, rng.choice([0.3, 1.1]), deadline=deadline)
            await clock.advance(rng.choice([0.0, 0.0, 0.37, 1.3]))
        await clock.run(manager.drain())
    assert len(order) == 60
    return sum(bool(passed) for _, passed in order)


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"]])
def test_each_start_is_the_first_of_a_plain_sort_by_effective_priority_and_number(names: list[str]) -> None:
    passed = sum(run_clean(starts_of, seed=seed, names=names, slots=1 + seed % 2) for seed in range(40))
    assert passed > 100


# --- how long a command can starve ------------------------------------------------------------------------------


async def flooded(rng: random.Random, *, same: bool) -> None:
    """A command of an aged lane under a flood of more important lanes that never ends before it has started."""
    clock = VirtualClock()
    p, q = rng.choice([(5, 1), (4, 0), (9, 2), (3, 2)])
    every, by = rng.choice([(10.0, 1), (7.0, 2), (3.5, 5), (1.0, 1)])
    boost = PriorityBoost.ageing(every, by, floor=rng.choice([q, q - 3]))
    # A lane with the same ageing must not get below what the aged command can get to: their floors are the same.
    floods = [f"flood{number}" for number in range(rng.randint(1, 3))]
    lanes = {"low": LaneConfig(0, 4, priority=p, boost=boost)}
    lanes |= {name: LaneConfig(0, 4, priority=q, boost=boost if same else None) for name in floods}
    seconds = rng.choice([0.25, 1.0])
    started: list[tuple[str, float]] = []
    ended = False

    async def hostile(lane: str, submitted: float, manager: QueueManager) -> None:
        started.append((lane, submitted))
        await sleep(clock, seconds)
        if not ended:
            for _ in range(rng.choice([1, 1, 2])):
                await manager.submit(lane, hostile, lane, clock.now(), manager)

    async def victim() -> None:
        nonlocal ended
        ended = True

    async with QueueManager(lanes, clock=clock, max_concurrency=1) as manager:
        for name in floods:
            for _ in range(rng.randint(2, 5)):
                await manager.submit(name, hostile, name, clock.now(), manager)
        await clock.advance(rng.choice([0.0, 2.3]))
        handle = await manager.submit("low", victim)
        bound = handle.submitted_at + boost.bound(p, q)
        await clock.run(handle)
        late = [lane for lane, submitted in started if submitted > bound + 1e-6]
        if same:
            assert late == [], "one that came after the bound passed it"
        else:
            # From the bound on it is as important, and lanes take turns.
            assert handle.started_at <= bound + (len(floods) + 1) * seconds + 1e-6
        assert len(late) <= len(floods)
        await clock.run(manager.drain())


@pytest.mark.parametrize("same", [False, True])
def test_ageing_bounds_how_long_a_command_can_starve_as_the_docs_say(same: bool) -> None:
    for seed in range(40):
        run_clean(flooded, rng=random.Random(seed), same=same)


def test_below_the_other_lane_it_does_not_even_take_turns() -> None:
    async def run() -> None:
        clock = VirtualClock()
        boost = PriorityBoost.ageing(2.0, floor=-1)
        lanes = {"low": LaneConfig(0, 1, priority=3, boost=boost), "flood": LaneConfig(0, 1, priority=0)}
        async with QueueManager(lanes, clock=clock, max_concurrency=1) as manager:
            await manager.submit_many("flood", [(sleep, clock, 0.5)] * 100)
            lows = [await manager.submit("low", sleep, clock, 0.5) for _ in range(8)]
            await clock.run(manager.drain())
            bound = boost.bound(3, -1)
            assert bound == 8.0
            later = [handle.started_at - handle.submitted_at for handle in lows if handle.started_at > 1_000_008.0]
            assert later
            assert [b - a for a, b in itertools.pairwise(later)] == [0.5] * (len(later) - 1)
            assert max(handle.started_at for handle in lows) <= 1_000_000.0 + bound + 8 * 0.5

    run_clean(run)


async def test_behind_a_young_head_an_older_command_has_its_own_age(clock: VirtualClock) -> None:
    """A dead letter that is requeued has its old place, and its age anew: who is behind it may be older."""
    begun: list[str] = []

    async def work(name: str) -> None:
        begun.append(name)
        await sleep(clock, 1)

    lanes = {
        "aged": LaneConfig(0, 1, priority=5, boost=PriorityBoost.ageing(10)),
        "other": LaneConfig(0, 1, priority=5),
    }
    async with running(clock, lanes, max_concurrency=1) as manager:
        broken = await manager.submit("aged", Attempts(clock, OSError(), "done"))
        await clock.run(outcome(broken))
        manager.pause("aged")
        manager.pause("other")
        await manager.submit("aged", work, "old")
        await clock.advance(15)
        manager.dead_letters.requeue(broken.id)
        await manager.submit_many("other", [(work, "other")] * 5)
        manager.resume("aged")
        manager.resume("other")
        await clock.run(manager.drain())
    assert begun.index("old") <= 1
    assert begun.count("other") == 5


# --- past the deadline ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("running_then", [False, True])
async def test_past_its_deadline_a_command_expires(clock: VirtualClock, running_then: bool) -> None:
    sink = MemorySink()
    lane = LaneConfig(0, 1, priority=5, boost=PriorityBoost.standard(4.0))
    async with running(clock, lane, sinks=[sink]) as manager:
        if not running_then:
            await manager.submit("a", sleep, clock, 60, deadline=1000.0)
            await clock.advance(0)
        handle = await manager.submit("a", sleep, clock, 60)
        await clock.run(outcome(handle))
        assert handle.end_to_end_seconds == pytest.approx(4)
        assert handle.state is State.EXPIRED
        assert handle.id in manager.dead_letters
        assert [event.payload["command_id"] for event in sink.of("queue.command.expired")] == [handle.id]


@pytest.mark.parametrize("running_then", [False, True])
async def test_or_keeps_its_place_and_highest_boost_and_runs(clock: VirtualClock, running_then: bool) -> None:
    lane = LaneConfig(0, 1, priority=5, boost=PriorityBoost.standard(4.0), on_expiry="run")
    async with running(clock, lane) as manager:
        first = await manager.submit("a", sleep, clock, 60 if running_then else 30, deadline=1000.0)
        await clock.advance(0)
        other = await manager.submit("a", noop, "other", deadline=1000.0)
        handle = await manager.submit("a", noop, "late")
        await clock.advance(20)
        assert "boosted from priority 5 to 1" in manager.explain(handle.id).text
        await clock.run(manager.drain())
        assert {first.state, handle.state, other.state} == {State.SUCCEEDED}
        assert handle.started_at <= other.started_at
        assert len(manager.dead_letters) == 0
        assert first.run_seconds == pytest.approx(60 if running_then else 30)


# --- what a boost does not do -----------------------------------------------------------------------------------


async def test_a_boost_never_takes_a_slot_that_others_have_reserved(clock: VirtualClock) -> None:
    lanes = {
        "boosted": LaneConfig(0, 4, priority=5, boost=PriorityBoost.aggressive(10.0, floor=-100), on_expiry="run"),
        "reserved": LaneConfig(1, 1, priority=9),
        "plain": LaneConfig(0, 4, priority=0),
    }
    async with running(clock, lanes, max_concurrency=2) as manager:
        await manager.submit("plain", sleep, clock, 100)
        await clock.advance(0)
        handles = [await manager.submit("boosted", sleep, clock, 1) for _ in range(3)]
        await clock.advance(50)
        assert {handle.state for handle in handles} == {State.READY}
        assert manager.explain(handles[0].id).cause == "slots"
        late = await manager.submit("reserved", sleep, clock, 1)
        await clock.advance(2)
        assert late.state is State.SUCCEEDED
        await clock.run(manager.drain())
        assert [handle.started_at - 1_000_000.0 for handle in handles] == [100, 101, 102]


async def test_a_boost_starts_nothing_in_a_paused_lane(clock: VirtualClock) -> None:
    lane = LaneConfig(0, 4, priority=5, boost=PriorityBoost.aggressive(10.0), on_expiry="run")
    async with running(clock, lane) as manager:
        manager.pause("a")
        handle = await manager.submit("a", noop)
        await clock.advance(50)
        assert (handle.state, manager.explain(handle.id).cause) == (State.READY, "pause")
        manager.resume("a")
        await clock.run(handle)
        assert handle.wait_by_cause.pause == pytest.approx(50)


# --- what is told -----------------------------------------------------------------------------------------------


async def boosted(lane: LaneConfig, clock: VirtualClock, seconds: float, **options: Any) -> list[tuple[float, int]]:
    """What a command that waits for so long is told of its priority: (seconds since its submit, priority)."""
    sink = MemorySink()
    async with running(clock, lane, sinks=[sink]) as manager:
        manager.pause("a")
        handle = await manager.submit("a", noop, **options)
        await clock.advance(seconds)
        manager.resume("a")
        await clock.run(handle)
        await clock.advance(1000)
    told = sink.of("queue.command.boosted")
    assert {event.payload["base"] for event in told} <= {lane.priority}
    return [(round(event.at - handle.submitted_at, 6), event.payload["priority"]) for event in told]


async def test_each_step_is_told_once_and_none_after_the_start(clock: VirtualClock) -> None:
    lane = LaneConfig(0, 1, priority=5, boost=PriorityBoost.standard(), on_expiry="run")
    assert await boosted(lane, clock, 25, deadline=40.0) == [(10, 4), (20, 3)]
    assert await boosted(lane, clock, 99, deadline=40.0) == [(10, 4), (20, 3), (30, 2), (36, 1)]
    assert await boosted(lane, clock, 99) == []
    aged = LaneConfig(0, 1, priority=5, boost=PriorityBoost.ageing(10, 2, floor=2))
    assert await boosted(aged, clock, 35) == [(10, 3), (20, 2)]
    low = LaneConfig(0, 1, priority=0, boost=PriorityBoost.standard(4.0), on_expiry="run")
    assert await boosted(low, clock, 99) == []


async def test_the_steps_that_a_delay_or_back_off_takes_are_told_when_it_is_over(clock: VirtualClock) -> None:
    for boost, levels in ((PriorityBoost.standard(40.0), [3, 2]), (PriorityBoost.ageing(10.0), [3, 2])):
        lane = LaneConfig(0, 1, priority=5, boost=boost, retry=RetryPolicy.fixed(1, 12.0, jitter="none"))
        sink = MemorySink()
        async with running(clock, lane, sinks=[sink]) as manager:
            await clock.run(await manager.submit("a", Attempts(clock, OSError(), "done"), delay=22.0))
        assert [event.payload["priority"] for event in sink.of("queue.command.boosted")] == levels
        assert len(sink.of("queue.command.started")) == 2


async def test_explain_knows_the_priority_of_each_that_waits_and_why(clock: VirtualClock) -> None:
    for boost in (PriorityBoost.standard(40.0), PriorityBoost.ageing(10.0)):
        async with running(clock, LaneConfig(0, 1, priority=5, boost=boost)) as manager:
            await manager.submit("a", sleep, clock, 30)
            await clock.advance(0)
            handles = []
            for _ in range(3):
                handles.append(await manager.submit("a", noop))
                await clock.advance(6)
            texts = [manager.explain(handle.id).text for handle in handles]
            assert ["boosted from priority 5 to 4" in text for text in texts] == [True, True, False]
            assert [manager.explain(handle.id).ahead_in_lane for handle in handles] == [0, 1, 2]
            assert {manager.explain(handle.id).cause for handle in handles} == {"slots"}
            await clock.run(manager.drain())


# --- what may be left behind ------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["cancel", "drop", "start", "expire"])
async def test_a_command_that_waits_no_more_has_no_timer_and_no_event(clock: VirtualClock, end: str) -> None:
    sink = MemorySink()
    lane = LaneConfig(
        0, 1, priority=5, boost=PriorityBoost.standard(), on_expiry="expire", max_pending=2, overflow="drop_oldest"
    )
    async with running(clock, lane, sinks=[sink]) as manager:
        await manager.submit("a", sleep, clock, 1 if end == "start" else 500)
        await clock.advance(0)
        handle = await manager.submit("a", noop, deadline=40.0)
        if end == "cancel":
            handle.cancel()
        elif end == "drop":
            for _ in range(2):
                await manager.submit("a", noop)
        await clock.advance(1 if end == "start" else 40 if end == "expire" else 0)
        assert handle.done()
        # That of the lane is set for the first one, until that time or until nothing waits.
        assert len(manager._engine.timers) == (end == "drop")
        told = len(sink.of("queue.command.boosted"))
        await clock.advance(100)
        assert len(sink.of("queue.command.boosted")) == told == (4 if end == "expire" else 0)


async def test_the_oldest_is_dropped_not_the_most_urgent(clock: VirtualClock) -> None:
    lane = LaneConfig(0, 1, priority=5, boost=PriorityBoost.standard(), max_pending=3, overflow="drop_oldest")
    async with running(clock, lane) as manager:
        manager.pause("a")
        oldest = await manager.submit("a", noop, "oldest")
        urgent = await manager.submit("a", noop, "urgent", deadline=10.0)
        await manager.submit("a", noop)
        await clock.advance(9)
        await manager.submit("a", noop)
        assert (oldest.state, urgent.state) == (State.FAILED, State.READY)
        assert manager.stats().lanes["a"].oldest_ready_age == 9
        manager.resume("a")
        await clock.run(manager.drain())


async def test_another_priority_of_the_lane_counts_for_what_waits_in_it(clock: VirtualClock) -> None:
    """Else what is submitted afterwards, at the new priority, would pass them for ever."""
    starts: list[str] = []

    async def work(name: str) -> None:
        starts.append(name)

    sink = MemorySink()
    lane = LaneConfig(0, 1, priority=5, boost=PriorityBoost.standard())
    async with running(
        clock, {"a": lane, "b": LaneConfig(0, 1, priority=4)}, max_concurrency=1, sinks=[sink]
    ) as manager:
        for name in "ab":
            manager.pause(name)
        await manager.submit("a", work, "old")
        await manager.submit("a", work, "urgent", deadline=100.0)
        await clock.advance(80)
        manager.set_lane("a", priority=4)
        await manager.submit("a", work, "new")
        await manager.submit("b", work, "other")
        await clock.advance(15)
        for name in "ab":
            manager.resume(name)
        await clock.run(manager.drain())
    assert starts[0] == "urgent"
    assert starts.index("old") < starts.index("new")
    levels = [(event.payload["base"], event.payload["priority"]) for event in sink.of("queue.command.boosted")]
    assert levels == [(5, 4), (5, 3), (5, 2), (4, 0)]


async def test_timers_are_one_for_a_lane_and_one_for_each_command_whose_deadline_is_before_anothers(
    clock: VirtualClock,
) -> None:
    lanes = {
        "steps": LaneConfig(0, 1, priority=5, boost=PriorityBoost.standard(40.0), on_expiry="run"),
        "aged": LaneConfig(0, 1, priority=5, boost=PriorityBoost.ageing(10)),
    }
    async with running(clock, lanes) as manager:
        for name in lanes:
            manager.pause(name)
            await manager.submit_many(name, [(noop,)] * 100)
        assert len(manager._engine.timers) == 2
        for deadline in (30.0, 20.0, 50.0):
            await manager.submit("steps", noop, deadline=deadline)
        assert len(manager._engine.timers) == 4
        assert clock.pending == 1
        for name in lanes:
            manager.resume(name)
        await clock.run(manager.drain())
        assert len(manager._engine.timers) == 0
