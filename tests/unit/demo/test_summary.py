"""The summary explains what did happen: each figure is one of the events, and what is missing is told."""

from __future__ import annotations

import asyncio
import io
import re
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from lane_obs.cli.tale import print_summary
from lane_obs.demo.chapter import CHAPTERS, STORY_ALERTS
from lane_obs.demo.chronicle import Episode, LaneTally
from lane_obs.demo.play import Demo
from lane_obs.demo.settings import load_settings
from lane_obs.demo.summary import Summary, causes, count, endings, seconds, summarize
from lane_obs.events import WaitByCause

if TYPE_CHECKING:
    from lane_obs import VirtualClock


async def tell(clock: VirtualClock, length: float = 60.0, until: float | None = None) -> tuple[Demo, Summary]:
    config, monitor = load_settings()
    demo = Demo(config, monitor, clock, seconds=length, block=lambda _seconds: None)
    playing = asyncio.ensure_future(demo.play())
    if until is not None:
        await clock.advance(until)
        demo.stop()
    await clock.run(playing)
    summary = summarize(demo)
    await clock.run(demo.close())
    return demo, summary


def text_of(summary: Summary, *, stopped: bool = False, width: int = 200) -> str:
    file = io.StringIO()
    print_summary(Console(file=file, width=width, color_system=None), summary, stopped=stopped)
    return file.getvalue()


async def test_each_chapter_is_told_with_its_alerts_and_its_panels(clock: VirtualClock) -> None:
    _, summary = await tell(clock)
    assert [tale.chapter for tale in summary.tales] == list(CHAPTERS)
    text = text_of(summary)
    for number, chapter in enumerate(CHAPTERS, 1):
        assert f"{number}. {chapter.title} (from {chapter.at:g} s)" in text
        assert all(f'"{panel.title}"' in text for panel in chapter.panels)
    assert len(re.findall(r"Alert \w+ \(\w+, \w+\) fired at [\d.]+ s and was over at [\d.]+ s\.", text)) == 11
    assert summary.others == summary.open == summary.untold == ()


async def test_figures_are_those_of_the_events(clock: VirtualClock) -> None:
    demo, summary = await tell(clock)
    text = text_of(summary)
    chapters, jump = demo.chronicle.chapters, demo.chronicle.jump
    assert jump is not None
    burst, session = chapters["burst"]["prompt"], chapters["stall"]["session"]
    assert f"64 prompts came at once, and the lane runs two at a time: {burst.peak_waiting} waited" in text
    assert f"one of them for {burst.longest_wait:.1f} s; the cause was slots (100%)." in text
    assert "In the end: 60 succeeded, 1 expired, 3 cancelled." in text
    assert f"stop_agent waited 0.0 ms, while {jump.waiting} prompts had been waiting for up to" in text
    assert "20 calls of tools: 5 succeeded, 10 failed, 5 timed out." in text
    assert "35 were tried again (25 after an error, 10 after a time-out), in vain for the 15 dead letters." in text
    assert f"{session.rejected} submits more found it full and were refused." in text
    assert "cancelled 5 and the lane went on." in text
    assert f"{demo.chronicle.events:,} events went to" in text
    submitted = sum(tally.submitted for tally in summary.lanes.values())
    assert submitted == demo.manager.stats().submitted


async def test_an_alert_that_was_meant_to_fire_and_did_not_is_told(clock: VirtualClock) -> None:
    _, summary = await tell(clock)
    assert [alert.alert for alert in summary.missing] == ["QueueEventLoopLag"]  # virtual time has no lag
    text = text_of(summary)
    assert "Alert QueueEventLoopLag (warning, queue) was meant to fire and did not." in text
    assert f"Alerts: 11 of the {len(STORY_ALERTS)} that the story is meant to raise fired, and all are over." in text
    assert "measured in real time" in text
    assert "for too short a time" in text


async def test_an_alert_that_is_no_part_of_the_story_is_told(clock: VirtualClock) -> None:
    demo, _ = await tell(clock, 28.0)
    demo.chronicle.episodes.append(Episode("LaneCommandsStuck", "warning", "query", 3.0))
    text = text_of(summarize(demo))
    assert "Alert LaneCommandsStuck (warning, query) fired at 3.0 s and fires still. It is no part of the story" in text
    assert "LaneCommandsStuck fires still." in text


async def test_a_story_that_was_stopped_is_told_as_far_as_it_went(clock: VirtualClock) -> None:
    _, summary = await tell(clock, until=12.0)
    assert [tale.chapter.name for tale in summary.tales] == ["warm_up", "burst", "control"]
    assert summary.missing == ()
    text = text_of(summary, stopped=True)
    assert "Not told: Slow and failing tools, A lane stalls" in text
    assert "meant to raise" not in text


async def test_a_short_story_misses_nothing_that_it_has_no_time_for(clock: VirtualClock) -> None:
    _, summary = await tell(clock, 28.0)
    assert [tale.chapter.name for tale in summary.tales] == ["warm_up", "burst", "control"]
    assert summary.missing == summary.untold == ()
    assert "Alerts: 4 of the 4" in text_of(summary)


async def test_the_last_of_several_rounds_is_told_and_all_are_counted(clock: VirtualClock) -> None:
    _, summary = await tell(clock, 120.0)
    text = text_of(summary)
    assert summary.rounds == 2
    assert "The story was told 2 times; that was the last." in text
    assert summary.lanes["prompt"].outcomes["cancelled"] == 6


async def test_it_fits_a_narrow_terminal(clock: VirtualClock) -> None:
    _, summary = await tell(clock)
    text = text_of(summary, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


async def test_nothing_is_told_of_a_story_that_did_not_begin(clock: VirtualClock) -> None:
    config, monitor = load_settings()
    demo = Demo(config, monitor, clock)
    summary = summarize(demo)
    assert (summary.rounds, summary.tales) == (0, ())
    assert "0 events went to" in text_of(summary, stopped=True)


@pytest.mark.parametrize(
    ("given", "text"), [(0.0, "0.0 ms"), (0.0123, "12.3 ms"), (0.0999, "99.9 ms"), (0.1, "0.1 s"), (12.34, "12.3 s")]
)
def test_times_in_words(given: float, text: str) -> None:
    assert seconds(given) == text


def test_counts_in_words() -> None:
    assert (count(1, "time"), count(0, "time"), count(2, "query", "queries")) == ("1 time", "0 times", "2 queries")


def test_causes_and_ends_in_words() -> None:
    tally = LaneTally(submitted=5, waited=WaitByCause(slots=3.0, priority=1.0, pause=0.001))
    tally.outcomes["succeeded"], tally.outcomes["expired"] = 3, 1
    assert causes(tally) == "slots (75%) and priority (25%)"
    assert endings(tally) == "3 succeeded, 1 expired, 1 not ended"
    assert (causes(LaneTally()), endings(LaneTally())) == ("none", "none")
