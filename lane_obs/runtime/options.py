"""What one submit may set for its command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypedDict

import msgspec

from lane_obs.config import RetryPolicy, check_keys, check_name, to_cost, to_seconds
from lane_obs.config.file import retry_from_table
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from lane_obs.core.lane import Lane


class SubmitOptions(TypedDict, total=False):
    """Keywords of `submit`.

    Keys:
        timeout: limit on one attempt, above zero; `None` for none; default the lane's.
        deadline: limit on the whole life from submit, waiting included, above zero; default none.
        delay: time before it may start, zero or more; default none.
        retry: policy in place of the lane's.
        id: an id of your own, 1 to 200 printable characters, unique among live commands.
        key: idempotency key, likewise: while a command with this key lives, its handle is returned instead.
        cost: what it takes of its lane's rate limits, and of its partition's share, zero or more; default 1. In a unit
            of your own, such as tokens of a language model.
        partition_key: says which commands run one at a time in a lane with partitions, 1 to 200 printable characters.
    """

    timeout: float | timedelta | None
    deadline: float | timedelta | None
    delay: float | timedelta
    retry: RetryPolicy | None
    id: str | None
    key: str | None
    cost: float
    partition_key: str | None


class Options(msgspec.Struct, frozen=True, gc=False):
    """The same, checked: durations in seconds; `UNSET` means: as the lane says. No part of it refers to a command."""

    timeout: float | msgspec.UnsetType | None = msgspec.UNSET
    deadline: float | None = None
    delay: float = 0.0
    retry: RetryPolicy | None = None
    id: str | None = None
    key: str | None = None
    cost: float = 1.0
    partition_key: str | None = None


NO_OPTIONS: Final = Options()
_LATEST: Final = [NO_OPTIONS]


def make_options(given: Mapping[str, Any]) -> Options:
    """Checks the keywords of a submit.

    Raises:
        ConfigError: an unknown keyword (with its nearest match), or a value that is not allowed.
    """
    checked: dict[str, Any] = {}
    check_keys("", given, _CHECKS, "option")
    for name, value in given.items():
        if value is not None:
            checked[name] = _CHECKS[name](value)
        elif name == "timeout":
            checked[name] = None
    if not checked:
        return NO_OPTIONS
    made, latest = Options(**checked), _LATEST[0]
    if made == latest:  # many say the same, and wait by the million: one serves all
        return latest
    _LATEST[0] = made
    return made


def stored_options(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `Options`, from what a storage has of them.

    Raises:
        ConfigError: they were written by another version, and are not known or not allowed in this one.
    """
    check_keys("", stored, _STORED, "option")
    return {name: _STORED[name](value) for name, value in stored.items()}


def fitted(options: Options, home: Lane) -> Options:
    """Options for a lane: with its own deadline where they have none, and checked against its rate limits.

    Raises:
        ConfigError: the command could never start: it costs more than a rate limit ever lets through.
    """
    boost = home.config.boost
    if boost is not None and boost.deadline is not None and options.deadline is None:
        options = msgspec.structs.replace(options, deadline=boost.deadline)
    check_cost(options.cost, home.most, home.name)
    return options


def check_cost(cost: float, most: float, lane: str) -> None:
    """Checks a command's cost against the most that the rate limits of its lane ever let through.

    Raises:
        ConfigError: it is more, so the command could never start.
    """
    if cost > most:
        raise ConfigError("cost", cost, f"give at most {most:g}: lane {lane!r} never lets more through at once")


def _to_policy(value: object) -> RetryPolicy:
    if not isinstance(value, RetryPolicy):
        raise ConfigError("retry", value, "give a RetryPolicy")
    return value


_CHECKS: Final[Mapping[str, Callable[[object], Any]]] = {
    "timeout": lambda value: to_seconds("timeout", value),
    "deadline": lambda value: to_seconds("deadline", value),
    "delay": lambda value: to_seconds("delay", value, zero=True),
    "retry": _to_policy,
    "id": lambda value: check_name("id", value),
    "key": lambda value: check_name("key", value),
    "cost": lambda value: to_cost("cost", value),
    "partition_key": lambda value: check_name("partition_key", value),
}
_STORED: Final[Mapping[str, Callable[[Any], Any]]] = {
    **{name: _CHECKS[name] for name in ("deadline", "cost", "partition_key")},
    "timeout": lambda value: None if value is None else to_seconds("timeout", value),
    "retry": retry_from_table,
}
