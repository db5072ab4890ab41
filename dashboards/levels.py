"""What rules watch, as panels show it: the value that an alert compares, and its levels as lines."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from dashboards.promql import compared, least_rate, only_lanes
from lane_obs.alerts import MEASURES, Rule
from lane_obs.alerts.expression import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.alerts import AlertSpec, Signal

COLOURS: Final = {"warning": "orange", "critical": "red"}
"""How each severity looks, everywhere."""


@dataclasses.dataclass(frozen=True)
class Watched:
    """What one rule watches.

    Args:
        rule: its name.
        specs: its alerts, the lowest level first; none where nobody watches it.
        shown: an alert whose value is the one to show.
    """

    rule: str
    specs: tuple[AlertSpec, ...]
    shown: AlertSpec

    @property
    def steps(self) -> list[tuple[float, str]]:
        """Its levels, each with its colour."""
        return sorted({(spec.level, COLOURS[spec.severity]) for spec in self.specs})

    @property
    def words(self) -> str:
        """What its lines mean, as Markdown; nothing where it has none."""
        if not self.specs:
            return ""
        lines = ", ".join(line(spec) for spec in self.specs)
        least = least_rate(self.shown)
        quiet = f" Below {least:g}/s it says nothing." if least else ""
        windows = " and ".join(filter(None, map(window, self.shown.signals)))
        over = f" over {windows}" if windows else ""
        return (
            f"Worked out as the alert {self.shown.alert} does{over}, of the worst instance. "
            f"Lines: {lines}.{quiet} [Runbook]({self.shown.runbook})"
        )

    def values(self, *by: str) -> list[str]:
        """What its alerts compare, in PromQL: one expression, unless some lanes have windows of their own."""
        ways = {spec.signals[0].record: spec for spec in self.specs or (self.shown,)}
        apart = len(ways) > 1
        return [compared(spec, spec.signals[0], *by, lanes=only_lanes(spec) if apart else "") for spec in ways.values()]


class Levels:
    """The alerts of one monitor.

    Args:
        specs: all of them.
    """

    def __init__(self, specs: Sequence[AlertSpec]) -> None:
        self._specs = tuple(sorted(specs, key=lambda spec: spec.level))

    def __getitem__(self, measure: str) -> Watched:
        """What is watched of a measure; its value is there to be shown even if nothing is."""
        per = MEASURES[measure].pers[0]
        specs = tuple(spec for spec in self._specs if spec.rule == measure and spec.per == per)
        return Watched(measure, specs, specs[0] if specs else Rule(measure=measure, warning=0).specs()[0])

    def objectives(self) -> list[Watched]:
        """The alerts of objectives, one by one, as each compares two windows."""
        return [Watched(spec.rule, (spec,), spec) for spec in self._specs if len(spec.signals) > 1]


def window(signal: Signal) -> str:
    """How far a signal looks back; empty for one that looks at this moment."""
    longest = max(seconds for _, seconds in signal.expression.parts())
    return duration(longest) if longest else ""


def line(spec: AlertSpec) -> str:
    """Its level in words, with how long and for which lanes."""
    lanes = f" ({', '.join(spec.lanes)})" if spec.lanes else " (other lanes)" if spec.except_lanes else ""
    held = f" for {duration(spec.for_seconds)}" if spec.for_seconds else ""
    return f"{spec.severity} above {spec.show(spec.level)}{held}{lanes}"
