"""Configuration: frozen values, checked once when they are built, varied with `replace` or `with_*`.

Durations are seconds as int, float or `timedelta` and are kept as float seconds.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import pkgutil
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from lane_obs.errors import CommandTimeout, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike

Duration: TypeAlias = float | timedelta

_MAX_NAME = 200


def to_seconds(field: str, value: object, *, zero: bool = False) -> float:
    """Checks a duration and returns it in seconds.

    Args:
        field: what the error calls it.
        value: seconds, or a `timedelta`.
        zero: whether zero is allowed.

    Raises:
        ConfigError: not a number, NaN, infinite, negative, or zero where that is not allowed.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    wanted = f"give finite seconds {'of zero or more' if zero else 'above zero'}, as a number or timedelta"
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ConfigError(field, value, wanted)
    if not math.isfinite(seconds) or seconds < 0 or (seconds == 0 and not zero):
        raise ConfigError(field, value, wanted)
    return float(seconds)


def to_count(field: str, value: object, *, minimum: int = 0) -> int:
    """Checks a count: an int (no bool, no float) of at least `minimum`.

    Raises:
        ConfigError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(field, value, f"give a whole number of {minimum} or more")
    return value


def check_name(field: str, value: object) -> str:
    """Checks the name of a lane or command type: 1 to 200 printable characters.

    Raises:
        ConfigError: anything else.
    """
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > _MAX_NAME:
        raise ConfigError(field, value, f"give 1 to {_MAX_NAME} printable characters")
    return value


class Jitter(StrEnum):
    """How a retry's delay is spread.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: full jitter spreads
    competing clients best for the work it costs.
    """

    FULL = "full"
    """Uniform between zero and the policy's delay."""
    NONE = "none"
    """The policy's delay itself."""


class Overflow(StrEnum):
    """What a lane with `max_pending` waiting commands does with one more."""

    WAIT = "wait"
    """`submit` waits for room (back-pressure); `submit_nowait` raises `LaneFullError`."""
    REJECT = "reject"
    """Raises `LaneFullError`."""
    DROP_OLDEST = "drop_oldest"
    """Takes it, and moves the oldest waiting command of the lane to the dead letters."""


def _to_exceptions(field: str, value: object) -> tuple[type[BaseException], ...]:
    types = (value,) if isinstance(value, type) else value
    wanted = "give a tuple of exception types"
    if not isinstance(types, tuple):
        raise ConfigError(field, value, wanted)
    for item in types:
        if not isinstance(item, type) or not issubclass(item, BaseException):
            raise ConfigError(field, item, wanted)
    return types


def _to_choice(field: str, value: object, kind: type[StrEnum]) -> Any:
    try:
        return kind(value)  # type: ignore[arg-type]
    except ValueError:
        raise ConfigError(field, value, f"give one of {', '.join(repr(str(item)) for item in kind)}") from None


