"""Puts a dashboard together: variables, annotations and links that all have, and rows of panels on a grid."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from dashboards import links
from dashboards.levels import COLOURS
from dashboards.panels import SOURCE, identity
from dashboards.promql import ALERT, PROCESS, alert_states, started
from lane_obs.metrics.catalogue import BUILD_INFO, INFO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana_foundation_sdk.cog.builder import Builder

_SERVICE: Final = "lane-obs"
_WIDTH: Final = 24
_REFRESHES: Final = ["5s", "10s", "30s", "1m", "5m", "15m"]


@dataclasses.dataclass(frozen=True)
class Row:
    """Panels below one heading, from left to right, as many to a line as there is room for."""

    title: str
    panels: Sequence[Builder[model.Panel]]


def render(uid: str, title: str, description: str, refresh: str, rows: Sequence[Row]) -> str:
    """The dashboard as the JSON that Grafana imports; the same input gives the same text."""
    board = dashboard.Dashboard(title).uid(uid).description(description).tags([links.TAG]).timezone("browser")
    board = board.refresh(refresh).time("now-1h", "now").readonly().tooltip(model.DashboardCursorSync.CROSSHAIR)
    board = board.timepicker(dashboard.TimePicker().refresh_intervals(_REFRESHES)).links(links.of_dashboard())
    built = board.variables(_variables()).build()
    built.annotations.list_val = _annotations()
    built.panels = _laid_out(rows)
    return JSONEncoder(indent=2, sort_keys=True, ensure_ascii=False).encode(built) + "\n"


def _laid_out(rows: Sequence[Row]) -> list[model.Panel | model.RowPanel]:
    """All panels with their places; each row's heading stands before its panels."""
    placed: list[model.Panel | model.RowPanel] = []
    y = 0
    for row in rows:
        heading = dashboard.Row(row.title).id(identity(f"row {row.title}")).build()
        heading.grid_pos = model.GridPos(h=1, w=_WIDTH, x=0, y=y)
        placed.append(heading)
        x, y, height = 0, y + 1, 0
        for builder in row.panels:
            panel = builder.build()
            assert panel.grid_pos is not None
            if x + panel.grid_pos.w > _WIDTH:
                x, y, height = 0, y + height, 0
            panel.grid_pos.x, panel.grid_pos.y = x, y
            x, height = x + panel.grid_pos.w, max(height, panel.grid_pos.h)
            placed.append(panel)
        y += height
    return placed


# --- variables --------------------------------------------------------------------------------------------------


def _variables() -> list[Builder[model.VariableModel]]:
    source = dashboard.DatasourceVariable("datasource").type("prometheus").label("Data source")
    traces = dashboard.DatasourceVariable("traces").type("jaeger").label("Traces")
    service = dashboard.TextBoxVariable("service").label("Service").default_value(_SERVICE)
    service = service.current(model.VariableOption(text=_SERVICE, value=_SERVICE))
    return [
        source.description("The Prometheus that scrapes the queues."),
        traces.description("The Jaeger to which links to traces lead."),
        service.description("The program's OTEL_SERVICE_NAME: whose traces the links look for."),
        _labels("job", "Job", BUILD_INFO.name),
        _labels("instance", "Instance", f'{BUILD_INFO.name}{{job=~"$job"}}'),
        _labels("queue", "Queue", f"{BUILD_INFO.name}{{{PROCESS}}}"),
        _labels("lane", "Lane", f'{INFO.name}{{{PROCESS}, queue=~"$queue"}}'),
    ]


def _labels(name: str, label: str, series: str) -> dashboard.QueryVariable:
    """A variable for the values of a label; several may be chosen, and all are at first."""
    variable = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(f"label_values({series}, {name})")
    variable = (
        variable.multi(multi=True)
        .include_all(include_all=True)
        .all_value(".+")
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )
    variable = variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
    return variable.current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))


# --- annotations ------------------------------------------------------------------------------------------------


class _Annotation(model.AnnotationQuery):
    """An annotation with what only Prometheus has: how its title and text are made of labels."""

    def __init__(self, name: str, expr: str, colour: str, **prometheus: str) -> None:
        super().__init__(name=name, expr=expr, icon_color=colour, datasource=SOURCE)
        self._prometheus: dict[str, object] = {**prometheus}

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), **self._prometheus}


def _annotations() -> list[model.AnnotationQuery]:
    firing, of_monitor = f'ALERTS{{alertstate="firing", {ALERT}}}', f"{alert_states()} > 0"
    text = "{{severity}} {{lane}} {{instance}}"
    return [
        _Annotation("Prometheus alerts", firing, COLOURS["critical"], titleFormat="{{alertname}}", textFormat=text),
        _Annotation("Monitor's alerts", of_monitor, COLOURS["warning"], titleFormat="{{alert}}", textFormat=text),
        _Annotation(
            "Starts", started(), "blue", titleFormat="Started", textFormat="{{instance}}", useValueForTime="on"
        ),
    ]
