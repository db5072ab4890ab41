"""Rewrites the generated parts of README.md and docs/: what stands between `<!-- generated: NAME -->` and its end.

python docs/generate.py            # rewrite
python docs/generate.py --check    # exit 1 when something is stale
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lane_obs
from lane_obs import alerts, events, metrics
from lane_obs.alerts.prometheus import TARGET_DOWN
from lane_obs.core.state import FINAL, TRANSITIONS
from lane_obs.demo.chapter import CHAPTERS
from lane_obs.distributed.redis.broker import RedisBroker
from lane_obs.metrics.supervised import SUPERVISED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)
_SECTION = re.compile(r"^[A-Z][a-z]+:$")
_ITEM = re.compile(r"^    ([*\w, ]+): (.*)$")

_USE_OF_LANE = {
    "system": "System-level operations",
    "control": "Control commands (pause, resume, cancel)",
    "query": "Read-only queries",
    "session": "Session management",
    "skill": "Skill/tool execution",
    "prompt": "LLM prompt processing",
}
_OVERVIEW = [
    "QueueManagerBuilder", "QueueManager", "CommandHandle", "CommandContext", "Command", "LaneConfig",
    "RetryPolicy", "RateLimit", "PriorityBoost", "Partitions", "DeadLetterQueue", "DeadLetter", "EventEmitter",
    "EventStream", "LaneEvent", "QueueMonitor", "MonitorConfig", "MemorySink", "BackgroundSink", "VirtualClock",
    "Observability", "Logs", "Metrics", "Traces",
]  # fmt: skip
_FURTHER = [
    "CommandQueue", "Cluster", "SharedCommand", "SharedLetter", "QueueConfig", "QueueStats", "LaneStats", "Explanation",
    "DrainReport", "WaitByCause", "Sink", "SinkStats", "Bus", "Clock", "SystemClock", "TraceIds",
]  # fmt: skip
# Methods that other parts of the library call.
_INTERNAL = {
    "Bus": {"bind", "append", "flush", "close"},
    "DeadLetterQueue": {"bind"},
    "EventEmitter": {"handle", "close"},
    "EventStream": {"put"},
    "MemorySink": {"handle", "close"},
    "BackgroundSink": {"handle", "close", "take_failure"},
    "Cluster": {"later", "close"},
}


def documents() -> list[Path]:
    """The files that may hold generated parts."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def refresh(text: str) -> str:
    """Returns a document with its generated parts as they should be."""

    def rewrite(match: re.Match[str]) -> str:
        return f"{match[1]}{PARTS[match['name']]()}\n{match[3]}"

    return _BLOCK.sub(rewrite, text)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    lines = [list(head)]
    lines.append(["---"] * len(lines[0]))
    lines += [[str(cell).replace("|", r"\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary(thing: object) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n", maxsplit=1)[0].split())


def described(kind: object, section: str) -> Iterator[tuple[str, str]]:
    """The entries of a section (`Args`, `Keys`, `Attributes`) of a docstring: name and text."""
    name, inside = "", False
    parts: list[str] = []
    for line in (inspect.getdoc(kind) or "").splitlines():
        if _SECTION.match(line):
            inside = line == f"{section}:"
        elif inside and (item := _ITEM.match(line)):
            if name:
                yield name, " ".join(parts)
            name, parts = item[1], [item[2]]
        elif inside and line.strip():
            parts.append(line.strip())
    if name:
        yield name, " ".join(parts)


def _fields(*kinds: object, section: str = "Args", column: str = "Field") -> str:
    pairs = [pair for kind in kinds for pair in described(kind, section) if pair[0] != "**kwargs"]
    return table([column, "Meaning"], [(f"`{name}`", _sentence(text)) for name, text in pairs])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _default_lanes() -> str:
    rows = [
        (f"`{name}`", lane.priority, lane.min_concurrency, lane.max_concurrency, _USE_OF_LANE[name])
        for name, lane in lane_obs.DEFAULT_LANES.items()
    ]
    return table(["Lane", "Priority", "Min", "Max", "For"], rows)


def _boosts() -> str:
    kinds = {"standard": lane_obs.PriorityBoost.standard(), "aggressive": lane_obs.PriorityBoost.aggressive()}
    rows = [
        (
            f"`PriorityBoost.{name}(deadline)`",
            *(f"less {less} at {share * 100:g} % left" for share, less in boost.steps),
        )
        for name, boost in kinds.items()
    ]
    return table(["Boost", "First step", "Second", "Third", "Fourth"], rows)


def _wait_causes() -> str:
    home = sys.modules[lane_obs.WaitByCause.__module__]
    doc = dict(_constant_docs(home))["CAUSES"]
    pairs = re.findall(r"^(\w+): (.*)$", doc, re.MULTILINE)
    return table(["Cause", "Meaning"], [(f"`{name}`", _sentence(text)) for name, text in pairs])


def _constant_docs(module: object) -> Iterator[tuple[str, str]]:
    """The names of a module's or class's assignments that a string literal follows, with that string."""
    tree: Any = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    body = tree.body[0].body if inspect.isclass(module) else tree.body
    for statement, following in pairwise(body):
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if isinstance(targets[0], ast.Name) and isinstance(following, ast.Expr):
            yield targets[0].id, inspect.cleandoc(ast.literal_eval(following.value))


def _states() -> str:
    docs = dict(_constant_docs(lane_obs.State))
    rows = [
        (
            f"`{state}`",
            docs[state.name],
            ", ".join(f"`{after}`" for after in lane_obs.State if after in TRANSITIONS[state]),
        )
        for state in lane_obs.State
    ]
    return table(["State", "Meaning", "May become"], rows)


def _state_diagram() -> str:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> delayed", "    [*] --> ready"]
    for state in lane_obs.State:
        lines += [f"    {state} --> {after}" for after in lane_obs.State if after in TRANSITIONS[state]]
        lines += [f"    {state} --> [*]"] if state in FINAL else []
    return "\n".join([*lines, "```"])


def _events() -> str:
    rows = []
    for kind in events.EVENT_TYPES:
        about_command = issubclass(kind, events.CommandEvent)
        hidden = {"seq", "at", "wall", "exception"}
        hidden |= {"command_id", "lane", "command_type", "attempt"} if about_command else set()
        names = [f"`{name}`" for name in kind.__struct_fields__ if name not in hidden]
        fields = ", ".join([*(["*command*"] if about_command else []), *names])
        rows.append((f"`{kind.key}`", f"`{kind.__name__}`", summary(kind), fields))
    return table(["Key", "Type", "When", "Payload"], rows)


def _errors() -> str:
    kinds = [getattr(lane_obs, name) for name in lane_obs.__all__]
    errors = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)]
    rows = []
    for kind in errors:
        also = [f"`{base.__name__}`" for base in kind.__mro__ if base.__module__ == "builtins"]
        also = [name for name in also if name not in {"`Exception`", "`BaseException`", "`object`", "`OSError`"}]
        rows.append((f"`{kind.__name__}`", ", ".join(also), summary(kind)))
    return table(["Error", "Is also a", "What went wrong"], rows)


