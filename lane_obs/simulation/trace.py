"""Reads recorded traffic: one command a row, CSV or JSON Lines, every time an exact integer of nanoseconds.

What lives here: the two file formats and what a row comes to. The rules for a cell are in `row`; running the
commands is the replay's business.
"""

from __future__ import annotations

import csv
import json
import os
from decimal import Decimal
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from lane_obs.clock import NS
from lane_obs.errors import ConfigError, TraceError
from lane_obs.simulation.row import (
    DURATION_ALLOWED,
    EXACT,
    MAX_NS,
    MAX_TRACE_SECONDS,
    TIMESTAMP_ALLOWED,
    Number,
    Outcome,
    Row,
    to_ns,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class TraceCommand(msgspec.Struct, frozen=True):
    """One recorded command; `*_ns` are exact nanoseconds."""

    at_ns: int  # since the first command of the trace
    lane: str
    duration_ns: int  # of work in an attempt
    command_type: str
    outcome: Outcome  # how the last attempt ends; "hang": not by itself
    fail_attempts: int  # so many first attempts fail
    deadline_ns: int | None  # from submit; None: no deadline
    cost: float  # what it takes of rate limits
    partition_key: str | None  # says which commands run one at a time
    line: int  # 1-based, where its row starts in the file

    @property
    def at_seconds(self) -> float:
        """Seconds since the first command of the trace."""
        return self.at_ns / NS

    @property
    def duration_seconds(self) -> float:
        """Seconds of work in an attempt."""
        return self.duration_ns / NS

    @property
    def deadline_seconds(self) -> float | None:
        """Seconds from submit to the deadline; None: no deadline."""
        return None if self.deadline_ns is None else self.deadline_ns / NS


class Trace(msgspec.Struct, frozen=True):
    """A recorded trace."""

    commands: tuple[TraceCommand, ...]  # by time; those of the same nanosecond in file order
    skipped: tuple[TraceError, ...]  # the rows left out, in file order
    path: str


def read_trace(
    path: str | os.PathLike[str],
    *,
    prefill_seconds: float = 0.0002,
    decode_seconds: float = 0.02,
    skip_bad_rows: bool = False,
) -> Trace:
    """Reads a recorded trace in one pass: JSON Lines by suffix (.jsonl, .ndjson, .json), else CSV.

    Columns (object keys), in any case: `timestamp` (ISO 8601 or seconds, one kind in a file), `lane` (default
    "prompt"), `duration` (seconds; not given: computed from `ContextTokens` and `GeneratedTokens`),
    `command_type` (default "replay"), `outcome` (ok, fail, hang), `fail_attempts`, `deadline` (seconds),
    `cost` (default 1), `partition_key` (default none).
    Others are ignored. An empty cell, an empty string, null and a missing key mean: not given. A JSON string
    is read as the same text in a CSV cell would be. What is finer than a nanosecond is rounded, ties to even.

    Args:
        path: a UTF-8 file, with or without byte-order mark.
        prefill_seconds: work for a context token, seconds, 0 to 315576000.
        decode_seconds: work for a generated token, seconds, 0 to 315576000.
        skip_bad_rows: collect rows that cannot be used in `Trace.skipped` instead of raising the first.

    Returns:
        The commands by time, counted from the earliest.

    Raises:
        TraceError: a row, or the CSV header (which is never skipped), cannot be used. Its column is "(row)"
            where no one column is to blame, and "(header)" where there is no header.
        ConfigError: a work for a token is out of range.
        OSError: the file cannot be opened or read.
    """
    parser = _Parser(_cost("prefill_seconds", prefill_seconds), _cost("decode_seconds", decode_seconds))
    name = os.fspath(path)
    rows = _json_rows if name.lower().endswith((".jsonl", ".ndjson", ".json")) else _csv_rows
    commands: list[TraceCommand] = []
    skipped: list[TraceError] = []
    # surrogateescape: a byte that is not UTF-8 must spoil its own row only, and be reported with its line.
    # newline: a lone carriage return ends no line, so that lines count as in an editor.
    with open(name, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        for read_row in rows(file, name):
            try:
                commands.append(parser.command(read_row()))
            except TraceError as error:
                if not skip_bad_rows:
                    raise
                skipped.append(error.with_traceback(None))  # a kept traceback would keep its frames alive
    commands.sort(key=attrgetter("at_ns"))
    first_ns = commands[0].at_ns if commands else 0
    since_first = (msgspec.structs.replace(command, at_ns=command.at_ns - first_ns) for command in commands)
    return Trace(commands=tuple(since_first), skipped=tuple(skipped), path=name)


class _Parser:
    """Turns rows into commands. Holds what a token costs, and the file's kind of timestamp once known."""

    def __init__(self, prefill: Decimal, decode: Decimal) -> None:
        self._prefill = prefill
        self._decode = decode
        self._iso: bool | None = None

    def command(self, row: Row) -> TraceCommand:
        at_ns, iso = row.timestamp()
        if self._iso is not None and iso is not self._iso:
            kind = "ISO 8601" if self._iso else "seconds"
            raise row.reject("timestamp", f"give {kind} as in the rows before: one kind in a file")
        command = TraceCommand(
            at_ns=at_ns,
            lane=row.name("lane", "prompt"),
            duration_ns=self._duration_ns(row),
            command_type=row.name("command_type", "replay"),
            outcome=row.outcome(),
            fail_attempts=row.count("fail_attempts") if row.has("fail_attempts") else 0,
            deadline_ns=row.nanoseconds("deadline", 1) if row.has("deadline") else None,
            cost=row.cost() if row.has("cost") else 1.0,
            partition_key=row.name("partition_key", "") or None,
            line=row.line,
        )
        self._iso = iso  # only now: a row that is skipped must not decide for the rest of the file
        return command

    def _duration_ns(self, row: Row) -> int:
        if row.has("duration"):
            return row.nanoseconds("duration", 0)
        if not (row.has("ContextTokens") or row.has("GeneratedTokens")):
            raise row.reject("duration", DURATION_ALLOWED)
        context, generated = row.count("ContextTokens"), row.count("GeneratedTokens")
        found = to_ns(EXACT.fma(context, self._prefill, EXACT.multiply(generated, self._decode)))
        if found > MAX_NS:
            tokens = f"ContextTokens {context}, GeneratedTokens {generated}"
            raise row.error("duration", tokens, f"give tokens for at most {MAX_TRACE_SECONDS} s (10 years)")
        return found


def _csv_rows(file: Iterable[str], path: str) -> Iterator[Callable[[], Row]]:
    header: list[str] = []
    for line, text in enumerate(file, 1):
        # A reader for each line: one for the file would let a quote that is not closed swallow the good rows after it.
        row, problem = Row(path, line, {}), ""
        try:
            cells = next(csv.reader((text,), strict=True))
        except csv.Error as error:
            cells, problem = [text.rstrip("\r\n")], f"give well-formed CSV, a row on one line, quotes closed: {error}"
        if not cells or (len(cells) == 1 and not cells[0].strip()):
            continue
        if header:
            yield partial(_csv_row, row, header, cells, problem)
        else:
            header = _csv_header(row, cells, problem)
    if not header:
        raise Row(path, 1, {}).error("(header)", "", "no header: give a line with the names of the columns")


def _csv_header(row: Row, cells: list[str], problem: str) -> list[str]:
    text = ",".join(cells)
    row.check(text, problem)
    row.fill(zip(cells, cells, strict=True))
    if "timestamp" not in row.values:
        raise row.error("timestamp", text, f"the column is missing; {TIMESTAMP_ALLOWED}")
    if "duration" not in row.values and not {"ContextTokens", "GeneratedTokens"} <= row.values.keys():
        raise row.error("duration", text, f"the column is missing; {DURATION_ALLOWED}")
    return list(row.values)


def _csv_row(row: Row, header: list[str], cells: list[str], problem: str) -> Row:
    row.check(",".join(cells), problem)
    if len(cells) != len(header):
        short = len(cells) < len(header)
        column, value = (header[len(cells)], None) if short else ("(row)", cells[len(header)])
        allowed = f"give one cell for each of the header's {len(header)} columns; this row has {len(cells)}"
        raise row.error(column, value, allowed)
    row.values.update(zip(header, cells, strict=True))
    return row


def _json_rows(file: Iterable[str], path: str) -> Iterator[Callable[[], Row]]:
    for line, text in enumerate(file, 1):
        if not text.isspace():
            yield partial(_json_row, Row(path, line, {}), text.rstrip("\r\n"))


# Objects as tuples of pairs: a dictionary would hide a key that is given twice, and an array is a list.
_decode_json = json.JSONDecoder(
    object_pairs_hook=tuple, parse_float=Number, parse_int=Number, parse_constant=Number
).decode


def _json_row(row: Row, text: str) -> Row:
    row.check(text, "")
    try:
        pairs, reason = _decode_json(text), "this is another value"
    except json.JSONDecodeError as error:
        pairs, reason = None, f"{error.msg} (character {error.pos + 1})"
    except RecursionError:
        pairs, reason = None, "nested too deeply"
    if not isinstance(pairs, tuple):
        raise row.error("(row)", text, f"give one JSON object on a line: {reason}")
    row.fill(pairs)
    return row


def _cost(field: str, seconds: object) -> Decimal:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_TRACE_SECONDS:
        raise ConfigError(field, seconds, f"give a number of seconds from 0 to {MAX_TRACE_SECONDS}")
    return Decimal(str(seconds))
