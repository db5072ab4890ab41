"""The ready commands of a lane with partitions: who is lined up, who is held, and whose turn it is."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from lane_obs import LaneConfig, State
from lane_obs.core.boosted import BoostedQueue
from lane_obs.core.engine import Engine
from lane_obs.core.fair import FairQueue
from lane_obs.core.line import Line
from lane_obs.core.partition import PartitionedQueue
from lane_obs.core.ready import ReadyQueue
from lane_obs.core.record import Record

LANE = Engine({"a": LaneConfig(0, 1)}, None, 0.0).lane("a")


def record(seq: int, part: object = None, since: float = 0.0, cost: float = 1.0, level: int = 0) -> Record:
    return Record(seq, LANE, 0.0, since=since, part=part, cost=cost, level=level)


def make(*inside: Record, order: Any = None) -> PartitionedQueue:
    queue = PartitionedQueue(order or ReadyQueue())
    for item in inside:
        queue.add(item)
    return queue


def start(queue: PartitionedQueue) -> Record:
    taken = queue.pop()
    taken.state = State.RUNNING
    taken.attempt += 1
    return taken


def end(queue: PartitionedQueue, victim: Record) -> list[int]:
    """Ends a command; gives the numbers of those that are lined up by that."""
    inside, victim.state = victim.state is State.READY, State.SUCCEEDED
    if inside:
        queue.forget(victim)
        return seqs(queue.take_lined_up())
    moved = queue.ended(victim)
    return [] if moved is None else [moved.seq]


def back_off(queue: PartitionedQueue, victim: Record) -> None:
    victim.state = State.BACKOFF
    queue.back_off(victim)


def come_in(queue: PartitionedQueue, item: Record) -> None:
    item.state = State.READY
    queue.put_back(item)


def seqs(records: list[Record]) -> list[int]:
    return [item.seq for item in records]


def head(queue: PartitionedQueue) -> int | None:
    first = queue.peek()
    return None if first is None else first.seq


# --- one at a time ----------------------------------------------------------------------------------------------


def test_one_command_of_each_partition_is_lined_up_and_the_next_when_that_has_ended() -> None:
    queue = make(*(record(seq, "ab"[seq % 2]) for seq in range(1, 7)))
    assert queue.held == 4
    first, second = start(queue), start(queue)
    assert seqs([first, second]) == [1, 2]
    assert (queue.peek(), queue.held) == (None, 4)
    assert end(queue, second) == [4]
    assert (head(queue), queue.held) == (4, 3)
    assert end(queue, first) == [3]
    assert (head(queue), queue.held) == (3, 2)
    assert queue.take_lined_up() == []


def test_commands_without_a_partition_are_always_lined_up() -> None:
    queue = make(record(1), record(2, "a"), record(3), record(4, "a"))
    assert queue.held == 1
    assert [start(queue).seq for _ in range(3)] == [1, 2, 3]
    assert queue.peek() is None
    assert list(queue.parts) == ["a"]


def test_a_partition_whose_id_is_false_is_a_partition() -> None:
    queue = make(record(1, 0), record(2, 0), record(3, ""), record(4, ""))
    assert queue.held == 2


def test_a_command_that_backs_off_keeps_its_partition() -> None:
    queue = make(record(1, "a"), record(2, "a"), record(3, "b"))
    first = start(queue)
    back_off(queue, first)
    assert start(queue).seq == 3
    assert (queue.peek(), queue.held) == (None, 1)
    come_in(queue, first)
    assert (head(queue), queue.held) == (1, 1)
    assert queue.take_lined_up() == []  # its own put_back lined it up
    end(queue, start(queue))
    assert head(queue) == 2


def test_one_that_ends_while_it_backs_off_gives_its_partition_up() -> None:
    queue = make(record(1, "a"), record(2, "a"))
    first = start(queue)
    back_off(queue, first)
    end(queue, first)
    assert (head(queue), queue.held) == (2, 0)


def test_a_retry_that_is_lined_up_is_not_passed_by_a_lower_number() -> None:
    queue = make(record(5, "a"))
    first = start(queue)
    back_off(queue, first)
    come_in(queue, first)
    come_in(queue, record(2, "a"))
    assert (head(queue), queue.held) == (5, 1)
    end(queue, start(queue))
    assert head(queue) == 2


def test_the_end_of_a_command_that_never_had_its_partition_changes_nothing() -> None:
    queue = make(record(2, "a"))
    delayed = record(1, "a")
    delayed.state = State.CANCELLED
    queue.ended(delayed)
    queue.ended(record(3, "unknown"))
    queue.ended(record(4))
    assert (head(queue), queue.held, list(queue.parts)) == (2, 0, ["a"])


# --- cancelled while ready --------------------------------------------------------------------------------------


def test_when_the_lined_up_one_is_cancelled_the_next_takes_its_place() -> None:
    first, second = record(1, "a"), record(2, "a")
    queue = make(first, second)
    assert end(queue, first) == [2]
    assert (head(queue), queue.held) == (2, 0)
    assert queue.take_lined_up() == []
    end(queue, second)
    assert (queue.peek(), dict(queue.parts)) == (None, {})


def test_held_ones_that_are_cancelled_are_passed_over() -> None:
    inside = [record(seq, "a") for seq in range(1, 101)]
    queue = make(*inside)
    for victim in inside[1:99]:
        end(queue, victim)
    assert queue.held == 1
    end(queue, start(queue))
    assert [start(queue).seq, queue.held] == [100, 0]


def test_one_without_a_partition_is_cancelled() -> None:
    first, second = record(1), record(2)
    queue = make(first, second)
    end(queue, first)
    assert start(queue) is second


# --- back in an old place ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [ReadyQueue, FairQueue])
def test_a_delayed_command_with_a_lower_number_goes_first(order: type[Any]) -> None:
    ahead = record(5, "a")
    queue = make(ahead, record(7, "b"), order=order())
    come_in(queue, record(3, "a"))
    come_in(queue, record(4, "a"))
    assert (head(queue), queue.held) == (3, 2)
    assert queue.is_held(ahead)
    started = [start(queue).seq, start(queue).seq]
    assert started == [3, 7]
    assert queue.peek() is None  # 5 is there, but held
    came = []
    for seq in (3, 4, 5):
        came += end(queue, getattr(queue.parts["a"], "head", queue.parts["a"]))
        if seq < 5:
            assert start(queue).seq == seq + 1
    assert came == [4, 5]
    assert queue.held == 0


def test_one_whose_place_was_taken_is_lined_up_where_it_stood() -> None:
    queue = make(record(5, "a"), record(7, "b"))
    low = record(3, "a")
    come_in(queue, low)
    end(queue, low)
    assert [start(queue).seq, start(queue).seq] == [5, 7]


def test_one_whose_place_was_taken_is_cancelled() -> None:
    ahead = record(5, "a")
    queue = make(ahead, record(7, "b"))
    come_in(queue, record(3, "a"))
    end(queue, ahead)
    assert queue.held == 0
    end(queue, start(queue))
    assert [start(queue).seq, queue.peek()] == [7, None]


# --- what can be read -------------------------------------------------------------------------------------------


def test_the_oldest_is_the_one_that_is_ready_for_the_longest_time_held_or_not() -> None:
    queue = make(record(1, "a", since=1.0), record(2, "a", since=2.0))
    assert queue.oldest_since() == 1.0
    first = start(queue)
    assert queue.oldest_since() == 2.0
    come_in(queue, record(0, "b", since=3.0))
    oldest = queue.oldest()
    assert oldest is not None
    assert (oldest.seq, queue.oldest_since()) == (2, 2.0)
    end(queue, first)
    oldest.since = 9.0  # as the engine does when it counts the wait so far
    assert queue.oldest_since() == 2.0
    for _ in range(2):
        end(queue, start(queue))
    assert (queue.oldest(), queue.oldest_since()) == (None, None)


def test_how_many_are_ahead_counts_held_ones_too() -> None:
    queue = make(*(record(seq, "ab"[seq > 3]) for seq in range(1, 6)))
    assert [queue.ahead_of(seq) for seq in (1, 3, 6)] == [0, 2, 5]


def test_the_partitions_tell_what_waits_and_whether_one_runs() -> None:
    queue = make(record(1, "a"), record(2, "a"), record(3, "b"), record(4), record(5, "c"))
    assert list(queue.list_parts()) == [("a", 2, False), ("b", 1, False), ("c", 1, False)]
    first, _ = start(queue), start(queue)
    back_off(queue, first)
    assert list(queue.list_parts()) == [("a", 1, False), ("b", 0, True), ("c", 1, False)]
    assert not queue.is_held(record(9))


def test_the_partitions_tell_since_when_their_next_commands_are_ready() -> None:
    first, gone, second = record(1, "a"), record(2, "a"), record(3, "a")
    for since, one in enumerate((first, gone, second)):
        one.since = float(since)
    queue = make(first, gone, second, record(4))
    assert list(queue.list_since()) == [("a", 0.0)]
    start(queue)
    assert list(queue.list_since()) == [("a", 1.0)]
    end(queue, gone)
    assert list(queue.list_since()) == [("a", 2.0)]
    end(queue, second)
    assert list(queue.list_since()) == []


class ByLevel(ReadyQueue):
    """Notes whose level is said to have changed."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[int] = []

    def changed(self, item: Record) -> None:
        self.told.append(item.seq)


