"""Reading recorded traffic: formats, columns, exact times, and what every bad input is reported as."""

from __future__ import annotations

import csv
import decimal
import json
import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lane_obs.errors import ConfigError, LaneObsError, TraceError
from lane_obs.simulation.trace import Trace, TraceCommand, read_trace

SECOND = 1_000_000_000
MAX_SECONDS = 315_576_000
HEADER = (
    "timestamp,lane,duration,command_type,outcome,fail_attempts,deadline,cost,partition_key,"
    "ContextTokens,GeneratedTokens"
)
OWN = HEADER.split(",")[:9]
"""The columns that a command is made of."""


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "trace.csv") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def row(**cells: str) -> str:
    """A CSV line under HEADER: one good command but for `cells`."""
    values = {"timestamp": "1.5", "duration": "0.25"} | cells
    return ",".join(values.get(column, "") for column in HEADER.split(","))


def jsonl(*objects: object) -> str:
    return "".join(f"{json.dumps(item)}\n" for item in objects)


def lines_of(trace: Trace) -> list[int]:
    return [command.line for command in trace.commands]


def assert_error(error: TraceError, path: str, line: int, column: str, value: object, allowed: str) -> None:
    assert isinstance(error, LaneObsError)
    assert isinstance(error, ValueError)
    assert (error.path, error.line, error.column, error.value) == (path, line, column, value)
    assert type(error.value) is type(value)
    assert allowed in error.allowed
    assert f"{path}, line {line}, column {column!r}" in str(error)
    msgspec.json.encode([str(error), error.value])  # never a lone surrogate: it can be printed and stored


def assert_bad_row(path: str, line: int, column: str, value: object, allowed: str, good: list[int]) -> None:
    """The row raises and nothing is returned; skipped, it is the only one lost."""
    with pytest.raises(TraceError) as raised:
        read_trace(path)
    assert_error(raised.value, path, line, column, value, allowed)
    trace = read_trace(path, skip_bad_rows=True)
    assert len(trace.skipped) == 1
    assert_error(trace.skipped[0], path, line, column, value, allowed)
    assert trace.skipped[0].__traceback__ is None
    assert lines_of(trace) == good


def assert_bad_header(path: str, line: int, column: str, value: object, allowed: str) -> None:
    for skip_bad_rows in (False, True):
        with pytest.raises(TraceError) as raised:
            read_trace(path, skip_bad_rows=skip_bad_rows)
        assert_error(raised.value, path, line, column, value, allowed)


# --- what is read


def test_every_column(write):
    path = write(
        "timestamp,lane,duration,command_type,outcome,fail_attempts,deadline,cost,partition_key\n"
        "10.000000001,api,0.5,embed,fail,2,30,1200.5,tenant 7\n"
        "12,background,0,chat,hang,0,0.000000001,0,é\n"
    )
    assert read_trace(path) == Trace(
        commands=(
            TraceCommand(
                at_ns=0,
                lane="api",
                duration_ns=500_000_000,
                command_type="embed",
                outcome="fail",
                fail_attempts=2,
                deadline_ns=30 * SECOND,
                cost=1200.5,
                partition_key="tenant 7",
                line=2,
            ),
            TraceCommand(
                at_ns=1_999_999_999,
                lane="background",
                duration_ns=0,
                command_type="chat",
                outcome="hang",
                fail_attempts=0,
                deadline_ns=1,
                cost=0.0,
                partition_key="é",
                line=3,
            ),
        ),
        skipped=(),
        path=path,
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("trace.csv", "timestamp,duration\n7,0.25\n"),
        ("trace.csv", f"{HEADER}\n7,,0.25,,,,,,,,\n"),
        ("trace.jsonl", '{"timestamp": 7, "duration": 0.25}\n'),
        ("trace.jsonl", jsonl(dict.fromkeys(HEADER.split(",")) | {"timestamp": 7, "duration": 0.25})),
        ("trace.jsonl", jsonl(dict.fromkeys(HEADER.split(","), "") | {"timestamp": "7", "duration": "0.25"})),
    ],
)
def test_what_is_not_given_has_a_default(write, name, content):
    (command,) = read_trace(write(content, name)).commands
    assert command == TraceCommand(
        at_ns=0,
        lane="prompt",
        duration_ns=250_000_000,
        command_type="replay",
        outcome="ok",
        fail_attempts=0,
        deadline_ns=None,
        cost=1.0,
        partition_key=None,
        line=1 if name.endswith("l") else 2,
    )


def test_seconds_as_floats(write):
    first, second = read_trace(write("timestamp,duration,deadline\n1,0.5,\n2.25,1,0.125\n")).commands
    assert (first.at_seconds, first.duration_seconds, first.deadline_seconds) == (0.0, 0.5, None)
    assert (second.at_seconds, second.duration_seconds, second.deadline_seconds) == (1.25, 1.0, 0.125)


def test_records_cannot_be_changed(write):
    trace = read_trace(write("timestamp,duration\n1,1\n"))
    with pytest.raises(AttributeError):
        trace.path = "other"
    with pytest.raises(AttributeError):
        trace.commands[0].at_ns = 1


