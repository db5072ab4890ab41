"""PromQL for panels: series of the catalogue, narrowed by the dashboards' variables, and what is worked out of them."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from lane_obs.alerts.expression import Ratio
from lane_obs.metrics import CATALOGUE
from lane_obs.metrics.catalogue import ALERT_STATE, BUILD_INFO

if TYPE_CHECKING:
    from lane_obs.alerts import AlertSpec, Signal
    from lane_obs.metrics import Metric

PROCESS: Final = 'job=~"$job", instance=~"$instance"'
"""Matchers that every series of a scraped process has labels for."""

STATE: Final = f'{PROCESS}, queue=~"$queue", lane=~"$lane|"'
"""Matchers for the monitor's alerts; those about a whole queue have no lane: they are shown whatever is chosen."""

ALERT: Final = 'lane_obs_rule!="", job=~"$job", instance=~"$instance|", queue=~"$queue|", lane=~"$lane|"'
"""Matchers for Prometheus's alerts of our rules; the one about a target that is down has no queue."""

_BY_NAME: Final = {metric.name: metric for metric in CATALOGUE}
_SELECTOR: Final = re.compile(r"\b(?P<name>lane_[a-z_]+)(?:\{(?P<matchers>[^}]*)\})?")


def pick(metric: Metric, *matchers: str, suffix: str = "") -> str:
    """The series of a metric that the variables let through.

    Args:
        metric: of the catalogue.
        matchers: more of them, as PromQL writes them.
        suffix: `_bucket`, `_count` or `_sum` of a histogram.
    """
    lane = ('lane=~"$lane"',) if "lane" in metric.labels else ()
    inner = ", ".join((PROCESS, 'queue=~"$queue"', *lane, *matchers))
    return f"{metric.name}{suffix}{{{inner}}}"


def alert_states() -> str:
    """The states of the monitor's alerts."""
    return f"{ALERT_STATE.name}{{{STATE}}}"


def total(metric: Metric, *by: str, where: tuple[str, ...] = ()) -> str:
    """The sum of a gauge."""
    return _fold("sum", by, pick(metric, *where))


def highest(metric: Metric, *by: str, where: tuple[str, ...] = ()) -> str:
    """The largest value of a gauge."""
    return _fold("max", by, pick(metric, *where))


def rate(metric: Metric, *by: str, where: tuple[str, ...] = (), suffix: str = "", window: str = "rate_interval") -> str:
    """How fast a counter rises, by the second. `window` is one of Grafana's: `rate_interval` or `range`."""
    return _fold("sum", by, f"rate({pick(metric, *where, suffix=suffix)}[$__{window}])")


def fastest(metric: Metric, *by: str) -> str:
    """How fast a counter rises, by the second, where it rises fastest: of what one process exports for all."""
    return _fold("max", by, f"rate({pick(metric)}[$__rate_interval])")


def increase(metric: Metric, *by: str) -> str:
    """By how much a counter has risen in the time that the dashboard shows."""
    return _fold("sum", by, f"increase({pick(metric)}[$__range])")


def quantile(share: float, metric: Metric, *by: str, where: tuple[str, ...] = (), window: str = "rate_interval") -> str:
    """A quantile of a histogram."""
    buckets = rate(metric, *by, "le", where=where, suffix="_bucket", window=window)
    return f"histogram_quantile({share:g}, {buckets})"


def of_process(expression: str) -> str:
    """Series of processes, of those that have a queue: others may export metrics of these names, too."""
    return f"{expression} and on (job, instance) {pick(BUILD_INFO)}"


def process(name: str, function: str = "") -> str:
    """A metric of a process that has no label `queue`; `function` is `rate` for a counter."""
    series = f"{name}{{{PROCESS}}}"
    return of_process(f"{function}({series}[$__rate_interval])" if function else series)


def started() -> str:
    """When processes started, in milliseconds of Unix time."""
    return of_process(f"process_start_time_seconds{{{PROCESS}}} * 1000")


def reached() -> str:
    """1 for each process that Prometheus reaches, 0 for one that it has lost in the time shown."""
    return f"up{{{PROCESS}}} and on (job, instance) max_over_time({pick(BUILD_INFO)}[$__range])"


def compared(spec: AlertSpec, signal: Signal, *by: str, lanes: str = "") -> str:
    """What an alert compares with its level, at its worst: the same window, narrowed by the variables.

    A rate that must be reached before the alert says anything is left out, so that the panel shows quiet lanes.

    Args:
        spec: the alert.
        signal: which of its signals.
        by: the labels that are kept.
        lanes: a matcher for lanes.
    """
    expression = signal.expression
    if isinstance(expression, Ratio):
        expression = dataclasses.replace(expression, least=0.0)
    return _fold("max", by, _narrowed(expression.promql(spec.per), lanes))


def least_rate(spec: AlertSpec) -> float:
    """The rate by the second that must be exceeded before an alert says anything; 0 where it has none."""
    expression = spec.signals[0].expression
    return expression.least if isinstance(expression, Ratio) else 0.0


def only_lanes(spec: AlertSpec) -> str:
    """A matcher for the lanes that an alert is about; empty for all."""
    names = spec.lanes or spec.except_lanes
    pattern = "|".join(re.escape(name).replace("\\", "\\\\").replace('"', '\\"') for name in names)
    return f'lane{"=~" if spec.lanes else "!~"}"{pattern}"' if names else ""


def _fold(function: str, by: tuple[str, ...], expression: str) -> str:
    return f"{function} by ({', '.join(by)}) ({expression})" if by else f"{function} ({expression})"


def _narrowed(promql: str, lanes: str) -> str:
    def narrow(match: re.Match[str]) -> str:
        name, suffix = match["name"], ""
        if name not in _BY_NAME:
            name, _, kind = name.rpartition("_")
            suffix = f"_{kind}"
        metric = _BY_NAME[name]
        more = (match["matchers"], lanes if "lane" in metric.labels else "")
        return pick(metric, *filter(None, more), suffix=suffix)

    return _SELECTOR.sub(narrow, promql)
