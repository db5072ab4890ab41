"""The story in virtual time: what it raises, that it is the same each time, and how it is stopped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from lane_obs import MemorySink, SystemClock, VirtualClock
from lane_obs.demo.chapter import STORY_ALERTS
from lane_obs.demo.play import Demo
from lane_obs.demo.settings import load_settings
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.events import LaneEvent

# The loop's lag passes in real time, of which virtual time has none.
STORY = sorted((alert.alert, alert.severity, alert.lane) for alert in STORY_ALERTS if not alert.in_real_time)
SEEDS = (1, 2, 3, 4, 5, 6)


class Everything:
    """A sink that keeps all events."""

    def __init__(self) -> None:
        self.events: list[LaneEvent] = []

    def handle(self, events: Sequence[LaneEvent]) -> None:
        self.events += events

    def close(self) -> None:
        """Keeps what it has."""


def make(clock: VirtualClock | SystemClock, seconds: float = 60.0, **options: object) -> Demo:
    """A demo that does not block the loop, which would be in real time."""
    config, monitor = load_settings()
    return Demo(config, monitor, clock, seconds=seconds, **{"block": lambda _seconds: None, **options})


async def play(clock: VirtualClock, demo: Demo) -> None:
    async def whole() -> None:
        await demo.play()
        await demo.close()

    await clock.run(whole())


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_seed_raises_the_same_alerts_once_each_and_no_others(clock: VirtualClock, seed: int) -> None:
    demo = make(clock, seed=seed)
    await play(clock, demo)
    episodes = demo.chronicle.episodes
    assert sorted((one.alert, one.severity, one.lane) for one in episodes) == STORY
    assert all(one.resolved_at is not None and one.resolved_at < 57 for one in episodes)
    assert demo.elapsed_seconds == pytest.approx(60.0, abs=1.0)
    assert all(sink.errors == 0 for sink in demo.sink_stats())


@pytest.mark.both_loops
async def test_the_same_seed_runs_the_same_event_for_event(clock: VirtualClock) -> None:
    async def events() -> list[tuple[str, float, dict[str, object]]]:
        own, sink = VirtualClock(), Everything()
        await play(own, make(own, 40.0, seed=9, sinks=[sink]))
        return [(event.key, event.at, event.payload) for event in sink.events]

    first = await events()
    assert first == await events()
    assert len(first) > 1_000


async def test_each_kind_of_trouble_happens(clock: VirtualClock) -> None:
    demo = make(clock)
    await play(clock, demo)
    chapters = demo.chronicle.chapters
    assert chapters["burst"]["prompt"].outcomes == {"succeeded": 60, "expired": 1, "cancelled": 3}
    assert chapters["burst"]["prompt"].peak_waiting > 50
    assert chapters["tools"]["skill"].outcomes == {"failed": 10, "timed out": 5, "succeeded": 5}
    assert chapters["tools"]["skill"].retries == {"error": 25, "timeout": 10}
    assert chapters["tools"]["skill"].dead == 15
    assert chapters["stall"]["session"].outcomes["cancelled"] == 5
    assert chapters["stall"]["session"].rejected > 5
    starved = chapters["starvation"]["prompt"].waited
    assert starved.priority > 0.8 * starved.total
    whole = demo.chronicle.lanes()
    assert sum(tally.submitted for tally in whole.values()) == sum(tally.ended for tally in whole.values())
    assert whole["prompt"].retries["error"] > 0


async def test_a_control_command_starts_at_once_while_prompts_wait(clock: VirtualClock) -> None:
    demo = make(clock, 28.0)
    await play(clock, demo)
    jump = demo.chronicle.jump
    assert jump is not None
    assert jump.wait_seconds == 0.0
    assert jump.waiting > 30
    assert jump.oldest_seconds > 3


async def test_each_round_has_its_own_chapters_and_all_count(clock: VirtualClock) -> None:
    demo = make(clock, 120.0)
    await play(clock, demo)
    told = demo.chronicle.round
    assert told is not None
    assert told.number == 2
    assert sorted((one.alert, one.severity, one.lane) for one in demo.chronicle.episodes) == STORY
    assert all(0 < one.fired_at < 57 for one in demo.chronicle.episodes)
    burst = demo.chronicle.chapters["burst"]["prompt"]
    assert (burst.submitted, demo.chronicle.earlier["prompt"].submitted > 100) == (64, True)
    assert demo.chronicle.lanes()["prompt"].outcomes["expired"] == 2


async def test_the_loop_is_held_up_three_times_in_the_time_of_the_clock(clock: VirtualClock) -> None:
    held: list[float] = []
    await play(clock, make(clock, 56.0, block=held.append, speed=5.0))
    assert held == [0.1] * 3


# --- stop


async def test_a_story_that_is_stopped_submits_no_more_and_runs_what_it_has(clock: VirtualClock) -> None:
    memory = MemorySink()
    demo = make(clock, sinks=[memory])
    playing = asyncio.ensure_future(demo.play())
    await clock.run(memory.wait_for("queue.alert.firing"))
    assert demo.chapter is not None
    assert demo.chapter.name == "burst"
    demo.stop()
    await clock.run(playing)
    assert demo.stopped
    burst = demo.chronicle.chapters["burst"]["prompt"]
    assert burst.submitted == burst.ended == 64
    assert demo.elapsed_seconds < 20
    await clock.run(demo.close())


async def test_what_hangs_does_not_hold_up_the_stop(clock: VirtualClock) -> None:
    demo = make(clock)
    playing = asyncio.ensure_future(demo.play())
    await clock.advance(30.0)
    assert demo.manager.stats().lanes["session"].running == 5
    demo.stop()
    await clock.run(playing)
    assert demo.elapsed_seconds < 34
    assert demo.chronicle.chapters["stall"]["session"].outcomes["cancelled"] == 5
    await clock.run(demo.close())


async def test_a_second_call_cancels_what_is_left(clock: VirtualClock) -> None:
    demo = make(clock)
    playing = asyncio.ensure_future(demo.play())
    await clock.advance(7.0)
    waiting = demo.manager.stats().total_pending
    assert waiting > 40
    demo.stop()
    demo.cancel()
    await clock.run(playing)
    assert demo.chronicle.chapters["burst"]["prompt"].outcomes["cancelled"] > 40
    await clock.run(demo.close())
    assert demo.manager.stats().total_active == 0


async def test_a_story_that_is_stopped_before_it_begins_tells_nothing(clock: VirtualClock) -> None:
    demo = make(clock)
    assert demo.chapter is None
    demo.stop()
    await play(clock, demo)
    assert demo.chronicle.round is None
    assert demo.manager.stats().submitted == 0


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), True, "60"])
def test_a_story_takes_some_time(seconds: object) -> None:
    with pytest.raises(ConfigError, match="seconds"):
        make(SystemClock(), seconds)  # type: ignore[arg-type]
