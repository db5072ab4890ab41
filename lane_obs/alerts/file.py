"""Reads alerts from the TOML file that has the lanes, too."""

from __future__ import annotations

import dataclasses
import difflib
import urllib.parse
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lane_obs.alerts.rule import Rule
from lane_obs.alerts.rules import DEFAULT_RULES, compile_rules, fitted, with_thresholds
from lane_obs.alerts.slo import Slo
from lane_obs.config import check_keys, to_count, to_seconds
from lane_obs.config.file import lanes_of, read_document
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from os import PathLike

    from lane_obs.alerts.rules import AnyRule
    from lane_obs.alerts.spec import AlertSpec
    from lane_obs.config import QueueConfig

_T = TypeVar("_T")

_HIDDEN: Final = "(not shown)"
_THRESHOLDS: Final = {"pending": 100, "active": 50}
_KEYS: Final = (
    "interval", "defaults", *(f"{measure}_warning_threshold" for measure in _THRESHOLDS), "rules", "slos", "silences",
    "notifiers",
)  # fmt: skip
_NOTIFIERS: Final = ("webhook", "alertmanager")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AlertsConfig:
    """What a file says of alerts, checked: what `MonitorConfig` needs, and the lanes.

    Args:
        queue: the lanes of the same file, or the default ones.
        interval: seconds between looks.
        pending_warning_threshold, active_warning_threshold: of all lanes; `None` for no such alert.
        rules: rules and objectives, in the file's order, then the default ones where the file wants them.
        silences: the tables `[[alerts.silences]]`: `until`, an aware datetime, and maybe `rule` and `lane`.
        notifiers: the tables `[[alerts.notifiers]]`; of these only `type`, `url` and `url_env` are checked.
        specs: all alerts of these rules and thresholds.
    """

    queue: QueueConfig
    interval: float
    pending_warning_threshold: int | None
    active_warning_threshold: int | None
    rules: tuple[AnyRule, ...]
    silences: tuple[Mapping[str, Any], ...]
    notifiers: tuple[Mapping[str, Any], ...] = dataclasses.field(repr=False)  # they may hold secrets
    specs: tuple[AlertSpec, ...] = dataclasses.field(repr=False)


def load_alerts(path: str | PathLike[str]) -> AlertsConfig:
    """Reads alerts, and the lanes they are about, from a TOML file.

    Shape: a table `[alerts]` with `interval`, `pending_warning_threshold`, `active_warning_threshold` (a number, or
    `false` for no such alert) and `defaults` (`true` adds those of `DEFAULT_RULES` whose measure no rule of the file
    has, with times that fit the interval); `[[alerts.rules]]` with the fields of `Rule`, `[[alerts.slos]]` with those
    of `Slo`, where `renotify_seconds = false` means never; `[[alerts.silences]]` with `until`, `rule`, `lane`; and
    `[[alerts.notifiers]]` with `type`, `url` or `url_env`, and what the notifier takes besides. Lanes are those of
    `load_lanes`.

    Raises:
        ConfigError: broken TOML, no table `[alerts]`, or a value that is not allowed, named such as
            `alerts.rules[2].critical`. Addresses and headers of notifiers are never shown.
        OSError: the file cannot be read.
    """
    document = read_document(path)
    queue = lanes_of(document)
    if "alerts" not in document:
        raise ConfigError("alerts", None, "give a table [alerts]")
    return _Reader(document["alerts"], tuple(queue.lanes)).read(queue)


