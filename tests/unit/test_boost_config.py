"""Priority boosts: their steps, what they come to at an age, and what is refused with which words."""

from __future__ import annotations

import dataclasses
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from lane_obs import ConfigError, PriorityBoost
from lane_obs.config.file import boost_from_table

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS_ABOVE_ZERO = "seconds above zero"
PAIRS = "one or more pairs"


def custom(steps: Any) -> Callable[[], PriorityBoost]:
    return lambda: PriorityBoost.custom(steps)


BAD: list[tuple[Callable[[], PriorityBoost], str, object, str]] = [
    (lambda: PriorityBoost.standard(0), "boost.deadline", 0, SECONDS_ABOVE_ZERO),
    (lambda: PriorityBoost.aggressive(-1), "boost.deadline", -1, SECONDS_ABOVE_ZERO),
    (lambda: PriorityBoost.standard(True), "boost.deadline", True, SECONDS_ABOVE_ZERO),
    (lambda: PriorityBoost.standard(math.inf), "boost.deadline", math.inf, SECONDS_ABOVE_ZERO),
    (lambda: PriorityBoost.standard("30"), "boost.deadline", "30", SECONDS_ABOVE_ZERO),  # type: ignore[arg-type]
    (lambda: PriorityBoost.standard(30, floor=0.5), "boost.floor", 0.5, "whole number"),  # type: ignore[arg-type]
    (lambda: PriorityBoost.ageing(1, floor=True), "boost.floor", True, "whole number"),
    (lambda: PriorityBoost.ageing(0), "boost.every", 0, SECONDS_ABOVE_ZERO),
    (lambda: PriorityBoost.ageing(None), "boost.every", None, SECONDS_ABOVE_ZERO),  # type: ignore[arg-type]
    (lambda: PriorityBoost.ageing(1e-7), "boost.every", 1e-7, "a microsecond or more"),
    (lambda: PriorityBoost.ageing(1, 0), "boost.by", 0, "whole number of 1 or more"),
    (lambda: PriorityBoost.ageing(1, 1.5), "boost.by", 1.5, "whole number of 1 or more"),  # type: ignore[arg-type]
    (lambda: PriorityBoost(), "boost.steps", (), PAIRS),
    (lambda: PriorityBoost(steps=((0.5, 1),), by=2), "boost.by", 2, "without every"),
    (lambda: PriorityBoost(every=1, deadline=0), "boost.deadline", 0, "the age alone decides"),
    (lambda: PriorityBoost(every=1, steps=((0.5, 1),)), "boost.steps", ((0.5, 1),), "the age alone decides"),
    (custom([]), "boost.steps", [], PAIRS),
    (custom("steps"), "boost.steps", "steps", PAIRS),
    (custom([0.5, 1]), "boost.steps", 0.5, PAIRS),
    (custom([(0.5, 1, 2)]), "boost.steps", (0.5, 1, 2), PAIRS),
    (custom([(1.5, 1)]), "boost.steps", 1.5, "share of the deadline from 0 to 1"),
    (custom([(-0.1, 1)]), "boost.steps", -0.1, "share of the deadline from 0 to 1"),
    (custom([(True, 1)]), "boost.steps", True, "share of the deadline from 0 to 1"),
    (custom([("half", 1)]), "boost.steps", "half", "share of the deadline from 0 to 1"),
    (custom([(0.5, 0)]), "boost.steps", 0, "whole number of 1 or more"),
    (custom([(0.5, 1.5)]), "boost.steps", 1.5, "whole number of 1 or more"),
    (custom([(0.5, 1), (0.5, 2)]), "boost.steps", 0.5, "a share below the one before, which is 0.5"),
    (custom([(0.5, 1), (0.6, 2)]), "boost.steps", 0.6, "a share below the one before, which is 0.5"),
    (custom([(0.5, 2), (0.4, 2)]), "boost.steps", 2, "a boost above the one before, which is 2"),
]


