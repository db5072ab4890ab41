"""Rate limits in a real queue: what takes tokens, what waits for them and for how long, and what it is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lane_obs import (
    ConfigError,
    LaneConfig,
    MemorySink,
    PriorityBoost,
    QueueManager,
    RateLimit,
    RetryPolicy,
    State,
    VirtualClock,
    current,
)
from lane_obs.clock import SystemClock, sleep
from lane_obs.core.gate import Gate as LimitGate
from tests.unit.runtime.support import Attempts, noop, outcome, running

if TYPE_CHECKING:
    from collections.abc import Sequence

ONE_A_SECOND = RateLimit.per_second(1)


def lane(*limits: RateLimit, slots: int = 8, **fields: Any) -> LaneConfig:
    return LaneConfig(fields.pop("reserved", 0), slots, rate_limit=limits, **fields)


class Starts:
    """Work that notes when it starts, in seconds since this was made, and by which name."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._begin = clock.now()
        self.log: list[tuple[Any, float]] = []

    async def __call__(self, name: Any = None, seconds: float = 0.0) -> None:
        self.log.append((name, round(self._clock.now() - self._begin, 6)))
        if seconds:
            await sleep(self._clock, seconds)

    @property
    def times(self) -> list[float]:
        return [at for _, at in self.log]

    @property
    def names(self) -> list[Any]:
        return [name for name, _ in self.log]


# --- whose limit ------------------------------------------------------------------------------------------------


async def test_a_lane_limit_holds_its_own_lane_and_no_other(clock: VirtualClock) -> None:
    starts = Starts(clock)
    async with running(clock, {"a": lane(RateLimit.per_second(2, burst=2)), "b": lane()}) as manager:
        for name in "ab":
            await manager.submit_many(name, [(starts, name)] * 4)
        await clock.run(manager.drain())
    assert sorted(starts.log) == [("a", 0), ("a", 0), ("a", 0.5), ("a", 1.0), ("b", 0), ("b", 0), ("b", 0), ("b", 0)]


async def test_a_limit_of_the_queue_holds_all_lanes_together_by_priority(clock: VirtualClock) -> None:
    starts = Starts(clock)
    lanes = {"a": lane(priority=1), "b": lane(priority=0)}
    async with running(clock, lanes, rate_limit=RateLimit.per_second(1, burst=1)) as manager:
        await manager.submit_many("a", [(starts, "a")] * 2)
        await manager.submit_many("b", [(starts, "b")] * 2)
        await clock.run(manager.drain())
    assert starts.log == [("b", 0), ("b", 1), ("a", 2), ("a", 3)]


async def test_a_shared_limit_holds_those_that_name_it(clock: VirtualClock) -> None:
    starts, shared = Starts(clock), RateLimit.shared("x", ONE_A_SECOND)
    async with running(clock, {"a": lane(shared), "b": lane(shared), "c": lane()}) as manager:
        for name in "abc":
            await manager.submit_many(name, [(starts, name)] * 2)
        await clock.run(manager.drain())
    assert starts.log == [("a", 0), ("c", 0), ("c", 0), ("b", 1), ("a", 2), ("b", 3)]


async def test_lanes_of_equal_priority_take_turns_at_a_shared_limit(clock: VirtualClock) -> None:
    starts, shared = Starts(clock), RateLimit.shared("x", ONE_A_SECOND)
    async with running(clock, {name: lane(shared) for name in "abc"}) as manager:
        for name in "abc":
            await manager.submit_many(name, [(starts, name)] * 3)
        await clock.run(manager.drain())
    assert "".join(starts.names) == "abcabcabc"


async def test_all_of_several_limits_hold(clock: VirtualClock) -> None:
    starts = Starts(clock)
    limits = RateLimit.per_second(2, burst=1), RateLimit.sliding_window(3, 10)
    async with running(clock, lane(*limits)) as manager:
        await manager.submit_many("a", [(starts,)] * 7)
        await clock.run(manager.drain())
    assert starts.times == [0, 0.5, 1, 10, 10.5, 11, 20]


async def test_a_limit_that_is_the_queues_and_a_lanes_is_taken_from_once(clock: VirtualClock) -> None:
    starts, shared = Starts(clock), RateLimit.shared("x", ONE_A_SECOND)
    async with running(clock, {"a": lane(shared), "b": lane()}, rate_limit=shared) as manager:
        await manager.submit_many("a", [(starts, "a")] * 3)
        await manager.submit("b", starts, "b")
        await clock.run(manager.drain())
    assert starts.times == [0, 1, 2, 3]


