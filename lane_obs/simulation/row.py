"""One row of a trace: its cells by column, the exact numbers in them, and the error each bad one is reported as.

What lives here: the rules for a cell. The file formats are `trace`'s business.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import msgspec

from lane_obs.clock import NS
from lane_obs.config import to_cost
from lane_obs.errors import ConfigError, TraceError

if TYPE_CHECKING:
    from collections.abc import Iterable

Outcome = Literal["ok", "fail", "hang"]

_OUTCOMES: dict[str, Outcome] = {"ok": "ok", "fail": "fail", "hang": "hang"}
_COLUMNS = (
    "timestamp lane duration command_type outcome fail_attempts deadline cost partition_key"
    " ContextTokens GeneratedTokens"
)
_SPELLING = {column.casefold(): column for column in _COLUMNS.split()}
MAX_TRACE_SECONDS = 315_576_000  # ten years of 365.25 days
MAX_NS = MAX_TRACE_SECONDS * NS
_MAX_TIMESTAMP_NS = 10**12 * NS
_MAX_TEXT = 200  # characters of a name, and of a value that an error shows
# A context of our own: the caller's may have fewer digits or other traps. This one holds what _NUMBER takes.
EXACT = Context(prec=120, rounding=ROUND_HALF_EVEN)
# The bounds on digits keep a hostile cell from costing more than an honest one.
_NUMBER = re.compile(r"[+-]?(?:\d{1,40}(?:\.\d{0,60})?|\.\d{1,60})(?:[eE][+-]?\d{1,3})?", re.ASCII)
_COUNT = re.compile(r"\d{1,18}", re.ASCII)
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ](?:[01]\d|2[0-3]):[0-5]\d)(?::([0-5]\d)(?:[.,](\d{1,9}))?)?"
    r" ?([Zz]|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?",
    re.ASCII,
)
TIMESTAMP_ALLOWED = (
    "give ISO 8601 such as 2023-11-16T18:17:03.979960000Z (years 0001 to 9999, up to 9 fractional digits,"
    " UTC where no zone is given), or seconds as a decimal number between -1e12 and 1e12"
)
_NAME_ALLOWED = f"give text of 1 to {_MAX_TEXT} printable characters"
_OUTCOME_ALLOWED = f"give one of {', '.join(_OUTCOMES)}"
DURATION_ALLOWED = "give 'duration' in seconds, or both 'ContextTokens' and 'GeneratedTokens'"


class Number(str):
    """A JSON number in its own spelling: read as exactly as a CSV cell, but no text where a name is due."""


class Row(msgspec.Struct):
    """A row and where it stands. Values are text as in a CSV cell, or what JSON has in their place."""

    path: str
    line: int
    values: dict[str, object]  # by documented spelling; folded where the column is none of ours

    def error(self, column: str, value: object, allowed: str) -> TraceError:
        """The error that says what is allowed in place of `value`."""
        if isinstance(value, str):
            value = shown(value)
        elif isinstance(value, list | tuple):
            value = "[...]" if isinstance(value, list) else "{...}"
        return TraceError(self.path, self.line, shown(column), value, allowed)

    def reject(self, column: str, allowed: str) -> TraceError:
        """The error about the value that a column has."""
        return self.error(column, self.values.get(column), allowed)

    def check(self, text: str, problem: str) -> None:
        """Checks the row as text.

        Raises:
            TraceError: there is a `problem` already, or bytes that are not UTF-8.
        """
        if problem:
            raise self.error("(row)", text, problem)
        found = None if text.isascii() else _NOT_UTF8.search(text)
        if found:
            raise self.error("(row)", text, f"give UTF-8 text (see character {found.start() + 1})")

    def fill(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Takes values by the names of their columns, in any case.

        Raises:
            TraceError: a column is given twice.
        """
        for key, value in pairs:
            folded = key.strip().casefold()
            column = _SPELLING.get(folded, folded)
            if column in self.values:
                raise self.error(column, value, "name a column once; case makes no difference")
            self.values[column] = value

    def has(self, column: str) -> bool:
        """Whether the column has a value."""
        return self.values.get(column) not in (None, "")

    def name(self, column: str, default: str, allowed: str = _NAME_ALLOWED) -> str:
        """The column's text.

        Raises:
            TraceError: it is too long or not printable.
        """
        value = self.values.get(column) if self.has(column) else default
        if type(value) is not str or len(value) > _MAX_TEXT or not value.isprintable():
            raise self.reject(column, allowed)
        return value

    def outcome(self) -> Outcome:
        """How the last attempt ends.

        Raises:
            TraceError: it is none of the known outcomes.
        """
        found = _OUTCOMES.get(self.name("outcome", "ok", _OUTCOME_ALLOWED))
        if found is None:
            raise self.reject("outcome", _OUTCOME_ALLOWED)
        return found

    def number(self, column: str) -> str:
        """The column's text as far as it may be a number, without the blanks around it."""
        value = self.values.get(column)
        return value.strip() if isinstance(value, str) else ""

    def count(self, column: str) -> int:
        """The column's whole number.

        Raises:
            TraceError: it has none.
        """
        text = self.number(column)
        if not _COUNT.fullmatch(text):
            raise self.reject(column, "give a whole number, zero or more, of at most 18 digits")
        return int(text)

    def nanoseconds(self, column: str, least_ns: int) -> int:
        """The column's seconds as nanoseconds.

        Raises:
            TraceError: it has none, or fewer than `least_ns`, or more than ten years.
        """
        found = _seconds_to_ns(self.number(column))
        if found is None or not least_ns <= found <= MAX_NS:
            least = "more than zero" if least_ns else "zero or more"
            raise self.reject(column, f"give finite seconds, {least}, at most {MAX_TRACE_SECONDS} (10 years)")
        return found

    def cost(self) -> float:
        """What the command takes of rate limits.

        Raises:
            TraceError: it is no number, negative, or too large.
        """
        text = self.number("cost")
        try:
            return to_cost("cost", float(text) if _NUMBER.fullmatch(text) else text)
        except ConfigError as error:
            raise self.reject("cost", error.allowed) from None

    def timestamp(self) -> tuple[int, bool]:
        """When the command came, in nanoseconds of its own kind of time, and whether that is ISO 8601.

        Raises:
            TraceError: it is no time.
        """
        text = self.number("timestamp")
        iso = _ISO.fullmatch(text)
        found = _iso_to_ns(*iso.groups()) if iso else _seconds_to_ns(text)
        if found is None or (iso is None and abs(found) >= _MAX_TIMESTAMP_NS):
            raise self.reject("timestamp", TIMESTAMP_ALLOWED)
        return found, iso is not None


