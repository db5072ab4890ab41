"""Reads and writes the text of metrics, line by line: labels stay the text that they are.

prometheus_client's own parser takes 0.1 ms a line, which many processes of many lanes add up to seconds a scrape. This
one reads what prometheus_client writes as OpenMetrics, and no more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as _CONTENT_TYPE_OPENMETRICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0"
"""What to ask for as `Accept`."""

_LINE: Final = re.compile(r'([^\s{]+)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})? (\S+)(.*)')
_LANE: Final = re.compile(r'(?:^|,)lane="((?:[^"\\]|\\.)*)"')
_SUFFIX: Final = {"counter": "_total", "info": "_info"}
_CLASSIC_TYPE: Final = {"info": "gauge", "stateset": "gauge", "gaugehistogram": "histogram", "unknown": "untyped"}
_SET_APART: Final = ("_created", "_gcount", "_gsum")


class Series(NamedTuple):
    """One sample.

    Attributes:
        name: its own name, suffix included.
        labels: what is between the braces.
        value: the number.
        rest: what follows that: timestamp, exemplar.
    """

    name: str
    labels: str
    value: str
    rest: str = ""

    @property
    def lane(self) -> str | None:
        """Its lane, as written; `None` for none."""
        found = _LANE.search(self.labels)
        return None if found is None else found[1]


class Family(NamedTuple):
    """Samples of one metric.

    Attributes:
        name: without suffix.
        type: such as `counter`.
        head: lines with its help and unit, as OpenMetrics has them.
        series: the samples.
    """

    name: str
    type: str
    head: tuple[str, ...]
    series: list[Series]

    def empty(self) -> Family:
        """The same without samples."""
        return self._replace(series=[])


def read_families(text: str) -> list[Family]:
    """Reads OpenMetrics text; lines that are none of it are left out."""
    families: list[Family] = []
    head: list[str] = []
    name, kind, series = "", "unknown", list[Series]()
    for line in text.splitlines():
        if line.startswith("# "):
            words = line.split(" ", 3)
            if len(words) == 4 and words[2] != name:
                name, kind, head, series = words[2], "unknown", [], []
            if words[1] == "TYPE":
                kind = words[3]
                families.append(Family(name, kind, tuple(head), series))
            elif len(words) == 4:
                head.append(line)
                if families and families[-1].name == name:  # help and unit come after the type, or before
                    families[-1] = families[-1]._replace(head=tuple(head))
        elif (found := _LINE.fullmatch(line)) is not None:
            series.append(Series(found[1], found[2] or "", found[3], found[4]))
    return families


def write_families(families: Iterable[Family], accept: str) -> tuple[bytes, str]:
    """Writes what there is, and says as what: OpenMetrics for those who accept that, else the classic text."""
    if "application/openmetrics-text" in accept:
        lines = [*(line for family in families for line in _open_lines(family)), "# EOF"]
        return "\n".join([*lines, ""]).encode(), _CONTENT_TYPE_OPENMETRICS
    lines = [line for family in families for line in _classic_lines(family)]
    return "\n".join([*lines, ""]).encode(), CONTENT_TYPE_LATEST


def _open_lines(family: Family) -> Iterator[str]:
    yield from family.head
    yield f"# TYPE {family.name} {family.type}"
    for name, labels, value, rest in family.series:
        yield f"{name}{{{labels}}} {value}{rest}"


def _classic_lines(family: Family) -> Iterator[str]:
    name = family.name + _SUFFIX.get(family.type, "")
    text = next((line.split(" ", 3)[3] for line in family.head if line.startswith("# HELP ")), "")
    yield from _classic_group(name, text, _CLASSIC_TYPE.get(family.type, family.type), _grouped(family, ""))
    for suffix in _SET_APART:
        if found := _grouped(family, suffix):
            yield from _classic_group(f"{family.name}{suffix}", text, "gauge", found)


def _grouped(family: Family, suffix: str) -> list[Series]:
    """The samples of one suffix that stands apart; for no suffix all others."""
    return [one for one in family.series if _apart(one.name.removeprefix(family.name)) == suffix]


def _apart(suffix: str) -> str:
    return suffix if suffix in _SET_APART else ""


def _classic_group(name: str, text: str, kind: str, series: Iterable[Series]) -> Iterator[str]:
    unescaped = text.replace('\\"', '"')  # which only OpenMetrics escapes
    yield f"# HELP {name} {unescaped}"
    yield f"# TYPE {name} {kind}"
    for one in series:
        yield f"{one.name}{{{one.labels}}} {one.value}"
