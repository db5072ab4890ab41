"""What alerts look at: values worked out by hand, and PromQL that says the same."""

from __future__ import annotations

import promql_parser
import pytest

from lane_obs.alerts import MEASURES
from lane_obs.alerts.expression import NONE, Gauge, Leaf, Rate, Ratio, Scaled, While, duration
from lane_obs.alerts.histogram import Quantile, ShareAbove
from lane_obs.alerts.series import moves
from lane_obs.metrics import BUCKETS, CATALOGUE, catalogue
from tests.unit.alerts.columns import Columns, FromSeries

READY = Leaf(catalogue.DEPTH, (("state", ("ready",)),))
ENDED = Leaf(catalogue.FINISHED)
FAILED = Leaf(catalogue.FINISHED, (("outcome", ("error", "timeout")),))
OLDEST = Leaf(catalogue.OLDEST_READY, fold="max")
WAIT = Leaf(catalogue.QUEUE_WAIT)
LAG = Leaf(catalogue.LOOP_LAG)
BOUNDS = (1.0, 2.0, 4.0)


def no_value(values: list[float]) -> bool:
    return all(value == NONE for value in values)


def counted(*counts: int) -> tuple[tuple[float, ...], list[int]]:
    return BOUNDS, list(counts)


# --- values -----------------------------------------------------------------------------------------------------


def test_a_gauge_is_the_present_value() -> None:
    assert Gauge(READY).values(Columns({READY: [3, 0]}), "lane") == [3, 0]


def test_a_rate_is_the_rise_by_the_time_that_there_is_of_the_window() -> None:
    samples = Columns({ENDED: [30, 5]}, {ENDED: ([10, 5], 40.0)})
    assert Rate(ENDED, 60).values(samples, "lane") == [0.5, 0.0]
    assert Rate(ENDED, 60, in_all=True).values(samples, "lane") == [20, 0]


def test_nothing_that_looks_back_has_a_value_before_there_is_a_past() -> None:
    samples = Columns({ENDED: [30, 5], WAIT: [counted(1, 2, 3, 4)] * 2}, {ENDED: (None, 0.0), WAIT: (None, 0.0)})
    for expression in (
        Rate(ENDED, 60),
        Quantile(WAIT, 0.99, 60),
        ShareAbove(WAIT, 2.0, BOUNDS, 60),
        Ratio(Rate(ENDED, 60), Rate(ENDED, 60)),
    ):
        assert no_value(list(expression.values(samples, "lane")))
        assert len(expression.values(samples, "lane")) == 2


def test_a_ratio_has_a_value_only_where_more_than_the_least_happens() -> None:
    samples = Columns({FAILED: [5, 1, 0], ENDED: [10, 2, 0]}, {FAILED: ([0, 0, 0], 10.0), ENDED: ([0, 0, 0], 10.0)})
    ratio = Ratio(Rate(FAILED, 60), Rate(ENDED, 60), least=0.2)
    assert ratio.values(samples, "lane")[0] == 0.5
    assert no_value(list(ratio.values(samples, "lane"))[1:])
    assert Ratio(Rate(FAILED, 60), Rate(ENDED, 60)).values(samples, "lane")[1] == 0.5


def test_a_scaled_expression_is_divided() -> None:
    assert Scaled(Gauge(READY), 0.01).values(Columns({READY: [3]}), "lane") == [300]


def test_an_expression_while_another_is_still() -> None:
    samples = Columns({OLDEST: [70.0, 70.0], ENDED: [5, 6]}, {ENDED: ([5, 5], 60.0)})
    first, second = While(Gauge(OLDEST), Rate(ENDED, 60, in_all=True)).values(samples, "lane")
    assert first == 70.0
    assert second == NONE


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ((100, 0, 0, 0), 0.5),  # in the middle of the first bucket, which begins at 0
        ((0, 100, 0, 0), 1.5),
        ((50, 50, 0, 0), 1.0),
        ((25, 75, 0, 0), 1 + 25 / 75),
        ((10, 0, 90, 0), 2 + 2 * 40 / 90),
        ((0, 0, 0, 7), 4.0),  # above all bounds: the last one is all that is known
        ((49, 0, 0, 51), 4.0),
    ],
)
def test_a_quantile_is_linear_within_its_bucket(counts: tuple[int, ...], wanted: float) -> None:
    samples = Columns({WAIT: [counted(*counts)]}, {WAIT: ([counted(0, 0, 0, 0)], 60.0)})
    assert Quantile(WAIT, 0.5, 60).values(samples, "lane") == pytest.approx([wanted])