def _members(kind: type) -> Iterator[tuple[str, str]]:
    """What a class offers, inherited from this library or its own: how to write it, and what it does."""
    attributes = [pair for base in _family(kind) for pair in described(base, "Attributes")]
    for names, text in attributes:
        yield ", ".join(f"`{name}`" for name in names.split(", ")), _sentence(text)
    hidden = {name for names, _ in attributes for name in names.split(", ")} | _INTERNAL.get(kind.__name__, set())
    hidden |= {field for base in kind.__mro__ for field in getattr(base, "__annotations__", {})}
    members = {name: member for base in _family(kind) for name, member in vars(base).items()}
    for name, member in members.items():
        if name.startswith("_") or name in hidden:
            continue
        if isinstance(member, property):
            yield f"`{name}`", summary(member)
        elif inspect.isroutine(member):
            yield f"`{_call(kind, name)}`", summary(getattr(kind, name))


def _family(kind: type) -> list[type]:
    return [
        base
        for base in reversed(kind.__mro__)
        if base.__module__.startswith("lane_obs") and "core" not in base.__module__
    ]


def _call(kind: type, name: str) -> str:
    bound = inspect.ismethod(getattr(kind, name))
    signature = inspect.signature(getattr(kind, name))
    parameters = list(signature.parameters.values())[0 if bound else 1 :]
    words, starred = [], False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            words.append("*")
            starred = True
        star = (
            "*"
            if parameter.kind is parameter.VAR_POSITIONAL
            else "**"
            if parameter.kind is parameter.VAR_KEYWORD
            else ""
        )
        starred = starred or star == "*"
        default = "" if parameter.default is parameter.empty else f"={_literal(parameter.default)}"
        words.append(f"{star}{parameter.name}{default}")
    awaited = "await " if inspect.iscoroutinefunction(getattr(kind, name)) else ""
    return f"{awaited}{name}({', '.join(words)})"


