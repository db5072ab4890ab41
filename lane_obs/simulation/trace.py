"""Reads recorded traffic: one command a row, CSV or JSON Lines, every time an exact integer of nanoseconds.

What lives here: the two file formats and the rules for a row. Running the commands is the replay's business.
"""

from __future__ import annotations

import csv
import json
import os
import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache, partial
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

import msgspec

from lane_obs.errors import ConfigError, TraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Outcome = Literal["ok", "fail", "hang"]

_OUTCOMES: dict[str, Outcome] = {"ok": "ok", "fail": "fail", "hang": "hang"}
_COLUMNS = "timestamp lane duration command_type outcome fail_attempts deadline ContextTokens GeneratedTokens"
_SPELLING = {column.casefold(): column for column in _COLUMNS.split()}
_SECOND_NS = 1_000_000_000
_MAX_SECONDS = 315_576_000  # ten years of 365.25 days
_MAX_NS = _MAX_SECONDS * _SECOND_NS
_MAX_TIMESTAMP_NS = 10**12 * _SECOND_NS
_MAX_TEXT = 200  # characters of a name, and of a value that an error shows
# A context of our own: the caller's may have fewer digits or other traps. This one holds what _NUMBER takes.
_EXACT = Context(prec=120, rounding=ROUND_HALF_EVEN)
# The bounds on digits keep a hostile cell from costing more than an honest one.
_NUMBER = re.compile(r"[+-]?(?:\d{1,40}(?:\.\d{0,60})?|\.\d{1,60})(?:[eE][+-]?\d{1,3})?", re.ASCII)
_COUNT = re.compile(r"\d{1,18}", re.ASCII)
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ](?:[01]\d|2[0-3]):[0-5]\d)(?::([0-5]\d)(?:[.,](\d{1,9}))?)?"
    r" ?([Zz]|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?",
    re.ASCII,
)
_TIMESTAMP_ALLOWED = (
    "give ISO 8601 such as 2023-11-16T18:17:03.979960000Z (years 0001 to 9999, up to 9 fractional digits,"
    " UTC where no zone is given), or seconds as a decimal number between -1e12 and 1e12"
)
_NAME_ALLOWED = f"give text of 1 to {_MAX_TEXT} printable characters"
_OUTCOME_ALLOWED = f"give one of {', '.join(_OUTCOMES)}"
_DURATION_ALLOWED = "give 'duration' in seconds, or both 'ContextTokens' and 'GeneratedTokens'"


class TraceCommand(msgspec.Struct, frozen=True):
    """One recorded command; `*_ns` are exact nanoseconds."""

    at_ns: int  # since the first command of the trace
    lane: str
    duration_ns: int  # of work in an attempt
    command_type: str
    outcome: Outcome  # how the last attempt ends; "hang": not by itself
    fail_attempts: int  # so many first attempts fail
    deadline_ns: int | None  # from submit; None: no deadline
    line: int  # 1-based, where its row starts in the file

    @property
    def at_seconds(self) -> float:
        """Seconds since the first command of the trace."""
        return self.at_ns / _SECOND_NS

    @property
    def duration_seconds(self) -> float:
        """Seconds of work in an attempt."""
        return self.duration_ns / _SECOND_NS

    @property
    def deadline_seconds(self) -> float | None:
        """Seconds from submit to the deadline; None: no deadline."""
        return None if self.deadline_ns is None else self.deadline_ns / _SECOND_NS


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
    `command_type` (default "replay"), `outcome` (ok, fail, hang), `fail_attempts`, `deadline` (seconds).
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


class _Number(str):
    """A JSON number in its own spelling: read as exactly as a CSV cell, but no text where a name is due."""


