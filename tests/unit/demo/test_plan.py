"""The plan of the story: drawn from a seed, whole, and as long as it was asked for."""

from __future__ import annotations

import itertools

import pytest

from lane_obs import DEFAULT_LANES
from lane_obs.demo.chapter import CHAPTERS, ROUND_SECONDS, STORY_ALERTS, chapter_at, told_in
from lane_obs.demo.plan import HUNG, STOPPED, Does, Round, Step, rounds

SEEDS = range(20)


def whole(seed: int = 1, seconds: float = 60.0) -> Round:
    [told] = rounds(seconds, seed)
    return told


def of(told: Round, chapter: str, lane: str) -> list[Step]:
    return [step for step in told.steps if (step.chapter, step.lane) == (chapter, lane)]


def test_the_same_seed_plans_the_same_story() -> None:
    assert list(rounds(200.0, 7)) == list(rounds(200.0, 7))


def test_another_seed_plans_another_story_of_the_same_chapters() -> None:
    one, other = whole(1), whole(2)
    assert one.steps != other.steps
    assert one.chapters == other.chapters == CHAPTERS


@pytest.mark.parametrize("seed", SEEDS)
def test_steps_come_in_order_each_with_an_id_of_its_own(seed: int) -> None:
    steps = [step for told in rounds(120.0, seed) for step in told.steps]
    assert len({step.id for step in steps}) == len(steps)
    assert {step.lane for step in steps} == set(DEFAULT_LANES)
    for told in rounds(120.0, seed):
        assert all(one.at <= two.at for one, two in itertools.pairwise(told.steps))
        assert told.steps[0].at >= 2.0
        assert told.steps[-1].at < told.seconds
        assert all(step.chapter == chapter_at(CHAPTERS, step.at).name for step in told.steps)


def test_each_chapter_brings_what_its_title_says() -> None:
    told = whole()
    assert len(of(told, "burst", "prompt")) == 64
    assert sum(step.group == STOPPED for step in told.steps) == 3
    assert [step.deadline for step in told.steps if step.deadline is not None] == [4.0]
    assert [step.command_type for step in told.steps if step.cancels] == ["stop_agent", "cancel_sessions"]
    tools = of(told, "tools", "skill")
    assert len(tools) == 20
    assert sum(step.fails > 2 for step in tools) == 10
    assert sum(step.fails == 1 for step in tools) == 5
    hung = [step for step in told.steps if step.does is Does.HANG]
    assert [step.group for step in hung] == [HUNG] * 5
    assert [step.command_type for step in told.steps if step.does is Does.BLOCK] == ["parse_huge_page"] * 3
    assert len(of(told, "starvation", "query")) > 160


def test_whatever_fails_says_with_what() -> None:
    for seed in SEEDS:
        for step in whole(seed).steps:
            assert bool(step.fails) is bool(step.error), step


@pytest.mark.parametrize(
    ("seconds", "count", "each"), [(60.0, 1, 60.0), (119.9, 1, 119.9), (120.0, 2, 60.0), (200.0, 3, 200 / 3)]
)
def test_a_longer_story_has_more_rounds_or_longer_calms(seconds: float, count: int, each: float) -> None:
    told = list(rounds(seconds, 1))
    assert [one.number for one in told] == list(range(1, count + 1))
    assert [one.seconds for one in told] == [each] * count
    assert all(one.chapters == CHAPTERS for one in told)
    assert told[0].steps[-1].at > each - 2.0
    assert len({one.steps for one in told}) == count


@pytest.mark.parametrize(
    ("seconds", "names"),
    [
        (0.5, ["warm_up"]),
        (6.0, ["warm_up"]),
        (27.9, ["warm_up"]),
        (28.0, ["warm_up", "burst", "control"]),
        (40.0, ["warm_up", "burst", "control", "tools", "stall"]),
        (59.0, ["warm_up", "burst", "control", "tools", "stall", "block", "starvation"]),
    ],
)
def test_a_shorter_story_leaves_out_what_would_not_be_over(seconds: float, names: list[str]) -> None:
    told = whole(seconds=seconds)
    assert [chapter.name for chapter in told.chapters] == names
    assert {step.chapter for step in told.steps} <= set(names)


def test_chapters_that_are_left_out_do_not_change_the_others() -> None:
    def told(seconds: float) -> list[tuple[float, str, float]]:
        steps = [step for step in whole(3, seconds).steps if step.chapter == "burst" and step.lane == "prompt"]
        return [(step.at, step.command_type, step.seconds) for step in steps]

    assert told(28.0) == told(60.0)


def test_a_round_has_time_for_all_chapters() -> None:
    assert told_in(ROUND_SECONDS) == CHAPTERS
    assert all(one.at < two.at and one.settled <= two.settled for one, two in itertools.pairwise(CHAPTERS))
    assert len(set(STORY_ALERTS)) == len(STORY_ALERTS)
