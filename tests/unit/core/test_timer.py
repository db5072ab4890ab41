"""Due times: order, cancellation, bounded memory."""

from __future__ import annotations

import gc
import math

from lane_obs.core.timer import DEADLINE, DUE, TIMEOUT, Timers


def test_timers_come_out_by_time_and_equal_times_in_the_order_they_were_set() -> None:
    timers = Timers()
    for when, name in ((3.0, "c"), (1.0, "a"), (3.0, "d"), (2.0, "b")):
        timers.set(when, DUE, name)
    assert timers.next_at() == 1.0
    assert [name for _, name in timers.pop_due(2.5)] == ["a", "b"]
    assert [name for _, name in timers.pop_due(3.0)] == ["c", "d"]
    assert timers.next_at() == math.inf
    assert len(timers) == 0


def test_each_timer_says_what_it_is_for() -> None:
    timers = Timers()
    timers.set(1.0, TIMEOUT, "x")
    timers.set(1.0, DEADLINE, "x")
    assert list(timers.pop_due(1.0)) == [(TIMEOUT, "x"), (DEADLINE, "x")]


def test_a_cancelled_timer_never_comes_out() -> None:
    timers = Timers()
    first, second = timers.set(1.0, DUE, "first"), timers.set(2.0, DUE, "second")
    timers.cancel(first)
    timers.cancel(first)
    assert (len(timers), timers.next_at()) == (1, 2.0)
    assert [name for _, name in timers.pop_due(5.0)] == ["second"]
    timers.cancel(second)  # after it came out: nothing
    assert len(timers) == 0


def test_a_timer_set_while_others_come_out_is_seen_as_well() -> None:
    timers = Timers()
    timers.set(1.0, DUE, "first")
    seen: list[str] = []
    for _, name in timers.pop_due(2.0):
        seen.append(name)
        if name == "first":
            timers.set(1.5, DUE, "second")
            timers.set(2.5, DUE, "later")
    assert seen == ["first", "second"]
    assert len(timers) == 1


def test_a_timer_cancelled_while_others_come_out_is_left_out() -> None:
    timers = Timers()
    timers.set(1.0, DUE, "first")
    victim = timers.set(1.0, DUE, "victim")
    seen: list[str] = []
    for _, name in timers.pop_due(2.0):
        timers.cancel(victim)
        seen.append(name)
    assert seen == ["first"]
    assert len(timers) == 0


def test_cancelled_timers_leave_no_memory_behind() -> None:
    timers = Timers()
    timers.set(1e9, DUE, "kept")
    for number in range(20_000):
        timers.cancel(timers.set(1e6 + number, TIMEOUT, "cancelled"))
    assert len(timers) == 1
    assert len(gc.get_referents(timers._heap)) < 2_000
    assert list(timers.pop_due(2e9)) == [(DUE, "kept")]