def test_a_command_can_be_encoded(write):
    (command,) = read_trace(write("timestamp,duration\n1,1\n")).commands
    assert msgspec.json.decode(msgspec.json.encode(command), type=TraceCommand) == command


def test_path_objects_are_taken(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("timestamp,duration\n1,1\n")
    assert read_trace(path).path == str(path)


def test_commands_are_sorted_and_ties_keep_the_order_of_the_file(write):
    trace = read_trace(write("timestamp,lane,duration\n5,a,1\n3,b,1\n5.0,c,1\n3,d,1\n5e0,e,1\n"))
    assert [(c.lane, c.at_ns, c.line) for c in trace.commands] == [
        ("b", 0, 3),
        ("d", 0, 5),
        ("a", 2 * SECOND, 2),
        ("c", 2 * SECOND, 4),
        ("e", 2 * SECOND, 6),
    ]


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson", "t.json", "T.JSONL"])
def test_json_lines_by_suffix(write, name):
    assert len(read_trace(write('{"timestamp": 1, "duration": 1}\n', name)).commands) == 1


@pytest.mark.parametrize("name", ["t.csv", "t.txt", "t", "jsonl"])
def test_csv_by_any_other_suffix(write, name):
    assert len(read_trace(write("timestamp,duration\n1,1\n", name)).commands) == 1


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("t.csv", ["", "timestamp,lane,duration", "", "1,é,1", "   ", "2,日本,1"], [4, 6]),
        (
            "t.jsonl",
            ["", '{"timestamp":1,"lane":"é","duration":1}', " \t", '{"timestamp":2,"duration":1}'],
            [2, 4],
        ),
    ],
)
def test_line_ends_byte_order_mark_and_blank_lines(write, end, bom, last, name, rows, expected):
    content = bom + (end.join(rows) + (end if last else "")).encode()
    trace = read_trace(write(content, name))
    assert lines_of(trace) == expected
    assert trace.commands[0].lane == "é"


@pytest.mark.parametrize(
    "header", ["TimeStamp, DURATION ,model", "TIMESTAMP,duration,Model", " timestamp,Duration,\u017ftate"]
)
def test_csv_names_in_any_case_and_unknown_columns_are_ignored(write, header):
    (command,) = read_trace(write(f"{header}\n1,0.5,anything at all\n")).commands
    assert command.duration_ns == SECOND // 2


def test_json_names_in_any_case_and_unknown_keys_are_ignored(write):
    content = jsonl({"TimeStamp": 1, "DURATION": 0.5, "Model": {"a": [1, {"timestamp": None}]}, "n": True})
    (command,) = read_trace(write(content + '{"timestamp":2,"duration":1,"x":NaN}\n', "t.jsonl")).commands[:1]
    assert command.duration_ns == SECOND // 2


def test_quoted_fields_may_hold_delimiters_and_quotes(write):
    trace = read_trace(write('note,timestamp,lane,duration\n"a,b",1,"say ""hi""",1\r\n\n"",2,"b",1\n'))
    assert [(c.lane, c.line) for c in trace.commands] == [('say "hi"', 2), ("b", 4)]


@pytest.mark.parametrize("content", [f"{HEADER}", f"{HEADER}\n", f"\n{HEADER}\r\n\r\n"])
def test_a_header_without_rows_is_an_empty_trace(write, content):
    path = write(content)
    assert read_trace(path) == Trace(commands=(), skipped=(), path=path)


@pytest.mark.parametrize("content", [b"", b"\n\r\n", b"\xef\xbb\xbf"])
def test_json_lines_without_rows_are_an_empty_trace(write, content):
    assert read_trace(write(content, "t.jsonl")).commands == ()


def test_azure_llm_trace(write):
    path = write(
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        "2023-11-16 18:17:03.9799600,4808,10\r\n"
        "2023-11-16 18:17:04.0319600,3180,8\r\n"
        "2023-11-16 18:17:04.0781490,110,0\r\n"
        "2023-11-16 19:00:00.0000001,7433,14\r\n"
    )
    trace = read_trace(path)
    assert [(c.at_ns, c.duration_ns) for c in trace.commands] == [
        (0, 1_161_600_000),
        (52_000_000, 796_000_000),
        (98_189_000, 22_000_000),
        (2_576_020_040_100, 1_766_600_000),
    ]
    assert {(c.lane, c.command_type, c.outcome, c.deadline_ns) for c in trace.commands} == {
        ("prompt", "replay", "ok", None)
    }
    other = read_trace(path, prefill_seconds=0, decode_seconds=1)
    assert [c.duration_ns for c in other.commands] == [10 * SECOND, 8 * SECOND, 0, 14 * SECOND]


def test_token_work_is_exact_and_rounded_once(write):
    path = write("timestamp,contexttokens,generatedtokens\n1,3,1\n2,1,0\n3,0,3\n4,999999999999,0\n")
    trace = read_trace(path, prefill_seconds=0.0000000005, decode_seconds=1e-9)
    # 2.5 ns and 0.5 ns: ties to even; 499999999999.5e-9 s keeps all its digits until then.
    assert [c.duration_ns for c in trace.commands] == [2, 0, 3, 500_000_000_000]


