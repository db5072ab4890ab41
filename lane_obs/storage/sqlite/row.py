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
    "fixed_sum", "seq", "lane", "command_type", "payload", "options", "deadline", "key", "trace", "submitted_at", "id",
)  # fmt: skip
"""Columns of a command that never change. The id is the last, so that what each sum covers lies together."""
STATE: Final = (
    "state", "attempt", "not_before", "updated_at", "deaths", "last_error_type", "last_error", "state_sum",
)  # fmt: skip
"""Columns of a command that an update sets, all of them."""
COLUMNS: Final = (*FIXED, *STATE)
"""All columns of a command, in the order of its row."""
LETTER: Final = (
    "id", "seq", "lane", "command_type", "payload", "options", "reason", "error_type", "error", "traceback", "attempts",
    "failed_at", "submitted_at", "key", "trace", "sum",
)  # fmt: skip
"""Columns of a dead letter, its place apart."""

BEFORE_ALL: Final = -(2**63)
"""No `seq` is below it."""
AFTER_ALL: Final = 2**63 - 1
"""No `seq` is above it."""

_FIXED_SUMMED: Final = slice(1, len(FIXED))
"""What `fixed_sum` covers."""
_STATE_SUMMED: Final = slice(len(FIXED) - 1, len(COLUMNS) - 1)
"""What `state_sum` covers: the id, too, so that the state of one command does not pass for that of another."""
_NO_OPTIONS: Final = "{}"
_TEXT: Final = (str, type(None))
_ALWAYS: Final = frozenset({"id", "lane", "command_type"})
"""Texts that may not be `None`."""

_encode = msgspec.msgpack.Encoder().encode
_to_json = msgspec.json.Encoder().encode
_from_json = msgspec.json.Decoder(dict[str, Any]).decode


class DamagedRow(ValueError):
    """A row is not as it was written."""


def command_row(command: StoredCommand) -> Row:
    """All columns of a command. Values of the usual types go as they are: this is done for each submit.

    Raises:
        ValueError, TypeError, OverflowError: it has a value that cannot be stored.
    """
    seq, payload, deadline, submitted_at = command.seq, command.payload, command.deadline, command.submitted_at
    if type(seq) is not int:
        seq = int(seq)
    if type(payload) is not bytes:
        payload = _bytes(payload)
    if deadline is not None:
        deadline = _number(deadline)
    if type(submitted_at) is not float or submitted_at != submitted_at:
        submitted_at = _number(submitted_at)
    options = _NO_OPTIONS if command.options == {} else _options(command.options)
    id_, lane, command_type, key, trace = command.id, command.lane, command.command_type, command.key, command.trace
    if not (type(id_) is type(lane) is type(command_type) is str and type(key) in _TEXT and type(trace) in _TEXT):
        _check_texts(command)
    written = crc32(_encode((seq, lane, command_type, payload, options, deadline, key, trace, submitted_at, id_)))
    fixed = (written, seq, lane, command_type, payload, options, deadline, key, trace, submitted_at, id_)
    return fixed + state_row(command)


def state_row(command: StoredCommand | Update) -> Row:
    """The columns of a command that an update sets.

    Raises:
        ValueError, TypeError, OverflowError: it has a value that cannot be stored.
    """
    state, attempt, deaths = command.state, command.attempt, command.deaths
    not_before, updated_at = command.not_before, command.updated_at
    error_type, error = command.last_error_type, command.last_error
    if type(state) is not str:
        state = str(state)
    if type(attempt) is not int or type(deaths) is not int:
        attempt, deaths = int(attempt), int(deaths)
    if not_before is not None:
        not_before = _number(not_before)
    if type(updated_at) is not float or updated_at != updated_at:
        updated_at = _number(updated_at)
    if error_type is not None or error is not None:
        error_type, error = _text(error_type), _text(error)
    written = crc32(_encode((command.id, state, attempt, not_before, updated_at, deaths, error_type, error)))
    return state, attempt, not_before, updated_at, deaths, error_type, error, written


def letter_row(letter: StoredDeadLetter) -> Row:
    """The columns of a dead letter, its place apart.

    Raises:
        ValueError, TypeError, OverflowError: it has a value that cannot be stored.
    """
    _check_texts(letter)
    values = (
        letter.id,
        int(letter.seq),
        letter.lane,
        letter.command_type,
        _bytes(letter.payload),
        _options(letter.options),
        str(letter.reason),
        _text(letter.error_type),
        _text(letter.error),
        _text(letter.traceback),
        int(letter.attempts),
        _number(letter.failed_at),
        _number(letter.submitted_at),
        letter.key,
        letter.trace,
    )
    return (*values, crc32(_encode(values)))


def to_command(row: Sequence[Any]) -> StoredCommand:
    """Reads a command from its columns.

    Raises:
        DamagedRow: they are not as they were written.
    """
    (
        fixed_sum, seq, lane, command_type, payload, options, deadline, key, trace, submitted_at, id_,
        state, attempt, not_before, updated_at, deaths, error_type, error, state_sum,
    ) = row  # fmt: skip
    if crc32(_encode(row[_FIXED_SUMMED])) != fixed_sum or crc32(_encode(row[_STATE_SUMMED])) != state_sum:
        raise DamagedRow(f"command {id_!r}, seq {seq}, is not as it was written: its checksum is wrong")
    found = {} if options == _NO_OPTIONS else _from_json(options)
    return StoredCommand(  # by position: a third of the time
        id_, seq, lane, command_type, payload, found, attempt, state, not_before, deadline, key, trace, submitted_at,
        updated_at, deaths, error_type, error,
    )  # fmt: skip


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


def _check_texts(stored: StoredCommand | StoredDeadLetter) -> None:
    """SQLite would make text of a number, which is then taken for damaged: its checksum is that of the number.

    Raises:
        TypeError: what must be text is none.
    """
    for name in ("id", "lane", "command_type", "key", "trace"):
        value = getattr(stored, name)
        if not isinstance(value, str) and (value is not None or name in _ALWAYS):
            raise TypeError(f"{name} must be text, not {type(value).__name__}")


def _bytes(payload: object) -> bytes:
    """A payload as bytes. Not of a number: Python would make that many zeros of it."""
    return bytes(memoryview(payload))  # type: ignore[arg-type]


def _options(options: Mapping[str, Any]) -> str:
    if not isinstance(options, dict):
        raise TypeError(f"options must be a dict, not {type(options).__name__}")
    return _to_json(options).decode() if options else _NO_OPTIONS


def _number(seconds: float) -> float:
    value = float(seconds)
    if value != value:  # SQLite would store it as NULL
        raise ValueError("a time is not a number")
    return value


def _text(text: str | None) -> str | None:
    """Text of an error as it can be stored: a lone surrogate must not keep the rest from being kept."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError(f"an error must be told in text, not {type(text).__name__}")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text
