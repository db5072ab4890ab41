"""Tables of values of this moment, a row for each value of one label."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from dashboards.console.language import asked, grade, part
from dashboards.panels import COUNT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dashboards.levels import Levels


@dataclasses.dataclass(frozen=True)
class Column:
    """One value of each row: its heading, the query, its unit, and the measure whose levels colour it."""

    heading: str
    query: str
    unit: str = COUNT
    measure: str = ""


def queries(columns: Mapping[str, Column]) -> str:
    """Asks for all columns, each by its name."""
    return "\n".join(f"{{{{ ${name} := query {asked(column.query)} }}}}" for name, column in columns.items())


def heads(columns: Mapping[str, Column]) -> str:
    """The headings."""
    return "".join(f'<th scope="col" class="n">{column.heading}</th>' for column in columns.values())


def cells(levels: Levels, label: str, columns: Mapping[str, Column]) -> str:
    """The values of the row whose label is `$name`."""
    return "\n".join(
        part(
            "cell.html",
            column=name,
            label=label,
            unit=column.unit,
            grade=grade(levels[column.measure].specs, "$found.Value", '""') if column.measure else "",
            more="",
        )
        for name, column in columns.items()
    )