def test_a_duration_wins_over_tokens_and_each_row_decides(write):
    path = write("timestamp,duration,ContextTokens,GeneratedTokens\n1,5,x,y\n2,,10,1\n")
    assert [c.duration_ns for c in read_trace(path).commands] == [5 * SECOND, 22_000_000]


# --- times


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-11-16T18:17:03", 0),
        ("2023-11-16 18:17:03", 0),
        ("2023-11-16t18:17:03z", 0),
        ("  2023-11-16 18:17:03  ", 0),
        ("2023-11-16T18:17:03Z", 0),
        ("2023-11-16T18:17:03+00:00", 0),
        ("2023-11-16T18:17:03-00:00", 0),
        ("2023-11-16 18:17:03 +0000", 0),
        ("2023-11-16T20:17:03+02:00", 0),
        ("2023-11-16T20:17:03+02", 0),
        ("2023-11-16T12:47:03-0530", 0),
        ("2023-11-17T08:02:03+13:45", 0),
        ("2023-11-16T18:18", 57 * SECOND),
        ("2023-11-16T18:17:03.9", 900_000_000),
        ("2023-11-16T18:17:03.9799600", 979_960_000),
        ("2023-11-16T18:17:03.000000001Z", 1),
        ("2023-11-16T18:17:03.999999999+00:00", 999_999_999),
        ("2024-02-29T00:00:00", 9_006_177 * SECOND),
        ("9999-12-31T23:59:59.999999999-23:59", 251_702_228_516_999_999_999),
    ],
)
def test_iso_timestamps_are_exact(write, text, expected):
    trace = read_trace(write(f"timestamp,duration\n2023-11-16T18:17:03Z,1\n{text},1\n"))
    assert [c.at_ns for c in trace.commands] == [0, expected]
    objects = [{"timestamp": "2023-11-16T18:17:03Z", "duration": 1}, {"timestamp": text, "duration": 1}]
    trace = read_trace(write(jsonl(*objects), "t.jsonl"))
    assert [c.at_ns for c in trace.commands] == [0, expected]


def test_iso_fraction_after_a_comma(write):
    trace = read_trace(write('timestamp,duration\n2023-11-16T18:17:03,1\n"2023-11-16T18:17:03,5",1\n'))
    assert trace.commands[1].at_ns == SECOND // 2


def test_the_whole_range_of_years(write):
    path = write("timestamp,duration\n0001-01-01T00:00:00+23:59,1\n9999-12-31T23:59:59-23:59,1\n")
    whole = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - datetime(1, 1, 1, tzinfo=UTC)
    assert read_trace(path).commands[1].at_ns == (whole // timedelta(seconds=1) + 2 * 86_340) * SECOND


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("-0.0", 0),
        ("+1", SECOND),
        ("1.", SECOND),
        (".5", SECOND // 2),
        (" 1.25 ", 1_250_000_000),
        ("1700158623.979960001", 1_700_158_623_979_960_001),
        ("999999999999.999999999", 999_999_999_999_999_999_999),
        ("1e3", 1000 * SECOND),
        ("1.5E-3", 1_500_000),
        ("1e-999", 0),
        ("0.30000000000000004", 300_000_000),
        ("0.0000000005", 0),
        ("0.0000000015", 2),
        ("0.00000000050000000000000000000000000000000001", 1),
    ],
)
def test_timestamps_in_seconds_are_exact(write, text, expected):
    trace = read_trace(write(f"timestamp,duration\n0,1\n{text},1\n"))
    assert [c.at_ns for c in trace.commands] == [0, expected]


@pytest.mark.parametrize("text", ["0", "-0.0", "1700158623.979960001", "999999999999.999999999", "1.5E-3"])
def test_json_numbers_are_as_exact_as_cells(write, text):
    in_json = read_trace(write(f'{{"timestamp":0,"duration":1}}\n{{"timestamp":{text},"duration":1}}\n', "t.json"))
    in_csv = read_trace(write(f"timestamp,duration\n0,1\n{text},1\n"))
    assert [c.at_ns for c in in_json.commands] == [c.at_ns for c in in_csv.commands]


def test_negative_seconds_count_from_the_earliest(write):
    trace = read_trace(write("timestamp,duration\n-1.5,1\n2,1\n-999999999999.999999999,1\n"))
    assert [c.at_ns for c in trace.commands] == [
        0,
        999_999_999_998_499_999_999,
        1_000_000_000_001_999_999_999,
    ]


def test_the_caller_may_have_any_decimal_context(write):
    path = write("timestamp,ContextTokens,GeneratedTokens\n0,1,1\n123456789.123456789,12345,678\n")
    with decimal.localcontext(decimal.Context(prec=2, traps=[decimal.Inexact, decimal.Rounded])):
        trace = read_trace(path)
    assert trace.commands[1].at_ns == 123_456_789_123_456_789
    assert trace.commands[1].duration_ns == 16_029_000_000


# --- bad rows

TIMESTAMP = "give ISO 8601 such as"
DURATION = "give finite seconds, zero or more, at most 315576000"
DEADLINE = "give finite seconds, more than zero, at most 315576000"
COUNT = "give a whole number, zero or more"
COST = "give a number of tokens from 0 to 1e+15"
NAME = "1 to 200 printable characters"
TOKENS = "'duration' in seconds, or both 'ContextTokens' and 'GeneratedTokens'"

