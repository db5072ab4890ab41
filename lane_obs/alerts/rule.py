"""A rule: which measure is too high at which level, and for how long."""

from __future__ import annotations

import dataclasses
import difflib
from typing import TYPE_CHECKING

from lane_obs.alerts.expression import duration
from lane_obs.alerts.measure import MEASURES
from lane_obs.alerts.spec import AlertSpec, Severity, Signal, check_time, in_name, to_lanes, to_level, to_renotify
from lane_obs.config import Duration, to_seconds
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.alerts.expression import Per
    from lane_obs.alerts.measure import Measure


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When a measure is too high. At least one of the two levels must be given.

    Args:
        measure: what is watched, by name; see `MEASURES`.
        warning, critical: above these the alert is active; critical is above warning where both are given.
        warning_clear, critical_clear: down to these it stays, once it fires; at most the level, which is the
            default.
        for_seconds: how long it must be active before it fires; default 0.
        renotify_seconds: repeat the notification after this long while it fires; default 4 hours, `None` for never.
        lanes: the lanes it is about; default all that have no rule of their own for this measure.
        per: `lane` for an alert of each lane, `queue` for one over all lanes; default the measure's.
        window_seconds: how far the measure looks back, where it does.
        min_rate: more than this must happen each second before the measure says anything, where it has such a limit.

    Raises:
        ConfigError: a value that is not allowed, named.
    """

    measure: str
    warning: float | None = None
    critical: float | None = None
    warning_clear: float | None = None
    critical_clear: float | None = None
    for_seconds: Duration = 0.0
    renotify_seconds: Duration | None = 14_400.0
    lanes: Sequence[str] = ()
    per: Per | None = None
    window_seconds: Duration | None = None
    min_rate: float | None = None

    def __post_init__(self) -> None:
        measure = _to_measure(self.measure)
        self._set("per", _to_per(self.per, measure))
        self._set("lanes", to_lanes(self.lanes))
        if self.lanes and self.per == "queue":
            raise ConfigError("lanes", list(self.lanes), "leave it out: the rule is about the whole queue")
        self._set("for_seconds", to_seconds("for_seconds", self.for_seconds, zero=True))
        self._set("renotify_seconds", to_renotify(self.renotify_seconds))
        for field, default in (("window_seconds", measure.window), ("min_rate", measure.min_rate)):
            given = getattr(self, field)
            if default is None and given is not None:
                raise ConfigError(field, given, f"leave it out: {measure.name!r} has none")
            self._set(field, default if given is None else given)
        if self.window_seconds is not None:
            self._set("window_seconds", to_seconds("window_seconds", self.window_seconds))
        if self.min_rate is not None:
            self._set("min_rate", to_level("min_rate", self.min_rate))
        self._check_levels()

    def _set(self, field: str, value: object) -> None:
        object.__setattr__(self, field, value)

    def _check_levels(self) -> None:
        if self.warning is None and self.critical is None:
            raise ConfigError("warning", None, "give a level for warning, critical or both")
        given = self.critical
        for severity in Severity:
            self._check_level(severity)
        if self.warning is not None and self.critical is not None and self.critical <= self.warning:
            raise ConfigError("critical", given, f"give more than warning, which is {self.warning:g}")

    def _check_level(self, field: str) -> None:
        level, clear = getattr(self, field), getattr(self, f"{field}_clear")
        if level is None:
            if clear is not None:
                raise ConfigError(f"{field}_clear", clear, f"give {field}, too")
            return
        self._set(field, to_level(field, level))
        if MEASURES[self.measure].unit == "ratio" and level >= 1:
            raise ConfigError(field, level, "give a share below 1, such as 0.05 for 5 %: none is above 1")
        self._set(f"{field}_clear", to_level(f"{field}_clear", level if clear is None else clear))
        if clear is not None and clear > level:
            raise ConfigError(f"{field}_clear", clear, f"give at most the level, {level:g}")

    @property
    def kind(self) -> tuple[str, ...]:
        """What two rules about one lane must not share."""
        return self.measure, str(self.per)

    def check_times(self, interval: float) -> None:
        """Checks its times against the seconds between two looks.

        Raises:
            ConfigError: one is too short to make a difference.
        """
        check_time("for_seconds", self._seconds("for_seconds"), interval, zero=True)
        check_time("renotify_seconds", self._seconds("renotify_seconds"), interval)
        check_time("window_seconds", self._seconds("window_seconds"), 2 * interval)

    def fitted(self, interval: float) -> Rule:
        """The same, with times that are not too short for the seconds between two looks."""
        lasts, again, window = map(self._seconds, ("for_seconds", "renotify_seconds", "window_seconds"))
        return dataclasses.replace(
            self,
            for_seconds=max(lasts, interval) if lasts else 0.0,
            renotify_seconds=None if again is None else max(again, interval),
            window_seconds=None if window is None else max(window, 2 * interval),
        )

    def _seconds(self, field: str) -> float | None:
        value = getattr(self, field)
        return None if value is None else float(value)

    def specs(self, except_lanes: tuple[str, ...] = ()) -> list[AlertSpec]:
        """One alert for each level; `except_lanes` have rules of their own."""
        measure, per = MEASURES[self.measure], self.per or "lane"
        signal = self._signal(measure, per)
        return [
            AlertSpec(
                alert=f"{per.capitalize()}{measure.title}",
                rule=measure.name,
                severity=severity,
                per=per,
                lanes=tuple(self.lanes),
                except_lanes=except_lanes,
                signals=(signal,),
                level=level,
                clear=getattr(self, f"{severity}_clear"),
                for_seconds=self._seconds("for_seconds") or 0.0,
                renotify_seconds=self._seconds("renotify_seconds"),
                unit=measure.unit,
                what=measure.what,
                cause=measure.cause,
                remedy=measure.remedy,
            )
            for severity in Severity
            if (level := getattr(self, severity)) is not None
        ]

    def _signal(self, measure: Measure, per: Per) -> Signal:
        window, least = self._seconds("window_seconds"), self.min_rate
        record = f"{per}:{measure.name}"
        if window is not None:
            record += f":{duration(window)}"
        if least is not None and least != measure.min_rate:
            record += f"_above_{in_name(least)}"
        return Signal(record, measure.build(window or 0.0, least or 0.0))


def _to_measure(name: object) -> Measure:
    measure = MEASURES.get(name) if isinstance(name, str) else None
    if measure is None:
        near = difflib.get_close_matches(str(name), MEASURES, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known measures: {', '.join(MEASURES)}"
        raise ConfigError("measure", name, f"unknown measure; {hint}")
    return measure


def _to_per(per: object, measure: Measure) -> Per:
    if per is None:
        return measure.pers[0]
    for known in measure.pers:
        if per == known:
            return known
    raise ConfigError("per", per, f"{measure.name!r} is to be had per {' or '.join(measure.pers)}")