def shown(text: str) -> str:
    """A value as an error shows it: cut to size, and fit to be printed and stored."""
    # A lone surrogate (byte 0xe9 that is not UTF-8: \udce9) could not be printed or stored as it is.
    start = text[:_MAX_TEXT].encode("utf-8", "backslashreplace").decode()
    return start if len(text) <= _MAX_TEXT else f"{start}..."


def to_ns(seconds: Decimal) -> int:
    """Whole nanoseconds, ties to even."""
    return int(EXACT.to_integral_value(EXACT.scaleb(seconds, 9)))


def _seconds_to_ns(text: str) -> int | None:
    return to_ns(Decimal(text)) if _NUMBER.fullmatch(text) else None


def _iso_to_ns(minute: str, second: str | None, fraction: str | None, zone: str | None) -> int | None:
    start = _minute_seconds(minute, zone or "Z")
    if start is None:
        return None
    return (start + int(second or 0)) * NS + int((fraction or "").ljust(9, "0"))


# Seconds from year 1 to this minute: the slow part of reading a row, and neighbours share it.
@lru_cache(maxsize=256)
def _minute_seconds(minute: str, zone: str) -> int | None:
    try:
        since = datetime.fromisoformat(f"{minute}{zone}".upper()) - datetime.min.replace(tzinfo=UTC)
    except ValueError:
        return None
    return since // timedelta(seconds=1)