BAD_TEXT = [
    ("timestamp", "", TIMESTAMP),
    ("timestamp", "yesterday", TIMESTAMP),
    ("timestamp", "nan", TIMESTAMP),
    ("timestamp", "-inf", TIMESTAMP),
    ("timestamp", "1_000", TIMESTAMP),
    ("timestamp", "١٢", TIMESTAMP),
    ("timestamp", "0x10", TIMESTAMP),
    ("timestamp", "1e", TIMESTAMP),
    ("timestamp", ".", TIMESTAMP),
    ("timestamp", "1e12", TIMESTAMP),
    ("timestamp", "-1000000000000", TIMESTAMP),
    ("timestamp", "9e999", TIMESTAMP),
    ("timestamp", "1e9999999999999999999999", TIMESTAMP),
    ("timestamp", "9" * 150, TIMESTAMP),
    ("timestamp", "2023-11-16", TIMESTAMP),
    ("timestamp", "2023-02-29T00:00:00", TIMESTAMP),
    ("timestamp", "2023-13-01T00:00:00", TIMESTAMP),
    ("timestamp", "0000-01-01T00:00:00", TIMESTAMP),
    ("timestamp", "10000-01-01T00:00:00", TIMESTAMP),
    ("timestamp", "2023-11-16T24:00:00", TIMESTAMP),
    ("timestamp", "2023-11-16T18:60:00", TIMESTAMP),
    ("timestamp", "2023-11-16T18:17:60", TIMESTAMP),
    ("timestamp", "2023-11-16T18:17:03.", TIMESTAMP),
    ("timestamp", "2023-11-16T18:17:03.0000000001", "up to 9 fractional digits"),
    ("timestamp", "2023-11-16T18:17:03+24:00", TIMESTAMP),
    ("timestamp", "2023-11-16T18:17:03+01:60", TIMESTAMP),
    ("timestamp", "2023-11-16T18:17:03 UTC", TIMESTAMP),
    ("timestamp", "2023-11-16  18:17:03", TIMESTAMP),
    ("timestamp", "2023-11-16T18:17:03", "give seconds as in the rows before"),
    ("duration", "fast", DURATION),
    ("duration", " ", DURATION),
    ("duration", "-1", DURATION),
    ("duration", "-0.000000001", DURATION),
    ("duration", "NaN", DURATION),
    ("duration", "inf", DURATION),
    ("duration", "Infinity", DURATION),
    ("duration", "1e400", DURATION),
    ("duration", f"{MAX_SECONDS}.000000001", DURATION),
    ("duration", "1 s", DURATION),
    ("deadline", "0", DEADLINE),
    ("deadline", "-1", DEADLINE),
    ("deadline", "0.0000000001", DEADLINE),
    ("deadline", "nan", DEADLINE),
    ("deadline", f"{MAX_SECONDS + 1}", DEADLINE),
    ("deadline", "soon", DEADLINE),
    ("fail_attempts", "-1", COUNT),
    ("fail_attempts", "1.0", COUNT),
    ("fail_attempts", "many", COUNT),
    ("fail_attempts", "1" * 19, COUNT),
    ("outcome", "OK", "give one of ok, fail, hang"),
    ("outcome", "crash", "give one of ok, fail, hang"),
    ("outcome", "x" * 200, "give one of ok, fail, hang"),
    ("lane", "bell\a", NAME),
    ("lane", "tab\there", NAME),
    ("lane", "\u200b", NAME),
    ("command_type", "\x7f", NAME),
    ("partition_key", "tab\there", NAME),
    ("cost", "-1", COST),
    ("cost", "-0.001", COST),
    ("cost", "nan", COST),
    ("cost", "inf", COST),
    ("cost", "1e400", COST),
    ("cost", "1e-9999", COST),
    ("cost", "1_000", COST),
    ("cost", "١٢", COST),
    ("cost", "1000000000000001", COST),
    ("cost", " ", COST),
    ("cost", "many", COST),
]


@pytest.mark.parametrize(("column", "text", "allowed"), BAD_TEXT)
def test_bad_cells(write, column, text, allowed):
    path = write(f"{HEADER}\n{row()}\n{row(**{column: text})}\n{row()}\n")
    assert_bad_row(path, 3, column, text, allowed, good=[2, 4])


@pytest.mark.parametrize(("column", "text", "allowed"), BAD_TEXT)
def test_bad_json_strings(write, column, text, allowed):
    good = {"timestamp": 1.5, "duration": 0.25}
    path = write(jsonl(good, good | {column: text}, good), "t.jsonl")
    assert_bad_row(path, 2, column, text, allowed, good=[1, 3])


@pytest.mark.parametrize("column", OWN)
@pytest.mark.parametrize(
    ("value", "shown"), [(True, True), (False, False), ([], "[...]"), ([1], "[...]"), ({"a": 1}, "{...}")]
)
def test_json_values_of_another_type(write, column, value, shown):
    good = {"timestamp": 1, "duration": 1}
    path = write(jsonl(good | {column: value}, good), "t.jsonl")
    assert_bad_row(path, 1, column, shown, "give", good=[2])


