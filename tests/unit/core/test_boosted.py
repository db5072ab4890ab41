"""The ready commands of a lane with boosts: the lowest level first, equals by number."""

from __future__ import annotations

import gc
import sys
import threading
import weakref

import pytest

from lane_obs import State
from lane_obs.core.boosted import BoostedQueue
from lane_obs.core.record import Record


class Watched(Record, weakref=True):
    """A command that can be watched: what is gone is let go of."""


def record(seq: int, level: int = 5, since: float = 0.0) -> Record:
    return Record(seq, None, 0.0, since=since, level=level)


def filled(*levels: int) -> tuple[BoostedQueue, list[Record]]:
    """A queue of new commands, numbered from 1, of these levels."""
    queue, inside = BoostedQueue(), [record(seq, level) for seq, level in enumerate(levels, 1)]
    for item in inside:
        queue.add(item)
    return queue, inside


def pop(queue: BoostedQueue) -> int:
    taken = queue.pop()
    taken.state = State.RUNNING
    return taken.seq


def pop_all(queue: BoostedQueue) -> list[int]:
    taken = []
    while queue.peek() is not None:
        taken.append(pop(queue))
    return taken


def change(queue: BoostedQueue, one: Record, level: int) -> None:
    one.level = level
    queue.changed(one)


def end(queue: BoostedQueue, victim: Record) -> None:
    victim.state = State.CANCELLED
    queue.forget(victim)


def places(queue: BoostedQueue) -> int:
    return len(queue._fresh) + len(queue.raised)


def test_without_boosts_it_is_first_come_first_served() -> None:
    queue, _ = filled(5, 5, 5, 5)
    assert pop_all(queue) == [1, 2, 3, 4]
    assert (queue.peek(), queue.head_level(), queue.oldest_since()) == (None, None, None)


def test_a_lower_level_goes_first_and_equals_by_number() -> None:
    queue, _ = filled(5, 3, 5, 3, 4, 6)
    assert pop_all(queue) == [2, 4, 5, 1, 3, 6]


def test_a_command_whose_level_falls_passes_its_lane_mates() -> None:
    queue, inside = filled(5, 5, 5, 5)
    change(queue, inside[2], 4)
    assert queue.peek() is inside[2]
    assert queue.head_level() == 4
    change(queue, inside[1], 4)
    change(queue, inside[3], 2)
    assert pop_all(queue) == [4, 2, 3, 1]


def test_a_level_may_rise_again() -> None:
    queue, inside = filled(5, 5, 5)
    change(queue, inside[0], 3)
    change(queue, inside[0], 5)
    change(queue, inside[1], 7)
    assert pop_all(queue) == [1, 3, 2]


def test_a_command_that_comes_back_takes_its_old_place_among_those_of_its_level() -> None:
    queue, _ = filled(5, 5, 5)
    assert pop(queue) == 1
    for seq, level in ((0, 6), (1, 5), (9, 4)):
        queue.put_back(record(seq, level, since=1.0))
    assert pop_all(queue) == [9, 1, 2, 3, 0]


def test_a_boosted_command_that_comes_back_is_given_out_once() -> None:
    queue, inside = filled(5, 5)
    change(queue, inside[1], 4)
    assert pop(queue) == 2
    inside[1].state = State.READY
    inside[1].level = 5  # where it stood at first
    queue.put_back(inside[1])
    assert pop_all(queue) == [1, 2]


def test_a_command_that_ended_while_it_waited_is_passed_over() -> None:
    queue, inside = filled(5, 5, 5, 5)
    change(queue, inside[3], 1)
    for victim in (inside[3], inside[0]):
        end(queue, victim)
    assert queue.head_level() == 5
    assert pop_all(queue) == [2, 3]


def test_a_command_that_ended_and_was_requeued_stands_inside_twice() -> None:
    queue, inside = filled(5, 5)
    for _ in range(3):
        end(queue, inside[0])
        inside[0] = record(1)
        queue.put_back(inside[0])
        change(queue, inside[0], 4)
        change(queue, inside[0], 5)
    assert pop_all(queue) == [1, 2]


