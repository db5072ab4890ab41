"""Makes policies of lanes from the tables of a TOML file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lane_obs.config.boost import PriorityBoost
from lane_obs.config.check import check_keys, to_count
from lane_obs.config.partitions import PartitionKind, Partitions
from lane_obs.config.rate_limit import RateLimit, to_rate_limits
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def check_table(field: str, value: object) -> None:
    """Checks that a value is a table.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(value, dict):
        raise ConfigError(field, value, "give a table")


_RATES = {"per_second": RateLimit.per_second, "per_minute": RateLimit.per_minute, "per_hour": RateLimit.per_hour}
_WINDOW = "sliding_window"


def rate_limit_from_table(field: str, value: Any) -> tuple[RateLimit, ...]:
    """Makes limits of a table, or of a list of them.

    Shape: `{ per_second = 6, burst = 20 }`, likewise `per_minute` and `per_hour`, whose `burst` may be left out, or
    `{ sliding_window = 100, seconds = 60 }`; each with `shared = "name"` where lanes share it.

    Args:
        field: what the errors call it.
        value: what stands in the file.

    Raises:
        ConfigError: an unknown key, none or two of the rates, or a value that is not allowed.
    """
    if not isinstance(value, list):
        return (_limit_from_table(field, value),)
    limits = [_limit_from_table(f"{field}[{index}]", table) for index, table in enumerate(value)]
    return to_rate_limits(field, limits)


def _limit_from_table(field: str, table: Any) -> RateLimit:
    check_table(field, table)
    check_keys(f"{field}.", table, (*_RATES, "burst", _WINDOW, "seconds", "shared"))
    kinds = [key for key in table if key in _RATES or key == _WINDOW]
    if len(kinds) != 1:
        raise ConfigError(field, table, f"give one of {', '.join(_RATES)} and {_WINDOW}")
    length, other = ("seconds", "burst") if kinds[0] == _WINDOW else ("burst", "seconds")
    if other in table:
        raise ConfigError(f"{field}.{other}", table[other], f"leave it out: it does not go with {kinds[0]}")
    try:
        make = RateLimit.sliding_window if kinds[0] == _WINDOW else _RATES[kinds[0]]
        limit = make(table[kinds[0]], table.get(length))
        return RateLimit.shared(table["shared"], limit) if "shared" in table else limit
    except ConfigError as error:
        raise ConfigError(error.field.replace("rate_limit", field, 1), error.value, error.allowed) from None


_BOOSTS: Final[Mapping[str, tuple[Callable[..., PriorityBoost], str, tuple[str, ...]]]] = {
    "standard": (PriorityBoost.standard, "deadline", ("floor",)),
    "aggressive": (PriorityBoost.aggressive, "deadline", ("floor",)),
    "steps": (PriorityBoost.custom, "steps", ("deadline", "floor")),
    "ageing": (PriorityBoost.ageing, "every", ("by", "floor")),
}
"""For the key that chooses the kind of boost: what makes it, the argument that the key's value is, and further keys."""


def boost_from_table(field: str, table: Any) -> PriorityBoost:
    """Makes a boost of a table.

    Shape: `{ standard = 30 }` (the deadline, or `true` for none), `{ aggressive = 30 }`,
    `{ steps = [[0.5, 1], [0.1, 5]], deadline = 30 }` or `{ ageing = 10, by = 1 }`, each with `floor` if wanted.

    Args:
        field: what errors call the table.
        table: as decoded.

    Raises:
        ConfigError: an unknown key, none or several of the four kinds, or a value that is not allowed.
    """
    check_table(field, table)
    kind, *others = [key for key in _BOOSTS if key in table] or [""]
    further = _BOOSTS[kind][2] if kind else ("deadline", "by", "floor")
    check_keys(f"{field}.", table, (*_BOOSTS, *further))
    if others or not kind:
        raise ConfigError(field, table, f"give one of {', '.join(_BOOSTS)}")
    make, argument, _ = _BOOSTS[kind]
    value = None if table[kind] is True and argument == "deadline" else table[kind]
    try:
        return make(value, **{key: given for key, given in table.items() if key != kind})
    except ConfigError as error:
        name = error.field.removeprefix("boost.")
        raise ConfigError(f"{field}.{kind if name == argument else name}", error.value, error.allowed) from None


_TABLE_KINDS = tuple(str(kind) for kind in PartitionKind if kind is not PartitionKind.CUSTOM)


def partitions_from_table(field: str, table: Any) -> Partitions:
    """Makes partitions of a table such as `{ by_key = 16, fair = true }`, `{ per_key = true }`, `{ round_robin = 4 }`.

    Raises:
        ConfigError: not one kind, a value that is not allowed, or a function, which a file cannot hold.
    """
    check_table(field, table)
    for key in ("custom", "function"):
        if key in table:
            raise ConfigError(f"{field}.{key}", table[key], "a function cannot come from a file; give it in Python")
    check_keys(f"{field}.", table, (*_TABLE_KINDS, "fair"))
    kinds = [kind for kind in _TABLE_KINDS if kind in table]
    if len(kinds) != 1:
        raise ConfigError(field, table, f"give one of {', '.join(_TABLE_KINDS)}")
    kind, value, fair = kinds[0], table[kinds[0]], table.get("fair", False)
    if not isinstance(fair, bool):
        raise ConfigError(f"{field}.fair", fair, "give true or false")
    if kind == PartitionKind.PER_KEY:
        if value is not True:
            raise ConfigError(f"{field}.{kind}", value, "give true")
        return Partitions(kind, fair=fair)
    return Partitions(kind, to_count(f"{field}.{kind}", value, minimum=1), fair=fair)