@pytest.mark.parametrize(
    ("column", "text", "allowed"),
    [
        ("timestamp", "NaN", TIMESTAMP),
        ("timestamp", "-Infinity", TIMESTAMP),
        ("timestamp", "1000000000000", TIMESTAMP),
        ("timestamp", "9" * 100, TIMESTAMP),
        ("timestamp", "1e99999999999999999999", TIMESTAMP),
        ("duration", "-1", DURATION),
        ("duration", "NaN", DURATION),
        ("duration", "Infinity", DURATION),
        ("duration", "1e400", DURATION),
        ("deadline", "0", DEADLINE),
        ("deadline", "0.0", DEADLINE),
        ("fail_attempts", "-1", COUNT),
        ("fail_attempts", "1.5", COUNT),
        ("lane", "5", NAME),
        ("lane", "NaN", NAME),
        ("command_type", "1.0", NAME),
        ("outcome", "0", "give one of ok, fail, hang"),
        ("partition_key", "5", NAME),
        ("cost", "-1", COST),
        ("cost", "NaN", COST),
        ("cost", "Infinity", COST),
        ("cost", "1e16", COST),
    ],
)
def test_bad_json_numbers_are_reported_as_written(write, column, text, allowed):
    values = ", ".join(f'"{k}": {v}' for k, v in ({"timestamp": "1", "duration": "1"} | {column: text}).items())
    path = write(f'{{{values}}}\n{{"timestamp": 2, "duration": 1}}\n', "t.jsonl")
    assert_bad_row(path, 1, column, text, allowed, good=[2])


@pytest.mark.parametrize("column", ["lane", "command_type", "partition_key"])
def test_names_have_at_most_200_characters(write, column):
    longest = "é" * 200
    path = write(f"{HEADER}\n{row(**{column: longest})}\n")
    assert getattr(read_trace(path).commands[0], column) == longest
    path = write(f"{HEADER}\n{row(**{column: longest + 'x'})}\n{row()}\n")
    assert_bad_row(path, 2, column, f"{longest}...", NAME, good=[3])


def test_names_stand_as_written(write):
    path = write(f"{HEADER}\n{row(lane=' a b ', command_type='é:1')}\n")
    assert (read_trace(path).commands[0].lane, read_trace(path).commands[0].command_type) == (" a b ", "é:1")


@pytest.mark.parametrize(
    ("cells", "column", "value", "allowed"),
    [
        ("1,,,", "duration", "", TOKENS),
        ("1,,5,", "GeneratedTokens", "", COUNT),
        ("1,,,5", "ContextTokens", "", COUNT),
        ("1,,-5,5", "ContextTokens", "-5", COUNT),
        ("1,,5,1.0", "GeneratedTokens", "1.0", COUNT),
        (
            "1,,0,20000000000",
            "duration",
            "ContextTokens 0, GeneratedTokens 20000000000",
            "at most 315576000 s",
        ),
        ("1,-1,5,5", "duration", "-1", DURATION),
    ],
)
def test_bad_work(write, cells, column, value, allowed):
    path = write(f"timestamp,duration,ContextTokens,GeneratedTokens\n{cells}\n2,1,,\n")
    assert_bad_row(path, 2, column, value, allowed, good=[3])


@pytest.mark.parametrize(
    ("item", "column", "value", "allowed"),
    [
        ({"duration": 1}, "timestamp", None, TIMESTAMP),
        ({"timestamp": None, "duration": 1}, "timestamp", None, TIMESTAMP),
        ({"timestamp": 1}, "duration", None, TOKENS),
        ({"timestamp": 1, "duration": None}, "duration", None, TOKENS),
        ({"timestamp": 1, "contexttokens": 5}, "GeneratedTokens", None, COUNT),
        ({"timestamp": 1, "generatedtokens": 5}, "ContextTokens", None, COUNT),
        ({"timestamp": 1, "contexttokens": True, "generatedtokens": 5}, "ContextTokens", True, COUNT),
    ],
)
def test_missing_keys(write, item, column, value, allowed):
    path = write(jsonl({"timestamp": 0, "duration": 1}, item), "t.jsonl")
    assert_bad_row(path, 2, column, value, allowed, good=[1])


@pytest.mark.parametrize(
    ("cells", "column", "value"),
    [
        ("1", "lane", None),
        ("1,a", "duration", None),
        ("1,a,1", "note", None),
        ("1,a,1,n,extra", "(row)", "extra"),
        ("1,a,1,n,,", "(row)", ""),
    ],
)
def test_short_and_long_rows(write, cells, column, value):
    path = write(f"timestamp,lane,duration,Note\n0,a,1,n\n\n{cells}\n2,a,1,n\n")
    allowed = f"one cell for each of the header's 4 columns; this row has {cells.count(',') + 1}"
    assert_bad_row(path, 4, column, value, allowed, good=[2, 5])


def test_a_row_of_empty_cells_is_not_a_blank_line(write):
    assert_bad_row(write("timestamp,duration\n,\n1,1\n"), 2, "timestamp", "", TIMESTAMP, good=[3])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('1,"a"b,1', "expected after"),
        ("1,a\rb,1", "new-line character"),
        pytest.param(f"1,{'x' * 140_000},1", "field larger than field limit", id="long"),
    ],
)
def test_malformed_csv(write, text, reason):
    path = write(f"timestamp,lane,duration\n0,a,1\n{text}\n2,a,1\n")
    shown = text if len(text) <= 200 else f"{text[:200]}..."
    assert_bad_row(path, 3, "(row)", shown, reason, good=[2, 4])


