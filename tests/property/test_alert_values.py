"""Values of alerts against a plain re-computation, over columns of any length and content."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lane_obs.alerts.expression import NONE, Leaf, Rate, Ratio
from lane_obs.alerts.histogram import Quantile, ShareAbove
from lane_obs.metrics import catalogue
from tests.unit.alerts.columns import Columns

if TYPE_CHECKING:
    from collections.abc import Sequence

PART = Leaf(catalogue.RETRIES)
WHOLE = Leaf(catalogue.ATTEMPTS)
WAIT = Leaf(catalogue.QUEUE_WAIT)

COUNTS = st.integers(0, 10**6)
AGES = st.floats(0.1, 1e5)
PAIRS = st.lists(st.tuples(COUNTS, COUNTS, COUNTS, COUNTS), max_size=20)


def same(found: Sequence[float], wanted: Sequence[float | Fraction | None]) -> bool:
    """Whether values are the wanted ones, `None` for those that there are not."""
    return len(found) == len(wanted) and all(
        one == NONE if other is None else one == pytest.approx(float(other), rel=1e-9, abs=1e-12)
        for one, other in zip(found, wanted, strict=True)
    )


@given(PAIRS, AGES, st.floats(0, 100))
def test_rates_and_ratios(rises: list[tuple[int, int, int, int]], age: float, least: float) -> None:
    samples = Columns(
        {PART: [old + rise for old, rise, _, _ in rises], WHOLE: [old + rise for _, _, old, rise in rises]},
        {PART: ([old for old, *_ in rises], age), WHOLE: ([old for _, _, old, _ in rises], age)},
    )
    window = age * 1.5
    assert same(Rate(PART, window).values(samples, "lane"), [rise / age for _, rise, _, _ in rises])
    assert same(Rate(PART, window, in_all=True).values(samples, "lane"), [rise for _, rise, _, _ in rises])
    ratio = Ratio(Rate(PART, window), Rate(WHOLE, window), least)
    wanted = [Fraction(part, whole) if whole / age > least else None for _, part, _, whole in rises]
    assert same(ratio.values(samples, "lane"), wanted)


@st.composite
def histograms(draw: st.DrawFn) -> list[tuple[tuple[float, ...], list[int], list[int]]]:
    """Lanes, each with bounds, what was counted before, and what came in the window."""
    lanes = []
    for _ in range(draw(st.integers(1, 5))):
        steps = draw(st.lists(st.floats(0.001, 100), min_size=1, max_size=8))
        bounds = tuple(sum(steps[: number + 1]) for number in range(len(steps)))
        rows = st.lists(st.one_of(st.just(0), st.integers(0, 50)), min_size=len(bounds) + 1, max_size=len(bounds) + 1)
        lanes.append((bounds, draw(rows), draw(rows)))
    return lanes


def given_columns(lanes: list[tuple[tuple[float, ...], list[int], list[int]]], age: float) -> Columns:
    return Columns(
        {WAIT: [(bounds, [a + b for a, b in zip(old, new, strict=True)]) for bounds, old, new in lanes]},
        {WAIT: ([(bounds, old) for bounds, old, _ in lanes], age)},
    )


def quantile_as_prometheus_says(share: float, bounds: tuple[float, ...], counts: list[int]) -> Fraction | None:
    """`bucketQuantile` of Prometheus, word for word, with exact numbers."""
    buckets = [(Fraction(bound), sum(counts[: number + 1])) for number, bound in enumerate(bounds)]
    observations = sum(counts)
    if observations == 0:
        return None
    rank = Fraction(share) * observations
    found = next((number for number, (_, count) in enumerate(buckets) if count >= rank), len(buckets))
    if found == len(buckets):
        return buckets[-1][0]
    start, end, count = Fraction(0), buckets[found][0], Fraction(buckets[found][1])
    if found > 0:
        start = buckets[found - 1][0]
        count -= buckets[found - 1][1]
        rank -= buckets[found - 1][1]
    return start + (end - start) * (rank / count)


@given(histograms(), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_quantiles(lanes: list[tuple[tuple[float, ...], list[int], list[int]]], share: float) -> None:
    found = Quantile(WAIT, share, 60).values(given_columns(lanes, 60.0), "lane")
    assert same(found, [quantile_as_prometheus_says(share, bounds, new) for bounds, _, new in lanes])


def within(limit: float, bounds: tuple[float, ...], counts: list[int]) -> Fraction:
    """How many of the counted lie below a limit, evenly within each bucket; what is above all bounds does not."""
    inside, low = Fraction(0), Fraction(0)
    for bound, count in zip(bounds, counts, strict=False):
        high = Fraction(bound)
        inside += count * max(Fraction(0), min(Fraction(1), (Fraction(limit) - low) / (high - low)))
        low = high
    return inside


@given(histograms(), st.floats(0.001, 500), AGES, st.floats(0, 2))
def test_shares_above_a_limit(
    lanes: list[tuple[tuple[float, ...], list[int], list[int]]], limit: float, age: float, least: float
) -> None:
    expression = ShareAbove(WAIT, limit, (limit,), age * 2, least)
    wanted = [
        None if sum(new) <= least * age or not sum(new) else 1 - within(limit, bounds, new) / sum(new)
        for bounds, _, new in lanes
    ]
    assert same(expression.values(given_columns(lanes, age), "lane"), wanted)
