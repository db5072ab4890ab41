"""The kinds of panels there are, each with what all panels must have: title, words, unit, data source, levels."""

from __future__ import annotations

import dataclasses
import zlib
from typing import TYPE_CHECKING, Final, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import common as build
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards import levels, links, promql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.metrics import Metric

P = TypeVar("P", bargauge.Panel, heatmap.Panel, stat.Panel, statetimeline.Panel, table.Panel, timeseries.Panel)

SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
"""The data source that was chosen above."""

SECONDS, RATIO, COUNT, PER_SECOND, BYTES = "s", "percentunit", "short", "cps", "bytes"
UNITS: Final = {"seconds": SECONDS, "ratio": RATIO, "": COUNT}
"""Grafana's unit for each unit of an alert."""

_NEUTRAL: Final = "blue"
_STATES: Final = {"0": ("ok", "green"), "1": ("warning", levels.COLOURS["warning"]),
                  "2": ("critical", levels.COLOURS["critical"])}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Query:
    """One query of a panel.

    Args:
        expr: PromQL with Grafana's variables.
        legend: name of each series, with labels as `{{lane}}`.
        exemplar: show the commands behind the numbers, too.
        at_once: only the newest value.
        format: `time_series`, `table` or `heatmap`.
    """

    expr: str
    legend: str = ""
    exemplar: bool = False
    at_once: bool = False
    format: PromQueryFormat = PromQueryFormat.TIME_SERIES


@dataclasses.dataclass(frozen=True)
class Words:
    """What every panel says of itself.

    Args:
        title: names it; no two panels of a dashboard share one.
        text: what it shows and how to read it.
        watched: what it shows where that is the value of an alert, whose levels it draws.
    """

    title: str
    text: str
    watched: levels.Watched | None = None

    @property
    def description(self) -> str:
        """The text, and what the lines mean."""
        return f"{self.text} {self.watched.words}".rstrip() if self.watched else self.text


def watch(words: Words, *by: str, exemplar: bool = False, none: str = "") -> timeseries.Panel:
    """The value of an alert over time, with its levels; `by` are the labels that tell its lines apart."""
    return graph(words, *_values(words, by, exemplar=exemplar), none=none)


def watch_now(words: Words, *by: str, none: str = "none") -> stat.Panel:
    """The value of an alert at this moment, coloured by its levels."""
    return number(words, *_values(words, by), none=none)


def objective(watched: levels.Watched) -> timeseries.Panel:
    """How fast an error budget burns, in the two windows that its alert compares."""
    spec = watched.shown
    about = f"{spec.what[:1].upper()}{spec.what[1:]}. The alert needs both windows above the line."
    lanes = ", ".join(spec.lanes) or "all lanes"
    queries = [
        Query(
            promql.compared(spec, signal, "lane", lanes=promql.only_lanes(spec)),
            f"{{{{lane}}}} {levels.window(signal)}",
        )
        for signal in spec.signals
    ]
    return graph(Words(f"{spec.rule.replace('_', ' ').capitalize()}: {lanes}", about, watched), *queries)


def quantiles(metric: Metric, by: str, *shares: float, exemplar: bool = False) -> list[Query]:
    """Several quantiles of a histogram, the commands behind the higher ones on request."""
    return [
        Query(promql.quantile(share, metric, by), f"{{{{{by}}}}} p{share * 100:g}", exemplar and share > 0.5)
        for share in shares
    ]