ON_ONE_LINE = "a row on one line, quotes closed: unexpected end of data"


def test_a_quote_that_is_never_closed_costs_its_own_line_only(write):
    path = write('timestamp,lane,duration\n0,a,1\n1,"b,1\r\n2,c,1\n3,d,1\n')
    assert_bad_row(path, 3, "(row)", '1,"b,1', ON_ONE_LINE, good=[2, 4, 5])


def test_a_quote_in_a_later_row_does_not_make_one_field_of_the_lines_between(write):
    path = write('note,timestamp,duration\n"a,1,1\nb,2,1\nc,3,1\n"d",4,1\n')
    assert_bad_row(path, 2, "(row)", '"a,1,1', ON_ONE_LINE, good=[3, 4, 5])


def test_each_line_of_a_field_that_spans_lines_is_a_row_of_its_own(write):
    path = write('note,timestamp,duration\n"a\nb",1,1\n"c",x,1\n')
    trace = read_trace(path, skip_bad_rows=True)
    assert [(error.line, error.value) for error in trace.skipped] == [(2, '"a'), (4, "x")]
    assert lines_of(trace) == [3]


@pytest.mark.parametrize(
    ("bad", "shown", "character"),
    [
        (b"1,caf\xe9,1", "1,caf\\udce9,1", 6),
        (b"1,a,1\xff", "1,a,1\\udcff", 6),
        (b"1,\xed\xa0\x80,1", "1,\\udced\\udca0\\udc80,1", 3),
        ("1,é".encode() + b"\xc3,1", "1,é\\udcc3,1", 4),
        (b"1,x" + b"y" * 300 + b"\xff,1", "1,x" + "y" * 197 + "...", 304),
    ],
)
def test_csv_bytes_that_are_not_utf8(write, bad, shown, character):
    path = write(b"timestamp,lane,duration\n0,a,1\n" + bad + b"\n2,a,1\n")
    assert_bad_row(path, 3, "(row)", shown, f"give UTF-8 text (see character {character})", good=[2, 4])


def test_bytes_that_are_not_utf8_in_an_ignored_column(write):
    path = write(b"timestamp,duration,note\n0,1,\xff\n1,1,a\n")
    assert_bad_row(path, 2, "(row)", "0,1,\\udcff", "give UTF-8 text", good=[3])


def test_json_bytes_that_are_not_utf8(write):
    good = b'{"timestamp":1,"duration":1}'
    path = write(good + b'\n{"lane":"\xff"}\r\n' + good, "t.jsonl")
    assert_bad_row(path, 2, "(row)", '{"lane":"\\udcff"}', "give UTF-8 text (see character 10)", good=[1, 3])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "(character 2)"),
        ("nonsense", "Expecting value (character 1)"),
        ("{'timestamp': 1}", "(character 2)"),
        ('{"timestamp": 1} {"timestamp": 2}', "Extra data (character 18)"),
        ('{"timestamp": 01}', "(character 16)"),
        ('{"timestamp": +1}', "(character 15)"),
        ('{"lane": "a\tb"}', "Invalid control character at (character 12)"),
        ("[1, 2]", "this is another value"),
        ('[["timestamp", 1], ["duration", 1]]', "this is another value"),
        ("[]", "this is another value"),
        ("7", "this is another value"),
        ('"timestamp"', "this is another value"),
        ("null", "this is another value"),
        ("true", "this is another value"),
        pytest.param("[" * 100_000, "nested too deeply", id="deep"),
    ],
)
def test_lines_that_are_no_json_object(write, text, reason):
    good = '{"timestamp":1,"duration":1}\n'
    path = write(f"{good}{text}\r\n{good}", "t.jsonl")
    shown = text if len(text) <= 200 else f"{text[:200]}..."
    assert_bad_row(path, 2, "(row)", shown, "give one JSON object on a line", good=[1, 3])
    assert reason in read_trace(path, skip_bad_rows=True).skipped[0].allowed


def test_an_empty_object_lacks_its_timestamp(write):
    assert_bad_row(write("{}\n", "t.jsonl"), 1, "timestamp", None, TIMESTAMP, good=[])


@pytest.mark.parametrize(
    ("text", "column", "value"),
    [
        ('{"timestamp":1,"duration":1,"lane":"a","lane":"b"}', "lane", "b"),
        ('{"timestamp":1,"TIMESTAMP":2,"duration":1}', "timestamp", "2"),
        ('{"timestamp":1,"duration":1,"Note":1,"note":null}', "note", None),
        ('{"timestamp":1,"duration":1,"\\udfff":1,"\\udfff":2}', "\\udfff", "2"),
    ],
)
def test_keys_given_twice(write, text, column, value):
    path = write(f'{text}\n{{"timestamp":1,"duration":1}}\n', "t.jsonl")
    assert_bad_row(path, 1, column, value, "name a column once", good=[2])


