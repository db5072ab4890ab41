"""Which traces can run through which lanes."""

from __future__ import annotations

import msgspec
import pytest

from lane_obs import LaneConfig, QueueConfig, RateLimit
from lane_obs.errors import TraceError
from lane_obs.simulation.fit import fit
from lane_obs.simulation.trace import Trace, read_trace

CONFIG = QueueConfig({"api": LaneConfig(0, 1), "quick": LaneConfig(0, 1, timeout=5.0)})
HEADER = "timestamp,lane,duration,outcome,deadline\n"


@pytest.fixture
def read(tmp_path):
    def read(rows: str, *, skip_bad_rows: bool = False) -> Trace:
        path = tmp_path / "trace.csv"
        path.write_text(HEADER + rows)
        return read_trace(path, skip_bad_rows=skip_bad_rows)

    return read


def test_a_trace_that_fits_is_given_back(read):
    trace = read("1,api,1,ok,\n2,quick,1,hang,\n3,api,1,hang,60\n")
    assert fit(trace, CONFIG) is trace


def test_an_unknown_lane_names_the_place_and_the_known_lanes(read):
    trace = read("1,api,1,ok,\n2,apy,1,ok,\n")
    with pytest.raises(TraceError) as raised:
        fit(trace, CONFIG)
    error = raised.value
    assert (error.path, error.line, error.column, error.value) == (trace.path, 3, "lane", "apy")
    assert error.allowed == "give one of the known lanes: 'api', 'quick'"


def test_a_row_that_would_hang_for_ever_names_the_place_and_the_ways_out(read):
    trace = read("1,api,1,hang,\n")
    with pytest.raises(TraceError) as raised:
        fit(trace, CONFIG)
    error = raised.value
    assert (error.path, error.line, error.column, error.value) == (trace.path, 2, "outcome", "hang")
    assert error.allowed == "it would never end: give the row a deadline, or lane 'api' a timeout"


@pytest.mark.parametrize("where", ["lane", "queue"])
def test_a_row_that_costs_more_than_a_rate_limit_ever_has_names_the_place_and_the_most(read, where):
    limits = [RateLimit.per_second(50), RateLimit.per_minute(100, burst=9)]
    lane = LaneConfig(0, 1, rate_limit=limits if where == "lane" else None)
    config = QueueConfig({"api": lane}, rate_limit=limits if where == "queue" else None)
    trace = read("1,api,1,ok,\n")
    trace = msgspec.structs.replace(trace, commands=tuple(costing(trace, 9.0)))
    assert fit(trace, config) is trace
    with pytest.raises(TraceError) as raised:
        fit(msgspec.structs.replace(trace, commands=tuple(costing(trace, 9.5))), config)
    error = raised.value
    assert (error.path, error.line, error.column, error.value) == (trace.path, 2, "cost", "9.5")
    assert error.allowed == "lane 'api' never lets more than 9 through at once"


def costing(trace, cost):
    return (msgspec.structs.replace(command, cost=cost) for command in trace.commands)


def test_the_first_bad_row_of_the_file_is_raised(read):
    trace = read("9,nope,1,ok,\n1,nada,1,ok,\n")  # the later row is the earlier command
    with pytest.raises(TraceError, match="line 2, column 'lane': 'nope'"):
        fit(trace, CONFIG)


def test_bad_rows_can_be_skipped(read):
    trace = read("4,api,1,ok,\n1,nope,1,ok,\n2,api,x,ok,\n3,api,1,hang,\n6,quick,2,ok,\n", skip_bad_rows=True)
    fitting = fit(trace, CONFIG, skip_bad_rows=True)
    assert [(command.line, command.at_ns) for command in fitting.commands] == [(2, 0), (6, 2_000_000_000)]
    assert [(error.line, error.column) for error in fitting.skipped] == [(3, "lane"), (4, "duration"), (5, "outcome")]
    assert fitting.path == trace.path


def test_all_rows_may_be_bad(read):
    fitting = fit(read("4,nope,1,ok,\n"), CONFIG, skip_bad_rows=True)
    assert (fitting.commands, len(fitting.skipped)) == ((), 1)
