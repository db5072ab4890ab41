"""Made-up series that give an expression a wanted value: what the cases for promtool feed the rules with."""

from __future__ import annotations

import dataclasses
from functools import singledispatch
from typing import TYPE_CHECKING, Final, TypeAlias

from lane_obs.alerts.expression import Expression, Gauge, Leaf, Rate, Ratio, Scaled, While
from lane_obs.alerts.histogram import Quantile, ShareAbove
from lane_obs.core.histogram import QUICK_BOUNDS
from lane_obs.metrics import BUCKETS, catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

BOUNDS: Final = {catalogue.QUEUE_WAIT: BUCKETS, catalogue.LOOP_LAG: QUICK_BOUNDS}
"""The bounds that histograms have by default."""
_EACH_SECOND: Final = 1_000.0
"""How much happens each second where something has to; this many times the least rate that an expression asks for.

It is enough in a window that has only begun.
"""
_VALUES: Final[Mapping[str, Sequence[str]]] = {
    "outcome": catalogue.OUTCOMES,
    "state": catalogue.STATES,
    "cause": catalogue.BLOCKED_BY,
    "reason": catalogue.RETRY_REASONS,
    "sink": ("StructlogSink",),
    "role": catalogue.ROLES,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """One series, without the labels that say where it comes from.

    Args:
        name: of the metric, with `_bucket` or `_count` where it has such.
        labels: besides job, instance, queue and lane.
        rises: whether it is a counter.
        of_lanes: whether each lane has one.
        fold: what makes one value of all lanes'.
    """

    name: str
    labels: tuple[tuple[str, str], ...]
    rises: bool
    of_lanes: bool
    fold: str


Moves: TypeAlias = dict[Series, float]
"""The value of each gauge, and by how much each counter rises in a second."""


def moves(expression: Expression, value: float) -> Moves:
    """Series that give an expression a value, and others that must not count."""
    wanted = _moves(expression, value)
    return {**_strays(expression, wanted), **wanted}


@singledispatch
def _moves(expression: Expression, value: float) -> Moves:
    raise NotImplementedError(f"no series are known for {expression!r}")


@_moves.register
def _(expression: Gauge, value: float) -> Moves:
    return _spread(expression.leaf, value)


@_moves.register
def _(expression: Rate, value: float) -> Moves:
    return _spread(expression.leaf, value / expression.window if expression.in_all else value)


@_moves.register
def _(expression: Ratio, value: float) -> Moves:
    whole = _EACH_SECOND * max(1.0, expression.least)
    part = _moves(expression.part, value * whole)
    rest = _moves(expression.whole, whole)
    if not part.keys() & rest.keys():
        return {**rest, **part}
    others = [series for series in rest if series not in part]
    return {**dict.fromkeys(others, (1 - value) * whole / len(others)), **part}


@_moves.register
def _(expression: Scaled, value: float) -> Moves:
    return _moves(expression.inner, value * expression.by)


@_moves.register
def _(expression: While, value: float) -> Moves:
    return {**_moves(expression.inner, value), **_moves(expression.still, 0.0)}


@_moves.register
def _(expression: Quantile, value: float) -> Moves:
    bounds = BOUNDS[expression.leaf.metric]
    counts = [0.0] * (len(bounds) + 1)
    if value:
        bucket = next(number for number, bound in enumerate(bounds) if bound >= value)
        low = bounds[bucket - 1] if bucket else 0.0
        # All lie in the value's bucket, but for those that shift the quantile's rank to the value's place in it.
        place, quantile = (value - low) / (bounds[bucket] - low), expression.quantile
        below = (quantile - place) / (1 - place) if bucket and place < quantile else 0.0
        above = 1 - quantile / place if place > quantile else 0.0
        counts[bucket - 1] += below * _EACH_SECOND
        counts[-1] += above * _EACH_SECOND
        counts[bucket] += (1 - below - above) * _EACH_SECOND
    return _histogram(expression.leaf, bounds, counts)


@_moves.register
def _(expression: ShareAbove, value: float) -> Moves:
    each = _EACH_SECOND * max(1.0, expression.least)
    counts = [(1 - value) * each, *[0.0] * (len(expression.bounds) - 1), value * each]
    return _histogram(expression.leaf, expression.bounds, counts)


def _histogram(leaf: Leaf, bounds: Sequence[float], counts: Sequence[float]) -> Moves:
    found: Moves = {}
    so_far = 0.0
    for bound, count in zip([*map(repr, bounds), "+Inf"], counts, strict=True):
        so_far += count
        found[_series(leaf, (("le", bound),), "_bucket")] = so_far
    return {**found, _series(leaf, (), "_count"): so_far}


def _spread(leaf: Leaf, amount: float) -> Moves:
    """A metric's amount, over all the values of its labels that count; where all do, over one."""
    combinations = list(_combinations(leaf))
    # Halves of halves add up to the amount exactly.
    parts = [amount / 2**number for number in range(1, len(combinations))]
    parts.append(amount / 2 ** (len(combinations) - 1))
    return {_series(leaf, labels): part for labels, part in zip(combinations, parts, strict=True)}


def _combinations(leaf: Leaf) -> Iterator[tuple[tuple[str, str], ...]]:
    named = dict(leaf.labels)
    names = [name for name in leaf.metric.labels if name != "lane"]
    if named:
        (name,) = names
        yield from (((name, value),) for value in named[name])
    elif names == ["outcome"]:
        yield from (((names[0], value),) for value in _VALUES["outcome"])
    else:
        yield tuple((name, _VALUES[name][0]) for name in names)


def _strays(expression: Expression, wanted: Moves) -> Moves:
    """Series of the same metrics that the expression leaves out."""
    narrowed = [leaf for leaf, _ in expression.parts() if leaf.labels]
    found: Moves = {}
    for leaf in narrowed:
        ((name, _),) = leaf.labels
        everything = (_series(leaf, ((name, value),)) for value in _VALUES[name])
        found |= dict.fromkeys((series for series in everything if series not in wanted), _EACH_SECOND)
    return found


def _series(leaf: Leaf, labels: tuple[tuple[str, str], ...], suffix: str = "") -> Series:
    metric = leaf.metric
    return Series(metric.name + suffix, labels, metric.kind != "gauge", leaf.is_of_lanes, leaf.fold)
