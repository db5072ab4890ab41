"""What a monitor watches, how often, and whom it tells."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from lane_obs.alerts import DEFAULT_RULES, AnyRule, Rule, Slo, compile_rules
from lane_obs.alerts.rules import fitted, with_thresholds
from lane_obs.config import Duration, check_methods, check_name, to_count, to_seconds
from lane_obs.errors import ConfigError
from lane_obs.monitor.silence import Silence

if TYPE_CHECKING:
    from lane_obs.alerts import AlertSpec
    from lane_obs.monitor.alert import Notifier


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MonitorConfig:
    """What a monitor watches, how often, and whom it tells.

    Args:
        interval: seconds between looks, above zero; default 10.
        pending_warning_threshold: waiting commands of all lanes above which a warning fires; default 100, `None`
            for no such alert.
        active_warning_threshold: running commands of all lanes above which a warning fires; default 50, `None` for
            no such alert.
        rules: all other rules, `Rule` or `Slo`; default `DEFAULT_RULES`, with times that fit the interval.
        silences: `Silence` objects from the start; `QueueMonitor.silence` adds more.
        notifiers: whom to tell; default nobody but the events.
        queue: name of the queue in notifications, as in its metrics; default `default`.

    Raises:
        ConfigError: a value that is not allowed.
    """

    interval: Duration = 10.0
    pending_warning_threshold: int | None = 100
    active_warning_threshold: int | None = 50
    rules: tuple[AnyRule, ...] | None = None
    silences: tuple[Silence, ...] = ()
    notifiers: tuple[Notifier, ...] = ()
    queue: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", to_seconds("interval", self.interval))
        if self.rules is None:
            object.__setattr__(self, "rules", fitted(DEFAULT_RULES, float(self.interval)))  # type: ignore[arg-type]
        for field in ("pending_warning_threshold", "active_warning_threshold"):
            if getattr(self, field) is not None:
                to_count(field, getattr(self, field))
        for field, kinds, wanted in (
            ("rules", (Rule, Slo), "Rule or Slo objects"),
            ("silences", (Silence,), "Silence objects"),
            ("notifiers", (object,), "notifiers"),
        ):
            object.__setattr__(self, field, _to_items(field, getattr(self, field), kinds, wanted))
        for notifier in self.notifiers:
            check_methods("notifiers", notifier, ("notify", "close"), "give objects with async notify() and close()")
        names = [getattr(notifier, "name", None) or type(notifier).__name__ for notifier in self.notifiers]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError("notifiers", twice[0], "give each notifier a name of its own")
        check_name("queue", self.queue)
        self._check_rules(float(self.interval))  # type: ignore[arg-type]

    def _check_rules(self, interval: float) -> None:
        for number, rule in enumerate(self.rules or ()):
            try:
                rule.check_times(interval)
            except ConfigError as error:
                raise ConfigError(f"rules[{number}].{error.field}", error.value, error.allowed) from None
        _ = self.specs  # rules that clash are told now

    @property
    def specs(self) -> tuple[AlertSpec, ...]:
        """All its alerts."""
        thresholds = (self.pending_warning_threshold, self.active_warning_threshold)
        return compile_rules(with_thresholds(self.rules or (), *thresholds))


def _to_items(field: str, items: object, kinds: tuple[type, ...], wanted: str) -> tuple[object, ...]:
    if not isinstance(items, list | tuple) or not all(isinstance(item, kinds) for item in items):
        raise ConfigError(field, items, f"give a list of {wanted}")
    return tuple(items)