# --- costs ------------------------------------------------------------------------------------------------------


async def test_a_command_costs_one_unless_it_says_otherwise(clock: VirtualClock) -> None:
    starts = Starts(clock)
    async with running(clock, lane(RateLimit.per_second(2, burst=4))) as manager:
        for name, options in (("a", {}), ("b", {"cost": 3.0}), ("c", {"cost": 0.5}), ("d", {"cost": 4})):
            await manager.submit("a", starts, name, **options)
        await clock.run(manager.drain())
    assert starts.log == [("a", 0), ("b", 0), ("c", 0.25), ("d", 2.25)]


async def test_a_cost_of_zero_takes_nothing_and_waits_for_nothing(clock: VirtualClock) -> None:
    starts, shared = Starts(clock), RateLimit.shared("x", RateLimit.per_second(1, burst=10))
    async with running(clock, {"a": lane(shared), "b": lane(shared, priority=5)}) as manager:
        await manager.submit("a", starts, "all", cost=10)
        await manager.submit("a", starts, "much", cost=10)
        await clock.advance(1)
        await manager.submit("b", starts, "free", cost=0)
        await manager.submit("b", starts, "cheap", cost=1)
        await clock.run(manager.drain())
    assert starts.log == [("all", 0), ("free", 1), ("much", 10), ("cheap", 11)]


@pytest.mark.parametrize(
    ("own", "whole", "most"),
    [
        (RateLimit.per_second(50, burst=100), None, "100"),
        (RateLimit.sliding_window(7, 60), None, "7"),
        (RateLimit.shared("x", RateLimit.per_hour(9)), None, "9"),
        (RateLimit.per_second(50), RateLimit.per_minute(3), "3"),
    ],
)
async def test_a_cost_above_what_is_ever_allowed_is_refused_and_says_so(
    clock: VirtualClock, own: RateLimit, whole: RateLimit | None, most: str
) -> None:
    async with running(clock, lane(own), rate_limit=whole) as manager:
        with pytest.raises(ConfigError, match=f"cost.*give at most {most}: lane 'a' never lets more through at once"):
            await manager.submit("a", noop, cost=float(most) + 0.5)
        coroutine = noop()
        with pytest.raises(ConfigError, match="cost"):
            manager.submit_nowait("a", coroutine, cost=float(most) + 0.5)  # it is closed: Python warns of nothing
        assert manager.stats().submitted == 0
        await manager.submit("a", noop, cost=float(most))
        await clock.run(manager.drain())


@pytest.mark.parametrize("cost", [-1, float("nan"), float("inf"), "1", True, 10.0**16])
async def test_a_cost_that_is_no_amount_is_refused(clock: VirtualClock, cost: Any) -> None:
    async with running(clock, lane(ONE_A_SECOND)) as manager:
        with pytest.raises(ConfigError, match="cost"):
            await manager.submit("a", noop, cost=cost)
        assert manager.stats().submitted == 0


async def test_a_costly_head_holds_up_cheap_ones_behind_it_and_in_less_important_lanes(clock: VirtualClock) -> None:
    starts, shared = Starts(clock), RateLimit.shared("x", RateLimit.per_second(1, burst=5))
    async with running(clock, {"a": lane(shared), "b": lane(shared, priority=1)}) as manager:
        for name, cost in (("first", 5), ("costly", 5), ("cheap", 1)):
            await manager.submit("a", starts, name, cost=cost)
        await manager.submit("b", starts, "other", cost=1)
        await clock.run(manager.drain())
    assert starts.log == [("first", 0), ("costly", 5), ("cheap", 6), ("other", 7)]


# --- settle -----------------------------------------------------------------------------------------------------


async def settle(*costs: float) -> None:
    for cost in costs:
        current().settle(cost)


@pytest.mark.parametrize(
    ("costs", "second_at"),
    [((10,), 10), ((4,), 4), ((0,), 0), ((25,), 25), ((25, 4), 4), ((4, 25), 25), ((10, 10), 10), ((25, 25), 25)],
)
async def test_a_true_cost_moves_what_follows(clock: VirtualClock, costs: Sequence[float], second_at: float) -> None:
    starts = Starts(clock)
    async with running(clock, lane(RateLimit.per_second(1, burst=10))) as manager:
        await manager.submit("a", settle, *costs, cost=10)
        await manager.submit("a", starts, cost=10)
        await clock.run(manager.drain())
    assert starts.times == [second_at]


