"""All lanes of each queue beside each other, coloured by the levels of the alerts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from dashboards.console.language import about, asked, grade, literally, markup, part
from dashboards.console.panels import bars
from dashboards.levels import line
from dashboards.panels import COUNT, PER_SECOND, RATIO, SECONDS
from dashboards.promql import pick, rate, total
from lane_obs.metrics import catalogue as c

if TYPE_CHECKING:
    from dashboards.levels import Levels

MOST: Final = 50
"""So many lanes of a queue are shown, the busiest ones."""

_READY: Final = ('state="ready"',)
_INFO: Final = f"topk by (lane) (1, max by (lane, priority) ({pick(c.INFO)}))"
_BUSY: Final = f"({total(c.DEPTH, 'lane')} + {total(c.ACTIVE, 'lane')})"


@dataclasses.dataclass(frozen=True)
class _Column:
    """One value of each lane: the query, its unit, and the measure whose levels colour it."""

    query: str
    unit: str = COUNT
    measure: str = ""


def section(levels: Levels) -> str:
    """A table for each queue that the page's `$queue` lets through."""
    columns = {
        "ready": _Column(total(c.DEPTH, "lane", where=_READY), measure="ready_depth"),
        "delayed": _Column(total(c.DEPTH, "lane", where=('state="delayed"',))),
        "backoff": _Column(total(c.DEPTH, "lane", where=('state="backoff"',))),
        "running": _Column(total(c.ACTIVE, "lane"), measure="saturation"),
        "oldest": _Column(_worst(levels, "oldest_ready_age"), SECONDS, "oldest_ready_age"),
        "submitted": _Column(rate(c.SUBMITTED, "lane"), PER_SECOND),
        "ended": _Column(rate(c.FINISHED, "lane"), PER_SECOND),
        "errors": _Column(_worst(levels, "error_ratio"), RATIO, "error_ratio"),
        "wait": _Column(_worst(levels, "wait_p99"), SECONDS, "wait_p99"),
        "dead": _Column(total(c.DEAD_LETTERS, "lane"), measure="dead_letters"),
    }
    queries = {name: column.query for name, column in columns.items()}
    queries |= {f"of_{one.measure}": _worst(levels, one.measure) for one in columns.values() if one.measure}
    queries |= {"limit": total(c.LIMIT, "lane"), "blocked": f"100 * {rate(c.BLOCKED, 'lane', 'cause')}"}
    more = {"running": part("limit.html"), "oldest": _first_level(levels, "oldest_ready_age")}
    return part(
        "lanes.html",
        queues=asked(f"count by (queue) ({pick(c.INFO)})"),
        queue=literally(".Labels.queue"),
        rows=asked(_ordered(f"topk({MOST}, {_INFO} + on (lane) group_left () {_BUSY})")),
        many=asked(f"count ({_INFO}) or vector(0)"),
        most=str(MOST),
        lane=literally(".Labels.lane"),
        columns="\n".join(f"{{{{ ${name} := query {asked(query)} }}}}" for name, query in queries.items()),
        course=asked(_worst(levels, "ready_depth")),
        bars=bars("$course"),
        levels="".join(
            f"{{{{ if {about(spec, '$name')} }}}}{{{{ ${spec.severity} = {spec.level!r} }}}}{{{{ end }}}}"
            for spec in levels["ready_depth"].specs
        ),
        legend=_legend(levels, *(column.measure for column in columns.values() if column.measure)),
        **{name: _cell(levels, name, one, more.get(name, "")) for name, one in columns.items()},
    )


def _worst(levels: Levels, measure: str) -> str:
    """What the alerts of a measure compare."""
    return " or ".join(levels[measure].values("lane"))


def _ordered(lanes: str) -> str:
    """With a label by which they sort: by priority, then by name."""
    padded = f'label_replace({lanes}, "order", "0000000000$1", "priority", "(.*)")'
    cut = f'label_replace({padded}, "order", "$1", "order", ".*(.{{10}})")'
    return f'label_join({cut}, "order", " ", "order", "lane")'


def _cell(levels: Levels, name: str, column: _Column, more: str) -> str:
    graded = ""
    if column.measure and levels[column.measure].specs:
        inner = grade(levels[column.measure].specs, ".Value", "$name")
        graded = (
            f"{{{{ range $of_{column.measure} }}}}{{{{ if eq .Labels.lane $name }}}}{inner}{{{{ end }}}}{{{{ end }}}}"
        )
    return part("cell.html", column=name, label="lane", unit=column.unit, grade=graded, more=more)


def _first_level(levels: Levels, measure: str) -> str:
    """The lowest level of the row's lane."""
    specs = reversed(levels[measure].specs)
    found = "".join(
        f'{{{{ if {about(spec, "$name")} }}}}{{{{ $level = "{spec.show(spec.level)}" }}}}{{{{ end }}}}'
        for spec in specs
    )
    return part("level.html", found=found)


def _legend(levels: Levels, *measures: str) -> str:
    """When which value gets its colour."""
    watched = [levels[measure] for measure in measures if levels[measure].specs]
    return "".join(
        f'<dt><a href="{one.shown.runbook}">{one.shown.alert}</a></dt>'
        f"<dd>{markup(one.shown.what)}: {markup(', '.join(map(line, one.specs)))}</dd>"
        for one in watched
    )
