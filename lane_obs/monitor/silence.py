"""Silences: alerts that nobody is told of for a while."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING

from lane_obs.config import check_name
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from lane_obs.monitor.tracker import Live


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Holds back notifications until it expires. States, events and metrics go on as ever.

    An alert that fires still when its silence expires is told of then.

    Args:
        until: when it expires: an aware datetime.
        rule: name of a rule, such as `stall`, or of an alert, such as `LaneStalled`; `None` for all.
        lane: name of a lane; `None` for all, the queue's own alerts included.

    Raises:
        ConfigError: a value that is not allowed.
    """

    until: datetime
    rule: str | None = None
    lane: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.until, datetime) or self.until.tzinfo is None:
            raise ConfigError("until", self.until, "give a datetime with its time zone")
        for field in ("rule", "lane"):
            if getattr(self, field) is not None:
                check_name(field, getattr(self, field))

    def covers(self, alert: Live, wall: float) -> bool:
        """Whether it holds back an alert at a Unix time."""
        if wall >= self.until.timestamp():
            return False
        return self.rule in {None, alert.spec.rule, alert.spec.alert} and self.lane in {None, alert.lane}
