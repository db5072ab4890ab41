"""The summary of the demo as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from lane_obs.demo.summary import causes, seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console

    from lane_obs.demo.chapter import Panel
    from lane_obs.demo.chronicle import Episode
    from lane_obs.demo.summary import Summary, Tale

_OUTCOMES: Final = ("succeeded", "failed", "timed out", "expired", "cancelled")


def print_summary(console: Console, summary: Summary, *, stopped: bool) -> None:
    """Prints what happened."""
    console.print(Text(f"What happened (seed {summary.seed}):", style="bold"))
    for number, tale in enumerate(summary.tales, 1):
        console.print(Text(f"{number}. {tale.chapter.title} (from {tale.chapter.at:g} s)", style="bold cyan"))
        for line in _lines(tale):
            console.print(Text(f"   {line}"))
    if summary.rounds > 1:
        console.print(Text(f"The story was told {summary.rounds} times; that was the last. All together:"))
    console.print(_ends(summary))
    console.print(_waits(summary))
    for line in _verdict(summary, stopped=stopped):
        console.print(Text(line))


def _lines(tale: Tale) -> Iterator[str]:
    yield from tale.lines
    for alert in tale.alerts:
        yield f"Alert {_alert(alert)}"
    for missing in tale.missing:
        yield f"Alert {missing.alert} ({missing.severity}, {missing.lane or 'queue'}) was meant to fire and did not."
    if tale.chapter.panels:
        yield f"See it in Grafana: {_panels(tale.chapter.panels)}."


def _alert(alert: Episode) -> str:
    over = "fires still" if alert.resolved_at is None else f"was over at {alert.resolved_at:.1f} s"
    return f"{alert.alert} ({alert.severity}, {alert.lane or 'queue'}) fired at {alert.fired_at:.1f} s and {over}."


def _panels(panels: Iterable[Panel]) -> str:
    by_dashboard: dict[str, list[str]] = {}
    for panel in panels:
        by_dashboard.setdefault(panel.dashboard, []).append(f'"{panel.title}"')
    return "; ".join(f"{name.capitalize()}: {', '.join(titles)}" for name, titles in by_dashboard.items())


def _ends(summary: Summary) -> Table:
    table = _table("Commands")
    for heading in ("taken", "ok", "failed", "timed\nout", "expired", "cancelled", "refused", "retries", "dead"):
        table.add_column(heading, justify="right")
    for name, tally in summary.lanes.items():
        ends = (tally.outcomes[outcome] for outcome in _OUTCOMES)
        counts = (*ends, tally.rejected, tally.retries.total(), tally.dead)
        table.add_row(name, str(tally.submitted), *(str(number or "-") for number in counts))
    return table


def _waits(summary: Summary) -> Table:
    table = _table("Waits")
    table.add_column("mean", justify="right")
    table.add_column("longest", justify="right")
    table.add_column("for")
    for name, tally in summary.lanes.items():
        mean = tally.waited.total / max(1, tally.ended)
        table.add_row(name, seconds(mean), seconds(tally.longest_wait), causes(tally))
    return table


def _table(title: str) -> Table:
    first = Column("lane", no_wrap=True)
    return Table(
        first, title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False
    )


def _verdict(summary: Summary, *, stopped: bool) -> Iterator[str]:
    missing, meant = summary.missing, sum(len(tale.chapter.alerts) for tale in summary.tales)
    if not stopped:
        over = "" if summary.open else ", and all are over"
        yield f"Alerts: {meant - len(missing)} of the {meant} that the story is meant to raise fired{over}."
    for alert in summary.others:
        yield f"Alert {_alert(alert)} It is no part of the story: this machine was busy, or something is wrong."
    for alert in summary.open:
        yield f"{alert.alert} fires still."
    if not stopped and any(alert.in_real_time for alert in missing):
        yield "The event loop's lag is measured in real time: at another --speed it is not what the story says."
    if summary.untold:
        yield f"Not told: {', '.join(summary.untold)}."
    yield f"{summary.events:,} events went to {summary.sinks} sinks, which lost {summary.lost or 'none'}."
