"""Divides the limits of a queue among its partitions: what they give together is what was asked for."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple

from lane_obs.config import check_lanes
from lane_obs.distributed.partitioned.route import number_of
from lane_obs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs.config import LaneConfig, RateLimit


class Share(NamedTuple):
    """What one partition gets of a queue's policies, as `Broker.open` takes them."""

    lanes: dict[str, LaneConfig]
    max_concurrency: int | None
    rate_limits: tuple[RateLimit, ...]


class Divider:
    """Divides a queue's policies. It keeps the shares of lanes, so that one that comes does not have all divided anew.

    Args:
        count: how many partitions there are.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: dict[str, _Divided] = {}

    def divide(
        self, lanes: Mapping[str, LaneConfig], max_concurrency: int | None, rate_limits: Sequence[RateLimit]
    ) -> list[Share]:
        """The shares of all partitions. They follow from what is given alone, so that all processes come to the same.

        Raises:
            ConfigError: a limit is too small to be divided.
        """
        count = self._count
        if not lanes or count == 1:  # without lanes nothing is put in force
            return [Share(dict(lanes), max_concurrency, tuple(rate_limits))] * count
        whole: list[int | None] = [None] * count
        if max_concurrency is not None:
            whole = [*divide_count("max_concurrency", max_concurrency, count)]
        divided = self._divide_lanes(lanes, [share or 0 for share in whole])
        limits = [_divide_limit("rate_limit", limit, count, str(n)) for n, limit in enumerate(rate_limits)]
        shares = [
            Share(
                {name: own.shares[part] for name, own in divided.items()},
                whole[part],
                tuple(limit[part] for limit in limits),
            )
            for part in range(count)
        ]
        for part, share in enumerate(shares):
            try:
                check_lanes(share.lanes, share.max_concurrency, share.rate_limits)
            except ConfigError as error:
                wanted = f"give more, or fewer partitions: partition {part} has {error.value!r} of it; {error.allowed}"
                raise ConfigError(error.field, max_concurrency, wanted) from error
        self._kept = divided
        return shares

    def _divide_lanes(self, lanes: Mapping[str, LaneConfig], room: list[int]) -> dict[str, _Divided]:
        """The lanes with their shares. What is reserved hangs on the other lanes that reserve, and on nothing else."""
        reserving = {name: lane for name, lane in lanes.items() if lane.min_concurrency}
        reserved = _divide_reserved(reserving, room)
        none, kept, divided = [0] * self._count, self._kept, {}
        for name, lane in lanes.items():
            own, least = kept.get(name), reserved.get(name, none)
            if own is None or own.lane is not lane or own.reserved != least:
                own = _Divided(lane, least, _divide_lane(name, lane, least))
            divided[name] = own
        return divided


class _Divided(NamedTuple):
    lane: LaneConfig
    reserved: list[int]
    shares: list[LaneConfig]


def divide_count(field: str, value: int, count: int, start: int = 0) -> list[int]:
    """Divides a number into shares of 1 or more, the larger ones from the partition `start` on.

    Raises:
        ConfigError: there is not 1 for each.
    """
    if value < count:
        raise ConfigError(field, value, _too_small(count))
    return _deal(value, count, start)


def _too_small(count: int) -> str:
    return f"give at least {count}, or fewer partitions: each of {count} gets a share of it"


def _deal(value: int, count: int, start: int) -> list[int]:
    each, more = divmod(value, count)
    return [each + ((part - start) % count < more) for part in range(count)]


def _divide_top(name: str, lane: LaneConfig, count: int) -> list[int]:
    """Where the larger shares of a lane begin follows from its name, so that no partition has them all."""
    return divide_count(f"lanes.{name}.max_concurrency", lane.max_concurrency, count, number_of(name, count))


def _divide_reserved(lanes: Mapping[str, LaneConfig], room: list[int]) -> dict[str, list[int]]:
    """The reservations: each one more than others where most of the partition's slots are free, within its maximum."""
    count, shares = len(room), {}
    tops = {name: _divide_top(name, lane, count) for name, lane in lanes.items()}
    fits = {
        name: [part for part in range(count) if tops[name][part] > lanes[name].min_concurrency // count]
        for name in lanes
    }
    for name in sorted(lanes, key=lambda name: (len(fits[name]), name)):
        each, more = divmod(lanes[name].min_concurrency, count)
        start = number_of(name, count)
        best = sorted(fits[name], key=lambda part: (-room[part], (part - start) % count))[:more]
        shares[name] = [each + (part in best) for part in range(count)]
        room = [left - taken for left, taken in zip(room, shares[name], strict=True)]
    return shares


def _divide_lane(name: str, lane: LaneConfig, reserved: list[int]) -> list[LaneConfig]:
    count = len(reserved)
    tops = _divide_top(name, lane, count)
    pending: list[int] | list[None] = [None] * count
    if lane.max_pending is not None:
        pending = divide_count(f"lanes.{name}.max_pending", lane.max_pending, count, number_of(name, count))
    limits = [_divide_limit(f"lanes.{name}.rate_limit", limit, count, name) for limit in lane.rate_limits]
    return [
        dataclasses.replace(
            lane,
            min_concurrency=reserved[part],
            max_concurrency=tops[part],
            max_pending=pending[part],
            rate_limit=tuple(limit[part] for limit in limits) or None,
        )
        for part in range(count)
    ]


def _divide_limit(field: str, limit: RateLimit, count: int, name: str) -> list[RateLimit]:
    """A rate limit's shares: a refill is divided evenly, what a bucket or a window holds in whole tokens.

    Raises:
        ConfigError: one of them would be too small.
    """
    start = number_of(name if limit.name is None else limit.name, count)
    if limit.burst is None:
        held = _divide_tokens(f"{field}.sliding_window", limit.amount, count, start)
        return [dataclasses.replace(limit, amount=share) for share in held]
    held = _divide_tokens(f"{field}.burst", limit.burst, count, start)
    try:
        return [dataclasses.replace(limit, amount=limit.amount / count, burst=share) for share in held]
    except ConfigError as error:
        raise ConfigError(
            f"{field}.amount", limit.amount, f"give more, or fewer partitions: {error.allowed}"
        ) from error


def _divide_tokens(field: str, value: float, count: int, start: int) -> list[float]:
    if value < count:
        raise ConfigError(field, value, _too_small(count))
    whole = math.floor(value)
    shares: list[float] = [float(share) for share in _deal(whole, count, start)]
    shares[start - 1] += value - whole  # to the last of those from `start` on, which has none more than others
    return shares


def most_cost(limit: RateLimit, count: int) -> float:
    """The largest cost that one command may have where a limit is divided: what the smallest share lets through."""
    return limit.most if count == 1 else float(limit.most // count)
