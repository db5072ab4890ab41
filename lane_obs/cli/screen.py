"""What a replay shows while it runs: a live table with a progress bar, or a plain line now and then."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from lane_obs.simulation.record import BAD_OUTCOMES

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lane_obs.simulation.record import Tally
    from lane_obs.simulation.replay import Replay

_PLAIN_WIDTH: Final = 120


class PipeConsole(Console):
    """A console that falls silent when its reader goes away; the replay goes on for its files and its exit code.

    Attributes:
        failure: why it fell silent, where that was no fault of the reader: the disk is full, say.
    """

    failure: OSError | None = None

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints as `Console` does, but raises nothing when that cannot be written."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            self.failure = error
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Sends what is still to come to nowhere."""
        self.quiet = True
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self.file.fileno())


def make_console(stream: TextIO | None) -> PipeConsole:
    """A console on standard output or error; of a fixed width where that is no terminal and nothing else is said."""
    if stream is None:  # it was closed when this process began
        stream = io.StringIO()
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # a name must not end the replay
    fixed = not stream.isatty() and "COLUMNS" not in os.environ
    return PipeConsole(file=stream, width=_PLAIN_WIDTH if fixed else None, highlight=False, emoji=False)


class Screen(Protocol):
    """Shows how a replay gets on."""

    every_seconds: float

    def show(self, replay: Replay) -> None:
        """Shows how far it is."""

    def say(self, text: str) -> None:
        """Shows one line that stays."""

    def close(self) -> None:
        """Shows nothing any more."""


def make_screen(console: Console) -> Screen:
    """A live screen on a terminal that can redraw, else a plain one."""
    return LiveScreen(console) if console.file.isatty() and not console.is_dumb_terminal else PlainScreen(console)


class PlainScreen:
    """One line every few seconds."""

    every_seconds = 5.0

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, replay: Replay) -> None:
        """Prints a line."""
        total, all_commands = replay.recorder.total, len(replay.trace.commands)
        self.say(
            f"at {replay.elapsed_seconds:.1f} s: {total.ended} of {all_commands} commands ended"
            f" ({_failed(total)} failed), {total.running} running, {total.waiting} waiting"
        )

    def say(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Does nothing."""


class LiveScreen:
    """A table that is redrawn. It has no thread of its own: whoever shows, draws."""

    every_seconds = 0.25

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, replay: Replay) -> None:
        """Draws the table anew."""
        self._live.update(_picture(replay), refresh=True)

    def say(self, text: str) -> None:
        """Prints a line above the table."""
        self._console.print(text, markup=False)

    def close(self) -> None:
        """Takes the table away."""
        self._live.stop()


def _picture(replay: Replay) -> RenderableType:
    recorder, commands = replay.recorder, len(replay.trace.commands)
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=max(commands, 1), completed=recorder.total.ended, width=40),
        f"{recorder.total.ended} of {commands} commands, at {replay.elapsed_seconds:.1f} s of the trace",
    )
    table = Table(Column("lane", overflow="fold"), box=SIMPLE)
    for heading in ("submitted", "waiting", "running", "limit", "succeeded", "retries", "failed"):
        table.add_column(heading, justify="right")
    for name, tally in recorder.lanes.items():
        if tally.submitted or tally.ended:
            _add_lane(table, Text(name), tally, replay.config.lanes[name].max_concurrency)
    table.add_section()
    _add_lane(table, Text("all", style="bold"), recorder.total, replay.config.max_concurrency)
    return Group(bar, table)


def _add_lane(table: Table, name: Text, tally: Tally, limit: int | None) -> None:
    counts = (tally.submitted, tally.waiting, tally.running, "-" if limit is None else limit)
    table.add_row(name, *map(str, counts), *map(str, (tally.outcomes["succeeded"], tally.retries, _failed(tally))))


def _failed(tally: Tally) -> int:
    return sum(tally.outcomes[outcome] for outcome in BAD_OUTCOMES)
