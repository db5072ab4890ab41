"""Objectives: how fast an error budget burns, in two windows at once."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from lane_obs.alerts.expression import Leaf, Rate, Ratio, Scaled, duration
from lane_obs.alerts.histogram import ShareAbove
from lane_obs.alerts.measure import BAD, JUDGED
from lane_obs.alerts.spec import AlertSpec, Severity, Signal, check_time, in_name, to_lanes, to_level, to_renotify
from lane_obs.config import Duration, to_seconds
from lane_obs.errors import ConfigError
from lane_obs.metrics import BUCKETS, catalogue
from lane_obs.metrics.bounds import Bounds

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """An objective. Two alerts tell when its error budget burns: a fast burn is critical, a slow one a warning.

    They compare how fast the budget burns in a long and in a short window with one factor, as chapter 5 of
    Google's Site Reliability Workbook does: 14.4 (2 % of a month's budget in an hour) and 6 (5 % in six hours).

    Args:
        wait_p: share of commands that shall have started in time, above 0 and below 1; with `wait_seconds`.
        wait_seconds: in time means this many seconds after having become ready. Exact where it is one of the
            histogram's bounds; within a bucket waits are taken to lie evenly.
        success: share of ended commands that shall have succeeded, above 0 and below 1; in place of the two.
        lanes: the lanes it is about; default all that no other objective of the kind names.
        fast: long window, short window and factor of the fast burn, the windows in seconds.
        slow: the same of the slow burn.
        min_rate: more than this must happen each second of the long window before it says anything; default 0.01.
        for_seconds: how long it must burn so before an alert fires; default 0, as the windows smooth already.
        renotify_seconds: repeat the notification after this long while it fires; default 4 hours, `None` for never.
        buckets: the bounds of the lanes' histogram of waits, where `Metrics(buckets=...)` has given them others.

    Raises:
        ConfigError: a value that is not allowed, named.
    """

    wait_p: float | None = None
    wait_seconds: Duration | None = None
    success: float | None = None
    lanes: Sequence[str] = ()
    fast: tuple[float, float, float] = (3_600.0, 300.0, 14.4)
    slow: tuple[float, float, float] = (21_600.0, 1_800.0, 6.0)
    min_rate: float = 0.01
    for_seconds: Duration = 0.0
    renotify_seconds: Duration | None = 14_400.0
    buckets: Sequence[float] = BUCKETS

    def __post_init__(self) -> None:
        self._set("buckets", Bounds(self.buckets).of_lanes([""])[""])
        self._check_objective()
        self._set("lanes", to_lanes(self.lanes))
        self._set("min_rate", to_level("min_rate", self.min_rate))
        self._set("for_seconds", to_seconds("for_seconds", self.for_seconds, zero=True))
        self._set("renotify_seconds", to_renotify(self.renotify_seconds))
        for name in ("fast", "slow"):
            self._set(name, _to_burn(name, getattr(self, name), 1 / self.budget))

    def _set(self, field: str, value: object) -> None:
        object.__setattr__(self, field, value)

    def _check_objective(self) -> None:
        waits = self.wait_p is not None or self.wait_seconds is not None
        if waits is (self.success is not None):
            raise ConfigError("success", self.success, "give either wait_p and wait_seconds, or success")
        field = "wait_p" if waits else "success"
        share = getattr(self, field)
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ConfigError(field, share, "give a share above 0 and below 1, such as 0.99 for 99 %")
        if waits:
            self._set("wait_seconds", to_seconds("wait_seconds", self.wait_seconds))
            if self._limit > self.buckets[-1]:
                wanted = f"give at most {self.buckets[-1]:g} s, the highest bound of the histogram of waits"
                raise ConfigError("wait_seconds", self.wait_seconds, wanted)

    @property
    def budget(self) -> float:
        """The share that may miss the objective."""
        return round(1 - (self.success or self.wait_p or 0.0), 12)

    @property
    def kind(self) -> tuple[str, ...]:
        """What two objectives of one lane must not share."""
        return ("success",) if self.success is not None else ("wait",)

    @property
    def _limit(self) -> float:
        return 0.0 if self.wait_seconds is None else to_seconds("wait_seconds", self.wait_seconds)

    def check_times(self, interval: float) -> None:
        """Checks its times against the seconds between two looks.

        Raises:
            ConfigError: one is too short to make a difference.
        """
        check_time("for_seconds", to_seconds("for_seconds", self.for_seconds, zero=True), interval, zero=True)
        check_time("renotify_seconds", to_renotify(self.renotify_seconds), interval)
        for name in ("fast", "slow"):
            _, short, _ = getattr(self, name)
            check_time(name, short, 2 * interval)

    def specs(self, except_lanes: tuple[str, ...] = ()) -> list[AlertSpec]:
        """The two alerts; `except_lanes` have objectives of their own."""
        waits = self.success is None
        promise = (
            f"{_percent(self.wait_p)} start within {self._limit:g} s" if waits else f"{_percent(self.success)} succeed"
        )
        return [
            AlertSpec(
                alert=f"Lane{'Wait' if waits else 'Error'}BudgetBurn{name.capitalize()}",
                rule=f"{'wait' if waits else 'error'}_burn_{name}",
                severity=severity,
                per="lane",
                lanes=tuple(self.lanes),
                except_lanes=except_lanes,
                signals=(self._burn(long, self.min_rate), self._burn(short, 0.0)),
                level=factor,
                clear=factor,
                for_seconds=to_seconds("for_seconds", self.for_seconds, zero=True),
                renotify_seconds=to_renotify(self.renotify_seconds),
                unit="",
                what=f"times the rate at which the error budget ({promise}) would just last",
                cause=_WAIT_CAUSE if waits else _ERROR_CAUSE,
                remedy=_WAIT_REMEDY if waits else _ERROR_REMEDY,
            )
            for name, severity, (long, short, factor) in (
                ("fast", Severity.CRITICAL, self.fast),
                ("slow", Severity.WARNING, self.slow),
            )
        ]

    def _burn(self, window: float, least: float) -> Signal:
        """How fast the budget burns in one window. That enough happens is asked of the long one only."""
        if self.success is not None:
            record = f"lane:error_burn_{in_name(self.success)}"
            bad, judged = (Rate(Leaf(catalogue.FINISHED, (("outcome", those),)), window) for those in (BAD, JUDGED))
            missed: Ratio | ShareAbove = Ratio(bad, judged, least)
        else:
            record = f"lane:wait_burn_{in_name(self.wait_p or 0.0)}_in_{in_name(self._limit)}s"
            missed = ShareAbove(Leaf(catalogue.QUEUE_WAIT), self._limit, tuple(self.buckets), window, least)
        above = f"_above_{in_name(least)}" if least else ""
        return Signal(f"{record}:{duration(window)}{above}", Scaled(missed, self.budget))


_WAIT_CAUSE = (
    "More commands wait for longer than the objective allows, so many more that the budget of the whole period is "
    "at risk."
)
_WAIT_REMEDY = (
    "Treat it as an incident of the lane. Split its waits by cause: slots ask for concurrency, priority for a "
    "reservation (min_concurrency), a pause for its end."
)
_ERROR_CAUSE = (
    "More commands fail, time out or expire than the objective allows, so many more that the budget of the whole "
    "period is at risk."
)
_ERROR_REMEDY = (
    "Treat it as an incident of the lane. Look at outcomes first: errors are in the log lines of "
    "`queue.command.failed` and in the dead letters, time-outs point at what the commands call, expiries at waits."
)


def _percent(share: float | None) -> str:
    return f"{round((share or 0.0) * 100, 10):.10g} %"


def _to_burn(field: str, value: Any, most: float) -> tuple[float, float, float]:
    wanted = "give [long window, short window, factor]: seconds, fewer seconds, a number above zero"
    try:
        long, short, factor = value
    except (TypeError, ValueError):
        raise ConfigError(field, value, wanted) from None
    long, short = to_seconds(field, long), to_seconds(field, short)
    if short >= long or not to_level(field, factor) > 0:
        raise ConfigError(field, value, wanted)
    if factor >= most:
        raise ConfigError(field, value, f"give a factor below {most:.4g}: with this objective none is above it")
    return long, short, float(factor)
