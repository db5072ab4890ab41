"""Cases for `promtool test rules`: for each alert made-up series that keep it quiet, make it fire, and let it end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from lane_obs.alerts.cases import Cases, windows
from lane_obs.alerts.document import to_yaml
from lane_obs.alerts.expression import duration
from lane_obs.alerts.notation import one_series, steady
from lane_obs.alerts.prometheus import JOB, TARGET_DOWN, alert_labels, words_of_down

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lane_obs.alerts.spec import AlertSpec

_INSTANCE: Final = "test:9464"
_MOST_STEPS: Final = 30
"""Steps in the longest time that an alert takes: more would take long and prove nothing else."""
_FEWEST_STEPS: Final = 4
"""Steps in the shortest window: with fewer Prometheus has nothing to work a rate out of."""


def prometheus_tests(specs: Sequence[AlertSpec], interval: float, rules_file: str, job: str = JOB) -> str:
    """A file of cases in YAML.

    Args:
        specs: the alerts.
        interval: seconds between two evaluations.
        rules_file: the file that `prometheus_rules` made of the same, relative to this one.
        job: the name of the scrape job.
    """
    step = _step(specs, interval)
    target = {"job": job, "instance": _INSTANCE}
    cases = [case for spec in specs for case in Cases(spec, specs, step, target).cases()]
    whole = {
        "rule_files": [rules_file],
        "evaluation_interval": duration(step),
        "tests": [*cases, *_down_cases(step, target)],
    }
    return to_yaml("Made by `lane-obs alerts tests`; change the definitions, not this file.", whole)


def _step(specs: Sequence[AlertSpec], interval: float) -> float:
    """Seconds between two samples, and two evaluations: so many intervals."""
    looked_back = [window for spec in specs for window in windows(spec)]
    longest = max((max(windows(spec), default=0.0) + spec.for_seconds for spec in specs), default=0.0)
    wanted = min([longest / _MOST_STEPS, *(window / _FEWEST_STEPS for window in looked_back)])
    return interval * max(1, int(wanted / interval))


# --- the target that is down ------------------------------------------------------------------------------------


def _down_cases(step: float, target: dict[str, str]) -> Iterator[dict[str, Any]]:
    lasting = math.ceil(TARGET_DOWN.for_seconds / step)
    begin, end = 3, 3 + lasting + 2
    checks = [(begin + lasting - 1, None), (begin + lasting, target), (end, None)]
    values = steady([1, 0, 1], [begin, end - begin, 3])
    yield _down_case("a target is down, and comes back", [one_series("up", target, values)], checks, step)
    yield _down_case("there is no target", [], [(lasting - 1, None), (lasting, {"job": target["job"]})], step)


def _down_case(
    title: str, series: list[dict[str, str]], checks: list[tuple[int, dict[str, str] | None]], step: float
) -> dict[str, Any]:
    return {
        "name": f"{TARGET_DOWN.alert}: {title}",
        "interval": duration(step),
        "input_series": series,
        "alert_rule_test": [
            {
                "eval_time": duration(at * step),
                "alertname": TARGET_DOWN.alert,
                "exp_alerts": [] if labels is None else [_down(labels)],
            }
            for at, labels in checks
        ],
    }


def _down(labels: dict[str, str]) -> dict[str, Any]:
    told = words_of_down(labels.get("instance", f"any target of job {labels['job']}"))
    return {"exp_labels": {**alert_labels(TARGET_DOWN), **labels}, "exp_annotations": told}