def test_a_quantile_is_of_what_came_in_the_window() -> None:
    samples = Columns(
        {WAIT: [counted(900, 10, 0, 0), counted(5, 5, 5, 5)]},
        {WAIT: ([counted(900, 0, 0, 0), counted(5, 5, 5, 5)], 60.0)},
    )
    first, second = Quantile(WAIT, 0.5, 60).values(samples, "lane")
    assert first == 1.5
    assert second == NONE


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [(1.0, 0.9), (2.0, 0.7), (4.0, 0.3), (1.5, 0.8), (3.0, 0.5), (0.5, 0.95), (9.0, 0.3)],
)
def test_the_share_above_a_limit_is_exact_at_bounds_and_even_between_them(limit: float, wanted: float) -> None:
    samples = Columns({WAIT: [counted(10, 20, 40, 30)]}, {WAIT: ([counted(0, 0, 0, 0)], 60.0)})
    assert ShareAbove(WAIT, limit, BOUNDS, 60).values(samples, "lane") == pytest.approx([wanted])


def test_the_share_above_a_limit_needs_more_than_the_least() -> None:
    samples = Columns({WAIT: [counted(6, 0, 0, 6), counted(6, 0, 0, 7)]}, {WAIT: ([counted(0, 0, 0, 0)] * 2, 60.0)})
    first, second = ShareAbove(WAIT, 2.0, BOUNDS, 60, least=0.2).values(samples, "lane")
    assert first == NONE
    assert second == pytest.approx(7 / 13)


def test_lanes_may_have_bounds_of_their_own() -> None:
    other = (2.0, 8.0)
    samples = Columns(
        {WAIT: [counted(1, 1, 1, 1), (other, [3, 0, 1]), counted(4, 0, 0, 0)]},
        {WAIT: ([counted(0, 0, 0, 0), (other, [0, 0, 0]), counted(0, 0, 0, 0)], 60.0)},
    )
    assert ShareAbove(WAIT, 2.0, BOUNDS, 60).values(samples, "lane") == pytest.approx([0.5, 0.25, 0.0])
    assert Quantile(WAIT, 0.5, 60).values(samples, "lane") == pytest.approx([2.0, 4 / 3, 0.5])


# --- what must be kept ------------------------------------------------------------------------------------------


def test_every_part_is_told_with_the_time_to_keep_it() -> None:
    expression = While(Scaled(Gauge(OLDEST), 2), Ratio(Rate(FAILED, 60), Rate(ENDED, 120)))
    assert list(expression.parts()) == [(OLDEST, 0.0), (FAILED, 60), (ENDED, 120)]
    assert list(Quantile(WAIT, 0.99, 30).parts()) == [(WAIT, 30)]
    assert list(ShareAbove(WAIT, 1.0, BOUNDS, 30).parts()) == [(WAIT, 30)]


@pytest.mark.parametrize("measure", MEASURES.values(), ids=lambda measure: measure.name)
def test_every_leaf_of_a_measure_is_a_metric_of_the_catalogue_with_its_labels(measure) -> None:
    for leaf, window in measure.build(measure.window or 0.0, measure.min_rate or 0.0).parts():
        assert leaf.metric in CATALOGUE
        assert {name for name, _ in leaf.labels} <= set(leaf.metric.labels)
        assert window in {0.0, measure.window}
        assert leaf.is_of_lanes or measure.pers == ("queue",)


# --- PromQL -----------------------------------------------------------------------------------------------------