def test_a_changed_level_matters_to_the_order_of_those_that_it_has_inside() -> None:
    order = ByLevel()
    inside = [record(2), record(3, "a"), record(4, "a")]
    queue = make(*inside, order=order)
    for item in inside:
        queue.changed(item)
    assert order.told == [2, 3]
    come_in(queue, record(1, "a"))
    queue.changed(inside[1])  # held now, but still in the order, which has to know its key
    assert order.told == [2, 3, 3]


# --- fair turns -------------------------------------------------------------------------------------------------


def run_all(queue: PartitionedQueue) -> list[Record]:
    done = []
    while queue.peek() is not None:
        done.append(start(queue))
        end(queue, done[-1])
    return done


def test_partitions_take_turns() -> None:
    queue = make(*(record(seq, "a") for seq in range(1, 6)), record(6, "b"), record(7, "c"), order=FairQueue())
    assert "".join(item.part for item in run_all(queue)) == "abcaaaa"


def test_a_turn_is_worth_as_much_cost_whatever_the_commands_cost() -> None:
    small = [record(seq, "small", cost=0.25) for seq in range(1, 41)]
    large = [record(seq, "large", cost=2.0) for seq in range(41, 46)]
    queue = make(*large, *small, order=FairQueue())
    done = [item.part for item in run_all(queue)]
    assert [Counter(done[i * 9 : i * 9 + 9]) for i in range(5)] == [{"small": 8, "large": 1}] * 5