@dataclasses.dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is tried again, and after what delay.

    The delay before retry n (from 1) is `initial_delay * multiplier ** (n - 1)`, at most `max_delay`, spread
    by `jitter`. A command may raise `RetryAfter(seconds)` to set that delay itself.

    Args:
        max_retries: retries after the first attempt, 0 or more.
        initial_delay: delay before the first retry, zero or more; default 1 s.
        max_delay: cap on the delay, zero or more; default 60 s.
        multiplier: growth of the delay, finite, 1 or more; default 2.
        jitter: `"full"` (default) or `"none"`.
        retry_on: exception types that are retried; default every `Exception`, time-outs included.
        give_up_on: exception types that are never retried, even when `retry_on` covers them.

    Raises:
        ConfigError: a value outside its range, with its name.
    """

    max_retries: int = 0
    initial_delay: Duration = 1.0
    max_delay: Duration = 60.0
    multiplier: float = 2.0
    jitter: Jitter | str = Jitter.FULL
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    give_up_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        put = object.__setattr__
        to_count("retry.max_retries", self.max_retries)
        put(self, "initial_delay", to_seconds("retry.initial_delay", self.initial_delay, zero=True))
        put(self, "max_delay", to_seconds("retry.max_delay", self.max_delay, zero=True))
        multiplier = self.multiplier
        if isinstance(multiplier, bool) or not isinstance(multiplier, int | float) or not 1 <= multiplier < math.inf:
            raise ConfigError("retry.multiplier", multiplier, "give a finite number of 1 or more")
        put(self, "jitter", _to_choice("retry.jitter", self.jitter, Jitter))
        put(self, "retry_on", _to_exceptions("retry.retry_on", self.retry_on))
        put(self, "give_up_on", _to_exceptions("retry.give_up_on", self.give_up_on))

    @classmethod
    def exponential(cls, max_retries: int, **changes: Any) -> RetryPolicy:
        """Delays of 1, 2, 4, ... seconds up to 60; `changes` are further fields of the policy."""
        return cls(max_retries, **changes)

    @classmethod
    def fixed(cls, max_retries: int, delay: Duration, **changes: Any) -> RetryPolicy:
        """The same delay before every retry (spread by jitter, as always, unless `jitter="none"`)."""
        seconds = to_seconds("retry.delay", delay, zero=True)
        return cls(max_retries, **{"initial_delay": seconds, "max_delay": seconds, "multiplier": 1.0, **changes})

    @classmethod
    def none(cls) -> RetryPolicy:
        """No retries."""
        return cls(0)

    def with_max_retries(self, max_retries: int) -> RetryPolicy:
        """A copy with another number of retries."""
        return dataclasses.replace(self, max_retries=max_retries)

    def with_initial_delay(self, delay: Duration) -> RetryPolicy:
        """A copy with another first delay."""
        return dataclasses.replace(self, initial_delay=delay)

    def with_max_delay(self, delay: Duration) -> RetryPolicy:
        """A copy with another cap."""
        return dataclasses.replace(self, max_delay=delay)

    def with_multiplier(self, multiplier: float) -> RetryPolicy:
        """A copy with another growth."""
        return dataclasses.replace(self, multiplier=multiplier)

    def with_jitter(self, jitter: Jitter | str) -> RetryPolicy:
        """A copy with another jitter."""
        return dataclasses.replace(self, jitter=jitter)

    def with_retry_on(self, *types: type[BaseException]) -> RetryPolicy:
        """A copy that retries these exception types only."""
        return dataclasses.replace(self, retry_on=types)

    def with_give_up_on(self, *types: type[BaseException]) -> RetryPolicy:
        """A copy that never retries these exception types."""
        return dataclasses.replace(self, give_up_on=types)


@dataclasses.dataclass(frozen=True, slots=True)
class LaneConfig:
    """The policies of one lane.

    Args:
        min_concurrency: reserved slots. With a queue-wide `max_concurrency`, no other lane may take them;
            without one it has no effect. 0 or more, at most `max_concurrency`; default 1.
        max_concurrency: commands of this lane that may run at once, 1 or more; default 4.
        priority: lower runs first; any whole number, default 0. Equal priorities take turns.
        timeout: limit on one attempt in seconds; `None` (default) for none.
        retry: what happens to a failed attempt; default no retries.
        max_pending: bound on commands that wait (ready, delayed and backing off); `None` (default) for none.
        overflow: what a full lane does: `"wait"` (default), `"reject"` or `"drop_oldest"`.
        pressure_threshold: emit `queue.lane.pressure` when this many commands wait, and `queue.lane.idle` when
            none does any more; `None` (default) for neither.

    Raises:
        ConfigError: a value outside its range, with its name.
    """

    min_concurrency: int = 1
    max_concurrency: int = 4
    priority: int = dataclasses.field(default=0, kw_only=True)
    timeout: Duration | None = dataclasses.field(default=None, kw_only=True)
    retry: RetryPolicy = dataclasses.field(default=RetryPolicy(), kw_only=True)
    max_pending: int | None = dataclasses.field(default=None, kw_only=True)
    overflow: Overflow | str = dataclasses.field(default=Overflow.WAIT, kw_only=True)
    pressure_threshold: int | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        to_count("max_concurrency", self.max_concurrency, minimum=1)
        to_count("min_concurrency", self.min_concurrency)
        if self.min_concurrency > self.max_concurrency:
            raise ConfigError("min_concurrency", self.min_concurrency, f"max_concurrency is {self.max_concurrency}")
        if isinstance(self.priority, bool) or not isinstance(self.priority, int):
            raise ConfigError("priority", self.priority, "give a whole number; lower runs first")
        if self.timeout is not None:
            object.__setattr__(self, "timeout", to_seconds("timeout", self.timeout))
        if not isinstance(self.retry, RetryPolicy):
            raise ConfigError("retry", self.retry, "give a RetryPolicy")
        for field in ("max_pending", "pressure_threshold"):
            if getattr(self, field) is not None:
                to_count(field, getattr(self, field), minimum=1)
        object.__setattr__(self, "overflow", _to_choice("overflow", self.overflow, Overflow))

    def with_timeout(self, timeout: Duration) -> LaneConfig:
        """A copy with a limit on one attempt."""
        return dataclasses.replace(self, timeout=timeout)

    def with_retry_policy(self, policy: RetryPolicy) -> LaneConfig:
        """A copy with another retry policy."""
        return dataclasses.replace(self, retry=policy)

    def with_priority(self, priority: int) -> LaneConfig:
        """A copy with another priority."""
        return dataclasses.replace(self, priority=priority)

    def with_max_pending(self, max_pending: int, overflow: Overflow | str = Overflow.WAIT) -> LaneConfig:
        """A copy with a bound on waiting commands."""
        return dataclasses.replace(self, max_pending=max_pending, overflow=overflow)

    def with_pressure_threshold(self, threshold: int) -> LaneConfig:
        """A copy that reports pressure at this many waiting commands."""
        return dataclasses.replace(self, pressure_threshold=threshold)


DEFAULT_LANES: Final[Mapping[str, LaneConfig]] = MappingProxyType(
    {
        "system": LaneConfig(1, 5, priority=0),
        "control": LaneConfig(1, 3, priority=1),
        "query": LaneConfig(1, 10, priority=2),
        "session": LaneConfig(1, 5, priority=3),
        "skill": LaneConfig(1, 3, priority=4),
        "prompt": LaneConfig(1, 2, priority=5),
    }
)
"""The six built-in lanes with the priorities and limits of A3S Lane 0.1."""


def check_lanes(lanes: Mapping[str, LaneConfig], max_concurrency: int | None) -> None:
    """Checks a whole set of lanes.

    Raises:
        ConfigError: no lane, a bad name, a value that is no `LaneConfig`, or reservations above the whole.
    """
    if not lanes:
        raise ConfigError("lanes", dict(lanes), "give at least one lane")
    for name, lane in lanes.items():
        check_name("lane name", name)
        if not isinstance(lane, LaneConfig):
            raise ConfigError(f"lanes.{name}", lane, "give a LaneConfig")
    if max_concurrency is None:
        return
    to_count("max_concurrency", max_concurrency, minimum=1)
    reserved = sum(lane.min_concurrency for lane in lanes.values())
    if reserved > max_concurrency:
        parts = " + ".join(f"{name} {lane.min_concurrency}" for name, lane in lanes.items() if lane.min_concurrency)
        raise ConfigError(
            "max_concurrency",
            max_concurrency,
            f"the lanes reserve {reserved} slots (min_concurrency: {parts})",
        )


@dataclasses.dataclass(frozen=True, slots=True)
class QueueConfig:
    """A whole queue as read from a file.

    Args:
        lanes: by name, in the file's order.
        max_concurrency: queue-wide bound on running commands, 1 or more; `None` for none.

    Raises:
        ConfigError: see `check_lanes`.
    """

    lanes: Mapping[str, LaneConfig] = dataclasses.field(default_factory=lambda: DEFAULT_LANES)
    max_concurrency: int | None = None

    def __post_init__(self) -> None:
        check_lanes(self.lanes, self.max_concurrency)


def load_lanes(path: str | PathLike[str]) -> QueueConfig:
    """Reads lanes from a TOML file.

    Shape: `max_concurrency = 32` and a table `[lanes.NAME]` for each lane with the fields of `LaneConfig`;
    `retry` is a table with the fields of `RetryPolicy`, whose exception types are names such as
    `"TimeoutError"` or `"package.module:ErrorClass"`.

    Raises:
        ConfigError: broken TOML, an unknown key (with its nearest match), or a value that is not allowed.
        OSError: the file cannot be read.
    """
    try:
        document = msgspec.toml.decode(Path(path).read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError("file", str(path), f"give valid TOML: {error}") from error
    _check_keys("", document, ("max_concurrency", "lanes"))
    tables = document.get("lanes")
    if tables is None:
        return QueueConfig(max_concurrency=document.get("max_concurrency"))
    _check_table("lanes", tables)
    lanes = {name: _lane_from_table(f"lanes.{name}", table) for name, table in tables.items()}
    return QueueConfig(lanes, document.get("max_concurrency"))


def _check_table(field: str, value: object) -> None:
    if not isinstance(value, dict):
        raise ConfigError(field, value, "give a table")


def _check_keys(prefix: str, table: Mapping[str, object], known: Iterable[str]) -> None:
    names = list(known)
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(names)}"
            raise ConfigError(f"{prefix}{key}", table[key], f"unknown key; {hint}")


def _fields_of(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _lane_from_table(field: str, table: Any) -> LaneConfig:
    _check_table(field, table)
    _check_keys(f"{field}.", table, _fields_of(LaneConfig))
    values = dict(table)
    try:
        if "retry" in values:
            values["retry"] = _retry_from_table(values["retry"])
        return LaneConfig(**values)
    except ConfigError as error:
        raise ConfigError(f"{field}.{error.field}", error.value, error.allowed) from None


def _retry_from_table(table: Any) -> RetryPolicy:
    _check_table("retry", table)
    _check_keys("retry.", table, _fields_of(RetryPolicy))
    values = dict(table)
    for key in ("retry_on", "give_up_on"):
        if key in values:
            values[key] = tuple(_exception_named(f"retry.{key}", name) for name in values[key])
    return RetryPolicy(**values)


_OWN_EXCEPTIONS = {"CommandTimeout": CommandTimeout}


def _exception_named(field: str, name: object) -> type[BaseException]:
    if isinstance(name, str) and name in _OWN_EXCEPTIONS:
        return _OWN_EXCEPTIONS[name]
    try:
        found = pkgutil.resolve_name(name if ":" in str(name) else f"builtins:{name}")  # type: ignore[arg-type]
    except (ValueError, ImportError, AttributeError, TypeError):
        found = None
    if not isinstance(found, type) or not issubclass(found, BaseException):
        raise ConfigError(field, name, 'name an exception type: "TimeoutError" or "package.module:ErrorClass"')
    return found
