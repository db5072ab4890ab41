"""Checks of single values. Durations are seconds as int, float or `timedelta` and are kept as float seconds."""

from __future__ import annotations

import difflib
import operator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from lane_obs.errors import MAX_SECONDS, ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from enum import StrEnum

Duration: TypeAlias = float | timedelta

_MOST: Final = 2**53
"""The largest count: beyond it a float is not exact, and no program counts that far."""
_MAX_NAME = 200


def to_seconds(field: str, value: object, *, zero: bool = False) -> float:
    """Checks a duration and returns it in seconds.

    Args:
        field: what the error calls it.
        value: seconds, or a `timedelta`.
        zero: whether zero is allowed.

    Raises:
        ConfigError: not a number, NaN, negative, above 100 years, or zero where that is not allowed.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(seconds, float | int) and not isinstance(seconds, bool)
    number = float(seconds) if is_number and abs(seconds) <= MAX_SECONDS else -1.0  # type: ignore[arg-type]
    if number > 0 or (zero and number == 0):
        return number
    wanted = f"give finite seconds {'of zero or more' if zero else 'above zero'}, at most 100 years, or a timedelta"
    raise ConfigError(field, value, wanted)


def check_id(field: str, value: object) -> None:
    """Checks that a value can be the id of a command that is asked for.

    Raises:
        ConfigError: it is no text.
    """
    if not isinstance(value, str):
        raise ConfigError(field, value, "give the id of a command as text")


def to_count(field: str, value: object, *, minimum: int = 0) -> int:
    """Checks a count: an int (no bool, no float) of at least `minimum`, and such that a float is as exact.

    Raises:
        ConfigError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(field, value, f"give a whole number of {minimum} or more")
    if value > _MOST:
        raise ConfigError(field, value, f"give a whole number of {_MOST} or less")
    return value


def to_seed(field: str, value: object) -> int | None:
    """Checks the seed of a random generator: a whole number, or `None` for a random one.

    Raises:
        ConfigError: anything else, text and floats included: what looks different must not run differently.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ConfigError(field, value, "give a whole number, or None for a random one")


def check_methods(field: str, value: object, names: Collection[str], wanted: str) -> None:
    """Checks that a value is an object (no class) with these methods.

    Args:
        field: what the error calls it.
        value: the object.
        names: its methods; a dot leads to those of an attribute.
        wanted: what the error asks for.

    Raises:
        ConfigError: one of them is missing.
    """
    for name in names:
        try:
            method = operator.attrgetter(name)(value)
        except AttributeError:
            method = None
        if isinstance(value, type) or not callable(method):
            raise ConfigError(field, value, wanted)


def check_clock(value: object) -> None:
    """Checks that a value is a `Clock`.

    Raises:
        ConfigError: it is none.
    """
    check_methods("clock", value, ("now", "wall", "call_at"), "give a Clock: an object with now, wall and call_at")


def check_name(field: str, value: object) -> str:
    """Checks the name of a lane or command type: 1 to 200 printable characters.

    Raises:
        ConfigError: anything else.
    """
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > _MAX_NAME:
        raise ConfigError(field, value, f"give 1 to {_MAX_NAME} printable characters")
    return value


def to_choice(field: str, value: object, kind: type[StrEnum]) -> Any:
    """Turns a word into the member of an enumeration.

    Raises:
        ConfigError: it is none of them.
    """
    try:
        return kind(value)  # type: ignore[arg-type]
    except ValueError:
        raise ConfigError(field, value, f"give one of {', '.join(repr(str(item)) for item in kind)}") from None


def check_keys(prefix: str, given: Mapping[str, object], known: Collection[str], kind: str = "key") -> None:
    """Checks that all keys are known ones.

    Args:
        prefix: what goes before the key where the error names it.
        given: values by key.
        known: the keys that are allowed.
        kind: what the error calls a key.

    Raises:
        ConfigError: an unknown key, with its nearest match.
    """
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known {kind}s: {', '.join(known)}"
            raise ConfigError(f"{prefix}{key}", given[key], f"unknown {kind}; {hint}")