async def test_a_true_cost_counts_for_every_limit_of_the_lane(clock: VirtualClock) -> None:
    starts, shared = Starts(clock), RateLimit.shared("x", RateLimit.sliding_window(10, 60))
    async with running(
        clock, {"a": lane(shared), "b": lane(shared)}, rate_limit=RateLimit.per_second(5, 10)
    ) as manager:
        await manager.submit("a", settle, 4, cost=10)
        await manager.submit("b", starts, "b", cost=6)
        await manager.submit("b", starts, "c", cost=1)
        await clock.run(manager.drain())
    assert starts.log == [("b", 0), ("c", 60)]


async def test_a_true_cost_wakes_those_that_wait(clock: VirtualClock) -> None:
    starts = Starts(clock)

    async def work() -> None:
        await sleep(clock, 2)
        current().settle(1)
        await sleep(clock, 50)

    async with running(clock, lane(RateLimit.per_hour(1, burst=10))) as manager:
        await manager.submit("a", work, cost=10)
        await manager.submit("a", starts, cost=8)
        await clock.run(manager.drain())
    assert starts.times == [2]


@pytest.mark.parametrize("bad", [-1, float("nan"), "2", None])
async def test_a_true_cost_that_is_none_is_refused(clock: VirtualClock, bad: Any) -> None:
    async with running(clock, lane(ONE_A_SECOND)) as manager:
        handle = await manager.submit("a", settle, bad)
        error = await clock.run(outcome(handle))
        assert isinstance(error, ConfigError)


async def test_a_synchronous_command_settles_from_its_thread() -> None:
    """A thread cannot reach the queue, but its correction is there before its end is."""
    seen: list[float | None] = []

    def work() -> None:
        current().settle(2.0)
        current().settle(3.0)
        with pytest.raises(ConfigError):
            current().settle(-1)

    async with QueueManager({"a": lane(RateLimit.per_hour(1, burst=10))}, clock=SystemClock()) as manager:
        await (await manager.submit("a", work, cost=10))
        seen.append(manager.stats().lanes["a"].rate_limit_left)
    assert seen == [pytest.approx(7, abs=0.1)]


async def test_a_true_cost_told_after_the_end_counts_for_nothing(clock: VirtualClock) -> None:
    contexts: list[Any] = []

    async def work() -> None:
        contexts.append(current())

    async with running(clock, lane(RateLimit.per_hour(1, burst=10))) as manager:
        await clock.run(await manager.submit("a", work, cost=10))
        contexts[0].settle(1)
        assert manager.stats().lanes["a"].rate_limit_left == pytest.approx(0, abs=1e-9)


async def test_a_lane_without_a_limit_takes_a_true_cost_and_forgets_it(clock: VirtualClock) -> None:
    async with running(clock, LaneConfig(0, 1)) as manager:
        await clock.run(await manager.submit("a", settle, 5))


# --- what takes tokens ------------------------------------------------------------------------------------------


async def test_a_retry_takes_its_cost_again_whatever_the_attempt_before_came_to(clock: VirtualClock) -> None:
    begin, starts = clock.now(), []

    async def work() -> None:
        starts.append(clock.now() - begin)
        current().settle(0)
        if len(starts) < 3:
            raise OSError

    async with running(clock, lane(RateLimit.per_second(1, burst=2), retry=RetryPolicy.fixed(2, 0.0))) as manager:
        await manager.submit("a", work, cost=2)
        await clock.run(manager.drain())
    assert starts == [0, 0, 0]

    attempts = Attempts(clock, OSError(), OSError(), "done")
    async with running(clock, lane(ONE_A_SECOND, retry=RetryPolicy.fixed(2, 0.0))) as manager:
        assert await clock.run(await manager.submit("a", attempts)) == "done"
    assert attempts.gaps == [1, 1]


