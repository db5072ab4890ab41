"""Pages that Prometheus itself shows, without Grafana: what its console templates are made of are the same definitions.

python -m dashboards.consoles lanes.toml DIRECTORY    # with the levels of a file's own rules
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dashboards import lane, overview
from dashboards.console import alerts, cluster, lanes, telemetry
from dashboards.console.language import asked, literally, part
from dashboards.console.panels import card, ranking, rows, tile
from dashboards.levels import Levels
from dashboards.promql import pick
from lane_obs.alerts import load_alerts
from lane_obs.alerts.spec import RUNBOOK
from lane_obs.demo.settings import SETTINGS
from lane_obs.metrics.catalogue import INFO
from lane_obs.monitor import MonitorConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dashboards.console.panels import Panel
    from lane_obs.alerts import AlertSpec

SPANS: Final = {
    "1m": ("%ds", "1s:1s", "1m:1s", "10s"),
    "10m": ("%d0s", "10s:5s", "10m:5s", "1m"),
    "1h": ("%dm", "1m:30s", "1h:30s", "5m"),
    "10h": ("%d0m", "10m:2m", "10h:2m", "30m"),
    "60h": ("%dh", "1h:10m", "60h:10m", "2h"),
}
"""How far back a page can look: the offset of a step, a step and the whole as subqueries, and the window of rates."""

_STEPS: Final = " ".join(map(str, range(1, 60)))
_LEFT_OUT: Final = {"heatmap"}
"""Kinds of panels that bars do not replace: a template cannot tell one bucket from the next."""


def overview_page(specs: Sequence[AlertSpec]) -> str:
    """All lanes of all queues, what fires, and whether the telemetry is well."""
    levels = Levels(specs)
    body = part(
        "overview.html",
        header=_header("lane-obs.html", "lane_obs", "{{ with .Params.queue }}queue {{ . }}, {{ end }}", ""),
        tiles="\n".join(tile(panel, levels) for panel in rows(overview.text(levels))["Now"]),
        alerts=alerts.section(specs),
        lanes=lanes.section(levels),
        cluster=cluster.section(levels),
        telemetry=telemetry.section(levels),
    )
    return _page(specs, "lane_obs", body)


def lane_page(specs: Sequence[AlertSpec]) -> str:
    """One lane: all panels of its dashboard."""
    levels = Levels(specs)
    found = rows(lane.text(levels))
    up = '<a href="lane-obs.html?span={{ $span }}">All lanes</a>'
    body = part(
        "lane.html",
        header=_header(
            "lane-obs-lane.html",
            "{{ if $name }}Lane {{ $name }}{{ else }}Lanes{{ end }}",
            "{{ with .Params.queue }}queue {{ . }}, {{ end }}",
            up,
        ),
        lanes=asked(f"count by (queue, lane) ({pick(INFO)})"),
        there=asked(f"count ({pick(INFO)})"),
        tiles="\n".join(tile(panel, levels) for panel in found.pop("Now")),
        alerts=alerts.section(specs),
        sections="\n".join(
            f'<h2>{title}</h2>\n<div class="cards">\n{_cards(panels, levels)}\n</div>'
            for title, panels in found.items()
        ),
    )
    return _page(specs, "{{ with .Params.lane }}{{ . }}, {{ end }}lane_obs", body)


PAGES: Final[dict[str, Callable[[Sequence[AlertSpec]], str]]] = {
    "lane-obs.html": overview_page,
    "lane-obs-lane.html": lane_page,
}
"""What makes each page, by the name of its file."""

FOLDER: Final = "consoles"
DEMO: Final = "../deploy/prometheus/consoles"
"""Where those with the levels of the demo's rules go: `deploy/compose.yaml` shows the demo."""


def _of_monitor(name: str) -> str:
    return PAGES[name](MonitorConfig().specs)


def _of_demo(name: str) -> str:
    return PAGES[name](load_alerts(SETTINGS).specs)


OUTPUTS: Final[dict[str, Callable[[], str]]] = {
    **{f"{FOLDER}/{name}": partial(_of_monitor, name) for name in PAGES},
    **{f"{DEMO}/{name}": partial(_of_demo, name) for name in PAGES},
}


def _cards(panels: Sequence[Panel], levels: Levels) -> str:
    shown = (panel for panel in panels if panel["type"] not in _LEFT_OUT)
    return "\n".join(ranking(panel) if panel["type"] == "bargauge" else card(panel, levels) for panel in shown)


def _header(page: str, heading: str, where: str, links: str) -> str:
    kept = part("kept.html")
    spans = "".join(part("span.html", span=span, page=page, kept=kept) for span in SPANS)
    return part(
        "header.html", heading=heading, where=where, spans=spans, page=page, kept=kept, links=links, runbook=RUNBOOK
    )


def _page(specs: Sequence[AlertSpec], title: str, body: str) -> str:
    settings = "".join(
        f'{{{{ if eq $span "{span}" }}}}{{{{ $offset = "{offset}" }}}}{{{{ $step = "{step}" }}}}'
        f'{{{{ $whole = "{whole}" }}}}{{{{ $window = "{window}" }}}}{{{{ end }}}}'
        for span, (offset, step, whole, window) in SPANS.items()
    )
    page = part(
        "page.html",
        defines=part("defines.html"),
        **{name: literally(".") for name in ("job", "instance", "queue", "lane")},
        steps=_STEPS,
        span=_span(specs),
        spans="|".join(SPANS),
        settings=settings,
        title=title,
        style=part("page.css"),
        body=body,
    )
    return page + "\n"


def _span(specs: Sequence[AlertSpec]) -> str:
    """How far back a page looks unless it is told: an hour, but a minute where all rules look at seconds only."""
    windows = (seconds for spec in specs for signal in spec.signals for _, seconds in signal.expression.parts())
    return "1h" if max(windows, default=60.0) >= 60 else "1m"


def main(rules: str, directory: str) -> None:
    """Writes the pages with the levels of a file's rules."""
    specs = load_alerts(rules).specs
    for name, make in PAGES.items():
        (Path(directory) / name).write_text(make(specs), "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
