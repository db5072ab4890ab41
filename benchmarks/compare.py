"""Compares the library with its peers and with its budgets, and prints one table.

usage: python -m benchmarks.compare [--quick] [--only ROW] [--markdown] [--json FILE]

A figure that falls short of its budget is shown as such; the exit code is 0 unless something broke.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.figure import Figure, Sizes
from benchmarks.peer import version_of
from benchmarks.rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PACKAGES: Final = (
    "lane-obs", "uvloop", "aiojobs", "aiolimiter", "a3s-lane", "structlog", "prometheus-client", "opentelemetry-sdk",
    "rotel", "redis", "hiredis", "dramatiq", "huey", "pydocket", "rq", "streaq", "taskiq-redis",
)  # fmt: skip
_WIDTH: Final = 160


def measure(rows: Sequence[str], sizes: Sizes) -> Iterator[Figure]:
    """Measures these rows, in the order of the table."""
    for name, figures in ROWS.items():
        if name in rows:
            yield from figures(sizes) if sizes.judged else (figure.unjudged() for figure in figures(sizes))


def table(figures: Sequence[Figure], title: str) -> Table:
    """The figures as one table."""
    made = Table(title=title, title_justify="left", title_style="")
    for name, where in _COLUMNS.items():
        made.add_column(name, justify=where)
    for before, figure in zip([None, *figures], figures, strict=False):
        if before is not None and before.row != figure.row:
            made.add_section()
        made.add_row(*_cells(figure))
    return made


_COLUMNS: Final[dict[str, Any]] = {
    "row": "left", "what": "left", "ours": "right", "against": "right", "of": "left", "ratio": "right",
    "budget": "left", "holds": "left",
}  # fmt: skip


def markdown(figures: Sequence[Figure], title: str) -> str:
    """The same table for a document."""
    head = [*_COLUMNS], ["---:" if where == "right" else "---" for where in _COLUMNS.values()]
    return "\n".join([title, "", *(f"| {' | '.join(cells)} |" for cells in (*head, *map(_cells, figures)))])


def _cells(figure: Figure) -> tuple[str, ...]:
    holds = {True: "yes", False: "NO", None: "not judged" if figure.budget else ""}[figure.holds]
    values = (_number(figure.ours, figure.unit), _number(figure.against, figure.unit))
    return figure.row, figure.what, *values, figure.peer, _number(figure.ratio), figure.budget, holds


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return ""
    whole = abs(value) >= 1000 or float(value).is_integer()
    shown = f"{value:,.0f}" if whole else f"{value:.3g}"
    return f"{shown} {unit}".rstrip()


def about() -> dict[str, Any]:
    """What the figures were measured with."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "packages": {name: version_of(name) for name in _PACKAGES},
    }


def _print_table(figures: Sequence[Figure], title: str) -> None:
    # A table cut to 80 columns cannot be read: where the width is not a terminal's, it is as wide as it needs.
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    console.print(table(figures, title))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a twentieth of the sizes, no verdicts")
    parser.add_argument("--only", action="append", choices=list(ROWS), metavar="ROW", help=f"one of {', '.join(ROWS)}")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    given = parser.parse_args(arguments)
    rows, sizes, console = given.only or list(ROWS), Sizes.quick() if given.quick else Sizes(), Console(stderr=True)
    figures = []
    for figure in measure(rows, sizes):  # no spinner: its thread would be measured too
        figures.append(figure)
        console.print(f"{figure.row}: {figure.what}, {figure.peer}", highlight=False)
    found = about()
    versions = ", ".join(f"{name} {value or 'not installed'}" for name, value in found["packages"].items())
    title = f"Python {found['python']}, {found['system']}, {found['cpus']} CPUs; {versions}"
    if given.markdown:
        print(markdown(figures, title))
    else:
        _print_table(figures, title)
    if given.json is not None:
        report = {**found, "quick": given.quick, "figures": [dataclasses.asdict(figure) for figure in figures]}
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