async def test_what_a_retry_takes_is_the_cost_of_its_submit(clock: VirtualClock) -> None:
    starts: list[float] = []
    begin = clock.now()

    async def work() -> None:
        starts.append(clock.now() - begin)
        current().settle(10 if len(starts) == 1 else 2)
        if len(starts) == 1:
            raise OSError

    async with running(clock, lane(RateLimit.per_second(1, burst=10), retry=RetryPolicy.fixed(1, 0.0))) as manager:
        await clock.run(await manager.submit("a", work, cost=2))
    assert starts == [0, 2]


@pytest.mark.parametrize("end", ["cancel", "expire", "drop"])
async def test_what_ends_while_it_waits_takes_nothing(clock: VirtualClock, end: str) -> None:
    """Token spent on a job that turns out expired or cancelled (temporal #6333)."""
    starts = Starts(clock)
    config = lane(RateLimit.per_second(10), slots=100)
    if end == "drop":
        config = lane(RateLimit.per_second(10), slots=100, max_pending=10, overflow="drop_oldest")
    async with running(clock, config) as manager:
        await manager.submit_many("a", [(noop,)] * 10)
        await clock.advance(0)
        deadline = 0.05 if end == "expire" else None
        dead = [await manager.submit("a", noop, deadline=deadline) for _ in range(1000)]
        live = [await manager.submit("a", starts) for _ in range(10)]
        if end == "cancel":
            assert all(handle.cancel() for handle in dead)
        await clock.run(asyncio.gather(*live))
        assert {handle.state for handle in dead} <= {State.CANCELLED, State.EXPIRED, State.FAILED}
    assert starts.times == pytest.approx([0.1 * number for number in range(1, 11)])


async def test_tokens_are_taken_only_with_a_slot_in_hand(clock: VirtualClock) -> None:
    starts = Starts(clock)
    async with running(clock, lane(RateLimit.per_second(1, burst=3), slots=1)) as manager:
        await manager.submit("a", starts, "long", 100)
        await manager.submit_many("a", [(starts,)] * 5)
        await clock.advance(50)
        assert manager.stats().lanes["a"].rate_limit_left == 3
        await clock.run(manager.drain())
    assert starts.times == [0, 100, 100, 100, 101, 102]


async def test_a_lane_without_a_slot_does_not_keep_its_token_from_one_that_has_one(clock: VirtualClock) -> None:
    starts, shared = Starts(clock), RateLimit.shared("x", RateLimit.per_second(1, burst=1))
    lanes = {"a": lane(shared), "b": lane(shared, priority=5, reserved=1), "c": lane(priority=1)}
    async with running(clock, lanes, max_concurrency=2) as manager:
        await manager.submit("a", starts, "first")
        await clock.advance(0)
        await manager.submit("a", starts, "second")
        await clock.advance(0)
        await manager.submit("c", starts, "in its slot", 10)
        await manager.submit("b", starts, "reserved")
        await clock.run(manager.drain())
    assert starts.log == [("first", 0), ("in its slot", 0), ("reserved", 1), ("second", 10)]


# --- changes while a lane is held back --------------------------------------------------------------------------


async def test_a_paused_lane_takes_nothing_and_keeps_nothing_from_others(clock: VirtualClock) -> None:
    starts, shared = Starts(clock), RateLimit.shared("x", RateLimit.per_second(1, burst=10))
    async with running(clock, {"a": lane(shared), "b": lane(shared, priority=1)}) as manager:
        await manager.submit("a", starts, "all", cost=10)
        costly = await manager.submit("a", starts, "costly", cost=10)
        await manager.submit_many("b", [(starts, "b")] * 3)
        await clock.advance(2)
        manager.pause("a")
        assert manager.explain(costly.id).cause == "pause"
        await clock.advance(18)
        manager.resume("a")
        await clock.run(manager.drain())
    assert starts.log == [("all", 0), ("b", 2), ("b", 2), ("b", 3), ("costly", 20)]
    assert costly.wait_by_cause.as_dict() == pytest.approx(
        dict.fromkeys(costly.wait_by_cause.as_dict(), 0.0) | {"rate_limit": 2.0, "pause": 18.0}
    )