def _literal(value: object) -> str:
    return repr(str(value)) if isinstance(value, str) else repr(value)


def _overview() -> str:
    rows = []
    for name in _OVERVIEW:
        kind = getattr(lane_obs, name)
        members = ", ".join(re.sub(r"[(].*", "()`", call).replace("await ", "") for call, _ in _members(kind))
        rows.append((f"[`{name}`](docs/api.md#{name.lower()})", summary(kind), members))
    return table(["Type", "What it is", "Members"], rows)


def _api() -> str:
    parts = []
    for name in _OVERVIEW + _FURTHER:
        kind = getattr(lane_obs, name)
        parts += [f"## {name}", "", summary(kind), ""]
        sources = [lane_obs.CommandQueue, kind] if kind is lane_obs.QueueManager else [kind]
        if any(list(described(source, "Args")) for source in sources):
            parts += [_fields(*sources, column="Argument"), ""]
        rows = list(_members(kind))
        parts += [table(["Member", "Description"], rows), ""] if rows else []
    return "\n".join(parts).rstrip()


def _metrics() -> str:
    return _metric_table(metrics.CATALOGUE)


def _worker_metrics() -> str:
    return _metric_table(SUPERVISED)


def _metric_table(catalogue: Iterable[metrics.Metric]) -> str:
    rows = []
    for metric in catalogue:
        labels = [f"`{label}`" for label in metric.labels] + [f"(`{label}`)" for label in metric.opt_in]
        rows.append((f"`{metric.name}`", metric.kind, ", ".join(labels), metric.help))
    return table(["Metric", "Type", "Labels", "Meaning"], rows)


def _metric_labels() -> str:
    return table(["Label", "Meaning"], [(f"`{label}`", text) for label, text in metrics.LABELS.items()])


def _dashboards() -> str:
    parts = []
    for name in ("overview", "lane", "process"):
        board = json.loads((ROOT / "dashboards" / f"{name}.json").read_text("utf-8"))
        rows, row = [], ""
        for panel in board["panels"]:
            if panel["type"] == "row":
                row = panel["title"]
                continue
            text, _, alert = panel["description"].partition(" Worked out as the alert ")
            rows.append((row, panel["title"], text, f"`{alert.split()[0]}`" if alert else ""))
            row = ""
        parts += [f"### {board['title'].rpartition(' ')[2]}", "", table(["Row", "Panel", "Shows", "Alert"], rows), ""]
    return "\n".join(parts).rstrip()


def _demo_chapters() -> str:
    rows = [
        (
            f"{chapter.at:g} s",
            f"{chapter.title}. {chapter.what}",
            ", ".join(f"`{alert.alert}` ({alert.severity})" for alert in chapter.alerts),
            ", ".join(f"{panel.dashboard.capitalize()}: {panel.title}" for panel in chapter.panels),
        )
        for chapter in CHAPTERS
    ]
    return table(["From", "What happens", "Alerts", "Panels that show it"], rows)


def _measures() -> str:
    rows = []
    for measure in alerts.MEASURES.values():
        window = "" if measure.window is None else f"{measure.window:g} s"
        least = "" if measure.min_rate is None else f"{measure.min_rate:g}/s"
        pers = " or ".join(measure.pers)
        rows.append((f"`{measure.name}`", _sentence(measure.what), measure.unit or "count", pers, window, least))
    return table(["Measure", "What it is", "Unit", "Per", "Window", "Least rate"], rows)


def _default_alerts() -> str:
    rows = []
    for spec in lane_obs.MonitorConfig().specs:
        held = f"{spec.for_seconds:g} s" if spec.for_seconds else "at once"
        link = f"[`{spec.alert}`](runbook.md#{spec.runbook.partition('#')[2]})"
        rows.append((link, str(spec.severity), spec.show(spec.level), spec.show(spec.clear), held))
    return table(["Alert", "Severity", "Fires above", "Ends at", "After"], rows)