class _Row(msgspec.Struct):
    path: str
    line: int
    values: dict[str, object]  # by documented spelling; folded where the column is none of ours

    def error(self, column: str, value: object, allowed: str) -> TraceError:
        if isinstance(value, str):
            value = _shown(value)
        elif isinstance(value, list | tuple):
            value = "[...]" if isinstance(value, list) else "{...}"
        return TraceError(self.path, self.line, _shown(column), value, allowed)

    def reject(self, column: str, allowed: str) -> TraceError:
        return self.error(column, self.values.get(column), allowed)

    def check(self, text: str, problem: str) -> None:
        if problem:
            raise self.error("(row)", text, problem)
        found = None if text.isascii() else _NOT_UTF8.search(text)
        if found:
            raise self.error("(row)", text, f"give UTF-8 text (see character {found.start() + 1})")

    def fill(self, pairs: Iterable[tuple[str, object]]) -> None:
        for key, value in pairs:
            folded = key.strip().casefold()
            column = _SPELLING.get(folded, folded)
            if column in self.values:
                raise self.error(column, value, "name a column once; case makes no difference")
            self.values[column] = value

    def has(self, column: str) -> bool:
        return self.values.get(column) not in (None, "")

    def name(self, column: str, default: str, allowed: str = _NAME_ALLOWED) -> str:
        value = self.values.get(column) if self.has(column) else default
        if type(value) is not str or len(value) > _MAX_TEXT or not value.isprintable():
            raise self.reject(column, allowed)
        return value

    def outcome(self) -> Outcome:
        found = _OUTCOMES.get(self.name("outcome", "ok", _OUTCOME_ALLOWED))
        if found is None:
            raise self.reject("outcome", _OUTCOME_ALLOWED)
        return found

    def number(self, column: str) -> str:
        value = self.values.get(column)
        return value.strip() if isinstance(value, str) else ""

    def count(self, column: str) -> int:
        text = self.number(column)
        if not _COUNT.fullmatch(text):
            raise self.reject(column, "give a whole number, zero or more, of at most 18 digits")
        return int(text)

    def nanoseconds(self, column: str, least_ns: int) -> int:
        found = _seconds_to_ns(self.number(column))
        if found is None or not least_ns <= found <= _MAX_NS:
            least = "more than zero" if least_ns else "zero or more"
            raise self.reject(column, f"give finite seconds, {least}, at most {_MAX_SECONDS} (10 years)")
        return found

    def timestamp(self) -> tuple[int, bool]:
        text = self.number("timestamp")
        iso = _ISO.fullmatch(text)
        found = _iso_to_ns(*iso.groups()) if iso else _seconds_to_ns(text)
        if found is None or (iso is None and abs(found) >= _MAX_TIMESTAMP_NS):
            raise self.reject("timestamp", _TIMESTAMP_ALLOWED)
        return found, iso is not None


class _Parser:
    """Turns rows into commands. Holds what a token costs, and the file's kind of timestamp once known."""

    def __init__(self, prefill: Decimal, decode: Decimal) -> None:
        self._prefill = prefill
        self._decode = decode
        self._iso: bool | None = None

    def command(self, row: _Row) -> TraceCommand:
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
            line=row.line,
        )
        self._iso = iso  # only now: a row that is skipped must not decide for the rest of the file
        return command

    def _duration_ns(self, row: _Row) -> int:
        if row.has("duration"):
            return row.nanoseconds("duration", 0)
        if not (row.has("ContextTokens") or row.has("GeneratedTokens")):
            raise row.reject("duration", _DURATION_ALLOWED)
        context, generated = row.count("ContextTokens"), row.count("GeneratedTokens")
        found = _to_ns(_EXACT.fma(context, self._prefill, _EXACT.multiply(generated, self._decode)))
        if found > _MAX_NS:
            tokens = f"ContextTokens {context}, GeneratedTokens {generated}"
            raise row.error("duration", tokens, f"give tokens for at most {_MAX_SECONDS} s (10 years)")
        return found


