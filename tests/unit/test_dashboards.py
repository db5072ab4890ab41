"""The dashboards by what their JSON says: metrics of the catalogue, levels of the definitions, rules of the linter.

The rules are those of Grafana's dashboard-linter, as far as they are about panels, queries and variables.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import promql_parser
import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import generate, grafana, levels
from lane_obs.alerts import MEASURES, load_alerts
from lane_obs.alerts.expression import duration
from lane_obs.demo.settings import SETTINGS
from lane_obs.metrics import CATALOGUE, catalogue
from lane_obs.metrics.supervised import SUPERVISED
from lane_obs.monitor import MonitorConfig
from tests.integration.services import grafana as viewed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lane_obs.alerts import AlertSpec

RULES = {"": MonitorConfig().specs, "demo/": load_alerts(SETTINGS).specs}
"""Whose levels the dashboards have: those that a monitor starts with, and the demo's."""

FOLDERS = {"": viewed.FOLDER, "demo/": viewed.DEMO}
BOARDS = {f"{which}{name}": viewed.read(name, FOLDERS[which]) for which in RULES for name in viewed.FILES}
of_each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
METRICS = {metric.name: metric for metric in CATALOGUE}

FOREIGN = {
    "ALERTS": "Prometheus's own series of alerts",
    "up": "Prometheus's own series of targets",
    **dict.fromkeys(
        [
            "process_cpu_seconds_total", "process_max_fds", "process_open_fds", "process_resident_memory_bytes",
            "process_start_time_seconds", "process_virtual_memory_bytes", "python_gc_collections_total",
            "python_gc_objects_collected_total", "python_gc_objects_uncollectable_total",
        ],
        "prometheus_client gives it of its own process",
    ),
    **dict.fromkeys([metric.name for metric in SUPERVISED], "a supervisor of processes gives it, beside their metrics"),
}  # fmt: skip
"""Metrics that are not of the catalogue, each with whose it is."""

WHOLE = ("rate(p", "process_", "rate(python", "lane_worker_", "rate(lane_worker_")
"""How expressions begin that keep all labels of foreign metrics."""

LEFT_OUT: dict[str, str] = {}
"""Metrics of the catalogue that are on no dashboard, each with the reason."""

LABEL_VALUES = {
    "state": catalogue.STATES,
    "outcome": catalogue.OUTCOMES,
    "cause": catalogue.BLOCKED_BY,
    "role": catalogue.ROLES,
    "command_type": ("",),  # compared with nothing
}
"""What the labels that queries name may be."""

WINDOWS = {"timeseries": {"$__rate_interval"}, "heatmap": {"$__rate_interval"}, "state-timeline": set[str]()}
"""Grafana's windows by kind of panel; others show numbers of this moment, and may look back over the time shown."""

VALUES = {"job": ".+", "instance": ".+", "queue": ".+", "lane": ".+"}
VALUES |= {"__rate_interval": "1m", "__interval": "15s", "__range": "1h"}


def nodes(expr: str) -> Iterator[Any]:
    """All parts of an expression, the outer ones first."""
    left = [promql_parser.parse(viewed.substituted(expr, VALUES))]
    while left:
        node = left.pop()
        yield node
        parts = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "param", "vector_selector")]
        parts += getattr(node, "args", None) or []
        left += [part for part in parts if part is not None]


def selectors(expr: str) -> list[Any]:
    """The series that an expression reads."""
    return [node for node in nodes(expr) if isinstance(node, promql_parser.VectorSelector)]


def base(name: str) -> str:
    """The metric of a series."""
    return name if name in METRICS else re.sub(r"_(bucket|count|sum)$", "", name)


def matchers(selector: Any) -> dict[str, tuple[str, str]]:
    return {one.name: (str(one.op), one.value) for one in selector.matchers.matchers}


# --- files ------------------------------------------------------------------------------------------------------


def test_the_files_are_those_that_are_generated() -> None:
    paths = {(generate.ROOT / name).resolve() for name in grafana.OUTPUTS}
    assert paths == {folder / name for folder in FOLDERS.values() for name in viewed.FILES}
    assert set(grafana.OUTPUTS) <= set(generate.OUTPUTS)


