"""What one alert is: the definition that the monitor, the Prometheus rules and the dashboards share."""

from __future__ import annotations

import dataclasses
import math
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from lane_obs.config import check_name, to_seconds
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from lane_obs.alerts.expression import Expression, Per

RUNBOOK: Final = "https://github.com/lane-obs/lane-obs/blob/main/docs/runbook.md"
"""Where the runbook is; each rule has an anchor there."""


class Severity(StrEnum):
    """How bad it is: `warning` is to be looked at, `critical` wakes somebody."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclasses.dataclass(frozen=True, slots=True)
class Signal:
    """One series that an alert compares with its level.

    Args:
        record: its name as a recording rule; one name never stands for two expressions.
        expression: how it is worked out.
    """

    record: str
    expression: Expression


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AlertSpec:
    """One alert of one severity: the definition that the monitor, Prometheus and the dashboards share.

    It is active while every signal is above `level`, or, once it fires, above `clear`; it fires after having been
    active for `for_seconds`.

    Args:
        alert: its name in CamelCase, the same everywhere.
        rule: name of the rule: a measure, or that of an objective, such as `wait_burn_fast`.
        severity: how bad it is.
        per: whether each lane has an alert of its own, or the queue has one.
        lanes: the lanes it is about; empty for all.
        except_lanes: lanes that have a rule of their own.
        signals: what is compared.
        level, clear: above which it becomes active, and to which it must fall before it ends.
        for_seconds: how long it must be active before it fires.
        renotify_seconds: after how long a notification is repeated while it fires; `None` for never.
        unit: of the value: `seconds`, `ratio` or nothing.
        what: what the value is, in words.
        cause, remedy: for the runbook.
    """

    alert: str
    rule: str
    severity: Severity
    per: Per
    lanes: tuple[str, ...]
    except_lanes: tuple[str, ...]
    signals: tuple[Signal, ...]
    level: float
    clear: float
    for_seconds: float
    renotify_seconds: float | None
    unit: str
    what: str
    cause: str
    remedy: str

    def is_about(self, lane: str) -> bool:
        """Whether a lane is watched by it."""
        return lane in self.lanes if self.lanes else lane not in self.except_lanes

    @property
    def runbook(self) -> str:
        """Address of what the runbook says about the rule."""
        return f"{RUNBOOK}#{self.rule.replace('_', '-')}"

    def show(self, value: float) -> str:
        """A value in its unit."""
        if self.unit == "ratio":
            return f"{value * 100:.3g} %" if abs(value) < 1 else f"{value * 100:.0f} %"
        return f"{value:.3f}".rstrip("0").rstrip(".") + (" s" if self.unit == "seconds" else "")


# --- what rules of every kind check -----------------------------------------------------------------------------


def to_lanes(lanes: object) -> tuple[str, ...]:
    """Checks names of lanes.

    Raises:
        ConfigError: they are none, or one comes twice.
    """
    if not isinstance(lanes, list | tuple):
        raise ConfigError("lanes", lanes, "give a list of names of lanes")
    names = tuple(check_name("lanes", lane) for lane in lanes)
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError("lanes", list(names), f"name {twice[0]!r} once")
    return names


def to_level(field: str, value: object) -> float:
    """Checks a level.

    Raises:
        ConfigError: it is not a finite number of zero or more.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigError(field, value, "give a finite number of zero or more")
    return float(value)


def to_renotify(value: object) -> float | None:
    """Checks after how long a notification is repeated.

    Raises:
        ConfigError: neither seconds nor `None`.
    """
    return None if value is None else to_seconds("renotify_seconds", value)


def in_name(number: float) -> str:
    """A number as a part of the name of a recording rule; no two numbers look the same."""
    return f"{number!r}".removesuffix(".0").translate({ord("."): "_", ord("-"): "m", ord("+"): "p"})


def check_time(field: str, seconds: float | None, least: float, *, zero: bool = False) -> None:
    """Checks a time against what the interval between two looks allows.

    Args:
        field: what the error calls it.
        seconds: the time; `None` is allowed.
        least: the shortest that makes a difference.
        zero: whether none at all is allowed, too.

    Raises:
        ConfigError: it is shorter.
    """
    if seconds is not None and seconds < least and not (zero and seconds == 0):
        raise ConfigError(field, seconds, f"give {'0, or ' if zero else ''}at least {least:g} s at this interval")