WORDS = [
    (Gauge(READY), 'sum without (state) (lane_queue_depth{state="ready"})'),
    (Gauge(OLDEST), "lane_oldest_ready_age_seconds"),
    (
        Rate(FAILED, 300),
        'sum without (outcome) (rate(lane_commands_finished_total{outcome=~"error|timeout"}[5m]))',
    ),
    (Rate(Leaf(catalogue.DEAD_LETTERED), 90, in_all=True), "increase(lane_commands_dead_lettered_total[1m30s])"),
    (
        Ratio(Gauge(Leaf(catalogue.ACTIVE)), Gauge(Leaf(catalogue.LIMIT)), 0.02),
        "lane_active_commands / (lane_concurrency_limit > 0.02)",
    ),
    (
        While(Gauge(OLDEST), Rate(ENDED, 60, in_all=True)),
        "lane_oldest_ready_age_seconds and (sum without (outcome) (increase(lane_commands_finished_total[1m])) == 0)",
    ),
    (Scaled(Gauge(OLDEST), 0.001), "(lane_oldest_ready_age_seconds) / 0.001"),
    (
        Quantile(WAIT, 0.99, 300),
        "histogram_quantile(0.99, rate(lane_command_queue_wait_seconds_bucket[5m]))",
    ),
    (
        Quantile(Leaf(catalogue.DURATION), 0.5, 300),
        "histogram_quantile(0.5, sum without (command_type) (rate(lane_command_duration_seconds_bucket[5m])))",
    ),
    (
        ShareAbove(WAIT, 10, BUCKETS, 300),
        '1 - (sum without (le) (rate(lane_command_queue_wait_seconds_bucket{le="10.0"}[5m]))) / '
        "(rate(lane_command_queue_wait_seconds_count[5m]) > 0)",
    ),
    (
        ShareAbove(WAIT, 2, BUCKETS, 300, 0.5),
        '1 - (0.33333333333333337 * sum without (le) (rate(lane_command_queue_wait_seconds_bucket{le="1.0"}[5m])) + '
        '0.6666666666666666 * sum without (le) (rate(lane_command_queue_wait_seconds_bucket{le="2.5"}[5m]))) / '
        "(rate(lane_command_queue_wait_seconds_count[5m]) > 0.5)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "promql"), WORDS)
def test_promql_for_a_lane(expression, promql: str) -> None:
    assert expression.promql("lane") == promql
    promql_parser.parse(promql)


@pytest.mark.parametrize(
    ("expression", "promql"),
    [
        (Gauge(READY), 'sum without (lane, state) (lane_queue_depth{state="ready"})'),
        (Gauge(OLDEST), "max without (lane) (lane_oldest_ready_age_seconds)"),
        (
            Rate(Leaf(catalogue.SINK_DROPPED), 60, in_all=True),
            "sum without (sink, reason) (increase(lane_sink_dropped_total[1m]))",
        ),
        (
            Quantile(WAIT, 0.9, 60),
            "histogram_quantile(0.9, sum without (lane) (rate(lane_command_queue_wait_seconds_bucket[1m])))",
        ),
        (Quantile(LAG, 0.9, 60), "histogram_quantile(0.9, rate(lane_event_loop_lag_seconds_bucket[1m]))"),
        (
            ShareAbove(WAIT, 10, BUCKETS, 60),
            '1 - (sum without (lane, le) (rate(lane_command_queue_wait_seconds_bucket{le="10.0"}[1m]))) / '
            "(sum without (lane) (rate(lane_command_queue_wait_seconds_count[1m])) > 0)",
        ),
    ],
)
def test_promql_for_the_queue(expression, promql: str) -> None:
    assert expression.promql("queue") == promql
    promql_parser.parse(promql)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (5, "5s"),
        (60, "1m"),
        (90, "1m30s"),
        (3600, "1h"),
        (86_400, "1d"),
        (0.25, "250ms"),
        (90_061.5, "1d1h1m1s500ms"),
        (0.0001, "1ms"),
    ],
)
def test_durations_as_prometheus_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# --- both agree -------------------------------------------------------------------------------------------------

VALUES = {"ratio": (0.01, 0.5, 0.97), "seconds": (0.2, 1.7, 9.4), "": (1, 2.5, 40)}


@pytest.mark.parametrize(
    ("measure", "per"),
    [(measure, per) for measure in MEASURES.values() for per in measure.pers],
    ids=lambda part: getattr(part, "name", part),
)
def test_series_made_for_a_value_have_it_in_the_process(measure, per) -> None:
    """The cases for promtool show that Prometheus finds the same value in them."""
    expression = measure.build(measure.window or 0.0, measure.min_rate or 0.0)
    for value in VALUES[measure.unit]:
        assert expression.values(FromSeries(moves(expression, value)), per) == pytest.approx([value])
