"""Rendering in slices gives prometheus_client's own text, and no slice is large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, Summary, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    StateSetMetricFamily,
    UnknownMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.samples import Exemplar

from lane_obs.http.exposition import SLICE, render, slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import Metric

CLASSIC = "text/plain"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ENCODERS = [generate_latest, generate_openmetrics]


class Families:
    """A registry of ready families."""

    def __init__(self, *families: Metric) -> None:
        self.families = families

    def collect(self) -> Iterator[Metric]:
        yield from self.families


def histogram(name: str, label_sets: int, *, exemplar: bool = False) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, 'Seconds\nof "waiting" \\ and more.', labels=["lane"], unit="seconds")
    example = Exemplar({"trace_id": "ab" * 16}, 0.07, 1_700_000_000.5) if exemplar else None
    buckets: list[Any] = [(str(bound), bound, example) for bound in range(18)] + [("+Inf", 20, None)]
    for number in range(label_sets):
        family.add_metric([f'lane "{number}"\\\n# HELP'], buckets, 1.5)
    return family


def counter(name: str, count: int) -> CounterMetricFamily:
    family = CounterMetricFamily(name, "Counts.", labels=["lane"])
    for number in range(count):
        family.add_metric([str(number)], number, created=1_700_000_000.0 + number)
    return family


def of_all_types() -> Families:
    gauge_histogram = GaugeHistogramMetricFamily("sizes", "Sizes.", labels=["lane"])
    states = StateSetMetricFamily("state", "States.", labels=["lane"])
    for number in range(SLICE):
        gauge_histogram.add_metric([str(number)], [("1.0", 2), ("+Inf", 3)], 4.0)
        states.add_metric([str(number)], {"up": True, "down": False})
    gauge = GaugeMetricFamily("depth", "Depth.", labels=["lane"])
    for number in range(SLICE):
        gauge.add_metric([str(number)], number, timestamp=1_700_000_000.0)
    return Families(
        gauge_histogram,
        GaugeMetricFamily("none", "No samples."),
        states,
        gauge,
        histogram("wait", 16, exemplar=True),
        counter("done", SLICE + 1),
        UnknownMetricFamily("odd", "Odd.", value=1.0),
        histogram("run", 1),
    )


@pytest.mark.parametrize("encode", ENCODERS)
def test_the_slices_together_are_the_librarys_text_for_every_type_of_metric(encode: Callable[..., bytes]) -> None:
    registry = of_all_types()
    assert b"".join(slices(registry, encode)) == encode(registry)


@pytest.mark.parametrize("encode", ENCODERS)
def test_no_slice_has_more_than_its_share_of_samples(encode: Callable[..., bytes]) -> None:
    sizes = [sum(not line.startswith(b"#") for line in text.splitlines()) for text in slices(of_all_types(), encode)]
    assert max(sizes) == SLICE
    assert sum(sizes) > 10 * SLICE


@pytest.mark.parametrize("encode", ENCODERS)
def test_small_families_share_a_slice(encode: Callable[..., bytes]) -> None:
    registry = Families(*(GaugeMetricFamily(f"g{number}", "Gauge.", value=number) for number in range(3 * SLICE)))
    assert len(list(slices(registry, encode))) == 3
    assert b"".join(slices(registry, encode)) == encode(registry)


@pytest.mark.parametrize("encode", ENCODERS)
@given(sizes=st.lists(st.integers(0, 3 * SLICE), max_size=6))
def test_the_text_is_the_librarys_whatever_the_sizes_of_the_families(
    encode: Callable[..., bytes], sizes: list[int]
) -> None:
    registry = Families(*(counter(f"c{number}", size) for number, size in enumerate(sizes)))
    assert b"".join(slices(registry, encode)) == encode(registry)


def test_the_librarys_own_metrics_come_out_as_the_library_writes_them() -> None:
    registry = CollectorRegistry(target_info={"service": "test"})
    wait = Histogram("wait_seconds", "Wait.", ["lane"], registry=registry)
    for number in range(10):
        wait.labels(str(number)).observe(number, {"trace_id": "ab" * 16})
    Counter("done", "Done.", registry=registry).inc()
    Summary("size", "Size.", registry=registry).observe(3)
    Info("build", "Build.", registry=registry).info({"version": "1"})
    for accept in (CLASSIC, OPENMETRICS):
        encode, _ = choose_encoder(accept)
        assert render(registry, accept).text == encode(registry)


def test_it_pauses_between_slices_and_collects_the_next_family_only_then() -> None:
    steps: list[str] = []

    class Slow:
        def collect(self) -> Iterator[Metric]:
            for number in range(3):
                steps.append(f"collect {number}")
                yield histogram(f"h{number}", 4)

    render(Slow(), pause=lambda: steps.append("pause"))
    assert steps == ["collect 0", "collect 1", "pause", "collect 2", "pause", "pause"]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text; version=0.0.1", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=abc", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain; version=x", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_the_accept_header_chooses_the_format_and_what_is_no_version_gets_the_classic_text(
    accept: str, content_type: str
) -> None:
    text, chosen = render(Families(counter("done", 1)), accept)
    assert chosen == content_type
    assert text.endswith(b"# EOF\n") == content_type.startswith("application/openmetrics-text")


def test_what_a_real_prometheus_sends_gets_openmetrics() -> None:
    accept = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,*/*;q=0.1"
    assert render(Families(), accept).content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert render(Families(), accept).text == b"# EOF\n"
