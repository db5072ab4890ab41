"""A replay in figures."""

from __future__ import annotations

import json
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lane_obs import LaneConfig, QueueConfig, RetryPolicy, VirtualClock
from lane_obs.simulation.replay import replay
from lane_obs.simulation.summary import Spread, Summary, spread, summarize
from lane_obs.simulation.trace import Trace, read_trace

HEADER = "timestamp,lane,duration,outcome,fail_attempts,deadline\n"
CONFIG = QueueConfig(
    {
        "a": LaneConfig(0, 2, retry=RetryPolicy(1, 3.0, jitter="none")),
        "b": LaneConfig(0, 1, max_pending=1, overflow="reject"),
        "unused": LaneConfig(0, 1),
    },
    max_concurrency=2,
)
ROWS = """\
0,a,4,ok,,
0,a,4,ok,1,
1,a,3,ok,,
2,b,1,ok,,
3,b,1,ok,,
14,b,6,hang,,5
x,a,1,ok,,
"""


@pytest.fixture
def trace(tmp_path) -> Trace:
    path = tmp_path / "trace.csv"
    path.write_text(HEADER + ROWS)
    return read_trace(path, skip_bad_rows=True)


async def summary_of(clock: VirtualClock, trace: Trace, config: QueueConfig = CONFIG) -> Summary:
    return summarize(await clock.run(replay(trace, config, clock)), trace, config)


async def test_every_figure_of_a_small_replay(clock: VirtualClock, trace: Trace) -> None:
    # a: 0-4; 0-4 fails, back-off to 7, waits for a slot, runs again 7-11; 1 waits, 4-7
    # (at 4 three commands wait: one in its back-off, two about to start)
    # b: 2 waits for the queue, which is full until 4, 4-5; 3 is refused; 14 hangs until its deadline at 19
    summary = await summary_of(clock, trace)
    assert (summary.trace, summary.elapsed_seconds, summary.not_submitted) == (trace.path, 19.0, 0)
    a, b, total = summary.lanes["a"], summary.lanes["b"], summary.total
    assert (a.count, b.count, total.count) == (3, 3, 6)
    assert {name: count for name, count in total.outcomes.items() if count} == {
        "succeeded": 4,
        "rejected": 1,
        "expired": 1,
    }
    assert (a.attempts, b.attempts, total.attempts) == (4, 2, 6)
    assert a.wait_seconds == Spread(3.0, 3.0, 3.0, 3.0)
    assert b.wait_seconds == Spread(0.0, 2.0, 2.0, 2.0)
    assert total.wait_seconds == Spread(2.0, 3.0, 3.0, 3.0)
    assert a.wait_by_cause_seconds.backoff == 3.0
    assert a.wait_by_cause_seconds.total == 6.0
    assert total.wait_by_cause_seconds == a.wait_by_cause_seconds + b.wait_by_cause_seconds
    assert (a.run_seconds, b.run_seconds, total.run_seconds) == (15.0, 6.0, 21.0)
    assert a.end_to_end_seconds == Spread(6.0, 11.0, 11.0, 11.0)
    assert b.end_to_end_seconds == Spread(3.0, 5.0, 5.0, 5.0)
    assert (a.peak_depth, b.peak_depth, total.peak_depth) == (2, 1, 3)
    assert a.utilisation == pytest.approx(15 / (2 * 19))
    assert b.utilisation == pytest.approx(6 / 19)
    assert total.utilisation == pytest.approx(21 / (2 * 19))


async def test_skipped_rows_are_listed(clock: VirtualClock, trace: Trace) -> None:
    (skipped,) = (await summary_of(clock, trace)).skipped_rows
    assert (skipped.line, skipped.column, skipped.value) == (8, "timestamp", "x")
    assert "ISO 8601" in skipped.allowed


async def test_a_lane_without_commands_has_empty_figures(clock: VirtualClock, trace: Trace) -> None:
    unused = (await summary_of(clock, trace)).lanes["unused"]
    assert (unused.count, unused.attempts, unused.run_seconds, unused.peak_depth, unused.utilisation) == (0, 0, 0, 0, 0)
    assert unused.wait_seconds == unused.end_to_end_seconds == Spread(None, None, None, None)
    assert set(unused.outcomes.values()) == {0}


async def test_lanes_without_a_common_limit_are_used_as_far_as_their_own_limits_go(
    clock: VirtualClock, trace: Trace
) -> None:
    config = QueueConfig(CONFIG.lanes)
    total = (await summary_of(clock, trace, config)).total
    assert total.utilisation == pytest.approx(total.run_seconds / (4 * 19))


async def test_a_replay_of_nothing_has_figures(clock: VirtualClock) -> None:
    summary = await summary_of(clock, Trace(commands=(), skipped=(), path="t"))
    assert (summary.elapsed_seconds, summary.total.count, summary.total.utilisation) == (0.0, 0, 0.0)


async def test_a_summary_is_plain_json(clock: VirtualClock, trace: Trace) -> None:
    plain = json.loads(msgspec.json.encode(await summary_of(clock, trace)))
    assert list(plain) == ["trace", "elapsed_seconds", "not_submitted", "skipped_rows", "lanes", "total"]
    assert list(plain["lanes"]) == ["a", "b", "unused"]
    assert list(plain["total"]) == [
        "count",
        "outcomes",
        "attempts",
        "wait_seconds",
        "wait_by_cause_seconds",
        "run_seconds",
        "end_to_end_seconds",
        "peak_depth",
        "utilisation",
    ]
    assert plain["total"]["wait_seconds"] == {"p50": 2.0, "p95": 3.0, "p99": 3.0, "max": 3.0}


@given(seconds=st.lists(st.integers(0, 50).map(float), min_size=1, max_size=250))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(seconds: list[float]) -> None:
    found = spread(seconds)
    for percent, value in ((50, found.p50), (95, found.p95), (99, found.p99)):
        enough = [
            candidate
            for candidate in seconds
            if sum(other <= candidate for other in seconds) >= Fraction(percent * len(seconds), 100)
        ]
        assert value == min(enough)
    assert found.max == max(seconds)


def test_percentiles_of_nothing_are_not_numbers() -> None:
    assert spread([]) == Spread(None, None, None, None)
