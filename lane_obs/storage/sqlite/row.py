"""Rows: how commands and dead letters are written to columns and read back, each part with its checksum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias
from zlib import crc32

import msgspec

from lane_obs.errors import StorageRefused
from lane_obs.storage.record import StoredCommand, StoredDeadLetter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs.storage.change import Update

Row: TypeAlias = tuple[Any, ...]

FIXED: Final = (
    "seq", "id", "lane", "command_type", "payload", "options", "deadline", "key", "trace", "submitted_at", "fixed_sum",
)  # fmt: skip
"""Columns of a command that never change."""
STATE: Final = (
    "state", "attempt", "not_before", "updated_at", "deaths", "last_error_type", "last_error", "state_sum",
)  # fmt: skip
"""Columns of a command that an update sets, all of them."""
LETTER: Final = (
    "id", "seq", "lane", "command_type", "payload", "options", "reason", "error_type", "error", "traceback", "attempts",
    "failed_at", "submitted_at", "key", "trace", "sum",
)  # fmt: skip
"""Columns of a dead letter, its place apart."""

BEFORE_ALL: Final = -(2**63)
"""No `seq` is below it."""
AFTER_ALL: Final = 2**63 - 1
"""No `seq` is above it."""

_FIXED_END: Final = len(FIXED) - 1
_STATE_START: Final = len(FIXED)
_NO_OPTIONS: Final = "{}"

_encode = msgspec.msgpack.Encoder().encode
_to_json = msgspec.json.Encoder().encode
_from_json = msgspec.json.Decoder(dict[str, Any]).decode


class DamagedRow(ValueError):
    """A row is not as it was written."""


def fixed_row(command: StoredCommand) -> Row:
    """The columns of a command that never change.

    Raises:
        ValueError, TypeError, OverflowError: it has a value that cannot be stored.
    """
    values = (
        int(command.seq),
        command.id,
        command.lane,
        command.command_type,
        bytes(command.payload),
        _options(command.options),
        _seconds(command.deadline),
        command.key,
        command.trace,
        _seconds(command.submitted_at),
    )
    return (*values, crc32(_encode(values)))


def state_row(command: StoredCommand | Update) -> Row:
    """The columns of a command that an update sets.

    Raises:
        ValueError, TypeError, OverflowError: it has a value that cannot be stored.
    """
    values = (
        str(command.state),
        int(command.attempt),
        _seconds(command.not_before),
        _seconds(command.updated_at),
        int(command.deaths),
        _text(command.last_error_type),
        _text(command.last_error),
    )
    return (*values, crc32(_encode((command.id, values))))


def letter_row(letter: StoredDeadLetter) -> Row:
    """The columns of a dead letter, its place apart.

    Raises:
        ValueError, TypeError, OverflowError: it has a value that cannot be stored.
    """
    values = (
        letter.id,
        int(letter.seq),
        letter.lane,
        letter.command_type,
        bytes(letter.payload),
        _options(letter.options),
        str(letter.reason),
        _text(letter.error_type),
        _text(letter.error),
        _text(letter.traceback),
        int(letter.attempts),
        _seconds(letter.failed_at),
        _seconds(letter.submitted_at),
        letter.key,
        letter.trace,
    )
    return (*values, crc32(_encode(values)))


def to_command(row: Sequence[Any]) -> StoredCommand:
    """Reads a command from its columns.

    Raises:
        DamagedRow: they are not as they were written.
    """
    seq, id_, lane, command_type, payload, options, deadline, key, trace, submitted_at, fixed_sum = row[:_STATE_START]
    state, attempt, not_before, updated_at, deaths, error_type, error, state_sum = row[_STATE_START:]
    if crc32(_encode(row[:_FIXED_END])) != fixed_sum or crc32(_encode((id_, row[_STATE_START:-1]))) != state_sum:
        raise DamagedRow(f"command {id_!r}, seq {seq}, is not as it was written: its checksum is wrong")
    return StoredCommand(
        id=id_,
        seq=seq,
        lane=lane,
        command_type=command_type,
        payload=payload,
        options={} if options == _NO_OPTIONS else _from_json(options),
        attempt=attempt,
        state=state,
        not_before=not_before,
        deadline=deadline,
        key=key,
        trace=trace,
        submitted_at=submitted_at,
        updated_at=updated_at,
        deaths=deaths,
        last_error_type=error_type,
        last_error=error,
    )


def to_letter(row: Sequence[Any]) -> StoredDeadLetter:
    """Reads a dead letter from its columns.

    Raises:
        DamagedRow: they are not as they were written.
    """
    *values, written = row
    if crc32(_encode(values)) != written:
        raise DamagedRow(f"dead letter {row[0]!r} is not as it was written: its checksum is wrong")
    fields = dict(zip(LETTER, values, strict=False))
    return StoredDeadLetter(**{**fields, "options": _from_json(fields["options"])})


def refused(path: object, what: str, error: Exception) -> StorageRefused:
    """The error for something that cannot be stored."""
    return StorageRefused(path, f"{what} cannot be stored: {error}")


def _options(options: Mapping[str, Any]) -> str:
    return _to_json(options).decode() if options else _NO_OPTIONS


def _seconds(seconds: float | None) -> float | None:
    if seconds is None:
        return None
    value = float(seconds)
    if value != value:  # SQLite would store it as NULL
        raise ValueError("a time is not a number")
    return value


def _text(text: str | None) -> str | None:
    """Text of an error as it can be stored: a lone surrogate must not keep the rest from being kept."""
    if text is None or text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text