def test_commands_without_a_partition_share_one_turn_in_order() -> None:
    loose = [record(seq) for seq in (1, 2, 3, 5)]
    queue = make(*loose, record(6, "a"), record(7, "a"), order=FairQueue())
    come_in(queue, record(4))
    end(queue, loose[1])
    end(queue, loose[0])
    assert [item.seq for item in run_all(queue)] == [3, 6, 4, 7, 5]


def test_a_cost_of_a_million_is_found_at_once() -> None:
    queue = make(record(1, "a", cost=1e6), record(2, "b", cost=3e6), order=FairQueue())
    assert [item.seq for item in run_all(queue)] == [1, 2]


def test_free_commands_do_not_go_on_for_ever() -> None:
    queue = make(*(record(seq, "free", cost=0.0) for seq in range(1, 3_001)), record(3_001, "a"), order=FairQueue())
    started = [item.part for item in run_all(queue)]
    assert started.index("a") <= 1_000


def test_a_partition_that_has_nothing_more_loses_what_it_was_given() -> None:
    order = FairQueue()
    queue = make(record(1, "a", cost=0.25), order=order)
    end(queue, start(queue))
    assert inside(order) == 0
    queue.add(record(2, "b", cost=0.75))
    queue.add(record(3, "a", cost=0.75))  # with the rest of its turn, 0.75, it would go first
    assert [item.seq for item in run_all(queue)] == [2, 3]


