"""The picture that the demo draws: lanes with bars of what waits, what holds them up, alerts, the last failures."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console, RenderableType

    from lane_obs.demo.chronicle import LaneTally
    from lane_obs.demo.play import Demo
    from lane_obs.monitor import Alert
    from lane_obs.runtime.stats import LaneStats

_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_BAR: Final = 20
_NARROW: Final = 100
_NARROW_BAR: Final = 10
_LEAST_SCALE: Final = 16
_WINDOW: Final = 2.0
"""Rates and causes are those of so many seconds."""
_OTHER_LINES: Final = 15
"""Lines of the screen that are neither alerts nor failures."""
_MOST_ALERTS: Final = 8
_CAUSES: Final = {"slots": "yellow", "priority": "magenta", "pause": "blue"}


class Picture:
    """Draws how a demo gets on, as high as the terminal.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rates = _Rates()

    def draw(self, demo: Demo, said: Sequence[str]) -> RenderableType:
        """The picture of now; what was said stands at the bottom."""
        self._rates.take(demo)
        bar = _NARROW_BAR if self._console.size.width < _NARROW else _BAR
        left = max(2, self._console.size.height - _OTHER_LINES - len(said))
        alerts = min(_MOST_ALERTS, left - left // 3)
        return Group(
            _head(demo, bar),
            Text(),
            _lanes(demo, self._rates, Bars(bar, ascii_only=self._console.options.ascii_only)),
            Text(),
            Text("alerts", style="bold"),
            *_filled(_alert_lines(demo), alerts),
            Text("last failures", style="bold"),
            *_filled(_failure_lines(demo), left - alerts),
            *(Text(text, style="dim", no_wrap=True, overflow="ellipsis") for text in said),
        )


class _Rates:
    """What changed in the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[str, tuple[int, Mapping[str, float]]]]] = deque()

    def take(self, demo: Demo) -> None:
        """Takes a look."""
        tallies, stats = demo.chronicle.lanes(), demo.manager.stats()
        now = demo.elapsed_seconds
        self._seen.append((now, {name: (tallies[name].ended, lane.blocked) for name, lane in stats.lanes.items()}))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW:
            self._seen.popleft()

    def of(self, lane: str) -> tuple[float, dict[str, float]]:
        """Commands that ended, by the second, and the share of time that each cause blocked the lane."""
        (began, old), (now, new) = self._seen[0], self._seen[-1]
        passed = max(now - began, 1e-3)
        (ended_then, blocked_then), (ended, blocked) = old[lane], new[lane]
        shares = {cause: (blocked[cause] - blocked_then[cause]) / passed for cause in _CAUSES}
        return (ended - ended_then) / passed, shares


# --- the parts of the picture -----------------------------------------------------------------------------------


def _head(demo: Demo, bar: int) -> RenderableType:
    told, chapter = demo.chronicle.round, demo.chapter
    title = Text("lane-obs demo", style="bold", no_wrap=True, overflow="ellipsis")
    if told is not None and chapter is not None:
        number = told.chapters.index(chapter) + 1
        title.append(f"   {number} of {len(told.chapters)}: ", style="dim").append(chapter.title, style="bold cyan")
    grid = Table.grid(Column(ratio=1), Column(justify="right"), Column(width=bar), expand=True, padding=(0, 1))
    at = min(demo.elapsed_seconds, demo.seconds)
    grid.add_row(title, f"{at:.1f} of {demo.seconds:g} s", ProgressBar(total=demo.seconds, completed=at, width=bar))
    return grid


def _lanes(demo: Demo, rates: _Rates, bars: Bars) -> Table:
    stats, tallies = demo.manager.stats(), demo.chronicle.lanes()
    table = Table(box=None, padding=(0, 1), collapse_padding=True, pad_edge=False, expand=True)
    for heading in ("lane", "", "waiting", "running", "ended/s", "held up by", "ok", "bad", "retries", "dead"):
        options: dict[str, Any] = {"": {"width": bars.length}, "lane": {}, "held up by": {"ratio": 1}}
        justify = {} if heading in options else {"justify": "right"}
        table.add_column(heading, header_style="dim", no_wrap=True, **options.get(heading, justify))
    scale = max(_LEAST_SCALE, *(lane.pending for lane in stats.lanes.values()))
    for name, lane in stats.lanes.items():
        rate, shares = rates.of(name)
        table.add_row(*_lane(name, lane, tallies[name], rate, shares, bars.draw(lane.pending, scale)))
    limit = "-" if stats.max_concurrency is None else stats.max_concurrency
    table.add_row(
        "all", "", str(stats.total_pending), f"{stats.total_active}/{limit}", "", "", *_totals(tallies), style="bold"
    )
    return table


def _lane(
    name: str, lane: LaneStats, tally: LaneTally, rate: float, shares: Mapping[str, float], depth: str
) -> Iterator[RenderableType]:
    full = lane.running >= lane.max_concurrency
    yield Text(name)
    yield Text(depth, style="red" if lane.pending > _LEAST_SCALE else "green")
    yield Text(str(lane.pending))
    yield Text(f"{lane.running}/{lane.max_concurrency}", style="yellow" if full else "")
    yield Text(f"{rate:.1f}")
    yield _held_up(shares)
    bad = count_bad(tally)
    yield Text(str(tally.outcomes["succeeded"]))
    yield Text(str(bad), style="red" if bad else "dim")
    yield Text(str(tally.retries.total()))
    yield Text(str(tally.dead))


def _totals(tallies: Mapping[str, LaneTally]) -> Iterator[str]:
    every = tallies.values()
    yield str(sum(tally.outcomes["succeeded"] for tally in every))
    yield str(sum(count_bad(tally) for tally in every))
    yield str(sum(tally.retries.total() for tally in every))
    yield str(sum(tally.dead for tally in every))


def _held_up(shares: Mapping[str, float]) -> Text:
    text = Text()
    for cause, share in sorted(shares.items(), key=lambda item: -item[1]):
        if share >= 0.01:
            text.append(f"{cause} {min(share, 1.0):.0%}  ", style=_CAUSES[cause])
    return text


def _alert_lines(demo: Demo) -> Iterator[Text]:
    alerts = demo.monitor.alerts
    if not alerts:
        yield Text("  none", style="dim")
    for alert in alerts:
        style = "dim" if alert.state != "firing" else "bold red" if alert.severity == "critical" else "yellow"
        text = f"  {alert.state:<8} {alert.summary}; {alert.severity} above {_level(demo, alert)}"
        yield Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _level(demo: Demo, alert: Alert) -> str:
    for spec in demo.specs:
        about = alert.lane is None or spec.is_about(alert.lane)
        if about and (spec.alert, spec.severity) == (alert.alert, alert.severity):
            return spec.show(spec.level)
    return f"{alert.threshold:g}"


def _failure_lines(demo: Demo) -> Iterator[Text]:
    for one in reversed(demo.chronicle.failures):
        text = Text(f"  {one.at:6.1f} s  {one.lane:<8}{one.command_type:<18}", no_wrap=True, overflow="ellipsis")
        text.append(f"{'given up' if one.final else f'attempt {one.attempt}':<11}", "red" if one.final else "yellow")
        yield text.append(one.text)


def _filled(lines: Iterator[Text], height: int) -> list[Text]:
    """So many lines, so that nothing below them moves."""
    shown = [line for line, _ in zip(lines, range(height), strict=False)]
    return shown + [Text()] * (height - len(shown))


class Bars:
    """Bars of one length at most, in characters."""

    def __init__(self, length: int, *, ascii_only: bool) -> None:
        self.length = length
        self._ascii_only = ascii_only

    def draw(self, value: float, scale: float) -> str:
        """A bar, as long as the value's share of the scale."""
        length = min(1.0, value / scale) * self.length
        if self._ascii_only:
            return "#" * round(length)
        whole, eighths = divmod(round(length * 8), 8)
        return "█" * whole + (_EIGHTHS[eighths] if eighths else "")


def alert_name(alert: str, severity: str, lane: str) -> str:
    """What an alert is called."""
    return f"{alert} ({severity}, {lane})" if lane else f"{alert} ({severity})"


def count_bad(tally: LaneTally) -> int:
    """How many commands of a lane ended badly."""
    return tally.rejected + sum(tally.outcomes[ending] for ending in ("failed", "timed out", "expired"))