def graph(
    words: Words,
    *queries: Query,
    unit: str = "",
    stacked: bool = False,
    none: str = "",
) -> timeseries.Panel:
    """Lines over time; stacked areas where the series add up to something. `none` is shown where there is nothing."""
    panel = _dressed(timeseries.Panel(), words, queries, unit).height(8).span(8)
    panel = panel.min(0).line_width(1).fill_opacity(40 if stacked else 8).show_points(common.VisibilityMode.NEVER)
    panel = panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    panel = panel.tooltip(
        build.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    legend = build.VizLegendOptions().show_legend(show_legend=True).display_mode(common.LegendDisplayMode.LIST)
    panel = panel.legend(legend.placement(common.LegendPlacement.BOTTOM).calcs([]))
    if stacked:
        panel = panel.stacking(build.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if words.watched:
        panel = panel.thresholds_style(build.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
    if none:
        panel = panel.no_value(none)
    if any("{{lane}}" in query.legend for query in queries):
        panel = panel.data_links([links.lane_of("${__field.labels.lane}"), links.traces_of("${__field.labels.lane}")])
    return panel


def number(words: Words, *queries: Query, unit: str = "", none: str = "none") -> stat.Panel:
    """Numbers of this moment, each with its recent course behind it."""
    panel = _dressed(stat.Panel(), words, queries, unit).height(4).span(4).no_value(none)
    panel = panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    panel = panel.color_mode(common.BigValueColorMode.VALUE).graph_mode(common.BigValueGraphMode.AREA)
    return panel.reduce_options(_newest())


def fact(words: Words, query: Query, *, unit: str = "string", named: bool = False, none: str = "none") -> stat.Panel:
    """A number that has no course, or, where `named`, only the name of its series."""
    panel = number(words, dataclasses.replace(query, at_once=True), unit=unit, none=none)
    panel = panel.graph_mode(common.BigValueGraphMode.NONE)
    return panel.text_mode(common.BigValueTextMode.NAME) if named else panel


def ranking(words: Words, query: Query, *, unit: str, none: str) -> bargauge.Panel:
    """Bars, one for each series of this moment."""
    panel = _dressed(bargauge.Panel(), words, (dataclasses.replace(query, at_once=True),), unit).height(8).span(8)
    panel = panel.no_value(none).min(0).orientation(common.VizOrientation.HORIZONTAL)
    panel = panel.display_mode(common.BarGaugeDisplayMode.GRADIENT).value_mode(common.BarGaugeValueMode.COLOR)
    panel = panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    return panel.reduce_options(_newest())


def heat_map(words: Words, query: Query) -> heatmap.Panel:
    """How a histogram's values spread over time; the points are commands whose traces can be opened."""
    asked = dataclasses.replace(query, format=PromQueryFormat.HEATMAP, legend="{{le}}")
    panel = _dressed(heatmap.Panel(), words, (asked,), SECONDS).height(8).span(12)
    panel = panel.calculate(calculate=False).y_axis(
        heatmap.YAxisConfig().unit(SECONDS).axis_placement(common.AxisPlacement.LEFT)
    )
    colour = heatmap.HeatmapColorOptions().mode(heat.HeatmapColorMode.SCHEME).scheme("Oranges").fill("dark-orange")
    colour = colour.scale(heat.HeatmapColorScale.EXPONENTIAL).exponent(0.5).steps(64).reverse(reverse=False)
    panel = panel.color(colour)
    panel = panel.cell_values(heatmap.CellValues().unit(PER_SECOND)).exemplars_color("rgba(255,0,255,0.7)")
    panel = panel.rows_frame(heatmap.RowsHeatmapOptions().layout(common.HeatmapCellLayout.AUTO))
    return panel.mode(common.TooltipDisplayMode.SINGLE).show_y_histogram().show_legend()


def states(words: Words, query: Query, *, none: str) -> statetimeline.Panel:
    """When which alert fired: nothing is shown while all is well."""
    panel = _dressed(statetimeline.Panel(), words, (query,), COUNT).height(8).span(12).no_value(none)
    shown = {
        value: model.ValueMappingResult(text, colour, index=int(value)) for value, (text, colour) in _STATES.items()
    }
    panel = panel.mappings([model.ValueMap(shown)])
    panel = (
        panel.show_value(common.VisibilityMode.NEVER).row_height(0.8).merge_values(merge_values=True).fill_opacity(80)
    )
    return panel.data_links([links.lane_of("${__field.labels.lane}")])


def sheet(words: Words, key: str, labels: str, columns: dict[str, tuple[str, str]]) -> table.Panel:
    """A table of this moment: a row for each value of one label.

    Args:
        words: as ever.
        key: the label.
        labels: a query of which only the labels are shown, the key among them.
        columns: by heading, a query with this label and the unit of its values.
    """
    asked = [
        Query(expr, at_once=True, format=PromQueryFormat.TABLE)
        for expr in (labels, *(expr for expr, _ in columns.values()))
    ]
    panel = _dressed(table.Panel(), words, asked, COUNT).height(8).span(24).show_header(show_header=True)
    hidden = ["Value #A", "Time", *(f"Time {number}" for number in range(1, len(asked) + 1))]
    headings = {f"Value #{_letter(index)}": heading for index, heading in enumerate(columns, 1)}
    changes = {"excludeByName": dict.fromkeys(hidden, True), "renameByName": headings}
    panel = panel.with_transformation(
        model.DataTransformerConfig("joinByField", options={"byField": key, "mode": "outer"})
    )
    panel = panel.with_transformation(model.DataTransformerConfig("organize", options=changes))
    for heading, (_, unit) in columns.items():
        panel = panel.override_by_name(heading, [model.DynamicConfigValue("unit", unit)])
    link = links.lane_of("${__value.text}").build()
    return panel.override_by_name(key, [model.DynamicConfigValue("links", [link])])


def _values(words: Words, by: tuple[str, ...], *, exemplar: bool = False) -> list[Query]:
    assert words.watched is not None
    legend = " ".join(f"{{{{{label}}}}}" for label in by) or "worst"
    return [Query(expr, legend, exemplar) for expr in words.watched.values(*by)]


def _dressed(panel: P, words: Words, queries: Sequence[Query], unit: str) -> P:
    watched = words.watched
    steps = [model.Threshold(None, "green" if watched and watched.steps else _NEUTRAL)]
    if watched is not None:
        unit = unit or UNITS[watched.shown.unit]
        # A number has the colour of the level that it is at, where an alert asks for more: at 0 it is never green.
        drawn = watched.steps if not isinstance(panel, stat.Panel) else [one for one in watched.steps if one[0] > 0]
        steps += [model.Threshold(level, colour) for level, colour in drawn]
        panel = panel.links([links.runbook(watched.shown)])
    panel = panel.title(words.title).description(words.description).datasource(SOURCE).id(identity(words.title))
    panel = panel.unit(unit or COUNT).thresholds(
        dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
    )
    for index, query in enumerate(queries):
        panel = panel.with_target(_target(query, _letter(index)))
    return panel


def _target(query: Query, name: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(name).expr(query.expr).datasource(SOURCE).format(query.format)
    target = target.instant() if query.at_once else target.range()
    target = target.exemplar(query.exemplar)
    return target.legend_format(query.legend) if query.legend else target


def _newest() -> build.ReduceDataOptions:
    return build.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(values=False)


def _letter(index: int) -> str:
    return chr(ord("A") + index)


def identity(title: str) -> int:
    """The number of a panel: it stays while the title does, wherever the panel goes."""
    return zlib.crc32(title.encode()) % 1_000_000 + 1