def _csv_rows(file: Iterable[str], path: str) -> Iterator[Callable[[], _Row]]:
    header: list[str] = []
    first = ""  # the first line of a row, for the report when it cannot be split into cells
    reader = csv.reader(((first := first or text) and text for text in file), strict=True)
    cells: list[str] | None = []
    while cells is not None:
        row, first, problem = _Row(path, reader.line_num + 1, {}), "", ""
        try:
            cells = next(reader, None)
        except csv.Error as error:
            cells = [first.rstrip("\r\n")]
            problem = f"give well-formed CSV, quotes closed: {error} (line {reader.line_num})"
        if not cells or (len(cells) == 1 and not cells[0].strip()):
            continue
        if header:
            yield partial(_csv_row, row, header, cells, problem)
        else:
            header = _csv_header(row, cells, problem)
    if not header:
        raise _Row(path, 1, {}).error("(header)", "", "no header: give a line with the names of the columns")


def _csv_header(row: _Row, cells: list[str], problem: str) -> list[str]:
    text = ",".join(cells)
    row.check(text, problem)
    row.fill(zip(cells, cells, strict=True))
    if "timestamp" not in row.values:
        raise row.error("timestamp", text, f"the column is missing; {_TIMESTAMP_ALLOWED}")
    if "duration" not in row.values and not {"ContextTokens", "GeneratedTokens"} <= row.values.keys():
        raise row.error("duration", text, f"the column is missing; {_DURATION_ALLOWED}")
    return list(row.values)


def _csv_row(row: _Row, header: list[str], cells: list[str], problem: str) -> _Row:
    row.check(",".join(cells), problem)
    if len(cells) != len(header):
        short = len(cells) < len(header)
        column, value = (header[len(cells)], None) if short else ("(row)", cells[len(header)])
        allowed = f"give one cell for each of the header's {len(header)} columns; this row has {len(cells)}"
        raise row.error(column, value, allowed)
    row.values.update(zip(header, cells, strict=True))
    return row


def _json_rows(file: Iterable[str], path: str) -> Iterator[Callable[[], _Row]]:
    for line, text in enumerate(file, 1):
        if not text.isspace():
            yield partial(_json_row, _Row(path, line, {}), text.rstrip("\r\n"))


# Objects as tuples of pairs: a dictionary would hide a key that is given twice, and an array is a list.
_decode_json = json.JSONDecoder(
    object_pairs_hook=tuple, parse_float=_Number, parse_int=_Number, parse_constant=_Number
).decode


def _json_row(row: _Row, text: str) -> _Row:
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


def _shown(text: str) -> str:
    # A lone surrogate (byte 0xe9 that is not UTF-8: \udce9) could not be printed or stored as it is.
    start = text[:_MAX_TEXT].encode("utf-8", "backslashreplace").decode()
    return start if len(text) <= _MAX_TEXT else f"{start}..."


def _cost(field: str, seconds: object) -> Decimal:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _MAX_SECONDS:
        raise ConfigError(field, seconds, f"give a number of seconds from 0 to {_MAX_SECONDS}")
    return Decimal(str(seconds))


def _to_ns(seconds: Decimal) -> int:
    return int(_EXACT.to_integral_value(_EXACT.scaleb(seconds, 9)))


def _seconds_to_ns(text: str) -> int | None:
    return _to_ns(Decimal(text)) if _NUMBER.fullmatch(text) else None


def _iso_to_ns(minute: str, second: str | None, fraction: str | None, zone: str | None) -> int | None:
    start = _minute_seconds(minute, zone or "Z")
    if start is None:
        return None
    return (start + int(second or 0)) * _SECOND_NS + int((fraction or "").ljust(9, "0"))


# Seconds from year 1 to this minute: the slow part of reading a row, and neighbours share it.
@lru_cache(maxsize=256)
def _minute_seconds(minute: str, zone: str) -> int | None:
    try:
        since = datetime.fromisoformat(f"{minute}{zone}".upper()) - datetime.min.replace(tzinfo=UTC)
    except ValueError:
        return None
    return since // timedelta(seconds=1)
