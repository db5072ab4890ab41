"""How often commands may start."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, TypeGuard

from lane_obs.config.check import Duration, check_name, to_seconds
from lane_obs.errors import MAX_SECONDS, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST: Final = 10.0**15
"""The largest amount: above it a float no longer keeps the fractions of tokens."""


@dataclasses.dataclass(frozen=True, slots=True)
class RateLimit:
    """How many commands may start in a time, or how many tokens they may take where they have costs.

    Make it with `per_second`, `per_minute`, `per_hour` or `sliding_window`, and with `shared` for several lanes.

    Args:
        amount: tokens for each `seconds`.
        seconds: the time that `amount` is for.
        burst: what a bucket holds that refills by `amount` each `seconds`; `None` for a sliding window, in which no
            `seconds` ever see more than `amount`.
        name: the name of a shared limit; `None` (default) where each lane has its own.

    Raises:
        ConfigError: a value outside its range, with its name.
    """

    amount: float
    seconds: float
    burst: float | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "seconds", to_seconds("rate_limit.seconds", self.seconds))
        if self.burst is None:
            put(self, "amount", _to_tokens("rate_limit.amount", self.amount))
        else:
            put(self, "amount", _to_amount("rate_limit.amount", self.amount, self.seconds))
            put(self, "burst", _to_tokens("rate_limit.burst", self.burst))
        if self.name is not None:
            check_name("rate_limit.shared", self.name)

    @property
    def most(self) -> float:
        """The largest cost that one command may have."""
        return self.amount if self.burst is None else self.burst

    @classmethod
    def per_second(cls, n: float, burst: float | None = None) -> RateLimit:
        """A bucket that refills by `n` tokens a second and starts full.

        Args:
            n: tokens a second, above zero; fractions are fine.
            burst: what the bucket holds, 1 or more; `None` (default) for `n`, at least 1.
        """
        return cls._bucket("per_second", n, 1.0, burst)

    @classmethod
    def per_minute(cls, n: float, burst: float | None = None) -> RateLimit:
        """A bucket that refills by `n` tokens a minute, evenly, and starts full; `burst` as in `per_second`."""
        return cls._bucket("per_minute", n, 60.0, burst)

    @classmethod
    def per_hour(cls, n: float, burst: float | None = None) -> RateLimit:
        """A bucket that refills by `n` tokens an hour, evenly, and starts full; `burst` as in `per_second`."""
        return cls._bucket("per_hour", n, 3600.0, burst)

    @classmethod
    def sliding_window(cls, n: float, seconds: Duration) -> RateLimit:
        """At most `n` tokens, 1 or more, in any time of this length, wherever it begins."""
        return cls(_to_tokens("rate_limit.sliding_window", n), to_seconds("rate_limit.seconds", seconds))

    @classmethod
    def shared(cls, name: str, limit: RateLimit) -> RateLimit:
        """One limit for all lanes of a queue that name it; each must give it the same values.

        Raises:
            ConfigError: a bad name, or a limit that is shared already.
        """
        check_name("rate_limit.shared", name)
        if not isinstance(limit, RateLimit) or limit.name is not None:
            raise ConfigError("rate_limit.shared", limit, "give a RateLimit that is not shared yet")
        return dataclasses.replace(limit, name=name)

    @classmethod
    def _bucket(cls, field: str, n: float, seconds: float, burst: float | None) -> RateLimit:
        amount = _to_amount(f"rate_limit.{field}", n, seconds)
        return cls(amount, seconds, max(amount, 1.0) if burst is None else burst)


def to_rate_limits(field: str, value: object) -> tuple[RateLimit, ...]:
    """Checks the limits of a lane or queue: `None`, one, or several that all hold.

    Args:
        field: what the error calls it.
        value: a `RateLimit`, a list or tuple of them, or `None`.

    Raises:
        ConfigError: anything else, or one shared limit twice.
    """
    limits = () if value is None else tuple(value) if isinstance(value, list | tuple) else (value,)
    for limit in limits:
        if not isinstance(limit, RateLimit):
            raise ConfigError(field, limit, "give a RateLimit, such as RateLimit.per_second(50), or a list of them")
    names = [limit.name for limit in limits if limit.name is not None]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(field, name, "name a shared limit once")
    return limits


def check_shared(limits: Iterable[RateLimit]) -> None:
    """Checks that limits shared under one name are the same.

    Raises:
        ConfigError: two have a name but not all values in common.
    """
    known: dict[str, RateLimit] = {}
    for limit in limits:
        if limit.name is not None and known.setdefault(limit.name, limit) != limit:
            raise ConfigError(
                "rate_limit.shared",
                limit.name,
                f"give it the same limit everywhere: here {_shown(limit)}, elsewhere {_shown(known[limit.name])}",
            )


def _shown(limit: RateLimit) -> str:
    text = f"{limit.amount:g} in {limit.seconds:g} s"
    return text if limit.burst is None else f"{text} with burst {limit.burst:g}"


def to_cost(field: str, value: object) -> float:
    """Checks the cost of a command in tokens: a finite number of zero or more.

    Raises:
        ConfigError: anything else.
    """
    if not _is_number(value) or not 0 <= value <= _MOST:
        raise ConfigError(field, value, f"give a number of tokens from 0 to {_MOST:g}")
    return float(value)


def _to_tokens(field: str, value: object) -> float:
    # Less than 1 would never let a command through that says nothing of its cost.
    if not _is_number(value) or not 1 <= value <= _MOST:
        raise ConfigError(field, value, f"give a number from 1, which is what a command costs, to {_MOST:g}")
    return float(value)


def _to_amount(field: str, value: object, seconds: float) -> float:
    # Written so that NaN fails it as well.
    if not _is_number(value) or not 0 < value <= _MOST or value * MAX_SECONDS < seconds:
        raise ConfigError(field, value, f"give a number above zero, at most {_MOST:g}, that gives one in 100 years")
    return float(value)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
