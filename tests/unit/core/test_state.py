"""The table of states, and that the engine keeps to it."""

from __future__ import annotations

import pytest

from lane_obs import InternalError, LaneConfig, State
from lane_obs.core.engine import Engine
from lane_obs.core.record import Record
from lane_obs.core.state import FINAL, PENDING, TRANSITIONS


def test_final_states_are_left_by_nothing_and_all_others_by_something() -> None:
    assert {State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.CANCELLED, State.EXPIRED} == FINAL
    assert all(bool(following) is (state not in FINAL) for state, following in TRANSITIONS.items())


def test_every_state_has_its_row_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(State)
    reached = frozenset().union(*TRANSITIONS.values())
    assert reached == set(State) - {State.DELAYED}  # a life may begin there, and only there


def test_waiting_commands_can_be_cancelled_and_expire() -> None:
    assert set(PENDING) == {State.READY, State.DELAYED, State.BACKOFF}
    assert all({State.CANCELLED, State.EXPIRED} <= TRANSITIONS[state] for state in PENDING)


def test_the_names_are_those_of_the_design() -> None:
    names = "delayed ready running backoff succeeded failed timed_out cancelled expired"
    assert [str(state) for state in State] == names.split()


def engine_with(count: int, *, limit: int | None = None) -> tuple[Engine, list[Record]]:
    engine = Engine({"a": LaneConfig(0, 1)}, limit, 0.0)
    records = [Record(number, engine.lane("a"), 0.0) for number in range(1, count + 1)]
    for record in records:
        engine.submit(record, 0.0)
    return engine, records


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.TIMED_OUT, State.BACKOFF, State.DELAYED, State.READY])
def test_a_step_the_table_does_not_have_raises_and_changes_no_count(state: State) -> None:
    engine, (record,) = engine_with(1)
    before = dict(engine.lane("a").counts)
    with pytest.raises(InternalError, match=f"ready cannot become {state}"):
        engine._move(record, state)
    assert record.state is State.READY
    assert engine.lane("a").counts == before


def test_the_sum_of_all_states_is_what_was_submitted() -> None:
    engine, records = engine_with(5)
    first = engine.start_next(1.0)
    assert first is records[0]
    engine.back_off(first, 2.0)
    second = engine.start_next(2.0)
    assert second is not None
    engine.finish(second, State.SUCCEEDED, 3.0)
    engine.finish(records[2], State.CANCELLED, 3.0)
    counts = engine.lane("a").counts
    assert sum(counts.values()) == engine.submitted == 5
    assert engine.live == 3
    assert {str(state): count for state, count in counts.items() if count} == {
        "ready": 2,
        "backoff": 1,
        "succeeded": 1,
        "cancelled": 1,
    }
    engine.make_ready(first, 4.0)
    assert engine.start_next(4.0) is first
    assert first.attempt == 2
