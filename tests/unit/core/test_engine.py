"""Whose turn it is, and why the others wait: small cases worked out by hand."""

from __future__ import annotations

import pytest

from lane_obs import LaneConfig, RateLimit, State, UnknownLane, WaitByCause
from lane_obs.core.engine import Engine
from lane_obs.core.record import Record


class Bench:
    """An engine with a number for each command, and its starts by lane."""

    def __init__(self, limit: int | None = None, **lanes: LaneConfig) -> None:
        self.engine = Engine(lanes, limit, 0.0)
        self.seq = 0

    def submit(self, lane: str, count: int = 1, now: float = 0.0) -> list[Record]:
        made = []
        for _ in range(count):
            self.seq += 1
            made.append(Record(self.seq, self.engine.lane(lane), now))
            self.engine.submit(made[-1], now)
        return made

    def start(self, now: float = 0.0) -> list[Record]:
        started = []
        while (record := self.engine.start_next(now)) is not None:
            started.append(record)
        return started

    def end(self, record: Record, now: float) -> None:
        self.engine.finish(record, State.SUCCEEDED, now)


def names(records: list[Record]) -> str:
    return " ".join(record.home.name for record in records)


def test_the_lane_of_the_lowest_number_goes_first_up_to_its_max() -> None:
    bench = Bench(low=LaneConfig(0, 4, priority=9), high=LaneConfig(0, 2, priority=-1))
    bench.submit("low", 3)
    bench.submit("high", 3)
    assert names(bench.start()) == "high high low low low"


def test_equal_lanes_take_turns_in_the_order_they_asked() -> None:
    bench = Bench(3, a=LaneConfig(0, 9), b=LaneConfig(0, 9), c=LaneConfig(0, 9))
    bench.submit("b", 5)
    bench.submit("c", 5)
    bench.submit("a", 5)
    order, running, now = [], bench.start(), 0.0
    while running:
        order += running
        now += 1
        for record in running:
            bench.end(record, now)
        running = bench.start(now)
    assert names(order) == " ".join(["b c a"] * 5)


def test_so_they_do_where_one_of_them_has_slots_of_its_own_and_a_third_asks() -> None:
    bench = Bench(3, shares=LaneConfig(0, 9), owns=LaneConfig(1, 9), third=LaneConfig(0, 9))
    bench.submit("shares")
    bench.submit("owns")
    bench.submit("third")
    assert names(bench.start()) == "shares owns third"


def test_a_lane_whose_only_command_was_cancelled_asks_anew() -> None:
    bench = Bench(2, a=LaneConfig(0, 9), b=LaneConfig(0, 9))
    (record,) = bench.submit("a")
    bench.submit("b")
    bench.engine.finish(record, State.CANCELLED, 0.0)
    bench.submit("a")
    assert names(bench.start()) == "b a"


def test_what_waits_at_a_limit_goes_on_once_a_lane_that_was_let_on_has_nothing_left() -> None:
    limit = RateLimit.shared("s", RateLimit.per_second(1, burst=1))
    first, second = (LaneConfig(0, 9, priority=priority, rate_limit=limit) for priority in (0, 1))
    bench = Bench(1, first=first, second=second, last=LaneConfig(0, 9, priority=9))
    bench.submit("first")
    (taker,) = bench.start()
    (waiter,) = bench.submit("first")
    bench.submit("second")
    bench.end(taker, 0.0)
    assert bench.start() == []
    bench.submit("last", 2)
    (running,) = bench.start()
    for kind, about in bench.engine.timers.pop_due(1.0):  # the token is there, and no slot
        bench.engine.order.on_timer(kind, about, 1.0)
    bench.engine.finish(waiter, State.CANCELLED, 2.0)
    bench.end(running, 3.0)
    assert names(bench.start(3.0)) == "second"


def test_a_lane_that_was_idle_does_not_catch_up_on_its_turns() -> None:
    bench = Bench(1, a=LaneConfig(0, 9), b=LaneConfig(0, 9))
    bench.submit("a", 20)
    order: list[Record] = []
    for now in range(20):
        if now == 10:
            bench.submit("b", 10, 10.0)
        (record,) = bench.start(float(now))
        order.append(record)
        bench.end(record, now + 1.0)
    assert names(order[:10]) == " ".join("a" * 10)
    assert names(order[10:]).replace(" ", "") in {"abababababab"[:10], "babababababa"[:10]}


