"""Asks a Prometheus what a dashboard asks, with its variables put in as Grafana puts them."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.integration.services.prometheus import Exemplar, Labels, Prometheus

ROOT: Final = Path(__file__).resolve().parents[3]
FOLDER: Final = ROOT / "dashboards"
"""Where the dashboards are, with the levels that a monitor starts with."""

DEMO: Final = ROOT / "deploy" / "grafana" / "dashboards"
"""Where they are with those of the demo."""

FILES: Final = ("overview.json", "lane.json", "process.json")

ALL: Final = "$__all"
_VARIABLE: Final = re.compile(r"\$(?:\{(?P<braced>\w+)(?::\w+)?\}|(?P<bare>\w+))")
_SPECIAL: Final = re.compile(r"[$^*{}\[\]'+?.()|]")
_LABEL_VALUES: Final = re.compile(r"^label_values\((?P<series>.*),\s*(?P<label>\w+)\)$")


@dataclasses.dataclass(frozen=True)
class Asked:
    """One query of a dashboard. `panel` is the panel's title, or says which annotation it is."""

    board: str
    panel: str
    ref: str
    expr: str
    at_once: bool = False
    exemplar: bool = False


def read(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """A dashboard by its file's name."""
    board: dict[str, Any] = json.loads((folder / name).read_text("utf-8"))
    return board


def panels(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels, those in rows that are folded included, the rows' headings not."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels") or []
        else:
            yield panel


def variables(board: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The variables by name, in order."""
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def queries(board: Mapping[str, Any]) -> list[Asked]:
    """Everything that panels and annotations ask."""
    uid = board["uid"]
    asked = [
        Asked(uid, panel["title"], target["refId"], target["expr"], target["instant"], target["exemplar"])
        for panel in panels(board)
        for target in panel["targets"]
    ]
    asked += [Asked(uid, f"annotation: {note['name']}", "Anno", note["expr"]) for note in board["annotations"]["list"]]
    return asked


def escaped(value: str) -> str:
    """A value in a regular expression in a PromQL string, as Grafana's Prometheus data source writes it."""
    return _SPECIAL.sub(r"\\\\\g<0>", value.replace("\\", "\\\\\\\\"))


def written(variable: Mapping[str, Any], chosen: Sequence[str]) -> str:
    """What stands for a variable in a query."""
    if list(chosen) == [ALL]:
        return str(variable["allValue"])
    values = [escaped(value) for value in chosen]
    return values[0] if len(values) == 1 else f"({'|'.join(values)})"


def substituted(expr: str, values: Mapping[str, str]) -> str:
    """An expression with its variables put in.

    Raises:
        KeyError: one of them has no value.
    """
    return _VARIABLE.sub(lambda match: values[match["braced"] or match["bare"]], expr)


class Viewer:
    """A dashboard that somebody looks at.

    Args:
        prometheus: where its data comes from.
        board: the dashboard.
        start: Unix time at which the time shown begins.
        end: and at which it ends.
        chosen: values of variables by name; all that is not given shows everything.
        step: seconds between two points.
        scrape: seconds between two scrapes, as the data source is told.
    """

    def __init__(
        self,
        prometheus: Prometheus,
        board: Mapping[str, Any],
        start: float,
        end: float,
        *,
        chosen: Mapping[str, Sequence[str]] | None = None,
        step: float = 1.0,
        scrape: float = 1.0,
    ) -> None:
        self._prometheus = prometheus
        self._board = board
        self._start, self._end, self._step = start, end, step
        known = variables(board)
        given = {"interval": step, "rate_interval": max(step + scrape, 4 * scrape), "range": math.ceil(end - start)}
        self._values = {f"__{name}": f"{round(seconds * 1000)}ms" for name, seconds in given.items()}
        self._values |= {
            name: written(variable, (chosen or {}).get(name, [ALL]))
            for name, variable in known.items()
            if variable["type"] == "query"
        }

    def choices(self) -> dict[str, list[str]]:
        """What can be chosen for each variable that asks Prometheus."""
        found = {}
        for name, variable in variables(self._board).items():
            if variable["type"] == "query":
                match = _LABEL_VALUES.match(substituted(variable["query"], self._values))
                assert match is not None, variable["query"]
                found[name] = self._label_values(match["series"], match["label"])
        return found

    def expr(self, asked: Asked) -> str:
        """A query as it goes to Prometheus."""
        return substituted(asked.expr, self._values)

    def series(self, asked: Asked) -> list[tuple[Labels, list[float]]]:
        """What a query gives: the values of each series that has any that are numbers."""
        expr = self.expr(asked)
        if asked.at_once:
            found = [(labels, [value]) for labels, value in self._prometheus.query(expr, self._end)]
        else:
            found = self._prometheus.query_range(expr, self._start, self._end, self._step)
        kept = [(labels, [value for value in values if not math.isnan(value)]) for labels, values in found]
        return [(labels, values) for labels, values in kept if values]

    def exemplars(self, asked: Asked) -> list[Exemplar]:
        """The commands behind a query's numbers."""
        return self._prometheus.query_exemplars(self.expr(asked), self._start, self._end)

    def empty(self) -> list[Asked]:
        """The queries that give nothing."""
        return [asked for asked in queries(self._board) if not self.series(asked)]

    def _label_values(self, series: str, label: str) -> list[str]:
        parameters = {"match[]": series, "start": repr(self._start), "end": repr(self._end)}
        url = f"{self._prometheus.url}/api/v1/label/{label}/values?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            values: list[str] = json.load(answer)["data"]
        return values