def test_json_escapes_of_half_a_character_are_not_printable(write):
    path = write('{"timestamp":1,"duration":1,"lane":"\\ud800"}\n{"timestamp":1,"duration":1}\n', "t.jsonl")
    assert_bad_row(path, 1, "lane", "\\ud800", NAME, good=[2])


# --- one kind of timestamp in a file


def test_seconds_among_iso_timestamps(write):
    path = write("timestamp,duration\n2023-11-16T18:17:03,1\n5,1\n2023-11-16T18:17:04,1\n")
    assert_bad_row(path, 3, "timestamp", "5", "give ISO 8601 as in the rows before", good=[2, 4])


def test_a_skipped_row_does_not_decide_the_kind(write):
    path = write("timestamp,duration\n5,bad\n2023-11-16T18:17:03,1\n2023-11-16T18:17:04,1\n")
    assert_bad_row(path, 2, "duration", "bad", DURATION, good=[3, 4])


def test_a_skipped_row_is_not_the_first_command(write):
    path = write("timestamp,duration\n1,bad\n5,1\n7,1\n")
    assert [c.at_ns for c in read_trace(path, skip_bad_rows=True).commands] == [0, 2 * SECOND]


def test_the_first_bad_row_in_file_order_is_raised_and_all_are_skipped(write):
    path = write("timestamp,duration\n9,1\n8,x\n1,1,1\n1,y\n2,1\n")
    with pytest.raises(TraceError) as raised:
        read_trace(path)
    assert_error(raised.value, path, 3, "duration", "x", DURATION)
    trace = read_trace(path, skip_bad_rows=True)
    assert [(e.line, e.column, e.value) for e in trace.skipped] == [
        (3, "duration", "x"),
        (4, "(row)", "1"),
        (5, "duration", "y"),
    ]
    assert lines_of(trace) == [6, 2]


# --- bad headers


@pytest.mark.parametrize(
    ("content", "line", "column", "value", "allowed"),
    [
        (b"", 1, "(header)", "", "no header"),
        (b"\n\r\n  \n", 1, "(header)", "", "no header"),
        (b"\xef\xbb\xbf", 1, "(header)", "", "no header"),
        (b"lane,duration\na,1\n", 1, "timestamp", "lane,duration", "the column is missing; give ISO 8601"),
        (b"time\n1\n", 1, "timestamp", "time", "the column is missing"),
        (b"1.5,a,0.5\n", 1, "timestamp", "1.5,a,0.5", "the column is missing"),
        (b"timestamp,lane\n1,a\n", 1, "duration", "timestamp,lane", f"the column is missing; give {TOKENS}"),
        (b"\ntimestamp\n1\n", 2, "duration", "timestamp", "the column is missing"),
        (b"timestamp,ContextTokens\n", 1, "duration", "timestamp,ContextTokens", "the column is missing"),
        (b"timestamp,GeneratedTokens\n", 1, "duration", "timestamp,GeneratedTokens", "the column is missing"),
        (b"timestamp,duration,Timestamp\n", 1, "timestamp", "Timestamp", "name a column once"),
        (b"timestamp,duration,contexttokens, CONTEXTTOKENS\n", 1, "ContextTokens", " CONTEXTTOKENS", "once"),
        (b"timestamp,duration,note,NOTE\n", 1, "note", "NOTE", "name a column once"),
        (b"timestamp,duration,,\n", 1, "", "", "name a column once"),
        (b"timestamp,dur\xe9e\n", 1, "(row)", "timestamp,dur\\udce9e", "give UTF-8 text (see character 14)"),
        (
            b"\xff\xfet\x00i\x00\n",
            1,
            "(row)",
            "\\udcff\\udcfet\x00i\x00",
            "give UTF-8 text (see character 1)",
        ),
        (b'timestamp,"duration\n1,1\n', 1, "(row)", 'timestamp,"duration', "unexpected end of data"),
    ],
)
def test_bad_headers_are_never_skipped(write, content, line, column, value, allowed):
    assert_bad_header(write(content), line, column, value, allowed)


# --- the file and the arguments


@pytest.mark.parametrize("name", ["missing.csv", "missing.jsonl"])
def test_a_missing_file_is_an_os_error(tmp_path, name):
    with pytest.raises(FileNotFoundError):
        read_trace(tmp_path / name)


def test_a_directory_is_an_os_error(tmp_path):
    with pytest.raises(IsADirectoryError):
        read_trace(tmp_path, skip_bad_rows=True)


def test_a_file_that_may_not_be_read_is_an_os_error(write):
    path = write("timestamp,duration\n")
    Path(path).chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read everything
    try:
        with pytest.raises(PermissionError):
            read_trace(path)
    finally:
        os.seteuid(user)