def test_the_whole_limit_bounds_all_lanes_together() -> None:
    bench = Bench(3, a=LaneConfig(0, 9, priority=0), b=LaneConfig(0, 9, priority=1))
    bench.submit("a", 2)
    bench.submit("b", 5)
    running = bench.start()
    assert names(running) == "a a b"
    bench.submit("a", 1, 1.0)
    bench.end(running[2], 1.0)
    assert names(bench.start(1.0)) == "a"


def test_reserved_slots_stay_free_for_their_lane() -> None:
    bench = Bench(4, high=LaneConfig(0, 9, priority=0), low=LaneConfig(2, 9, priority=9))
    bench.submit("high", 9)
    assert names(bench.start()) == "high high"
    bench.submit("low", 5, 1.0)
    assert names(bench.start(1.0)) == "low low"


def test_a_reservation_in_use_takes_nothing_more_from_the_others() -> None:
    bench = Bench(4, a=LaneConfig(1, 9, priority=0), b=LaneConfig(1, 9, priority=1))
    bench.submit("a", 9)
    first = bench.start()
    assert names(first) == "a a a"
    bench.submit("b", 9, 1.0)
    bench.end(first[0], 1.0)
    assert names(bench.start(1.0)) == "a b"


def test_a_paused_lane_starts_nothing_and_keeps_its_place() -> None:
    bench = Bench(a=LaneConfig(0, 1), b=LaneConfig(0, 1))
    lane = bench.engine.lane("a")
    assert bench.engine.set_paused(lane, 0.0, paused=True)
    assert not bench.engine.set_paused(lane, 0.0, paused=True)
    (waiting,) = bench.submit("a")
    bench.submit("b")
    assert names(bench.start(1.0)) == "b"
    assert bench.engine.set_paused(lane, 5.0, paused=False)
    assert bench.start(5.0) == [waiting]
    assert waiting.wait == WaitByCause(pause=5.0)


def test_an_unknown_lane_names_the_known_ones() -> None:
    with pytest.raises(UnknownLane, match="unknown lane 'c'; known lanes: 'a', 'b'"):
        Bench(a=LaneConfig(), b=LaneConfig()).engine.lane("c")


def test_a_wait_is_split_by_what_blocked_it() -> None:
    bench = Bench(1, high=LaneConfig(0, 2, priority=0), low=LaneConfig(0, 1, priority=1))
    (first,) = bench.submit("high")
    bench.start(0.0)
    (second,) = bench.submit("high", now=1.0)
    (low,) = bench.submit("low", now=1.0)
    bench.end(first, 3.0)
    assert bench.start(3.0) == [second]
    bench.end(second, 7.0)
    bench.start(7.0)
    assert second.wait == WaitByCause(slots=2.0)
    assert low.wait == WaitByCause(priority=2.0, slots=4.0)  # at 3 nothing more important waits: it is next
    assert low.wait.total == 6.0


def test_a_wait_while_nothing_blocks_is_the_schedulers_own() -> None:
    bench = Bench(a=LaneConfig(0, 1))
    (record,) = bench.submit("a", now=2.0)
    bench.start(2.5)
    assert record.wait == WaitByCause(scheduler=0.5)


def test_delay_and_back_off_are_causes_too() -> None:
    bench = Bench(a=LaneConfig(0, 1))
    record = Record(1, bench.engine.lane("a"), 0.0)
    bench.engine.submit(record, 0.0, delayed=True)
    bench.engine.make_ready(record, 4.0)
    bench.start(4.0)
    bench.engine.back_off(record, 5.0)
    assert bench.engine.wait_so_far(record, 7.0) == WaitByCause(delay=4.0, backoff=2.0)
    bench.engine.make_ready(record, 8.0)
    bench.start(8.5)
    bench.end(record, 9.0)
    assert record.wait == WaitByCause(delay=4.0, backoff=3.0, scheduler=0.5)
    assert record.ran == 1.5


def test_growing_and_shrinking_a_lane_takes_effect_at_the_next_start() -> None:
    bench = Bench(a=LaneConfig(0, 1))
    lane = bench.engine.lane("a")
    bench.submit("a", 5)
    assert len(bench.start()) == 1
    bench.engine.configure(lane, LaneConfig(0, 3), 1.0)
    running = bench.start(1.0)
    assert len(running) == 2
    bench.engine.configure(lane, LaneConfig(0, 1), 2.0)
    bench.end(running[0], 3.0)
    assert bench.start(3.0) == []
    assert lane.counts[State.RUNNING] == 2
