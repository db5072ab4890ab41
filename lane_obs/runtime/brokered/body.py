"""What travels through a broker as bytes that no broker looks into: commands, and what they came to.

Each is a MessagePack array. A later version may add items at the end, which this one leaves out of account.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lane_obs.errors import InvalidCommand, error_text
from lane_obs.runtime.codec import to_json

if TYPE_CHECKING:
    from lane_obs.events import WaitByCause

_MAX_TRACEBACK: Final = 8_000
_encode: Final = msgspec.msgpack.Encoder().encode


class Body(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A command.

    Attributes:
        command_type: its registered name.
        payload: its arguments, as JSON.
        options: what its submit set, as plain values.
        trace: the W3C traceparent of its submit.
    """

    command_type: str
    payload: bytes
    options: dict[str, Any] | None = None
    trace: str | None = None


class Outcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a command came to.

    Attributes:
        value: what it returned, as JSON; `None` for an error, and for what cannot be sent.
        attempt: number of its last attempt.
        wait, run: seconds it waited and ran.
        error_type, error, traceback: class name, message and place of its error; or why its value cannot be sent.
    """

    value: bytes | None
    attempt: int
    wait: float
    run: float
    error_type: str = ""
    error: str = ""
    traceback: str = ""


_body: Final = msgspec.msgpack.Decoder(Body)
_outcome: Final = msgspec.msgpack.Decoder(Outcome)


def encode_body(body: Body) -> bytes:
    """A command as bytes."""
    return _encode(body)


def decode_body(data: bytes) -> Body:
    """A command from bytes.

    Raises:
        InvalidCommand: they are none.
    """
    try:
        return _body.decode(data)
    except msgspec.MsgspecError as error:
        raise InvalidCommand(f"what the broker has of a command cannot be read: {error_text(error)}") from error


UNREADABLE: Final = Body("unreadable", b"")
"""Stands for a command whose bytes are none of this version's."""


def read_body(data: bytes) -> Body:
    """A command from bytes, to be shown; `UNREADABLE` where they are none."""
    try:
        return decode_body(data)
    except InvalidCommand:
        return UNREADABLE


def encode_value(value: Any, attempt: int, wait: WaitByCause, run: float, largest: int) -> bytes:
    """The outcome of a command that succeeded.

    A value that is no JSON, or larger than `largest` bytes, does not travel: whoever waits is told so.
    """
    try:
        sent = to_json(value)
        text = "" if len(sent) <= largest else f"its result has {len(sent)} bytes as JSON; at most {largest} are kept"
    except Exception as error:  # a value may be anything, and its encoding may run the user's code
        sent, text = b"", f"its result cannot be sent: {type(value).__name__}: {error_text(error)}"
    if text:
        return _encode(Outcome(None, attempt, wait.total, run, error=_clean(text)))
    return _encode(Outcome(sent, attempt, wait.total, run))


def encode_error(error: BaseException, attempt: int, wait: WaitByCause, run: float) -> bytes:
    """The outcome of a command that ended with an error; to write it down cannot fail."""
    try:
        where = "".join(traceback.format_exception(error, limit=-30))[-_MAX_TRACEBACK:]
    except Exception as fault:  # formatting runs the user's code
        where = f"<traceback unavailable: {type(fault).__name__}>"
    kind, text = type(error).__name__, _clean(error_text(error))
    return _encode(Outcome(None, attempt, wait.total, run, kind, text, _clean(where)))


def decode_outcome(data: bytes) -> Outcome | None:
    """An outcome from bytes; `None` of bytes that are none, such as no bytes at all."""
    try:
        return _outcome.decode(data)
    except msgspec.MsgspecError:
        return None


def _clean(text: str) -> str:
    """A text that UTF-8 can say: lone surrogates are written out."""
    return text.encode("utf-8", "backslashreplace").decode()
