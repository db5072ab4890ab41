"""Alerts as a file of Prometheus rules: recordings first, then the alerts that compare them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from lane_obs.alerts.document import Block, to_yaml
from lane_obs.alerts.expression import duration, exact
from lane_obs.alerts.spec import AlertSpec, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lane_obs.alerts.spec import Signal

GROUP: Final = "lane-obs"
"""The group of all rules. It is one, so that each alert sees what was recorded at the same moment."""

JOB: Final = "lane-obs"
"""The scrape job, unless another is given."""

TARGET_DOWN: Final = AlertSpec(
    alert="LaneObsTargetDown",
    rule="target_down",
    severity=Severity.CRITICAL,
    per="queue",
    lanes=(),
    except_lanes=(),
    signals=(),
    level=0.0,
    clear=0.0,
    for_seconds=60.0,
    renotify_seconds=None,
    unit="",
    what="processes that Prometheus cannot scrape",
    cause="The process is gone, hangs, or cannot be reached; or Prometheus has no target of this job. No process can "
    "raise this alert itself, so it has no counterpart in the monitor, and while it fires the other alerts are blind.",
    remedy="Look at the page of targets in Prometheus: it shows the error of the last scrape. Ask `/livez` of the "
    "process, look whether it was restarted or killed, and compare the job's name and the port with the scrape "
    "configuration.",
)
"""The one alert that only Prometheus can raise."""

_VALUE: Final = {"seconds": "humanizeDuration", "ratio": "humanizePercentage", "": "humanize"}
_WHO: Final = "job, instance, process, queue, lane"


def prometheus_rules(specs: Sequence[AlertSpec], interval: float, job: str = JOB) -> str:
    """A file of rules in YAML.

    Args:
        specs: the alerts.
        interval: seconds between two evaluations.
        job: the name of the scrape job, for the alert that a target is down.
    """
    rules = [*_recordings(specs), *map(_alert, specs), _target_down(job)]
    group = {"name": GROUP, "interval": duration(interval), "rules": rules}
    return to_yaml("Made by `lane-obs alerts rules`; change the definitions, not this file.", {"groups": [group]})


def alert_labels(spec: AlertSpec) -> dict[str, str]:
    """The labels that an alert has besides those of its series. No two alerts of one name have the same."""
    own = {"lane_obs_lanes": ", ".join(spec.lanes)} if spec.lanes else {}
    return {"severity": str(spec.severity), "lane_obs_rule": spec.rule, **own}


def words(spec: AlertSpec, name: str, value: str) -> dict[str, str]:
    """What is told of an alert, the same as the monitor tells.

    Args:
        spec: the alert.
        name: the name of its lane or queue, or a template of it.
        value: its value as text, or a template of it.
    """
    return {
        "summary": f"{spec.alert} in {spec.per} '{name}': {value}",
        "description": f"{spec.what[:1].upper()}{spec.what[1:]}: {value}; {spec.severity} above "
        f"{spec.show(spec.level)}.",
        "runbook_url": spec.runbook,
    }


def words_of_down(target: str) -> dict[str, str]:
    """What is told of `TARGET_DOWN`."""
    return {
        "summary": f"{TARGET_DOWN.alert}: {target}",
        "description": f"Prometheus cannot scrape {target}.",
        "runbook_url": TARGET_DOWN.runbook,
    }


def expression_of(spec: AlertSpec) -> str:
    """The condition of an alert in PromQL, over the recorded series."""
    series = [f"{signal.record}{_lanes(spec)}" for signal in spec.signals]
    fires = " and ".join(f"{one} > {exact(spec.level)}" for one in series)
    if spec.clear == spec.level:
        return fires
    firing = f'ALERTS{{alertname="{spec.alert}", severity="{spec.severity}", alertstate="firing"}}'
    stays = " and ".join(f"{one} > {exact(spec.clear)}" for one in series)
    return f"{fires}\nor\n({stays} and on ({_WHO}) {firing})"


def _recordings(specs: Iterable[AlertSpec]) -> Iterator[dict[str, Any]]:
    seen: dict[str, tuple[AlertSpec, Signal]] = {}
    for spec in specs:
        for signal in spec.signals:
            seen.setdefault(signal.record, (spec, signal))
    for record, (spec, signal) in seen.items():
        yield {"record": record, "expr": Block(signal.expression.promql(spec.per))}


def _alert(spec: AlertSpec) -> dict[str, Any]:
    name, value = f"{{{{ $labels.{spec.per} }}}}", f"{{{{ $value | {_VALUE[spec.unit]} }}}}"
    return _as_rule(spec, expression_of(spec), words(spec, name, value))


def _target_down(job: str) -> dict[str, Any]:
    up = f"up{{job={quoted(job)}}}"
    target = "{{ if $labels.instance }}{{ $labels.instance }}{{ else }}any target of job {{ $labels.job }}{{ end }}"
    return _as_rule(TARGET_DOWN, f"{up} == 0\nor\nabsent({up})", words_of_down(target))


def _as_rule(spec: AlertSpec, promql: str, told: dict[str, str]) -> dict[str, Any]:
    lasting = {"for": duration(spec.for_seconds)} if spec.for_seconds else {}
    # Labels are templates, and the name of a lane may look like one.
    labels = {name: text.replace("{{", '{{ "{{" }}') for name, text in alert_labels(spec).items()}
    return {"alert": spec.alert, "expr": Block(promql), **lasting, "labels": labels, "annotations": told}


def _lanes(spec: AlertSpec) -> str:
    """The matcher for the alert's lanes, in braces."""
    lanes, equal, alike = (spec.lanes, "=", "=~") if spec.lanes else (spec.except_lanes, "!=", "!~")
    if not lanes:
        return ""
    matcher = f"{equal}{quoted(lanes[0])}" if len(lanes) == 1 else f"{alike}{quoted('|'.join(map(_literally, lanes)))}"
    return f"{{lane{matcher}}}"


def _literally(name: str) -> str:
    """A name as a regular expression that matches nothing else."""
    return "".join(f"\\{letter}" if letter in r"\.+*?()|[]{}^$" else letter for letter in name)


def quoted(text: str) -> str:
    """A string of PromQL, which escapes as JSON does."""
    return json.dumps(text, ensure_ascii=False)
