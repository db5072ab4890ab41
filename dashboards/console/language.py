"""The language of Prometheus's console templates: Go's, with queries, and with HTML escaped by where it stands."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dashboards.levels import Watched
    from lane_obs.alerts import AlertSpec

VARIABLES: Final = ("job", "instance", "queue", "lane", "__rate_interval", "__range")
"""Grafana's variables, as the expressions of its panels have them; a page has a variable of the template for each."""

_VARIABLE: Final = re.compile(rf"\$({'|'.join(VARIABLES)})\b")
_PLACES: Final = {name: f"%[{place}]s" for place, name in enumerate(VARIABLES, 1)}
_LINK: Final = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<url>[^)]+)\)")

UNITS: Final = {"seconds": "s", "ratio": "percentunit", "": "short"}
"""The unit of a panel for each unit of an alert."""


def string(text: str) -> str:
    """A constant."""
    return json.dumps(text, ensure_ascii=False) if "`" in text or "\n" in text else f"`{text}`"


def markup(text: str) -> str:
    """Text of ours as HTML that no template takes for its own; links as Markdown has them become links."""
    escaped = html.escape(text).replace("{{", "{{ `{{` }}")
    return _LINK.sub(r'<a href="\g<url>">\g<text></a>', escaped)


def asked(expression: str) -> str:
    """An expression of a panel, with its variables put in when the page is shown."""
    if not _VARIABLE.search(expression):
        return string(expression)
    pattern = _VARIABLE.sub(lambda match: _PLACES[match[1]], expression.replace("%", "%%"))
    return f"(printf {string(pattern)} $job $instance $queue $lane $window $range)"


def literally(value: str) -> str:
    """A value as a part of a regular expression in a string of PromQL: it matches itself and ends neither.

    Args:
        value: what gives it, as the template writes it.
    """
    pattern = rf"(reReplaceAll `([\\.+*?()|\[\]{{}}^$])` `\$1` {value})"
    return rf'(reReplaceAll `^"|"$` `` (printf "%q" {pattern}))'


def about(spec: AlertSpec, lane: str) -> str:
    """Whether an alert is about a lane; `lane` is a variable of the template."""
    if spec.lanes:
        return f"(eq {lane} {_strings(spec.lanes)})"
    return f"(not (eq {lane} {_strings(spec.except_lanes)}))" if spec.except_lanes else "true"


def set_grade(watched: Watched, value: str, lane: str) -> str:
    """Sets `$grade` to the severity of the highest level that a value is above.

    Args:
        watched: whose levels.
        value: a variable of the template.
        lane: the variable that names the lane; a level may be that of some lanes only.
    """
    return "".join(
        f'{{{{ if and (gt {value} {spec.level!r}) {about(spec, lane)} }}}}{{{{ $grade = "{spec.severity}" }}}}{{{{ end }}}}'
        for spec in watched.specs
    )


def either(expressions: Iterable[str]) -> str:
    """One expression of several that never give the same series."""
    return " or ".join(expressions)


def shown(value: str, unit: str) -> str:
    """A number with its unit."""
    return f'{{{{ template "shown" (args {value} "{unit}") }}}}'


def _strings(texts: Iterable[str]) -> str:
    return " ".join(map(string, texts))