async def test_when_a_costly_head_goes_those_behind_it_at_the_limit_go_on(clock: VirtualClock) -> None:
    """In its own lane and in others: nothing may wait for the tokens of a command that is no more."""
    for how in ("cancel", "expire"):
        starts, shared = Starts(clock), RateLimit.shared("x", RateLimit.per_second(1, burst=10))
        async with running(clock, {"a": lane(shared), "b": lane(shared, priority=1)}) as manager:
            await manager.submit("a", starts, "all", cost=10)
            await clock.advance(0)
            costly = await manager.submit("a", starts, cost=10, deadline=2 if how == "expire" else None)
            await manager.submit_many("b", [(starts, "b")] * 2)
            await clock.advance(2)
            if how == "cancel":
                costly.cancel()
            await clock.run(manager.drain())
        assert starts.log == [("all", 0), ("b", 2), ("b", 2)], how


async def test_a_head_that_comes_back_is_looked_at_anew(clock: VirtualClock) -> None:
    """A requeued or delayed command of a lower number, and of a lower cost, is the head of a lane held back."""
    starts = Starts(clock)
    async with running(clock, lane(RateLimit.per_second(1, burst=10))) as manager:
        await manager.submit("a", starts, "all", cost=9)
        broken = await manager.submit("a", Attempts(clock, OSError(), "done"), cost=1)
        await manager.submit("a", starts, "delayed", cost=3, delay=4)
        await manager.submit("a", starts, "costly", cost=10)
        assert isinstance(await clock.run(outcome(broken)), OSError)
        await clock.advance(2)
        again = manager.dead_letters.requeue(broken.id)
        await clock.advance(0)
        assert again.state is State.SUCCEEDED
        await clock.run(manager.drain())
    assert starts.log == [("all", 0), ("delayed", 4), ("costly", 14)]


@pytest.mark.parametrize(
    ("limit", "at"),
    [
        (RateLimit.per_second(5, burst=10), [2, 2.1]),  # a new limit starts full
        (RateLimit.per_second(1, burst=10), [10, 10.5]),  # the same one is kept
        (RateLimit.per_second(1, burst=2), [2, 10.5]),  # less than the head costs: it takes all of that from a full one
        (RateLimit.sliding_window(2, 10), [2, 12]),
        (None, [2, 2]),
    ],
)
async def test_another_limit_counts_at_once(clock: VirtualClock, limit: RateLimit | None, at: list[float]) -> None:
    starts = Starts(clock)
    async with running(clock, lane(RateLimit.per_second(1, burst=10))) as manager:
        await manager.submit("a", noop, cost=10)
        await manager.submit("a", starts, cost=10)
        await manager.submit("a", starts, cost=0.5)
        await clock.advance(2)
        manager.set_lane("a", rate_limit=limit)
        await clock.run(manager.drain())
    assert starts.times == pytest.approx(at)


KEPT, OTHER = RateLimit.per_second(1, burst=4), RateLimit.sliding_window(50, 10)


@pytest.mark.parametrize("kept", [KEPT, RateLimit.sliding_window(4, 60), RateLimit.shared("x", KEPT)])
@pytest.mark.parametrize("for_all", [None, OTHER])
async def test_a_limit_that_stays_among_others_is_kept_as_it_is(
    clock: VirtualClock, kept: RateLimit, for_all: RateLimit | None
) -> None:
    starts = Starts(clock)
    async with running(clock, lane(kept), rate_limit=for_all) as manager:
        for _ in range(20):
            await manager.submit("a", starts)
        for limits in ([kept], [kept, OTHER], [OTHER, kept], [ONE_A_SECOND, OTHER, kept], kept):
            manager.set_lane("a", rate_limit=limits)
            await clock.advance(0)
        assert starts.times == [0] * 4
        await manager.remove_lane("a", cancel=True)


async def test_the_same_limit_twice_is_two(clock: VirtualClock) -> None:
    starts = Starts(clock)
    async with running(clock, lane(KEPT)) as manager:
        for _ in range(5):
            await manager.submit("a", starts)
        await clock.advance(0)
        manager.set_lane("a", rate_limit=[KEPT, KEPT])
        await clock.run(manager.drain())
    assert starts.times == [0, 0, 0, 0, 1]


async def test_when_a_lane_leaves_a_shared_limit_others_go_on(clock: VirtualClock) -> None:
    starts, shared = Starts(clock), RateLimit.shared("x", RateLimit.per_second(1, burst=10))
    async with running(clock, {"a": lane(shared), "b": lane(shared, priority=1)}) as manager:
        await manager.submit("a", starts, "all", cost=10)
        await manager.submit("a", starts, "costly", cost=10)
        await manager.submit("b", starts, "b")
        await clock.advance(2)
        manager.set_lane("a", rate_limit=RateLimit.per_second(1, burst=9))
        await clock.run(manager.drain())
    assert starts.log == [("all", 0), ("costly", 2), ("b", 2)]