class _Reader:
    """Reads the table of alerts for some lanes."""

    def __init__(self, table: Any, lanes: tuple[str, ...]) -> None:
        _check_table("alerts", table)
        # Beside a misspelt key there may stand a secret.
        check_keys("alerts.", dict.fromkeys(table, _HIDDEN), _KEYS)
        self._table: Mapping[str, Any] = table
        self._lanes = lanes
        self._interval = to_seconds("alerts.interval", table.get("interval", 10.0))

    def read(self, queue: QueueConfig) -> AlertsConfig:
        """Reads all of it."""
        given: dict[str, AnyRule] = dict(self._each("rules", self._rule))
        given |= dict(self._each("slos", self._slo))
        rules = {**given, **self._defaults(given.values())}
        thresholds = {measure: self._threshold(measure, given.values()) for measure in _THRESHOLDS}
        specs = compile_rules(
            with_thresholds(tuple(rules.values()), thresholds["pending"], thresholds["active"]),
            [
                *(f"alerts.{measure}_warning_threshold" for measure in thresholds if thresholds[measure] is not None),
                *rules,
            ],
        )
        known = dict.fromkeys(name for spec in specs for name in (spec.rule, spec.alert))
        return AlertsConfig(
            queue=queue,
            interval=self._interval,
            pending_warning_threshold=thresholds["pending"],
            active_warning_threshold=thresholds["active"],
            rules=tuple(rules.values()),
            silences=tuple(dict(self._each("silences", partial(self._silence, known))).values()),
            notifiers=tuple(dict(self._each("notifiers", _notifier)).values()),
            specs=specs,
        )

    def _each(self, key: str, read: Callable[[str, Any], _T]) -> Iterator[tuple[str, _T]]:
        tables = self._table.get(key, [])
        if not isinstance(tables, list):
            raise ConfigError(f"alerts.{key}", _HIDDEN, f"give a list of tables: [[alerts.{key}]]")
        for index, table in enumerate(tables):
            name = f"alerts.{key}[{index}]"
            _check_table(name, table)
            yield name, read(name, table)

    def _rule(self, name: str, table: Mapping[str, Any]) -> Rule:
        if "measure" not in table:
            raise ConfigError(f"{name}.measure", None, "name what is measured, such as 'oldest_ready_age'")
        rule: Rule = self._made(name, table, Rule)
        return rule

    def _slo(self, name: str, table: Mapping[str, Any]) -> Slo:
        objective: Slo = self._made(name, table, Slo)
        return objective

    def _made(self, name: str, table: Mapping[str, Any], kind: Callable[..., Any]) -> Any:
        check_keys(f"{name}.", table, [field.name for field in dataclasses.fields(kind)])  # type: ignore[arg-type]
        values = {**table}
        if values.get("renotify_seconds") is False:
            values["renotify_seconds"] = None
        try:
            rule = kind(**values)
            rule.check_times(self._interval)
        except ConfigError as error:
            raise ConfigError(f"{name}.{error.field}", error.value, error.allowed) from None
        for lane in rule.lanes:
            self._check_lane(f"{name}.lanes", lane)
        return rule

    def _check_lane(self, field: str, lane: object) -> None:
        if lane not in self._lanes:
            raise ConfigError(field, lane, _unknown("lane", lane, self._lanes))

    def _defaults(self, given: Collection[AnyRule]) -> dict[str, AnyRule]:
        wanted = self._table.get("defaults", False)
        if not isinstance(wanted, bool):
            raise ConfigError("alerts.defaults", wanted, "give true or false")
        if not wanted:
            return {}
        measures = {rule.kind[0] for rule in given}
        added = [rule for rule in fitted(DEFAULT_RULES, self._interval) if rule.kind[0] not in measures]
        return {f"default rule of {rule.kind[0]!r}": rule for rule in added}

    def _threshold(self, measure: str, given: Collection[AnyRule]) -> int | None:
        """A threshold for all lanes; by default none where a rule says more of the same."""
        field = f"{measure}_warning_threshold"
        value = self._table.get(field)
        if value is False:
            return None
        if value is not None:
            return to_count(f"alerts.{field}", value)
        return None if (measure, "queue") in {rule.kind for rule in given} else _THRESHOLDS[measure]

    def _silence(self, known: Collection[str], name: str, table: Mapping[str, Any]) -> Mapping[str, Any]:
        check_keys(f"{name}.", table, ("until", "rule", "lane"))
        until = table.get("until")
        if not isinstance(until, datetime) or until.tzinfo is None:
            shown = until.isoformat() if isinstance(until, datetime) else until
            raise ConfigError(f"{name}.until", shown, "give a time with its zone, such as 2026-12-01T08:00:00Z")
        if "rule" in table and table["rule"] not in known:
            raise ConfigError(f"{name}.rule", table["rule"], _unknown("rule", table["rule"], tuple(known)))
        if "lane" in table:
            self._check_lane(f"{name}.lane", table["lane"])
        return table


def _check_table(name: str, table: object) -> None:
    if not isinstance(table, dict):
        raise ConfigError(name, _HIDDEN, "give a table")


def _unknown(kind: str, name: object, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name), known, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known {kind}s: {', '.join(known)}"
    return f"unknown {kind}; {hint}"


def _notifier(name: str, table: Mapping[str, Any]) -> Mapping[str, Any]:
    kind = table.get("type")
    if kind not in _NOTIFIERS:
        raise ConfigError(f"{name}.type", kind, f"give one of {', '.join(map(repr, _NOTIFIERS))}")
    if ("url" in table) is ("url_env" in table):
        raise ConfigError(f"{name}.url", _HIDDEN, "give either url, or url_env with the name of a variable")
    if "url" in table and not _is_url(table["url"]):
        raise ConfigError(f"{name}.url", _HIDDEN, "give an address such as http://127.0.0.1:9093")
    if "url_env" in table and not (isinstance(table["url_env"], str) and table["url_env"]):
        raise ConfigError(f"{name}.url_env", _HIDDEN, "give the name of an environment variable")
    return table


def _is_url(text: object) -> bool:
    if not isinstance(text, str):
        return False
    try:
        parts = urllib.parse.urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no port
        return False
