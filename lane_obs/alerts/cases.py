"""One alert's cases for promtool: what its series do, and when which alerts must fire."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Final

from lane_obs.alerts.expression import Gauge, Rate, Scaled, duration
from lane_obs.alerts.histogram import Quantile
from lane_obs.alerts.notation import humanized, one_series, rising, steady
from lane_obs.alerts.prometheus import alert_labels, words
from lane_obs.alerts.series import BOUNDS, moves

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lane_obs.alerts.series import Series
    from lane_obs.alerts.spec import AlertSpec

_MINUTE: Final = 60
_PARTS: Final = 64
"""More parts than a number is ever split into."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Phase:
    """A time in which the alert's value stays the same. At its end it is asked what fires.

    Args:
        value: the value.
        steps: how long.
        before: after so many steps it is asked, too, and all is still as before; 0 for never.
        after: after so many it is asked, and all is as at the end; 0 for never.
        settles: whether the end is as the value wants it; else it is as before.
    """

    value: float
    steps: int
    before: int = 0
    after: int = 0
    settles: bool = True


def windows(spec: AlertSpec) -> list[float]:
    """The windows that an alert looks back in, in seconds."""
    return [window for signal in spec.signals for _, window in signal.expression.parts() if window]


class Cases:
    """The cases of one alert.

    Args:
        spec: the alert.
        specs: it and all others; those of its name show up in its cases.
        step: seconds between two samples, and two evaluations.
        target: the labels job and instance.
    """

    def __init__(self, spec: AlertSpec, specs: Sequence[AlertSpec], step: float, target: Mapping[str, str]) -> None:
        self._spec = spec
        self._step = step
        self._target = {**target, "queue": "default"}
        self._lanes = ("one", "other") if spec.per == "queue" else (_a_lane(spec),)
        self._same = [other for other in specs if other.alert == spec.alert and other.is_about(self._lanes[0])]
        self._long = math.ceil(max(windows(spec), default=0.0) / step)
        self._short = math.ceil(min(windows(spec), default=0.0) / step)
        self._for = math.ceil(spec.for_seconds / step)
        # Sums of parts of a number are that number to the last bit only where it needs few bits.
        is_short = all((level * _PARTS).is_integer() for level in (spec.level, spec.clear))
        self._is_exact = is_short and isinstance(spec.signals[0].expression, Gauge)

    def cases(self) -> Iterator[dict[str, Any]]:
        """Those that can be: it is quiet; it fires and ends; of two windows only one is above the level."""
        spec = self._spec
        yield self._case("is quiet at or just below its level", [self._first(self._below(spec.level))])
        if spec.level >= _top(spec):  # it is never reached
            return
        if spec.clear == spec.level:
            yield self._case("fires and ends", [*self._onset(), self._end()])
        else:
            between = self._later(self._above(spec.clear))
            story = [*self._onset(), between, self._end()]
            yield self._case("fires, stays while above its clear level, ends", story)
            if self._for > 1 and not self._long:
                yield self._case("is quiet when it falls below its level before its time", self._attempt())
        if len(spec.signals) > 1:
            yield from self._spike()

    # --- phases -------------------------------------------------------------------------------------------------

    def _first(self, value: float) -> _Phase:
        """A phase with nothing before it: but for a rise as such, a window that has just begun says the same."""
        fills = isinstance(self._spec.signals[0].expression, Rate)
        return _Phase(value, self._for + 3 + (self._long if fills else 0))

    def _later(self, value: float, *, lasting: bool = False, **more: Any) -> _Phase:
        """A phase that is long enough for windows to forget what was before it, and maybe for something to fire."""
        return _Phase(value, 3 + self._long + (self._for if lasting else 0), **more)

    def _onset(self) -> list[_Phase]:
        high = self._above(self._spec.level)
        if not self._long:
            return [
                self._first(self._below(self._spec.clear)),
                self._later(high, lasting=True, before=max(self._for - 1, 0)),
            ]
        # To forget a low value first takes long and shows nothing that the quiet case does not. Of two windows the
        # long one must have enough of the high value to be above the level when the short one has forgotten it.
        first = self._first(high)
        return [dataclasses.replace(first, steps=first.steps + (2 * self._short if len(self._spec.signals) > 1 else 0))]

    def _attempt(self) -> list[_Phase]:
        low, high = self._first(self._below(self._spec.clear)), self._above(self._spec.level)
        return [
            low,
            _Phase(high, self._for - 1, settles=False),
            self._later(self._above(self._spec.clear), lasting=True),
        ]

    def _end(self) -> _Phase:
        low = self._below(self._spec.clear)
        return self._later(low, after=self._short + 1 if len(self._spec.signals) > 1 else 0)

    def _spike(self) -> Iterator[dict[str, Any]]:
        level = self._spec.level
        high = self._clear_cut(level, min(level * 1.5, _top(self._spec)))
        steps = self._short + 2
        if high * steps / self._long < level:
            story = [_Phase(0.0, self._long + 3), _Phase(high, steps, settles=False)]
            yield self._case("is quiet while only its short window is above its level", story)

    # --- values -------------------------------------------------------------------------------------------------

    def _thresholds(self) -> list[float]:
        return sorted({0.0, *(level for spec in self._same for level in (spec.level, spec.clear))})

    def _above(self, level: float) -> float:
        """A value above a threshold and below the next one."""
        higher = [other for other in self._thresholds() if other > level]
        most = min([*higher, _top(self._spec)])
        if most == math.inf:
            most = level * 1.5 if level else 3.0
        return (level + most) / 2 if self._is_exact else self._clear_cut(level, most)

    def _below(self, level: float) -> float:
        """The threshold itself; or a value below, and above the next one, where it is worked out of several."""
        if self._is_exact or not level:
            return level
        return self._clear_cut(max(other for other in self._thresholds() if other < level), level)

    def _clear_cut(self, low: float, high: float) -> float:
        """A value between two that reads the same if it is off by a little."""
        value = low + (high - low) * 0.45
        is_long = self._spec.unit == "seconds" and value >= _MINUTE  # shown in whole seconds, cut off
        rounded = int(value) + 0.5 if is_long else float(f"{value:.3g}")
        return rounded if low < rounded < high else value

    # --- the case -----------------------------------------------------------------------------------------------

    def _case(self, title: str, story: Sequence[_Phase]) -> dict[str, Any]:
        return {
            "name": f"{self._spec.alert} {self._spec.severity}: {title}",
            "interval": duration(self._step),
            "input_series": list(self._input(story)),
            "alert_rule_test": list(self._checks(story)),
        }

    def _checks(self, story: Sequence[_Phase]) -> Iterator[dict[str, Any]]:
        firing: set[str] = set()
        begin = 0
        for phase in story:
            if phase.before:
                yield self._check(begin + phase.before, phase.value, firing)
            if phase.settles:
                firing = self._settled(phase.value, firing)
            for offset in (phase.after, phase.steps - 1):
                if offset:
                    yield self._check(begin + offset, phase.value, firing)
            begin += phase.steps

    def _settled(self, value: float, firing: set[str]) -> set[str]:
        """The severities that fire once a value has stayed for long enough, of those that fired before."""
        levels = {str(one.severity): one.clear if str(one.severity) in firing else one.level for one in self._same}
        return {severity for severity, level in levels.items() if value > level}

    def _check(self, step: int, value: float, firing: set[str]) -> dict[str, Any]:
        return {
            "eval_time": duration(step * self._step),
            "alertname": self._spec.alert,
            "exp_alerts": [self._expected(one, value) for one in self._same if str(one.severity) in firing],
        }

    def _expected(self, spec: AlertSpec, value: float) -> dict[str, Any]:
        place = self._target if spec.per == "queue" else {**self._target, "lane": self._lanes[0]}
        return {
            "exp_labels": {**alert_labels(spec), **place},
            "exp_annotations": words(spec, place[spec.per], humanized(value, spec.unit)),
        }

    def _input(self, story: Sequence[_Phase]) -> Iterator[dict[str, str]]:
        steps = [phase.steps for phase in story]
        phases = [moves(self._spec.signals[0].expression, phase.value) for phase in story]
        for series in dict.fromkeys(series for phase in phases for series in phase):
            for lane, share in self._shares(series).items():
                labels = {**self._target, **({"lane": lane} if lane else {}), **dict(series.labels)}
                amounts = [phase.get(series, 0.0) * share for phase in phases]
                if series.rises:
                    values = rising([amount * self._step for amount in amounts], steps)
                else:
                    values = steady(amounts, steps)
                yield one_series(series.name, labels, values)

    def _shares(self, series: Series) -> dict[str, float]:
        """Which part of an amount each lane has."""
        if not series.of_lanes:
            return {"": 1.0}
        if len(self._lanes) == 1:
            return {self._lanes[0]: 1.0}
        return dict.fromkeys(self._lanes, 0.5) if series.fold == "sum" else {self._lanes[0]: 1.0, self._lanes[1]: 0.5}


def _a_lane(spec: AlertSpec) -> str:
    names = (*spec.lanes, "query", *(f"lane{number}" for number in range(len(spec.except_lanes))))
    return next(name for name in names if spec.is_about(name))


def _top(spec: AlertSpec) -> float:
    """What the value of an alert is never above."""
    expression = spec.signals[0].expression
    if isinstance(expression, Scaled):
        return 1 / expression.by
    if isinstance(expression, Quantile):
        return BOUNDS[expression.leaf.metric][-1]
    return 1.0 if spec.unit == "ratio" else math.inf
