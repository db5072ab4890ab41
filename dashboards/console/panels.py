"""Panels of the Grafana dashboards as a page shows them: numbers as tiles, lines over time as bars."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from dashboards.console.language import about, asked, markup, part, string
from dashboards.promql import compared, only_lanes

if TYPE_CHECKING:
    from dashboards.levels import Levels, Watched

Panel = dict[str, Any]

_LABEL: Final = re.compile(r"\{\{(\w+)\}\}")
_RUNBOOK: Final = "Runbook: "


def rows(board: str) -> dict[str, list[Panel]]:
    """The panels of a dashboard by the headings of their rows."""
    found: dict[str, list[Panel]] = {}
    mine: list[Panel] = []
    for panel in json.loads(board)["panels"]:
        if panel["type"] == "row":
            mine = found[panel["title"]] = []
        else:
            mine.append(panel)
    return found


def bars(expression: str) -> str:
    """Asks for the highest value of an expression in each step, as `$bars`; the label `at` counts steps back.

    Args:
        expression: what gives it, as the template writes it.
    """
    return part("bars.html", expression=expression)


def tile(panel: Panel, levels: Levels) -> str:
    """Numbers of this moment, coloured by the levels that they are above."""
    watched = _watched(panel, levels)
    return part(
        "tile.html",
        title=markup(panel["title"]),
        grade=_grade(watched) if watched else "",
        numbers=" ".join(_number(panel, target) for target in panel["targets"]),
    )


def card(panel: Panel, levels: Levels) -> str:
    """The course of each series of a panel, all at one scale, with the levels of the lane that the page is about."""
    watched = _watched(panel, levels)
    numbers = range(len(panel["targets"]))
    return part(
        "card.html",
        title=markup(panel["title"]),
        description=markup(panel["description"]),
        levels="".join(
            f"{{{{ if {about(spec, '$name')} }}}}{{{{ ${spec.severity} = {spec.level!r} }}}}{{{{ end }}}}"
            for spec in (watched.specs if watched else ())
        ),
        queries="\n".join(
            part("course.html", number=str(number), asked=asked(panel["targets"][number]["expr"])) for number in numbers
        ),
        found=" ".join(f"$most{number}" for number in numbers),
        strips="\n".join(_strip(panel, number) for number in numbers),
        none=_none(panel, "Nothing in this time"),
        alone="" if any(_label(target) or _name(target) for target in panel["targets"]) else ' class="alone"',
    )


def ranking(panel: Panel) -> str:
    """A value of this moment for each series."""
    (target,) = panel["targets"]
    return part(
        "ranking.html",
        title=markup(panel["title"]),
        description=markup(panel["description"]),
        asked=asked(target["expr"]),
        label=_label(target),
        unit=_unit(panel),
        none=_none(panel, "Nothing"),
    )


def _watched(panel: Panel, levels: Levels) -> Watched | None:
    """What a panel shows, where that is the value of an alert."""
    names = [link["title"].removeprefix(_RUNBOOK) for link in panel.get("links") or ()]
    if not names:
        return None
    objectives = (one for one in levels.objectives() if one.rule == names[0])
    return next(objectives, None) or levels[names[0]]


def _grade(watched: Watched) -> str:
    """Sets `$grade` by asking: which lane is above its level is more than one number can tell."""
    above = (
        (spec, f"{compared(spec, spec.signals[0], lanes=only_lanes(spec))} > {spec.level!r}") for spec in watched.specs
    )
    return "".join(
        f'{{{{ if query {asked(expression)} }}}}{{{{ $grade = "{spec.severity}" }}}}{{{{ end }}}}'
        for spec, expression in above
    )


def _number(panel: Panel, target: Panel) -> str:
    unit, expression = _unit(panel), target["expr"]
    if unit == "dateTimeFromNow":
        unit, expression = "ago", f"time() - ({expression}) / 1000"
    named = panel["options"]["textMode"] == "name"
    value = f"{{{{ .Labels.{_label(target)} }}}}" if named else f'{{{{ template "shown" (args .Value "{unit}") }}}}'
    legend = f"<small>{markup(target['legendFormat'])}</small>" if len(panel["targets"]) > 1 else ""
    return part("number.html", asked=asked(expression), value=value, legend=legend, none=_none(panel, "none"))


def _strip(panel: Panel, number: int) -> str:
    target = panel["targets"][number]
    return part(
        "strip.html",
        bars=bars(f"$e{number}"),
        number=str(number),
        unit=_unit(panel),
        label=_label(target),
        fixed=string(_name(target)),
    )


def _label(target: Panel) -> str:
    """The label that tells the series of a query apart, on a page about one lane; empty where there is only one."""
    labels = [label for label in _LABEL.findall(target["legendFormat"]) if label != "lane"]
    return labels[0] if labels else ""


def _name(target: Panel) -> str:
    """What else its legend says."""
    return _LABEL.sub("", target["legendFormat"]).strip()


def _unit(panel: Panel) -> str:
    unit: str = panel["fieldConfig"]["defaults"]["unit"]
    return unit


def _none(panel: Panel, otherwise: str) -> str:
    return markup(panel["fieldConfig"]["defaults"].get("noValue") or otherwise)