def test_a_partition_is_given_nothing_while_a_command_of_it_runs() -> None:
    a, b = [record(seq, "a") for seq in range(20)], [record(seq, "b") for seq in range(20, 50)]
    queue = make(*a, *b, order=FairQueue())
    long = start(queue)
    for _ in range(15):
        end(queue, start(queue))
    end(queue, long)
    assert "".join(item.part for item in run_all(queue))[:8] in {"babababa", "abababab"}


def test_what_a_cancelled_command_waited_for_is_left_to_the_next_one() -> None:
    first = record(1, "a", cost=10.0)
    queue = make(first, record(2, "a", cost=10.0), *(record(seq, "b") for seq in range(3, 40)), order=FairQueue())
    for _ in range(8):
        end(queue, start(queue))
    end(queue, first)
    rest = [item.part for item in run_all(queue)]
    assert rest.index("a") <= 2


def test_cancelled_heads_leave_no_turns_behind() -> None:
    order = FairQueue()
    queue = make(record(0, "z"), order=order)
    for seq in range(1, 10_001):
        victim = record(seq, seq % 3, cost=1.0 + seq % 50)
        queue.add(victim)
        end(queue, victim)
    assert sum(map(len, order._turns.values())) < 200
    assert [item.seq for item in run_all(queue)] == [0]


def inside(order: FairQueue) -> int:
    assert order.peek() is None
    return len(order._shares) + len(order._turns) + len(order._rounds) + order._stale


# --- what backed off in an earlier process ----------------------------------------------------------------------


def claimer(seq: int, part: object) -> Record:
    made = record(seq, part)
    made.state, made.attempt = State.BACKOFF, 1
    return made


@pytest.mark.parametrize("order", [ReadyQueue, BoostedQueue, FairQueue])
def test_one_that_backed_off_before_has_its_partition_again(order: Any) -> None:
    queue, back = make(record(1, "b"), order=order()), claimer(3, "a")
    queue.claim(back)
    queue.add(record(4, "a"))
    come_in(queue, record(2, "a"))  # its delay is over; it has not started
    assert (queue.held, list(queue.list_parts())) == (2, [("b", 1, False), ("a", 2, False)])
    assert start(queue).seq == 1
    assert queue.peek() is None
    come_in(queue, back)
    assert (start(queue), queue.held) == (back, 2)
    assert end(queue, back) == [2]
    assert start(queue).seq == 2


@pytest.mark.parametrize("order", [ReadyQueue, BoostedQueue, FairQueue])
def test_it_takes_the_place_of_one_that_has_not_started(order: Any) -> None:
    queue, back = make(record(1, "a"), record(2, "b"), order=order()), claimer(3, "a")
    queue.claim(back)
    assert (queue.held, head(queue)) == (1, 2)
    assert start(queue).seq == 2
    assert queue.peek() is None
    end(queue, back)  # it was cancelled
    assert (queue.held, head(queue)) == (0, 1)
    assert start(queue).seq == 1


@pytest.mark.parametrize("order", [ReadyQueue, FairQueue])
def test_it_takes_no_partition_from_one_that_runs_or_backs_off(order: Any) -> None:
    queue, back = make(record(1, "a"), order=order()), claimer(3, "a")
    first = start(queue)
    queue.claim(back)
    come_in(queue, back)
    assert (queue.held, queue.peek()) == (1, None)
    back_off(queue, first)
    queue.claim(claimer(4, "a"))
    part = queue.parts["a"]
    assert isinstance(part, Line)
    assert part.head is first
    end(queue, first)
    assert start(queue) is back


@pytest.mark.parametrize("order", [ReadyQueue, FairQueue])
def test_its_partition_is_gone_when_it_ends_before_its_time(order: Any) -> None:
    queue, back = make(order=order()), claimer(3, "a")
    queue.claim(back)
    end(queue, back)
    assert queue.parts == {}
    loose = claimer(4, None)
    queue.claim(loose)
    come_in(queue, loose)
    assert start(queue) is loose
