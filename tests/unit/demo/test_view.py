"""What the demo draws: a picture that is as high as the terminal and has what matters, or plain lines."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from lane_obs.cli.live import LiveView, PlainView, make_view
from lane_obs.cli.picture import Bars, Picture
from lane_obs.demo.play import Demo
from lane_obs.demo.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs import VirtualClock


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def console(file: io.StringIO, width: int = 120, height: int = 40) -> Console:
    return Console(
        file=file, width=width, height=height, force_terminal=True, color_system=None, _environ={"TERM": "xterm"}
    )


def drawn(picture: Picture, demo: Demo, width: int, height: int, said: tuple[str, ...] = ()) -> list[str]:
    target = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    with target.capture() as captured:
        target.print(picture.draw(demo, said))
    return [line.rstrip() for line in captured.get().splitlines()]


async def until(clock: VirtualClock, look: Callable[[Demo], object], at: float, before: float = 0.5) -> Demo:
    """A demo that is looked at twice, the second time at `at`, and then stopped."""
    config, monitor = load_settings()
    demo = Demo(config, monitor, clock, block=lambda _seconds: None)
    playing = asyncio.ensure_future(demo.play())
    await clock.advance(at - before)
    look(demo)
    await clock.advance(before)
    look(demo)
    demo.stop()
    await clock.run(playing)
    await clock.run(demo.close())
    return demo


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60), (100, 30)])
async def test_the_picture_is_as_high_as_the_terminal(clock: VirtualClock, width: int, height: int) -> None:
    picture = Picture(console(io.StringIO(), width, height))
    pictures: list[list[str]] = []
    await until(clock, lambda demo: pictures.append(drawn(picture, demo, width, height, ("metrics at x",))), 14.5)
    for lines in pictures:
        assert len(lines) <= height
        assert max(map(len, lines)) <= width
        assert lines[-1] == "metrics at x"
    assert len({len(lines) for lines in pictures}) == 1


async def test_the_picture_shows_lanes_causes_alerts_and_failures(clock: VirtualClock) -> None:
    picture = Picture(console(io.StringIO()))
    pictures: list[str] = []
    await until(clock, lambda demo: pictures.append("\n".join(drawn(picture, demo, 120, 40))), 14.5, 2.5)
    text = pictures[-1]
    assert "3 of 8: A control command jumps the queue" in text
    assert "14.5 of 60 s" in text
    [prompt] = [line for line in text.splitlines() if line.startswith("prompt")]
    assert "█" in prompt
    assert "2/2" in prompt
    assert "slots 100%" in prompt
    assert "firing   LaneReadyDepthHigh in lane 'prompt'" in text
    assert "warning above 20" in text
    assert "given up   expired" in text
    [everything] = [line for line in text.splitlines() if line.startswith("all")]
    assert "/12" in everything


async def test_a_lane_that_is_passed_over_says_so(clock: VirtualClock) -> None:
    picture = Picture(console(io.StringIO()))
    pictures: list[str] = []
    await until(clock, lambda demo: pictures.append("\n".join(drawn(picture, demo, 120, 40))), 48.0, 2.0)
    [prompt] = [line for line in pictures[-1].splitlines() if line.startswith("prompt")]
    assert "priority" in prompt


def test_bars() -> None:
    bars, plain = Bars(10, ascii_only=False), Bars(10, ascii_only=True)
    assert [bars.draw(value, 10) for value in (0, 0.5, 5, 10, 99)] == ["", "▌", "█████", "█" * 10, "█" * 10]
    assert [plain.draw(value, 10) for value in (0, 5, 99)] == ["", "#####", "#" * 10]


# --- which view, and what it writes


def test_a_terminal_is_drawn_on_unless_that_is_not_wanted() -> None:
    assert isinstance(make_view(console(Terminal()), screen=True), LiveView)
    assert isinstance(make_view(console(Terminal()), screen=False), PlainView)
    assert isinstance(make_view(console(io.StringIO()), screen=True), PlainView)
    dumb = Console(file=Terminal(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(make_view(dumb, screen=True), PlainView)


async def test_the_live_view_gives_the_terminal_back_with_what_was_said(clock: VirtualClock) -> None:
    file = Terminal()
    view = make_view(console(file), screen=True)
    view.say("metrics at x")
    assert file.getvalue() == ""  # a fault before the first picture leaves the terminal alone
    await until(clock, view.show, 8.0)
    assert file.getvalue().count("\x1b[?1049h") == 1
    assert "\x1b[2K" not in file.getvalue()  # nothing is wiped: no flicker
    view.close()
    view.close()
    assert file.getvalue().count("\x1b[?1049l") == 1
    view.say("over")
    after = file.getvalue().rpartition("\x1b[?1049l")[2]
    assert "metrics at x" in after
    assert after.rstrip().endswith("over")


async def test_the_plain_view_tells_of_each_alert_once_and_now_and_then_how_it_goes(clock: VirtualClock) -> None:
    file = io.StringIO()
    view = make_view(Console(file=file, width=120), screen=True)
    config, monitor = load_settings()
    demo = Demo(config, monitor, clock, seconds=28.0, block=lambda _seconds: None)
    playing = asyncio.ensure_future(demo.play())
    for _ in range(28):
        await clock.advance(1.0)
        view.show(demo)
    await clock.run(playing)
    view.close()
    await clock.run(demo.close())
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("at 1.0 s, Steady traffic: 0 commands ended (0 badly), 0 running")
    alerts = [line for line in lines if "ALERT: LaneReadyDepthHigh (warning, prompt)" in line]
    assert len(alerts) == 1
    assert alerts[0].endswith("warning above 20.")
    assert sum("over: LaneReadyDepthHigh (warning, prompt)" in line for line in lines) == 1
    assert sum("ALERT" in line for line in lines) == sum("over:" in line for line in lines) == 4
