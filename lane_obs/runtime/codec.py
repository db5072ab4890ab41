"""How durable commands are written down and rebuilt: by registered name, as JSON through msgspec. Never pickle."""

from __future__ import annotations

import functools
import inspect
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
        args: its positional arguments.

    Returns:
        The name it is registered under, and its arguments (or fields) as JSON.

    Raises:
        InvalidCommand: it is not registered, or a value cannot be written, or would not come back as what it was;
            the value is named.
    """
    name = type_name(work)
    registered = registry.known(name)
    if registered is None or registered is not (type(work) if isinstance(work, Command) else work):
        raise InvalidCommand(
            f"{name!r} is not registered, and a durable lane can rebuild only what is: put @lane_obs.command(name) on "
            "the function or Command class, or opt the lane out with LaneConfig(durable=False)"
        )
    if isinstance(work, Command):
        return name, _checked(name, work, type(work), "fields")
    return name, _checked(name, args, _arguments(work, len(args)), "arguments")


def decode(name: str, payload: bytes) -> tuple[Any, tuple[Any, ...]]:
    """Rebuilds a command.

    Returns:
        The function and its arguments, or a `Command` object and none.

    Raises:
        UnknownCommand: nothing is registered under the name.
        InvalidCommand: the payload does not fit what is registered; the message names the field.
    """
    work = registry.find(name)
    is_class = isinstance(work, type) and issubclass(work, Command)
    try:
        if is_class:
            return _decoder(work).decode(payload), ()
        count = len(msgspec.json.decode(payload, type=list[msgspec.Raw]))
        return work, tuple(_decoder(_arguments(work, count)).decode(payload))
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise InvalidCommand(f"the stored payload of {name!r} does not fit it any more: {error_text(error)}") from error


def _checked(name: str, value: Any, kind: Any, what: str) -> bytes:
    """A value as JSON that is sure to come back as its kind.

    Raises:
        InvalidCommand: it would not.
    """
    try:
        payload = _encoder.encode(value)
        _decoder(kind).decode(payload)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise InvalidCommand(f"{name!r} cannot be stored: {what}{_where(value, error)}") from error
    return payload


def _where(value: Any, error: Exception) -> str:
    """Which of several values it was, where it can be told."""
    if isinstance(value, tuple):
        for number, part in enumerate(value):
            try:
                _encoder.encode(part)
            except Exception as cause:
                return f"[{number}] {type(part).__name__}: {error_text(cause)}"
    return f": {error_text(error)}"


@functools.lru_cache(1_024)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


@functools.lru_cache(1_024)
def _arguments(work: Callable[..., Any], count: int) -> Any:
    """The type of `count` positional arguments of a function, by its annotations.

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
    return tuple[tuple(kinds)] if kinds else tuple[()]  # type: ignore[misc]


def _hints(work: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(work)
    except Exception:  # a name that is there for type checkers only
        return {}
