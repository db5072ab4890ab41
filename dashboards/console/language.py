"""The language of Prometheus's console templates: Go's, with queries, and with HTML escaped by where it stands.

The files in `templates/` are in it, with holes like `@this@` for what comes of the definitions.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lane_obs.alerts import AlertSpec

_FOLDER: Final = Path(__file__).resolve().parent / "templates"
_HOLE: Final = re.compile(r"@(\w+)@")

# Grafana's variables, as the expressions of its panels have them, and the page's variable for each.
_VARIABLES: Final = {
    "job": "$job",
    "instance": "$instance",
    "queue": "$queue",
    "lane": "$lane",
    "__rate_interval": "$window",
    "__range": "$span",
}
_VARIABLE: Final = re.compile(rf"\$({'|'.join(_VARIABLES)})\b")
_PLACES: Final = {name: f"%[{place}]s" for place, name in enumerate(_VARIABLES, 1)}
_LINK: Final = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<url>[^)]+)\)")


def part(name: str, **holes: str) -> str:
    """A file of `templates/` with its holes filled.

    Raises:
        ValueError: it has other holes.
    """
    text = (_FOLDER / name).read_text("utf-8").rstrip("\n")
    if set(_HOLE.findall(text)) != set(holes):
        raise ValueError(f"{name} has the holes {sorted(set(_HOLE.findall(text)))}, not {sorted(holes)}")
    return _HOLE.sub(lambda match: holes[match[1]], text)


def string(text: str) -> str:
    """A constant."""
    return json.dumps(text, ensure_ascii=False) if "`" in text or "\n" in text else f"`{text}`"


def markup(text: str) -> str:
    """Text of ours as HTML that no template takes for its own; links as Markdown writes them become links."""
    escaped = html.escape(text).replace("{{", "{{ `{{` }}")
    return _LINK.sub(r'<a href="\g<url>">\g<text></a>', escaped)


def asked(expression: str) -> str:
    """An expression of a panel, with its variables put in when the page is shown."""
    if not _VARIABLE.search(expression):
        return string(expression)
    pattern = _VARIABLE.sub(lambda match: _PLACES[match[1]], expression.replace("%", "%%"))
    return f"(printf {string(pattern)} {' '.join(_VARIABLES.values())})"


def plain(value: str) -> str:
    """A value as a part of a string of PromQL; `value` is what gives it, as the template writes it."""
    valid = rf'(reReplaceAll `\x{{FFFD}}` "\uFFFD" {value})'  # bytes that are no text match it, too
    return f'(reReplaceAll `^"|"$` `` (printf "%+q" {valid}))'


def literally(value: str) -> str:
    """The same as a part of a regular expression in such a string: it matches nothing but itself."""
    return plain(rf"(reReplaceAll `([\\.+*?()|\[\]{{}}^$])` `\$1` {value})")


def about(spec: AlertSpec, lane: str) -> str:
    """Whether an alert is about a lane; `lane` is what names it, as the template writes it."""
    if spec.lanes:
        return f"(eq {lane} {_strings(spec.lanes)})"
    return f"(not (eq {lane} {_strings(spec.except_lanes)}))" if spec.except_lanes else "true"


def grade(specs: Iterable[AlertSpec], value: str, lane: str) -> str:
    """Sets `$grade` to the severity of the highest level that a value is above.

    Args:
        specs: whose levels, the lowest first.
        value: what gives the value, as the template writes it.
        lane: likewise, the lane; a level may be that of some lanes only.
    """
    return "".join(
        f'{{{{ if and (gt {value} {spec.level!r}) {about(spec, lane)} }}}}{{{{ $grade = "{spec.severity}" }}}}'
        "{{ end }}"
        for spec in specs
    )


def _strings(texts: Iterable[str]) -> str:
    return " ".join(map(string, texts))
