"""The first rises of a lane's commands: one timer, whoever leaves and in whatever order."""

from __future__ import annotations

from lane_obs import PriorityBoost
from lane_obs.core.record import Record
from lane_obs.core.rises import WAITS, Rises
from lane_obs.core.timer import BOOST, RISE, Timers

BOOSTED = PriorityBoost.standard(40.0)  # the first rise comes after 10 seconds


def record(seq: int, at: float) -> Record:
    return Record(seq, None, at, level=5)


def test_commands_with_one_deadline_have_one_timer() -> None:
    timers, rises = Timers(), Rises("lane", BOOSTED)
    inside = [record(seq, float(seq)) for seq in range(3)]
    for one in inside:
        rises.add(one, one.submitted_at, timers)
    assert [one.timer is WAITS for one in inside] == [True] * 3
    assert (len(timers), timers.next_at()) == (1, 10.0)
    rises.leave(inside[0], timers)
    assert list(timers.pop_due(10.0)) == [(RISE, "lane")]
    assert rises.first() is inside[1]
    rises.wait_until(11.0, timers)
    rises.leave(inside[1], timers)
    assert len(timers) == 1
    rises.leave(inside[2], timers)
    assert (len(timers), rises.first()) == (0, None)


def test_one_that_is_due_before_another_has_a_timer_of_its_own() -> None:
    timers, rises = Timers(), Rises("lane", BOOSTED)
    rises.add(record(1, 1.0), 1.0, timers)
    early = record(2, 0.5)  # it was submitted in an earlier process
    rises.add(early, 1.0, timers)
    assert early.timer is not WAITS
    assert list(timers.pop_due(99.0)) == [(BOOST, early), (RISE, "lane")]


def test_one_that_never_rises_has_none() -> None:
    timers, rises = Timers(), Rises("lane", PriorityBoost.standard(40.0, floor=5))
    never = record(1, 0.0)
    rises.add(never, 0.0, timers)
    assert (never.timer, len(timers), rises.first()) == (None, 0, None)


def test_one_that_comes_late_has_the_level_of_its_age() -> None:
    timers, rises = Timers(), Rises("lane", BOOSTED)
    late = record(1, 0.0)
    rises.add(late, 25.0, timers)
    assert (late.level, timers.next_at()) == (3, 30.0)


def test_those_that_leave_behind_one_that_stays_leave_no_memory() -> None:
    timers, rises = Timers(), Rises("lane", BOOSTED)
    first = record(0, 0.0)
    rises.add(first, 0.0, timers)
    for seq in range(1, 5_000):
        one = record(seq, 0.0)
        rises.add(one, 0.0, timers)
        rises.leave(one, timers)
    assert len(rises._queue) < 100
    assert rises.first() is first