async def test_another_priority_counts_at_once(clock: VirtualClock) -> None:
    starts, shared = Starts(clock), RateLimit.shared("x", ONE_A_SECOND)
    async with running(clock, {"a": lane(shared), "b": lane(shared, priority=1)}) as manager:
        for name in "ab":
            await manager.submit_many(name, [(starts, name)] * 3)
        await clock.advance(0.5)
        manager.set_lane("b", priority=-1)
        await clock.run(manager.drain())
    assert "".join(starts.names) == "abbbaa"


async def test_fewer_slots_count_at_once(clock: VirtualClock) -> None:
    """A lane that has lost its slot while it waited for tokens keeps none from others."""
    starts, shared = Starts(clock), RateLimit.shared("x", RateLimit.per_second(1, burst=10))
    async with running(clock, {"a": lane(shared, slots=2), "b": lane(shared, priority=1)}) as manager:
        await manager.submit("a", starts, "long", 30, cost=10)
        await manager.submit("a", starts, "costly", cost=10)
        await manager.submit("b", starts, "b")
        await clock.advance(2)
        manager.set_lane("a", max_concurrency=1)
        await clock.run(manager.drain())
    assert starts.log == [("long", 0), ("b", 2), ("costly", 30)]


@pytest.mark.parametrize("cancel", [False, True])
async def test_a_lane_is_removed_while_it_is_held_back(clock: VirtualClock, cancel: bool) -> None:
    starts, shared = Starts(clock), RateLimit.shared("x", RateLimit.per_second(1, burst=10))
    sink = MemorySink()
    async with running(clock, {"a": lane(shared), "b": lane(shared, priority=1)}, sinks=[sink]) as manager:
        await manager.submit("a", starts, "all", cost=10)
        await clock.advance(0)
        await manager.submit_many("a", [(starts, "a")] * 3, cost=5)
        await manager.submit("b", starts, "b")
        await clock.advance(2)
        await clock.run(manager.remove_lane("a", cancel=cancel))
        assert "a" not in manager.stats().lanes
        await clock.run(manager.drain())
        assert [event.lane for event in sink.of("queue.lane.unthrottled")] == ["a", "b"]  # type: ignore[attr-defined]
    assert starts.names == (["all", "b"] if cancel else ["all", "a", "a", "a", "b"])
    assert starts.times == ([0, 2] if cancel else [0, 5, 10, 15, 16])


async def test_a_limit_that_nobody_has_any_more_is_forgotten(clock: VirtualClock) -> None:
    shared = RateLimit.shared("x", RateLimit.per_hour(5))
    async with running(clock, {"a": lane(shared), "b": lane()}) as manager:
        with pytest.raises(ConfigError, match="x"):
            manager.add_lane("c", lane(RateLimit.shared("x", ONE_A_SECOND)))
        await clock.run(await manager.submit("a", noop, cost=5))
        await manager.remove_lane("a")
        manager.add_lane("c", lane(RateLimit.shared("x", ONE_A_SECOND)))
        await clock.run(await manager.submit("c", noop))


# --- waking -----------------------------------------------------------------------------------------------------


def count_wakes(manager: QueueManager) -> list[float]:
    """When the queue has looked for work from now on."""
    wakes: list[float] = []
    dispatcher = manager._dispatcher
    before = dispatcher.on_wake

    def on_wake() -> None:
        wakes.append(manager.clock.now())
        before()

    dispatcher.on_wake = on_wake
    return wakes


async def test_a_queue_that_waits_for_tokens_sleeps_until_they_are_due(clock: VirtualClock) -> None:
    async with running(clock, lane(RateLimit.per_hour(1))) as manager:
        await manager.submit_many("a", [(noop,)] * 3)
        await clock.advance(0)
        begin, wakes = clock.now(), count_wakes(manager)
        await clock.advance(3599)
        assert wakes == []
        assert clock.pending == 1
        await clock.run(manager.drain())
        assert {wake - begin for wake in wakes} == {3600.0, 7200.0}
        wakes.clear()
        await clock.advance(1_000_000)
        assert wakes == []
        assert clock.pending == 0