def _runbook() -> str:
    waits, errors = alerts.Slo(wait_p=0.99, wait_seconds=2.5), alerts.Slo(success=0.99)
    rules = [
        alerts.Rule(measure=name, warning=0.5, per=per) for name, one in alerts.MEASURES.items() for per in one.pers
    ]
    specs = alerts.compile_rules([*rules, waits, errors])
    by_rule: dict[str, list[alerts.AlertSpec]] = {}
    for spec in [*specs, TARGET_DOWN]:
        by_rule.setdefault(spec.rule, []).append(spec)
    return "\n\n".join(_runbook_section(rule, found) for rule, found in by_rule.items())


def _runbook_section(rule: str, specs: list[alerts.AlertSpec]) -> str:
    first = specs[0]
    what = re.sub(r" \(.*\)", "", first.what)  # an objective's promise is that of an example
    names = " or ".join(f"`{name}`" for name in dict.fromkeys(spec.alert for spec in specs))
    lines = [f"## {rule.replace('_', ' ').capitalize()}", "", f"{names}: {what}.{_by_default(rule)}", ""]
    lines += [f"- **It means**: {first.cause}"]
    if first.signals:
        lines += [f"- **Look at**: {_read_by(first)}."]
    return "\n".join([*lines, f"- **Do**: {first.remedy}"])


def _by_default(rule: str) -> str:
    """The levels with which a monitor starts."""
    specs = [spec for spec in lane_obs.MonitorConfig().specs if spec.rule == rule]
    if not specs:
        return ""
    levels = (
        f"{spec.severity} above {spec.show(spec.level)}"
        + (f" until {spec.show(spec.clear)}" if spec.clear < spec.level else "")
        for spec in specs
    )
    held = f", after {specs[0].for_seconds:g} s" if specs[0].for_seconds else ""
    return f" By default {' and '.join(levels)}{held}."


def _read_by(spec: alerts.AlertSpec) -> str:
    """The metrics behind an alert."""
    leaves = dict.fromkeys(leaf for signal in spec.signals for leaf, _ in signal.expression.parts())
    labels: dict[str, dict[str, None]] = {}
    for leaf in leaves:
        labels.setdefault(leaf.metric.name, {}).update(
            dict.fromkeys(name for name in leaf.metric.labels if name != "lane")
        )
    return " and ".join(
        f"`{name}`" + (f" by {' and '.join(f'`{label}`' for label in found)}" if found else "")
        for name, found in labels.items()
    )


PARTS: dict[str, Callable[[], str]] = {
    "api": _api,
    "boosts": _boosts,
    "dashboards": _dashboards,
    "default-alerts": _default_alerts,
    "default-lanes": _default_lanes,
    "demo-chapters": _demo_chapters,
    "errors": _errors,
    "events": _events,
    "lane-config": lambda: _fields(lane_obs.LaneConfig),
    "measures": _measures,
    "metric-labels": _metric_labels,
    "metrics": _metrics,
    "worker-metrics": _worker_metrics,
    "monitor-config": lambda: _fields(lane_obs.MonitorConfig),
    "overview": _overview,
    "priority-boost": lambda: _fields(lane_obs.PriorityBoost),
    "queue-options": lambda: _fields(lane_obs.CommandQueue, lane_obs.QueueManager, column="Argument"),
    "redis-broker": lambda: _fields(RedisBroker, column="Argument"),
    "retry-policy": lambda: _fields(lane_obs.RetryPolicy),
    "rule": lambda: _fields(lane_obs.Rule),
    "runbook": _runbook,
    "slo": lambda: _fields(lane_obs.Slo),
    "state-diagram": _state_diagram,
    "states": _states,
    "submit-options": lambda: _fields(lane_obs.SubmitOptions, section="Keys", column="Option"),
    "wait-causes": _wait_causes,
}


def main(arguments: list[str]) -> int:
    """Rewrites, or with `--check` names what is stale."""
    stale = [path for path in documents() if refresh(path.read_text("utf-8")) != path.read_text("utf-8")]
    for path in stale:
        if "--check" not in arguments:
            path.write_text(refresh(path.read_text("utf-8")), "utf-8")
        sys.stdout.write(f"{'stale' if '--check' in arguments else 'rewritten'}: {path.relative_to(ROOT)}\n")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
