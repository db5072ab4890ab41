"""What the demo shows while it runs: the whole queue, drawn anew on a terminal, or a plain line now and then."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from rich.live import Live

from lane_obs.cli.picture import Picture, alert_name, count_bad
from lane_obs.clock import SystemClock

if TYPE_CHECKING:
    from rich.console import Console

    from lane_obs.demo.play import Demo
    from lane_obs.monitor import Alert

_SAID_LINES: Final = 2
_KEPT_LINES: Final = 50


class View(Protocol):
    """Shows how the demo gets on."""

    every_seconds: float

    def show(self, demo: Demo) -> None:
        """Shows where it is."""

    def say(self, text: str) -> None:
        """Shows one line that stays."""

    def close(self) -> None:
        """Shows nothing any more."""


def make_view(console: Console, *, screen: bool) -> View:
    """A live view on a terminal that can redraw, unless it is not wanted; else a plain one."""
    able = console.file.isatty() and not console.is_dumb_terminal
    return LiveView(console) if screen and able else PlainView(console)


class PlainView:
    """One line every few seconds, and one for each alert that fires or is over."""

    every_seconds = 0.25
    _line_seconds = 5.0

    def __init__(self, console: Console) -> None:
        self._console = console
        self._clock = SystemClock()
        self._due = self._clock.now()
        self._firing: dict[tuple[str, str, str], bool] = {}

    def show(self, demo: Demo) -> None:
        """Prints what is new, and a line when it is time for one."""
        self._tell_alerts(demo)
        if self._clock.now() < self._due:
            return
        self._due = self._clock.now() + self._line_seconds
        stats, chapter = demo.manager.stats(), demo.chapter
        ended = sum(tally.ended for tally in demo.chronicle.lanes().values())
        bad = sum(count_bad(tally) for tally in demo.chronicle.lanes().values())
        self.say(
            f"at {demo.elapsed_seconds:.1f} s, {chapter.title if chapter else 'starting'}: {ended} commands ended "
            f"({bad} badly), {stats.total_active} running, {stats.total_pending} waiting"
        )

    def _tell_alerts(self, demo: Demo) -> None:
        now = {(alert.alert, alert.severity, alert.lane or ""): alert for alert in _firing(demo)}
        for name in [name for name in self._firing if name not in now]:
            del self._firing[name]
            self.say(f"at {demo.elapsed_seconds:.1f} s, over: {alert_name(*name)}")
        for name, alert in now.items():
            if name not in self._firing:
                self._firing[name] = True
                self.say(f"at {demo.elapsed_seconds:.1f} s, ALERT: {alert_name(*name)}: {alert.description}")

    def say(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Does nothing."""


class LiveView:
    """The whole terminal, drawn in one go. It has no thread of its own: whoever shows, draws."""

    every_seconds = 0.2

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: deque[str] = deque(maxlen=_KEPT_LINES)
        self._picture = Picture(console)
        # The second screen of the terminal: each picture is written over the last one, with nothing wiped first.
        self._live = Live(console=console, auto_refresh=False, screen=True)
        self._closed = False

    def show(self, demo: Demo) -> None:
        """Draws all of it."""
        if not self._live.is_started:
            self._live.start()
        self._live.update(self._picture.draw(demo, list(self._said)[-_SAID_LINES:]), refresh=True)

    def say(self, text: str) -> None:
        """Shows a line at the bottom, and once the view is closed."""
        if self._closed:
            self._console.print(text, markup=False, soft_wrap=True)
        else:
            self._said.append(text)

    def close(self) -> None:
        """Gives the terminal back, with what was said."""
        if not self._closed:
            self._closed = True
            self._live.stop()
            for text in self._said:
                self._console.print(text, markup=False, soft_wrap=True)


def _firing(demo: Demo) -> list[Alert]:
    return [alert for alert in demo.monitor.alerts if alert.state == "firing"]