@pytest.mark.parametrize(("build", "field", "value", "allowed"), BAD, ids=range(len(BAD)))
def test_a_bad_value_is_named_with_what_is_allowed(
    build: Callable[[], PriorityBoost], field: str, value: object, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build()
    assert (caught.value.field, caught.value.value) == (field, value)
    assert allowed in caught.value.allowed


def test_nan_is_neither_a_duration_nor_a_share() -> None:
    for build in (PriorityBoost.standard, PriorityBoost.ageing, lambda nan: PriorityBoost.custom(((nan, 1),))):
        with pytest.raises(ConfigError, match=r"boost\.\w+: nan is not allowed"):
            build(math.nan)


# --- what a boost comes to --------------------------------------------------------------------------------------


def changes(boost: PriorityBoost, deadline: float | None = None) -> list[tuple[float, int]]:
    """Each age at which the boost changes, with what it changes to."""
    found, (_, age) = [], boost.at(0.0, deadline)
    while age < math.inf:
        less, following = boost.at(age, deadline)
        found.append((age, less))
        assert following > age
        age = following
    return found


def test_the_standard_boost_has_the_steps_of_the_reference() -> None:
    assert changes(PriorityBoost.standard(40)) == [(10, 1), (20, 2), (30, 3), (36, 4)]


def test_the_aggressive_boost_has_the_steps_of_the_reference() -> None:
    found = changes(PriorityBoost.aggressive(10))
    assert [less for _, less in found] == [2, 4, 6, 8]
    assert [age for age, _ in found] == pytest.approx([2, 4, 6, 8])


def test_a_boost_holds_from_its_step_to_the_next_and_past_the_deadline() -> None:
    boost = PriorityBoost.custom([(0.5, 1), (0, 7)], 10)  # type: ignore[arg-type]
    assert [boost.at(age)[0] for age in (0, 4.9, 5, 9.9, 10, 1e9)] == [0, 0, 1, 1, 7, 7]


def test_a_step_at_the_whole_deadline_holds_from_submit() -> None:
    assert PriorityBoost.custom(((1, 3),), 10).at(0.0) == (3, math.inf)


def test_a_deadline_of_its_own_goes_before_that_of_the_boost() -> None:
    assert PriorityBoost.standard(1_000).at(1.0, 4.0) == (1, 2.0)
    assert PriorityBoost.standard().at(1.0, 4.0) == (1, 2.0)


def test_without_any_deadline_there_is_no_boost() -> None:
    assert PriorityBoost.standard().at(1e9) == (0, math.inf)


def test_ageing_goes_on_with_the_age_whatever_the_deadline() -> None:
    boost = PriorityBoost.ageing(10, 3)
    assert [boost.at(age, 5.0) for age in (0, 9.9, 10, 25)] == [(0, 10), (0, 10), (3, 20), (6, 30)]


def test_a_clock_that_was_set_back_gives_no_boost() -> None:
    assert PriorityBoost.ageing(10).at(-35.0)[0] == PriorityBoost.standard(10).at(-35.0)[0] == 0


def test_only_ageing_is_ageing() -> None:
    assert PriorityBoost.ageing(1).is_ageing
    assert not PriorityBoost.standard(1).is_ageing


def test_the_level_never_falls_below_the_floor() -> None:
    boost = PriorityBoost.aggressive(10, floor=2)
    assert [boost.level(5, age)[0] for age in (0, 2, 4, 9)] == [5, 3, 2, 2]
    assert boost.level(5, 4.0)[1] == math.inf, "nothing changes any more"


def test_a_lane_that_is_more_important_than_the_floor_is_left_alone() -> None:
    assert PriorityBoost.aggressive(10).level(-1, 9.0) == (-1, math.inf)
    assert PriorityBoost.aggressive(10, floor=-3).level(-1, 9.0) == (-3, math.inf)
    assert PriorityBoost.standard(10).level(0, 0.0) == (0, math.inf)


@pytest.mark.parametrize("start", [0.0, 1e6, 1e9, 3e9])
@pytest.mark.parametrize("boost", [PriorityBoost.standard(1.1), PriorityBoost.ageing(0.1), PriorityBoost.ageing(1e-6)])
def test_a_timer_for_the_next_change_finds_it_made(start: float, boost: PriorityBoost) -> None:
    """The age is worked out from clock readings, which are rounded: a timer must not come due for nothing."""
    now = submitted_at = start + 0.3
    less, change = boost.at(0.0)
    for _ in range(50):
        if change == math.inf:
            break
        now = submitted_at + change
        more, following = boost.at(now - submitted_at)
        assert more > less
        assert following > change
        less, change = more, following


def test_durations_may_be_timedeltas() -> None:
    assert PriorityBoost.standard(timedelta(seconds=30)) == PriorityBoost.standard(30.0)
    assert PriorityBoost.ageing(timedelta(minutes=1)) == PriorityBoost.ageing(60)


def test_a_boost_is_a_frozen_value() -> None:
    boost = PriorityBoost.custom([[0.5, 1]], 3)  # type: ignore[arg-type,list-item]
    assert boost == PriorityBoost(steps=((0.5, 1),), deadline=3.0)
    assert len({boost, dataclasses.replace(boost), dataclasses.replace(boost, floor=-1)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        boost.floor = 1  # type: ignore[misc]


# --- the bound on starvation ------------------------------------------------------------------------------------


def test_the_bound_of_ageing_is_the_formula_of_the_docs() -> None:
    boost = PriorityBoost.ageing(10, 2)
    assert [boost.bound(5, other) for other in (5, 4, 3, 2, 1, 0)] == [0, 10, 10, 20, 20, 30]


def test_there_is_no_bound_beyond_the_floor() -> None:
    assert PriorityBoost.ageing(10, floor=2).bound(5, 1) == math.inf
    assert PriorityBoost.ageing(10, floor=1).bound(5, 1) == 40
    assert PriorityBoost.ageing(10).bound(3, -1) == math.inf
    assert PriorityBoost.ageing(10).bound(-1, 3) == 0


def test_steps_are_bound_by_their_deadline_and_their_largest_boost() -> None:
    boost = PriorityBoost.standard(40)
    assert [boost.bound(5, other) for other in (4, 3, 2, 1, 0)] == [10, 20, 30, 36, math.inf]
    assert boost.bound(5, 4, 8.0) == 2
    assert PriorityBoost.standard().bound(5, 4) == math.inf


@pytest.mark.parametrize("boost", [PriorityBoost.ageing(7, 2, floor=-5), PriorityBoost.aggressive(11, floor=-2)])
def test_the_bound_is_the_first_age_at_which_the_level_is_there(boost: PriorityBoost) -> None:
    for priority in range(-4, 8):
        for other in range(-6, 8):
            bound = boost.bound(priority, other)
            if bound == math.inf:
                assert boost.level(priority, 1e6)[0] > other
            else:
                assert boost.level(priority, bound)[0] <= other
                assert not bound or boost.level(priority, bound - 0.001)[0] > other


# --- from a file ------------------------------------------------------------------------------------------------


def read(toml: str) -> PriorityBoost:
    return boost_from_table("boost", msgspec.toml.decode(toml)["boost"])


@pytest.mark.parametrize(
    ("toml", "boost"),
    [
        ("{ standard = 30 }", PriorityBoost.standard(30)),
        ("{ standard = true }", PriorityBoost.standard()),
        ("{ aggressive = 0.5, floor = -2 }", PriorityBoost.aggressive(0.5, floor=-2)),
        ("{ steps = [[0.5, 1], [0.1, 5]], deadline = 30 }", PriorityBoost.custom(((0.5, 1), (0.1, 5)), 30)),
        ("{ steps = [[0.5, 1]] }", PriorityBoost.custom(((0.5, 1),))),
        ("{ ageing = 10 }", PriorityBoost.ageing(10)),
        ("{ ageing = 10, by = 2, floor = 1 }", PriorityBoost.ageing(10, 2, floor=1)),
    ],
)
def test_every_kind_can_be_read(toml: str, boost: PriorityBoost) -> None:
    assert read(f"boost = {toml}") == boost


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("30", "boost: 30 is not allowed; give a table"),
        ("{}", "give one of standard, aggressive, steps, ageing"),
        ("{ floor = 1 }", "give one of standard, aggressive, steps, ageing"),
        ("{ standard = 3, ageing = 4 }", "give one of standard, aggressive, steps, ageing"),
        ("{ standart = 3 }", "boost.standart: 3 is not allowed; unknown key; did you mean 'standard'?"),
        ("{ aging = 3 }", "boost.aging: 3 is not allowed; unknown key; did you mean 'ageing'?"),
        ("{ ageing = 3, flor = 1 }", "boost.flor: 1 is not allowed; unknown key; did you mean 'floor'?"),
        ("{ standard = 3, by = 1 }", "boost.by: 1 is not allowed; unknown key; known keys: standard, aggressive,"),
        ("{ ageing = 3, deadline = 1 }", "boost.deadline: 1 is not allowed; unknown key"),
        ("{ standard = 0 }", "boost.standard: 0 is not allowed; give finite seconds above zero"),
        ("{ aggressive = false }", "boost.aggressive: False is not allowed; give finite seconds above zero"),
        ("{ ageing = true }", "boost.ageing: True is not allowed; give finite seconds above zero"),
        ("{ ageing = 1e-9 }", "boost.ageing: 1e-09 is not allowed; give a microsecond or more"),
        ("{ ageing = 1, by = 0 }", "boost.by: 0 is not allowed; give a whole number of 1 or more"),
        ("{ steps = 3 }", "boost.steps: 3 is not allowed; give one or more pairs"),
        ("{ steps = [[0.5, 1]], deadline = true }", "boost.deadline: True is not allowed; give finite seconds"),
        ("{ steps = [[0.5, 1]], floor = 'low' }", "boost.floor: 'low' is not allowed; give a whole number"),
    ],
)
def test_a_mistake_in_a_file_is_named_by_its_key(toml: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(f"boost = {toml}")
    assert message in str(caught.value)


def test_the_table_may_have_a_name_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r"^lanes\.api\.boost\.ageing: -1 "):
        boost_from_table("lanes.api.boost", {"ageing": -1})