async def test_there_is_one_timer_for_each_limit_however_many_wait(clock: VirtualClock) -> None:
    shared = RateLimit.shared("x", RateLimit.per_hour(1))
    lanes = {f"lane{number}": lane(shared) for number in range(200)}
    async with running(clock, lanes) as manager:
        for name in lanes:
            await manager.submit_many(name, [(noop,)] * 3)
        await clock.advance(0)
        timers = manager._engine.timers
        assert (len(timers), clock.pending) == (1, 1)
        for name in lanes:
            await manager.submit(name, noop)
        for handle in list(manager._dispatcher.directory):
            handle.cancel()
        assert (len(timers), manager.stats().total_pending) == (0, 0)


async def test_nothing_stays_of_lanes_that_wait_and_give_up(clock: VirtualClock) -> None:
    """The places of heads that have changed do not pile up behind one that waits for a day."""
    shared = RateLimit.shared("x", RateLimit.per_hour(1, burst=24))
    async with running(clock, {"a": lane(shared), "b": lane(shared, priority=1)}) as manager:
        await manager.submit("a", noop, cost=24)
        await manager.submit("a", noop, cost=24)
        for _ in range(1000):
            handle = await manager.submit("b", noop)
            await clock.advance(0)
            handle.cancel()
        gate = manager._engine.lane("a").gates[0]
        assert len(gate.waiting) < 100
        assert len(manager._engine.timers) == 1