@pytest.mark.parametrize("name", grafana.OUTPUTS)
def test_a_file_is_fresh_and_the_same_input_gives_the_same_text(name: str) -> None:
    assert not generate.stale(name), "run: python -m dashboards.generate"
    assert grafana.OUTPUTS[name]() == grafana.OUTPUTS[name]()


@of_each_board
def test_grafanas_own_models_read_what_is_there(board: Any) -> None:
    plugins.register_default_plugins()
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(board)))
    assert {path.rpartition("/")[2] for path in lost(board, again)} == {"titleFormat", "textFormat", "useValueForTime"}


def lost(part: Any, again: Any, path: str = "") -> Iterator[str]:
    """Where the second of two values lacks something of the first."""
    if isinstance(part, dict) and isinstance(again, dict):
        for key, value in part.items():
            yield from lost(value, again.get(key), f"{path}/{key}")
    elif isinstance(part, list) and isinstance(again, list) and len(part) == len(again):
        for index, pair in enumerate(zip(part, again, strict=True)):
            yield from lost(*pair, f"{path}/{index}")
    elif part != again:
        yield path


def test_a_file_of_rules_of_ones_own_gives_dashboards_with_its_levels(tmp_path: Path) -> None:
    rules = tmp_path / "lanes.toml"
    rules.write_text('[alerts]\n[[alerts.rules]]\nmeasure = "ready_depth"\nwarning = 7\n')
    grafana.main(str(rules), str(tmp_path))
    board = viewed.read("lane.json", tmp_path)
    steps = {
        panel["title"]: [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        for panel in viewed.panels(board)
    }
    assert steps["Ready commands"] == [None, 7.0]
    assert {title for title, values in steps.items() if len(values) > 1} == {"Ready commands", "Ready"}
    assert "stuck" in str([panel["targets"] for panel in viewed.panels(board)])  # shown, if not watched


# --- metrics ----------------------------------------------------------------------------------------------------


@of_each_board
def test_a_query_reads_only_metrics_that_exist(board: Any) -> None:
    for asked in viewed.queries(board):
        names = {selector.name for selector in selectors(asked.expr)}
        assert names
        assert {name for name in names if base(name) not in METRICS and name not in FOREIGN} == set()


def test_every_metric_of_the_catalogue_is_on_a_panel_or_left_out_for_a_reason() -> None:
    shown = {
        base(selector.name)
        for name in viewed.FILES
        for panel in viewed.panels(BOARDS[name])
        for target in panel["targets"]
        for selector in selectors(target["expr"])
    }
    assert set(METRICS) - shown == set(LEFT_OUT)
    assert set(FOREIGN) <= shown | {"ALERTS"}


@of_each_board
def test_a_selector_names_only_labels_and_values_that_the_metric_has(board: Any) -> None:
    for asked in viewed.queries(board):
        for selector in selectors(asked.expr):
            if (metric := METRICS.get(base(selector.name))) is None:
                continue
            given = matchers(selector)
            suffix = selector.name.removeprefix(metric.name)
            assert suffix in ({"_bucket", "_sum", "_count"} if metric.kind == "histogram" else {""})
            bucket = {"le"} if suffix == "_bucket" else set()
            assert set(given) <= {"job", "instance", "queue", *metric.labels, *metric.opt_in, *bucket}
            for name in set(given) & set(LABEL_VALUES):
                assert set(given[name][1].split("|")) <= set(LABEL_VALUES[name]), selector


# --- queries ----------------------------------------------------------------------------------------------------


@of_each_board
def test_a_query_is_narrowed_by_every_variable_that_its_series_have_labels_for(board: Any) -> None:
    for asked in viewed.queries(board):
        read = [(base(name), text) for name, text in re.findall(r"([a-zA-Z_]\w*)\{([^}]*)\}", asked.expr)]
        # None has no matchers at all.
        assert sorted(name for name, _ in read) == sorted(base(selector.name) for selector in selectors(asked.expr))
        for name, text in read:
            wanted = ["job", "instance"]
            if name in METRICS or name == "ALERTS":
                wanted.append("queue")
            if name == "ALERTS" or (name in METRICS and "lane" in METRICS[name].labels):
                wanted.append("lane")
            missing = [label for label in wanted if not re.search(rf'\b{label}=~"\${label}\|?"', text)]
            assert missing == [], name


@of_each_board
def test_counters_and_buckets_are_read_as_rates_and_gauges_never(board: Any) -> None:
    for asked in viewed.queries(board):
        moving = set()
        for node in nodes(asked.expr):
            if isinstance(node, promql_parser.Call) and node.func.name in {"rate", "increase"}:
                moving |= {selector.name for selector in selectors(str(node))}
        for selector in selectors(asked.expr):
            kind = METRICS[base(selector.name)].kind if base(selector.name) in METRICS else ""
            counts = kind in {"counter", "histogram"} or selector.name.endswith("_total")
            assert counts is (selector.name in moving), selector.name


@of_each_board
def test_quantiles_are_of_rates_added_up_by_bucket(board: Any) -> None:
    for asked in viewed.queries(board):
        for node in nodes(asked.expr):
            if isinstance(node, promql_parser.Call) and node.func.name == "histogram_quantile":
                inner = str(node.args[1])
                assert inner.startswith(("sum by (", "rate("))
                assert inner.startswith("rate(") or re.match(r"sum by \([^)]*\ble\)", inner)


@of_each_board
def test_windows_are_grafanas_but_for_the_value_of_an_alert(board: Any) -> None:
    for panel in viewed.panels(board):
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        for target in panel["targets"]:
            windows = set(re.findall(r"\[([^\]]*)\]", target["expr"]))
            if len(steps) > 1 or panel.get("links"):
                assert windows <= {duration(window) for window in rule_windows()}
            else:
                assert windows <= WINDOWS.get(panel["type"], {"$__rate_interval", "$__range"}), panel["title"]


def rule_windows() -> set[float]:
    specs = [spec for specs in RULES.values() for spec in specs]
    return {window for spec in specs for signal in spec.signals for _, window in signal.expression.parts()}


# --- levels -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Drawn:
    """A panel that shows the value of an alert."""

    panel: Any
    rule: str
    specs: list[AlertSpec]
    steps: list[tuple[float, str]]


def drawn(which: str) -> Iterator[Drawn]:
    for name in viewed.FILES:
        for panel in viewed.panels(BOARDS[f"{which}{name}"]):
            lowest, *steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
            assert lowest["value"] is None
            assert bool(steps) <= bool(panel.get("links"))
            for link in panel.get("links", []):
                rule = link["title"].removeprefix("Runbook: ")
                per = MEASURES[rule].pers[0] if rule in MEASURES else "lane"
                specs = [spec for spec in RULES[which] if (spec.rule, spec.per) == (rule, per)]
                yield Drawn(panel, rule, specs, [(step["value"], step["color"]) for step in steps])


@pytest.mark.parametrize("which", RULES)
def test_the_levels_drawn_are_those_of_the_alerts_whose_value_is_shown(which: str) -> None:
    found = list(drawn(which))
    assert len(found) > 20
    for one in found:
        expected = sorted({(spec.level, levels.COLOURS[spec.severity]) for spec in one.specs})
        if one.panel["type"] == "stat":  # see the next test
            expected = [step for step in expected if step[0] > 0]
        # Objectives have a panel each, the lanes of a rule share one.
        assert one.steps == expected if one.rule in MEASURES else one.steps and set(one.steps) <= set(expected)
        for level, _ in one.steps:
            spec = next(spec for spec in one.specs if spec.level == level)
            assert f"{spec.severity} above {spec.show(level)}" in one.panel["description"]
            assert spec.runbook in one.panel["description"]


@pytest.mark.parametrize("which", RULES)
def test_the_value_shown_is_what_the_alert_compares_narrowed_by_the_variables(which: str) -> None:
    for one in drawn(which):
        values = {signal.expression.promql(spec.per) for spec in one.specs for signal in spec.signals}
        values |= {re.sub(r"> 0\.\d+\)$", "> 0)", value) for value in values}  # quiet lanes are shown, too
        for target in one.panel["targets"] if one.specs else ():
            bare = re.sub(r'(job|instance|queue|lane)(=~|!~)"[^"]*"(, )?', "", target["expr"])
            match = re.fullmatch(r"max (?:by \([a-z, ]+\) )?\((.*)\)", re.sub(r",? ?}", "}", bare).replace("{}", ""))
            assert match is not None, bare
            assert match[1] in values, one.panel["title"]


def test_lanes_with_windows_of_their_own_are_shown_apart() -> None:
    (one,) = [one for one in drawn("demo/") if one.rule == "starvation"]
    lanes = [re.findall(r'lane(?:=|!)~"prompt"', target["expr"]) for target in one.panel["targets"]]
    assert lanes == [['lane=~"prompt"'], ['lane!~"prompt"']]


@pytest.mark.parametrize("which", RULES)
def test_every_rule_is_drawn(which: str) -> None:
    assert {one.rule for one in drawn(which) if one.steps} == {spec.rule for spec in RULES[which]}


@pytest.mark.parametrize("which", RULES)
def test_no_number_is_coloured_by_a_level_of_zero(which: str) -> None:
    # Grafana colours what is at the level or above: it would never be green.
    assert [one for one in drawn(which) if one.panel["type"] == "stat" and 0 in dict(one.steps)] == []


# --- panels -----------------------------------------------------------------------------------------------------


@of_each_board
def test_a_panel_has_a_title_words_a_unit_and_the_chosen_data_source(board: Any) -> None:
    for panel in viewed.panels(board):
        assert panel["title"]
        assert panel["description"].strip().endswith((".", ")"))
        unit = (
            panel["options"]["yAxis"]["unit"]
            if panel["type"] == "heatmap"
            else panel["fieldConfig"]["defaults"]["unit"]
        )
        assert unit
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert target["instant"] is not target["range"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


@of_each_board
def test_a_legend_names_only_labels_that_the_query_keeps(board: Any) -> None:
    for panel in viewed.panels(board):
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")):
                kept = re.findall(r"by \(([^)]*)\)", target["expr"])
                by = {name.strip() for names in kept for name in names.split(",")}
                # What prometheus_client gives of a process is shown as it is.
                assert label in by or target["expr"].startswith(WHOLE), target["expr"]


@of_each_board
def test_numbers_and_titles_of_panels_are_their_own(board: Any) -> None:
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    titles = [panel["title"] for panel in viewed.panels(board)]
    assert len(set(titles)) == len(titles)


@of_each_board
def test_panels_lie_beside_and_below_each_other(board: Any) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_histograms_of_commands_show_the_commands_behind_them() -> None:
    shown = {
        base(selector.name)
        for board in BOARDS.values()
        for asked in viewed.queries(board)
        if asked.exemplar
        for selector in selectors(asked.expr)
    }
    assert shown == {
        "lane_command_queue_wait_seconds", "lane_command_duration_seconds", "lane_command_end_to_end_seconds",
    }  # fmt: skip
    heat_maps = [panel for panel in viewed.panels(BOARDS["lane.json"]) if panel["type"] == "heatmap"]
    assert [target["exemplar"] for panel in heat_maps for target in panel["targets"]] == [True, True]


# --- dashboards -------------------------------------------------------------------------------------------------


@of_each_board
def test_a_dashboard_has_a_name_of_its_own_and_is_not_edited_by_hand(board: Any) -> None:
    assert board["uid"] in {"lane-obs-overview", "lane-obs-lane", "lane-obs-process"}
    assert board["tags"] == ["lane-obs"]
    assert board["editable"] is False
    assert board["timezone"] == "browser"
    assert board["refresh"] in {"10s", "30s"}
    assert board["title"]
    assert board["description"]
    assert "id" not in board  # a number of one Grafana


def test_no_two_dashboards_are_the_same() -> None:
    for key in ("uid", "title"):
        assert len({BOARDS[name][key] for name in viewed.FILES}) == 3


@of_each_board
def test_the_variables_are_there_and_narrow_each_other(board: Any) -> None:
    found = viewed.variables(board)
    assert list(found) == ["datasource", "traces", "service", "job", "instance", "queue", "lane"]
    assert [found[name]["query"] for name in ("datasource", "traces")] == ["prometheus", "jaeger"]
    before: list[str] = []
    for name in ("job", "instance", "queue", "lane"):
        variable = found[name]
        assert variable["label"]
        assert variable["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".+")
        assert variable["refresh"] == 2  # with the time shown
        assert [one for one in before if f'{one}=~"${one}"' not in variable["query"]] == []
        assert variable["query"].endswith(f", {name})")
        series = variable["query"].removeprefix("label_values(").removesuffix(f", {name})")
        (selector,) = selectors(series)
        assert {*matchers(selector), name} <= {"job", "instance", "queue", *METRICS[selector.name].labels}
        before.append(name)


@of_each_board
def test_every_variable_is_used(board: Any) -> None:
    text = str([board["panels"], board["links"], board["annotations"]])
    unused = [name for name in viewed.variables(board) if not re.search(rf"\$(\{{{name}\b|{name}\b)", text)]
    assert unused == []


@of_each_board
def test_no_data_source_is_named(board: Any) -> None:
    def sources(part: Any) -> Iterator[Any]:
        if isinstance(part, dict):
            yield from ([part["datasource"]] if "datasource" in part else [])
            for inner in part.values():
                yield from sources(inner)
        elif isinstance(part, list):
            for inner in part:
                yield from sources(inner)

    assert {source["uid"] for source in sources(board)} == {"${datasource}"}


@of_each_board
def test_alerts_are_marked_on_the_graphs(board: Any) -> None:
    notes = {note["name"]: note for note in board["annotations"]["list"]}
    assert 'ALERTS{alertstate="firing"' in notes["Prometheus alerts"]["expr"]
    assert notes["Monitor's alerts"]["expr"].startswith("lane_alert_state{")
    assert all(note["enable"] and note["titleFormat"] for note in notes.values())


# --- links ------------------------------------------------------------------------------------------------------


@of_each_board
def test_the_other_dashboards_are_one_click_away_with_what_was_chosen(board: Any) -> None:
    link = next(link for link in board["links"] if link["type"] == "dashboards")
    assert (link["tags"], link["includeVars"], link["keepTime"]) == (["lane-obs"], True, True)


@of_each_board
def test_a_graph_by_lane_leads_to_the_lane_and_its_traces(board: Any) -> None:
    for panel in viewed.panels(board):
        if panel["type"] != "timeseries" or "{{lane}}" not in str(panel["targets"]):
            continue
        lane, traces = panel["fieldConfig"]["defaults"]["links"]
        assert lane["url"].startswith("/d/lane-obs-lane?var-lane=${__field.labels.lane}&")
        assert "${__url_time_range}" in lane["url"]
        kept = {name for name in viewed.variables(board) if f"${{{name}:queryparam}}" in lane["url"]}
        assert kept == set(viewed.variables(board)) - {"lane"}
        assert traces["url"].startswith("/explore?")
        assert "process%20${__field.labels.lane}" in traces["url"]


def test_the_link_to_the_traces_is_json_that_explore_takes() -> None:
    link = next(link for link in BOARDS["overview.json"]["links"] if link["title"] == "Traces")
    panes = json.loads(unquote(link["url"].partition("panes=")[2]))
    (query,) = panes["a"]["queries"]
    assert query["datasource"] == {"type": "jaeger", "uid": "${traces}"}
    assert query["service"] == "${service}"
    assert panes["a"]["datasource"] == "${traces}"


# --- the check itself -------------------------------------------------------------------------------------------


def test_variables_are_put_in_as_grafana_puts_them_in() -> None:
    variable = {"allValue": ".+"}
    assert viewed.written(variable, [viewed.ALL]) == ".+"
    assert viewed.written(variable, ["a.b"]) == r"a\\.b"
    assert viewed.written(variable, ["a", "b|c"]) == r"(a|b\\|c)"
    assert viewed.substituted(
        'x{a=~"$lane|"}[$__rate_interval] ${lane:regex}', {"lane": "q", "__rate_interval": "4s"}
    ) == ('x{a=~"q|"}[4s] q')
    with pytest.raises(KeyError):
        viewed.substituted("$nothing", {})
    (selector,) = selectors('x{a=~"' + viewed.written(variable, ["127.0.0.1:80"]) + '"}')
    assert re.fullmatch(selector.matchers.matchers[0].value, "127.0.0.1:80")