def is_open(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def test_the_file_is_closed_whatever_happens(write):
    path = write("timestamp,duration\n1,1\nx,1\n")
    read_trace(path, skip_bad_rows=True)
    with pytest.raises(TraceError):
        read_trace(path)
    assert not any(is_open(descriptor, path) for descriptor in range(256))
    with open(path) as file:
        assert is_open(file.fileno(), path)  # it would be seen


@pytest.mark.parametrize("field", ["prefill_seconds", "decode_seconds"])
@pytest.mark.parametrize("value", [-1, -1e-9, float("nan"), float("inf"), MAX_SECONDS + 1, 10**400, True, "1", None])
def test_bad_token_costs(tmp_path, field, value):
    with pytest.raises(ConfigError) as raised:
        read_trace(tmp_path / "never-opened.csv", **{field: value})
    assert raised.value.field == field
    assert raised.value.value is value
    assert "0 to 315576000" in raised.value.allowed


# --- round trip

names = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=200)
nanoseconds = st.integers(0, MAX_SECONDS * SECOND)
commands = st.lists(
    st.builds(
        TraceCommand,
        at_ns=st.integers(0, 200 * 365 * 86_400 * SECOND),
        lane=names,
        duration_ns=nanoseconds,
        command_type=names,
        outcome=st.sampled_from(["ok", "fail", "hang"]),
        fail_attempts=st.integers(0, 10**18 - 1),
        deadline_ns=st.none() | nanoseconds.filter(bool),
        cost=st.floats(0.0, 1e15),
        partition_key=st.none() | names,
        line=st.just(0),
    ),
    min_size=1,
    max_size=20,
)
zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def as_seconds(ns: int) -> str:
    sign = "-" if ns < 0 else ""
    return f"{sign}{abs(ns) // SECOND}.{abs(ns) % SECOND:09d}"


def as_iso(ns: int, zone: timezone) -> str:
    whole = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=ns // SECOND)
    text = whole.astimezone(zone).isoformat()
    return f"{text[:19]}.{ns % SECOND:09d}{text[19:]}"


def expected(written: list[TraceCommand], first_line: int) -> list[TraceCommand]:
    first = min(command.at_ns for command in written)
    numbered = [
        msgspec.structs.replace(command, at_ns=command.at_ns - first, line=line)
        for line, command in enumerate(written, first_line)
    ]
    return sorted(numbered, key=lambda command: command.at_ns)


def cells_of(command: TraceCommand, timestamp: str) -> dict[str, str]:
    return {
        "timestamp": timestamp,
        "lane": command.lane,
        "duration": as_seconds(command.duration_ns),
        "command_type": command.command_type,
        "outcome": command.outcome,
        "fail_attempts": str(command.fail_attempts),
        "deadline": "" if command.deadline_ns is None else as_seconds(command.deadline_ns),
        "cost": repr(command.cost),
        "partition_key": command.partition_key or "",
    }


@settings(deadline=None)
@given(commands, zones, st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_csv_round_trip(written, zone, iso, end):
    stamps = [as_iso(c.at_ns, zone) if iso else as_seconds(c.at_ns) for c in written]
    with TemporaryDirectory() as directory:
        path = Path(directory) / "trace.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, OWN, lineterminator=end)
            writer.writeheader()
            writer.writerows(cells_of(c, stamp) for c, stamp in zip(written, stamps, strict=True))
        assert list(read_trace(path).commands) == expected(written, 2)


@settings(deadline=None)
@given(commands, zones, st.booleans(), st.booleans())
def test_json_lines_round_trip(written, zone, iso, ascii_only):
    numbers = {"duration", "fail_attempts", "deadline", "cost"} | (set() if iso else {"timestamp"})
    with TemporaryDirectory() as directory:
        path = Path(directory) / "trace.jsonl"
        with path.open("w", encoding="utf-8", newline="") as file:
            for command in written:
                stamp = as_iso(command.at_ns, zone) if iso else as_seconds(command.at_ns)
                cells = cells_of(command, stamp).items()
                pairs = (
                    f'"{k}": {(v or "null") if k in numbers else json.dumps(v, ensure_ascii=ascii_only)}'
                    for k, v in cells
                )
                file.write(f"{{{', '.join(pairs)}}}\n")
        assert list(read_trace(path).commands) == expected(written, 1)


SPOILT = ['1,"b,1', '"1,b,1', '1,b,"1', '1,"b""', '"', '1,"a"b",1', '1,"b,1"x']


@settings(deadline=None)
@given(st.lists(st.sampled_from(['"1","a",1', "1,a,1", '1,"""a,",1', *SPOILT, *SPOILT]), max_size=30), st.booleans())
def test_every_good_row_is_read_wherever_quotes_are_left_open(rows, ends):
    with TemporaryDirectory() as directory:
        path = Path(directory) / "trace.csv"
        path.write_text("\n".join(["timestamp,lane,duration", *rows]) + ("\n" if ends else ""))
        trace = read_trace(path, skip_bad_rows=True)
    bad = [line for line, text in enumerate(rows, 2) if text in SPOILT]
    assert [error.line for error in trace.skipped] == bad
    assert lines_of(trace) == [line for line in range(2, len(rows) + 2) if line not in bad]


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["t.csv", "t.jsonl"]), st.booleans())
def test_any_bytes_are_read_or_refused(content, name, with_header):
    head = b"timestamp,duration\n" if with_header and name == "t.csv" else b""
    with TemporaryDirectory() as directory:
        path = Path(directory) / name
        path.write_bytes(head + content)
        try:
            trace = read_trace(path, skip_bad_rows=True)
        except TraceError as error:
            assert not head
            str(error).encode()
            return
        assert [error.line for error in trace.skipped] == sorted({error.line for error in trace.skipped})