@pytest.mark.parametrize("slots", [None, 2])
async def test_a_token_costs_as_many_looks_however_many_lanes_wait_for_it(
    clock: VirtualClock, slots: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there is a token but no slot: not all that wait go on to find that out."""
    looks = 0
    plain = LimitGate.due

    def counted(self: LimitGate, lane: Any, now: float) -> float:
        nonlocal looks
        looks += 1
        return plain(self, lane, now)

    monkeypatch.setattr(LimitGate, "due", counted)
    shared = RateLimit.shared("x", ONE_A_SECOND)
    starts = Starts(clock)
    lanes = {f"lane{number}": lane(shared) for number in range(2000)}
    async with running(clock, lanes, max_concurrency=slots) as manager:
        for name in lanes:
            await manager.submit_many(name, [(starts, name, 1.5)] * 2)
        await clock.advance(10.5)
        looks = 0
        before = len(starts.log)
        await clock.advance(20)
        assert len(starts.log) - before == 20
        assert looks < 20 * 12
        for name in lanes:
            await manager.remove_lane(name, cancel=True) if not manager._engine.lane(name).running else None
        await clock.run(manager.drain())


async def test_as_many_lanes_as_there_may_be_go_on_at_once(clock: VirtualClock) -> None:
    """All are held back, then there are tokens for all, and slots for one: it ends, and takes no deep stack."""
    shared = RateLimit.shared("x", RateLimit.per_second(1, burst=10_000))
    starts = Starts(clock)
    lanes = {f"lane{number}": lane(shared) for number in range(3000)}
    async with running(clock, {"first": lane(shared), "own": lane(), **lanes}, max_concurrency=2) as manager:
        await manager.submit("first", starts, "first", 1, cost=10_000)
        await clock.advance(0)
        for name in lanes:
            await manager.submit(name, starts, name)
        await clock.advance(0.5)
        await manager.submit_many("own", [(starts, "own", 4000)] * 2)
        await clock.run(manager.drain())
    assert len(starts.log) == 3003


# --- what is told -----------------------------------------------------------------------------------------------


async def test_a_lane_is_told_to_be_held_back_once_and_once_that_it_is_not(clock: VirtualClock) -> None:
    sink = MemorySink()
    async with running(clock, lane(RateLimit.per_second(2, burst=1)), sinks=[sink]) as manager:
        await manager.submit_many("a", [(noop,)] * 5)
        await clock.run(manager.drain())
        await clock.run(await manager.submit("a", noop))
        await manager.submit_many("a", [(noop,)] * 3)
        await clock.run(manager.drain())
        told = [event for event in sink.events if "throttled" in event.key]
    assert [event.key.removeprefix("queue.lane.") for event in told] == ["throttled", "unthrottled"] * 3
    assert [event.payload["pending"] for event in told] == [4, 0, 1, 0, 3, 0]
    assert [event.payload["wait_seconds"] for event in told[::2]] == pytest.approx([0.5, 0.5, 0.5])


async def test_explain_says_that_a_limit_holds_it_and_for_how_long(clock: VirtualClock) -> None:
    shared = RateLimit.shared("x", RateLimit.per_second(1, burst=10))
    async with running(clock, {"a": lane(shared), "b": lane(shared, priority=1)}) as manager:
        await manager.submit("a", noop, cost=10)
        waits = await manager.submit("a", noop, cost=8)
        behind = await manager.submit("a", noop)
        other = await manager.submit("b", noop)
        await clock.advance(3)
        for handle in (waits, behind, other):
            told = manager.explain(handle.id)
            assert told.cause == "rate_limit"
            assert "rate limit" in told.text
            assert told.due_in_seconds == pytest.approx(5), handle
            assert told.wait_by_cause.rate_limit == pytest.approx(3)
        await clock.run(manager.drain())


async def test_waits_by_cause_add_up_to_the_wait(clock: VirtualClock) -> None:
    limit = RateLimit.per_second(1, burst=1)
    async with running(clock, {"a": lane(limit, slots=1), "b": lane(limit)}, max_concurrency=2) as manager:
        handles = [await manager.submit("a", sleep, clock, 3) for _ in range(3)]
        handles += [await manager.submit("b", sleep, clock, 0.25) for _ in range(4)]
        await clock.advance(0.5)
        manager.pause("b")
        await clock.advance(2)
        manager.resume("b")
        await clock.run(manager.drain())
        for handle in handles:
            waited = handle.started_at - handle.submitted_at
            assert handle.wait_by_cause.total == pytest.approx(waited, abs=1e-6)
            assert sum(handle.wait_by_cause.as_dict().values()) == pytest.approx(waited, abs=1e-6)
        assert [handle.wait_by_cause.rate_limit for handle in handles] == pytest.approx([0, 0, 0, 0, 0.25, 1, 1.75])
        assert [handle.wait_by_cause.slots for handle in handles] == pytest.approx([0, 3, 6, 0, 0.25, 0.5, 0.75])
        blocked = manager.stats().lanes["b"].blocked
        assert blocked["rate_limit"] > 0
        assert blocked["pause"] == pytest.approx(2)


async def test_boosts_and_limits_together(clock: VirtualClock) -> None:
    """A command that passes its lane-mates is the head at the limit too."""
    starts = Starts(clock)
    config = lane(RateLimit.per_second(1, burst=10), priority=5, boost=PriorityBoost.standard())
    async with running(clock, config) as manager:
        await manager.submit("a", starts, "all", cost=10)
        await manager.submit("a", starts, "costly", cost=10)
        await manager.submit("a", starts, "urgent", cost=3, deadline=16)
        await clock.run(manager.drain())
    assert starts.log == [("all", 0), ("urgent", 4), ("costly", 13)]


# --- faults of others -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("idle", [0.0, 0.3, 9.99, 10.0, 600.0, 123_456.789])
async def test_rest_is_worth_a_full_bucket_and_no_more(clock: VirtualClock, idle: float) -> None:
    """A full bucket that does not move its clock while it rests gives one more refill afterwards (kombu #680)."""
    starts = Starts(clock)
    async with running(clock, lane(RateLimit.per_second(0.1, burst=1))) as manager:
        await manager.submit("a", noop)
        await clock.advance(idle)
        await manager.submit_many("a", [(starts,)] * 3)
        await clock.run(manager.drain())
    first = max(idle, 10)
    assert starts.times == pytest.approx([first, first + 10, first + 20])


async def test_fractions_are_kept_however_often_the_queue_is_woken(clock: VirtualClock) -> None:
    """Frequent looks throw away fractions of a token elsewhere (firecracker #3370)."""
    starts = Starts(clock)
    async with running(clock, {"a": lane(RateLimit.per_second(3, burst=3)), "b": lane()}) as manager:
        await manager.submit_many("a", [(starts,)] * 310)
        for _ in range(20_000):
            await manager.submit("b", noop)
            await asyncio.sleep(0)
            clock._move_to(clock._now_ns + 5_000_000)
            if clock._due_ns() <= clock._now_ns:
                await clock.advance(0)
        await clock.advance(0)
        assert len(starts.log) in {302, 303, 304}
        await clock.run(manager.drain())
