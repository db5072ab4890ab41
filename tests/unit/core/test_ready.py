"""The ready commands of one lane: first submitted first, whatever way they came in."""

from __future__ import annotations

import random

from lane_obs import LaneConfig, State
from lane_obs.core.engine import Engine
from lane_obs.core.ready import ReadyQueue
from lane_obs.core.record import Record

LANE = Engine({"a": LaneConfig(0, 1)}, None, 0.0).lane("a")


def record(seq: int, since: float = 0.0) -> Record:
    return Record(seq, LANE, 0.0, since=since)


def pop(queue: ReadyQueue) -> int:
    taken = queue.pop()
    taken.state = State.RUNNING
    return taken.seq


def end(queue: ReadyQueue, victim: Record) -> None:
    victim.state = State.CANCELLED
    queue.forget(victim)


def test_commands_come_out_in_the_order_of_their_numbers() -> None:
    queue = ReadyQueue()
    for seq in range(1, 6):
        queue.add(record(seq))
    assert [pop(queue) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert queue.peek() is None


def test_a_command_that_comes_back_takes_its_old_place() -> None:
    queue = ReadyQueue()
    for seq in (3, 5, 7):
        queue.add(record(seq))
    for seq in (6, 1, 4):
        queue.put_back(record(seq, since=9.0))
    assert [pop(queue) for _ in range(6)] == [1, 3, 4, 5, 6, 7]


def test_a_command_that_ended_while_it_waited_is_passed_over() -> None:
    queue = ReadyQueue()
    inside = [record(seq) for seq in range(1, 5)]
    for item in inside:
        queue.add(item)
    back = record(0, since=1.0)
    queue.put_back(back)
    for victim in (back, inside[0], inside[2]):
        end(queue, victim)
    head = queue.peek()
    assert head is not None
    assert head.seq == 2
    assert [pop(queue) for _ in range(2)] == [2, 4]


def test_ended_commands_leave_no_memory_behind() -> None:
    queue = ReadyQueue()
    kept = record(0)
    queue.add(kept)
    for seq in range(1, 10_001):
        victim = record(seq)
        queue.add(victim)
        end(queue, victim)
    assert len(queue._fresh) < 500
    assert pop(queue) == 0


def test_commands_that_come_and_go_by_retry_leave_no_memory_behind() -> None:
    queue = ReadyQueue()
    queue.put_back(record(5, since=0.0))
    for seq in range(10, 5_010):
        queue.put_back(record(seq, since=float(seq)))
        assert pop(queue) == 5 if seq == 10 else True
    while queue.peek() is not None:
        pop(queue)
    assert len(queue._returned) + len(queue._returned_by_age) < 200


def test_the_oldest_age_is_that_of_the_longest_ready_not_of_the_head() -> None:
    queue = ReadyQueue()
    assert queue.oldest_since() is None
    queue.add(record(5, since=10.0))
    queue.put_back(record(1, since=20.0))
    assert queue.oldest_since() == 10.0
    assert pop(queue) == 1
    assert pop(queue) == 5
    assert queue.oldest_since() is None


def test_how_many_are_ahead_counts_ready_ones_only() -> None:
    queue = ReadyQueue()
    inside = [record(seq) for seq in (2, 4, 6, 8)]
    for item in inside:
        queue.add(item)
    queue.put_back(record(3, since=1.0))
    end(queue, inside[0])
    assert [queue.ahead_of(seq) for seq in (2, 4, 8, 9)] == [0, 1, 3, 4]


def test_any_mix_comes_out_sorted() -> None:
    draw = random.Random(7)
    queue, expected, fresh = ReadyQueue(), [], 1_000
    for _ in range(2_000):
        if draw.random() < 0.5:
            fresh += 1
            queue.add(record(fresh))
            expected.append(fresh)
        else:
            back = draw.randrange(1_000) + draw.random()
            queue.put_back(record(back, since=1.0))  # type: ignore[arg-type]
            expected.append(back)
    assert [pop(queue) for _ in expected] == sorted(expected)
