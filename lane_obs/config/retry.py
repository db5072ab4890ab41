"""When failed attempts are tried again."""

from __future__ import annotations

import dataclasses
import math
from enum import StrEnum
from typing import Any

from lane_obs.config.check import Duration, to_choice, to_count, to_seconds
from lane_obs.errors import ConfigError


class Jitter(StrEnum):
    """How a retry's delay is spread.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: full jitter spreads
    competing clients best for the work it costs.
    """

    FULL = "full"
    """Uniform between zero and the policy's delay."""
    NONE = "none"
    """The policy's delay itself."""


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
        put(self, "jitter", to_choice("retry.jitter", self.jitter, Jitter))
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


def _to_exceptions(field: str, value: object) -> tuple[type[BaseException], ...]:
    types = (value,) if isinstance(value, type) else value
    wanted = "give a tuple of exception types"
    if not isinstance(types, tuple):
        raise ConfigError(field, value, wanted)
    for item in types:
        if not isinstance(item, type) or not issubclass(item, BaseException):
            raise ConfigError(field, item, wanted)
    return types