def test_a_queue_can_be_poured_into_another_one() -> None:
    queue, inside = filled(5, 5, 5)
    change(queue, inside[2], 4)
    for level in (4, 3, 5):  # it stands there twice in the end, among the new ones and in the heap
        change(queue, inside[1], level)
    for level in (3, 4):  # and this one twice in the heap
        change(queue, inside[2], level)
    taken = []
    while queue.peek() is not None:
        taken.append(queue.pop().seq)  # still ready: nothing starts it
    assert taken == [3, 1, 2]
    assert queue.oldest_since() is None


def test_what_was_poured_out_of_many_places_stays_out() -> None:
    queue, inside = filled(*[5] * 200)
    for one in inside:
        change(queue, one, 4)
    for one in inside:
        change(queue, one, 5)
    assert [queue.pop().seq for _ in inside] == list(range(1, 201))  # asked for nothing but the next
    assert queue.peek() is None
    assert places(queue) == 0
    queue, inside = filled(5, 5, 5)
    change(queue, inside[0], 4)
    change(queue, inside[0], 5)
    assert [queue.pop().seq for _ in inside] == [1, 2, 3]


def test_the_oldest_age_is_that_of_the_longest_ready_whatever_its_level() -> None:
    queue, late = BoostedQueue(), record(1, level=1, since=20.0)
    first = record(5, since=10.0)
    queue.add(first)
    queue.put_back(late)
    assert queue.oldest_since() == 10.0
    change(queue, first, 4)
    assert queue.oldest_since() == 10.0
    assert pop(queue) == 1
    assert queue.oldest_since() == 10.0
    end(queue, first)
    queue.put_back(record(2, since=30.0))
    assert queue.oldest_since() == 30.0
    assert pop(queue) == 2
    assert queue.oldest_since() is None


def test_how_many_are_ahead_is_counted_by_levels() -> None:
    queue, inside = filled(5, 5, 5, 5, 5)
    change(queue, inside[4], 2)
    change(queue, inside[3], 3)
    end(queue, inside[0])
    assert [queue.ahead_of(seq) for seq in (2, 3, 4, 5)] == [2, 3, 1, 0]
    assert queue.ahead_of(1) == 0, "it is not inside: only the number counts"
    assert queue.ahead_of(99) == 4


@pytest.mark.parametrize("seed_level", [5, 4])
def test_levels_that_change_all_the_time_leave_no_places_behind(seed_level: int) -> None:
    queue, inside = filled(*[seed_level] * 100)
    for turn in range(200):
        for one in inside:
            change(queue, one, turn % 7)
            assert places(queue) <= 2 * len(inside) + 64
    assert pop_all(queue) == list(range(1, 101))


def test_ended_commands_leave_no_memory_behind() -> None:
    queue = BoostedQueue()
    queue.add(record(0))
    gone = []
    for seq in range(1, 5_001):
        victim = Watched(seq, None, 0.0, level=5 - seq % 3)
        gone.append(weakref.ref(victim))
        queue.add(victim)
        end(queue, victim)
    del victim
    gc.collect()
    assert sum(one() is not None for one in gone) < 200
    assert places(queue) + len(queue._inside) < 400
    assert pop_all(queue) == [0]


def test_commands_that_ran_leave_no_memory_behind() -> None:
    queue, inside = filled(*[5] * 3_000)
    for one in inside:
        change(queue, one, 4)
    assert pop_all(queue) == list(range(1, 3_001))
    assert places(queue) + len(queue._inside) < 200


def test_the_oldest_age_can_be_asked_for_by_another_thread() -> None:
    queue, stop = BoostedQueue(), threading.Event()
    seen: list[float | None] = []
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            while not stop.is_set():
                seen.append(queue.oldest_since())
        except BaseException as error:
            failures.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=ask)
    thread.start()
    try:
        inside: list[Record] = []
        for seq in range(1, 20_001):
            one = record(seq, since=float(seq))
            queue.add(one)
            inside.append(one)
            if seq % 3 == 0:
                change(queue, inside[-2], 4)
            if seq % 4 == 0:
                end(queue, one)
            if seq % 5 == 0:
                pop(queue)
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(before)
    assert failures == []
    ages = [age for age in seen if age is not None]
    assert all(1.0 <= age <= 20_000.0 for age in ages)
