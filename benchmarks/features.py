"""Lanes with one feature on, set so that it does its work and holds nothing up for longer than that takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

from benchmarks.workload import LIMIT
from lane_obs import LaneConfig, Partitions, PriorityBoost, RateLimit

_MANY: Final = 1e9
_LONG: Final = 86_400.0
_KEYS: Final = tuple(f"customer-{number}" for number in range(1_000))

Options = Callable[[int], dict[str, Any]]


def _none(_number: int) -> dict[str, Any]:
    return {}


def _deadline(_number: int) -> dict[str, Any]:
    return {"deadline": _LONG}


def _cost(_number: int) -> dict[str, Any]:
    return {"cost": 2.0}


def _few_keys(number: int) -> dict[str, Any]:
    return {"partition_key": _KEYS[number % len(_KEYS)]}


def _own_key(number: int) -> dict[str, Any]:
    return {"partition_key": f"conversation-{number}"}


@dataclasses.dataclass(frozen=True, slots=True)
class Feature:
    """A lane with something on, and what each submit says.

    Attributes:
        policies: keywords of its `LaneConfig`.
        options: those of the submit with this number. The plain lane it is compared with is given the same.
    """

    policies: dict[str, Any] = dataclasses.field(default_factory=dict)
    options: Options = _none

    def lane(self, limit: int = LIMIT, **others: Any) -> LaneConfig:
        """The lane."""
        return LaneConfig(0, limit, **(self.policies | others))

    @property
    def plain(self) -> Feature:
        """The plain lane, given the same options."""
        return Feature(options=self.options)


PLAIN: Final = Feature()

FEATURES: Final = {
    "rate limit, bucket": Feature({"rate_limit": RateLimit.per_second(_MANY)}),
    "rate limit, window": Feature({"rate_limit": RateLimit.sliding_window(_MANY, seconds=1)}),
    "rate limit, costs": Feature({"rate_limit": RateLimit.per_second(_MANY)}, _cost),
    # These two with a priority that can fall: at 0, the default, nothing ever rises.
    "boost": Feature({"boost": PriorityBoost.standard(), "priority": 9}, _deadline),
    "ageing": Feature({"boost": PriorityBoost.ageing(_LONG), "priority": 9}),
    "by_key(16)": Feature({"partitions": Partitions.by_key(16)}, _few_keys),
    "per_key, 1,000 keys": Feature({"partitions": Partitions.per_key()}, _few_keys),
    "per_key, a key each": Feature({"partitions": Partitions.per_key()}, _own_key),
    "per_key, fair, 1,000 keys": Feature({"partitions": Partitions.per_key(fair=True)}, _few_keys),
}
"""By name. With 1,000 keys nearly all commands are held behind another of their partition; with a key each, none is."""

EACH: Final = ("rate limit, bucket", "boost", "per_key, a key each")
"""One of each kind: what is shown where each takes minutes."""
