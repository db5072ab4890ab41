"""The summary of a replay as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Column, Table
from rich.text import Text

from lane_obs.events import CAUSES
from lane_obs.simulation.record import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from lane_obs.simulation.summary import LaneSummary, Spread, Summary

_RANKS = ("p50", "p95", "p99", "max")


def print_summary(console: Console, summary: Summary, real_seconds: float) -> None:
    """Prints the summary of a replay that took this long."""
    count = summary.total.count
    commands = f"{count} command{'' if count == 1 else 's'}"
    text = f"{summary.trace}: {commands}, {summary.elapsed_seconds:.3f} s of the trace's time"
    console.print(f"{text}, replayed in {real_seconds:.1f} s", markup=False, soft_wrap=True)
    if summary.not_submitted:
        console.print(f"stopped early; commands not submitted: {summary.not_submitted}", markup=False)
    for table in _tables(summary):
        console.print(table)


def _tables(summary: Summary) -> Iterator[Table]:
    outcomes = [outcome for outcome in OUTCOMES if summary.total.outcomes[outcome] or outcome == OUTCOMES[0]]
    yield _table(
        "Commands",
        ["count", *(outcome.replace("_", " ") for outcome in outcomes), "attempts"],
        summary,
        lambda lane: [str(n) for n in (lane.count, *(lane.outcomes[outcome] for outcome in outcomes), lane.attempts)],
    )
    yield _table(
        "Load",
        ["run, seconds", "peak depth", "utilisation"],
        summary,
        lambda lane: [f"{lane.run_seconds:.3f}", str(lane.peak_depth), f"{lane.utilisation:.1%}"],
    )
    yield _table("Wait, seconds", _RANKS, summary, lambda lane: _cells(lane.wait_seconds))
    yield _table("End to end, seconds", _RANKS, summary, lambda lane: _cells(lane.end_to_end_seconds))
    yield _table(
        "Wait by cause, seconds of all commands",
        CAUSES,
        summary,
        lambda lane: [f"{getattr(lane.wait_by_cause_seconds, cause):.3f}" for cause in CAUSES],
    )


def _table(title: str, headings: Sequence[str], summary: Summary, cells: Callable[[LaneSummary], list[str]]) -> Table:
    table = Table(Column("lane", overflow="fold"), title=title, title_justify="left", box=SIMPLE)
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    for name, lane in summary.lanes.items():
        if lane.count:
            table.add_row(Text(name), *cells(lane))
    table.add_section()
    table.add_row(Text("all", style="bold"), *cells(summary.total))
    return table


def _cells(spread: Spread) -> list[str]:
    values = (getattr(spread, rank) for rank in _RANKS)
    return ["-" if value is None else f"{value:.3f}" for value in values]
