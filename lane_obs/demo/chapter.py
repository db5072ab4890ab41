"""The chapters of the story: when each is told, which alerts it is meant to raise, and which panels show it."""

from __future__ import annotations

from typing import Final

import msgspec

ROUND_SECONDS: Final = 60.0
"""How long the whole story takes."""


class StoryAlert(msgspec.Struct, frozen=True, order=True):
    """An alert that the story is meant to raise.

    Attributes:
        alert: its name.
        severity: `warning` or `critical`.
        lane: the lane; empty for the queue.
        in_real_time: what it watches passes in real time whatever the story's clock does.
    """

    alert: str
    severity: str
    lane: str
    in_real_time: bool = False


class Panel(msgspec.Struct, frozen=True):
    """A panel of a Grafana dashboard: the dashboard's file in `dashboards/` and the panel's title."""

    dashboard: str
    title: str


class Chapter(msgspec.Struct, frozen=True):
    """One chapter. Times are seconds from the start of the story.

    Attributes:
        name: one word.
        title: what happens, in a few words.
        what: the same in a sentence.
        at: when it begins; it lasts until the next one does.
        settled: by when nothing is left of it: a story that ends sooner does without it.
        alerts: those that it is meant to raise.
        panels: where to see it.
    """

    name: str
    title: str
    what: str
    at: float
    settled: float
    alerts: tuple[StoryAlert, ...] = ()
    panels: tuple[Panel, ...] = ()


def _alert(alert: str, severity: str, lane: str) -> StoryAlert:
    return StoryAlert(alert, severity, lane)


def _panels(dashboard: str, *titles: str) -> tuple[Panel, ...]:
    return tuple(Panel(dashboard, title) for title in titles)


CHAPTERS: Final = (
    Chapter(
        "warm_up", "Steady traffic",
        "Six lanes take what an agent sends them. One query in twenty-five and one prompt in eleven fails and is tried "
        "again. `session` has a rate limit, of which a summary takes eight times as much as the rest.",
        0.0, 6.0,
        panels=(
            *_panels("overview", "Submits by lane", "Ends by lane"),
            *_panels("lane", "Rate limit left", "Held back"),
        ),
    ),
    Chapter(
        "burst", "A burst of prompts",
        "64 prompts come within half a second, and their lane runs two at a time. One passes its deadline there. "
        "Who waits five seconds becomes more important.",
        6.0, 28.0,
        alerts=(
            _alert("LaneReadyDepthHigh", "warning", "prompt"),
            _alert("LaneOldestReadyAgeHigh", "warning", "prompt"),
            _alert("LaneWaitBudgetBurnFast", "critical", "prompt"),
            _alert("LaneWaitBudgetBurnSlow", "warning", "prompt"),
        ),
        panels=(
            *_panels("overview", "Ready by lane", "Oldest ready by lane"),
            *_panels("lane", "Wait", "Wait by cause", "Boosts"),
        ),
    ),
    Chapter(
        "control", "A control command jumps the queue",
        "`stop_agent` arrives while some forty prompts wait, starts at once, and cancels three of them.",
        10.0, 28.0,
        panels=(*_panels("overview", "Oldest ready by lane"), *_panels("lane", "Wait quantiles")),
    ),
    Chapter(
        "tools", "Slow and failing tools",
        "In `skill` half of the calls fail for good, a quarter hangs until its time-out, a quarter fails once. "
        "Each of four agents has one call at a time.",
        18.0, 40.0,
        alerts=(
            _alert("LaneErrorRatioHigh", "warning", "skill"),
            _alert("LaneErrorRatioHigh", "critical", "skill"),
            _alert("LaneTimeoutRatioHigh", "warning", "skill"),
            _alert("LaneRetryStorm", "warning", "skill"),
            _alert("LaneDeadLettersGrowing", "warning", "skill"),
        ),
        panels=(
            *_panels("overview", "Error ratio by lane"),
            *_panels("lane", "Attempts by outcome", "Time-outs", "Retry ratio", "New dead letters", "Partitions"),
        ),
    ),
    Chapter(
        "stall", "A lane stalls",
        "Five commands hang and have all slots of `session`. It fills up and refuses work, until `cancel_sessions` "
        "ends them.",
        28.0, 40.0,
        alerts=(_alert("LaneStalled", "critical", "session"),),
        panels=(
            *_panels("overview", "Refused submits"),
            *_panels("lane", "Oldest ready age", "Oldest running", "Submits and ends"),
        ),
    ),
    Chapter(
        "block", "A command blocks the event loop",
        "`parse_huge_page` computes on the event loop three times, half a second each, where nothing else can run.",
        40.0, 55.0,
        alerts=(StoryAlert("QueueEventLoopLag", "warning", "", in_real_time=True),),
        panels=_panels("process", "Event loop lag", "Dispatch delay"),
    ),
    Chapter(
        "starvation", "More important lanes starve a lane",
        "Twenty queries a second take every slot that lanes share; `prompt` is left with the one reserved for it.",
        43.0, 56.0,
        alerts=(_alert("LaneStarved", "warning", "prompt"),),
        panels=_panels("lane", "Passed over", "Wait by cause"),
    ),
    Chapter(
        "calm", "Calm",
        "Steady traffic again, and every alert is over.",
        52.0, ROUND_SECONDS,
        panels=_panels("overview", "Alerts of the monitor", "Events lost"),
    ),
)  # fmt: skip
"""All chapters, in order."""

STORY_ALERTS: Final = tuple(alert for chapter in CHAPTERS for alert in chapter.alerts)
"""What the whole story is meant to raise, each once a round, and nothing else."""


def told_in(seconds: float) -> tuple[Chapter, ...]:
    """The chapters that a story of so many seconds has time for; the first one always."""
    return tuple(chapter for chapter in CHAPTERS if chapter.settled <= seconds) or CHAPTERS[:1]


def chapter_at(chapters: tuple[Chapter, ...], at: float) -> Chapter:
    """The chapter that is told at a time."""
    return max((chapter for chapter in chapters if chapter.at <= at), key=lambda chapter: chapter.at)
