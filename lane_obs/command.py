"""How work is named: the `Command` class, the `@command` decorator and the registry behind it."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from lane_obs.config import check_name
from lane_obs.errors import ConfigError, DuplicateCommandType, UnknownCommand

if TYPE_CHECKING:
    from collections.abc import Callable

T_co = TypeVar("T_co", covariant=True)
W = TypeVar("W", bound="Callable[..., Any]")

_NAME_ATTRIBUTE = "__lane_command__"
_MAX_TYPE_NAME = 200


class Command(ABC, Generic[T_co]):
    """A unit of work as an object. Its name, for logs and metrics, is `command_type`.

    A subclass defines `execute`; it may set `command_type`, which is otherwise the name it is registered under
    or the name of the class.
    """

    command_type: ClassVar[str] = ""

    @abstractmethod
    async def execute(self) -> T_co:
        """Does the work; what it returns is the command's result, what it raises its error."""


def command(name: str) -> Callable[[W], W]:
    """Registers a function or a `Command` class under a name, so that it can be submitted by it.

    Args:
        name: 1 to 200 printable characters, unique in the process.

    Returns:
        A decorator that gives back what it decorates.

    Raises:
        ConfigError: the name is not allowed, or what it decorates takes no attributes.
        DuplicateCommandType: something else is registered under it.
    """
    check_name("command name", name)

    def register(work: W) -> W:
        try:
            setattr(work, _NAME_ATTRIBUTE, name)
        except (AttributeError, TypeError):
            raise ConfigError("command", work, "decorate a function or a Command class") from None
        registry.add(name, work)
        return work

    return register


class Registry:
    """Commands by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Callable[..., Any]] = {}
        self.listeners: set[Callable[[str], object]] = set()
        """Called with each name that is registered: whoever keeps commands of an unknown type waits for it."""

    def add(self, name: str, work: Callable[..., Any]) -> None:
        """Registers `work`; the same function or class again, as after a module's reload, replaces it.

        Raises:
            DuplicateCommandType: something else has the name.
        """
        known = self._by_name.get(name)
        if known is not None and _origin(known) != _origin(work):
            raise DuplicateCommandType(
                f"{name!r} is registered as {_origin(known)}; {_origin(work)} needs another name"
            )
        self._by_name[name] = work
        for listener in tuple(self.listeners):
            listener(name)

    def find(self, name: str) -> Callable[..., Any]:
        """Returns what is registered under `name`.

        Raises:
            UnknownCommand: nothing is.
        """
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(sorted(map(repr, self._by_name))) or "none"
            raise UnknownCommand(f"no command is registered as {name!r}; registered: {known}") from None

    def known(self, name: str) -> Callable[..., Any] | None:
        """What is registered under a name; `None` when nothing is."""
        return self._by_name.get(name)

    def remove(self, name: str) -> None:
        """Forgets a name; an unknown one is ignored."""
        self._by_name.pop(name, None)


registry = Registry()
"""The commands of this process."""


def type_name(work: Any) -> str:
    """The name of a piece of work for logs and metrics: registered name, `command_type`, or its own name."""
    if type(work) is FunctionType:  # the short way, for by far the most frequent kind
        return str(work.__dict__.get(_NAME_ATTRIBUTE) or work.__qualname__)[:_MAX_TYPE_NAME]
    try:
        return str(_name_of(work))[:_MAX_TYPE_NAME]
    except Exception:  # it is the user's code; a command without a good name still runs
        return type(work).__name__[:_MAX_TYPE_NAME]


def _name_of(work: Any) -> Any:
    if isinstance(work, Command):  # a registered name is not inherited: a subclass is another command
        return type(work).__dict__.get(_NAME_ATTRIBUTE) or work.command_type or type(work).__name__
    name = getattr(work, _NAME_ATTRIBUTE, None)
    while name is None and isinstance(work, functools.partial):
        work = work.func
        name = getattr(work, _NAME_ATTRIBUTE, None)
    return name or getattr(work, "__qualname__", None) or type(work).__name__


def _origin(work: Any) -> str:
    return f"{getattr(work, '__module__', '?')}.{getattr(work, '__qualname__', repr(work))}"
