"""How durable commands are written down and rebuilt: by registered name, as JSON through msgspec. Never pickle."""

from __future__ import annotations

import functools
import inspect
import math
import typing
from typing import TYPE_CHECKING, Any

import msgspec

from lane_obs.command import Command, registry, type_name
from lane_obs.errors import InvalidCommand, error_text

if TYPE_CHECKING:
    from collections.abc import Callable

_encoder = msgspec.json.Encoder()


def encode(work: Any, args: tuple[Any, ...]) -> tuple[str, bytes]:
    """Writes down a command.

    Args:
        work: what was submitted, resolved: a registered function, or an object of a registered `Command` class.
        args: its positional arguments, or those of the call that runs it, of which a sync function is the first itself.

    Returns:
        The name it is registered under, and its arguments (or fields) as JSON.

    Raises:
        InvalidCommand: it is not registered, or a value cannot be written, or would not come back as what it was;
            the value is named.
    """
    if args and args[0] is work:
        args = args[1:]
    name = type_name(work)
    registered: Any = registry.known(name)
    if registered is work:
        return name, _checked(name, args, _arguments_decoder, work, len(args))
    if registered is not type(work) or not isinstance(work, Command):
        raise InvalidCommand(
            f"{name!r} is not registered, and only what is can be rebuilt: put @lane_obs.command(name) on the function "
            "or Command class; beside a storage, LaneConfig(durable=False) opts a lane out"
        )
    return name, _checked(name, work, _decoder, type(work))


def decode(name: str, payload: bytes) -> tuple[Any, tuple[Any, ...]]:
    """Rebuilds a command.

    Returns:
        The function and its arguments, or a `Command` object and none.

    Raises:
        UnknownCommand: nothing is registered under the name.
        InvalidCommand: the payload does not fit what is registered; the message names the field.
    """
    work: Any = registry.find(name)
    try:
        if isinstance(work, type) and issubclass(work, Command):
            return _decoder(work).decode(payload), ()
        return work, _Arguments.of(work).decode(payload)
    except Exception as error:  # a type of the user's may raise anything while it is made
        raise InvalidCommand(f"the stored payload of {name!r} does not fit it any more: {error_text(error)}") from error


def decode_value(work: Any, payload: bytes) -> Any:
    """What a command returned, from JSON: as its annotation says, or as plain values where it says nothing.

    Args:
        work: the function or `Command` object; `None` for plain values.
        payload: the JSON.

    Raises:
        MsgspecError: the value does not fit the annotation.
    """
    if work is None:
        return msgspec.json.decode(payload)
    return _value_decoder(type(work).execute if isinstance(work, Command) else work).decode(payload)


def to_json(value: Any) -> bytes:
    """A value as JSON; whatever the encoding of the user's own types raises goes through.

    Raises:
        ValueError: it has a number that is none in JSON, of which msgspec makes null: NaN, or an infinity.
        MsgspecError, TypeError, RecursionError: it is no JSON.
    """
    data = _encoder.encode(value)
    if b"null" in data and (odd := _number_that_is_none(msgspec.to_builtins(value))) is not None:
        raise ValueError(f"{odd} is no number in JSON")
    return data


def _number_that_is_none(plain: Any) -> float | None:
    left = [plain]
    while left:
        part = left.pop()
        if isinstance(part, float) and not math.isfinite(part):
            return part
        if isinstance(part, dict):
            left += part.values()
        elif isinstance(part, list | tuple):
            left += part
    return None


class _Arguments:
    """Rebuilds the arguments of one function.

    Args:
        work: the function.
    """

    __slots__ = ("_latest", "_work")

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work
        self._latest: msgspec.json.Decoder[Any] = _decoder(tuple[()])

    @staticmethod
    @functools.lru_cache(1_024)
    def of(work: Callable[..., Any]) -> _Arguments:
        """The one of this function."""
        return _Arguments(work)

    def decode(self, payload: bytes) -> tuple[Any, ...]:
        """The arguments that a payload holds; nearly always there are as many as the time before.

        Raises:
            InvalidCommand: the function does not take so many.
            MsgspecError: they do not fit it.
        """
        try:
            return self._latest.decode(payload)  # type: ignore[no-any-return]
        except msgspec.MsgspecError:
            count = len(msgspec.json.decode(payload, type=list[msgspec.Raw]))
            self._latest = _arguments_decoder(self._work, count)
        return self._latest.decode(payload)  # type: ignore[no-any-return]


def _checked(name: str, value: Any, find: Callable[..., msgspec.json.Decoder[Any]], *kind: Any) -> bytes:
    """A value as JSON that is sure to come back as its kind.

    Raises:
        InvalidCommand: it would not.
    """
    try:
        payload = to_json(value)
        find(*kind).decode(payload)
    except InvalidCommand:
        raise
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        what = "arguments" if isinstance(value, tuple) else "fields"
        raise InvalidCommand(f"{name!r} cannot be stored: {what}{_where(value, error)}") from error
    return payload


def _where(value: Any, error: Exception) -> str:
    """Which of several values it was, where it can be told."""
    if isinstance(value, tuple):
        for number, part in enumerate(value):
            try:
                to_json(part)
            except Exception as cause:
                return f"[{number}] {type(part).__name__}: {error_text(cause)}"
    return f": {error_text(error)}"


@functools.lru_cache(1_024)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


@functools.lru_cache(1_024)
def _arguments_decoder(work: Callable[..., Any], count: int) -> msgspec.json.Decoder[Any]:
    """Decodes `count` positional arguments of a function, by its annotations.

    Raises:
        InvalidCommand: it does not take so many.
    """
    try:
        inspect.signature(work).bind(*[None] * count)
    except TypeError as error:
        raise InvalidCommand(f"{type_name(work)!r} does not take {count} positional arguments: {error}") from error
    hints = _hints(work)
    kinds: list[Any] = []
    for parameter in inspect.signature(work).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            kinds += [hints.get(parameter.name, Any)] * (count - len(kinds))
        elif len(kinds) < count and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            kinds.append(hints.get(parameter.name, Any))
    return _decoder(tuple[tuple(kinds)] if kinds else tuple[()])  # type: ignore[misc]


@functools.lru_cache(1_024)
def _value_decoder(work: Any) -> msgspec.json.Decoder[Any]:
    kind = _hints(work).get("return", Any)
    return _decoder(Any if isinstance(kind, typing.TypeVar) else kind)


def _hints(work: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(work)
    except Exception:  # a name that is there for type checkers only
        return {}
