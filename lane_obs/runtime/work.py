"""What can be submitted, and how each kind is run: every kind ends up as a call that returns an awaitable."""

from __future__ import annotations

import functools
import inspect
import weakref
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from lane_obs.command import Command, registry, type_name
from lane_obs.errors import InvalidCommand

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from lane_obs.runtime.thread_calls import ThreadCalls


_CALL = "__call__"
_taken: weakref.WeakSet[Any] = weakref.WeakSet()


def is_plain_async(work: object) -> bool:
    """Whether `work` is an `async def` function; quicker than `inspect` for by far the most frequent kind."""
    return type(work) is FunctionType and bool(work.__code__.co_flags & inspect.CO_COROUTINE)


def resolve(work: Any, args: tuple[Any, ...], threads: ThreadCalls) -> tuple[Any, Callable[..., Any], tuple[Any, ...]]:
    """Checks a piece of work and tells how to run it.

    Returns:
        The work itself (for its name), and the call and its arguments that run it once.

    Raises:
        InvalidCommand: it cannot be run, with what is allowed.
        UnknownCommand: no command has this name.
    """
    if is_plain_async(work):
        return work, work, args
    if isinstance(work, str):
        work = registry.find(work)
    if isinstance(work, type) and issubclass(work, Command):
        work, args = work(*args), ()
    if isinstance(work, Command):
        if args:
            raise InvalidCommand(f"a Command object carries its own arguments; {len(args)} more were given")
        return work, _execute, (work,)
    if inspect.iscoroutine(work):
        _check_fresh(work, args)
        return work, _itself, (work,)
    if not callable(work):
        raise InvalidCommand(
            f"{work!r} is not a command; give a Command, a function with its arguments, or a registered name"
        )
    return (work, work, args) if _is_async(work) else (work, threads.call, (work, *args))


def runs_once(work: object) -> bool:
    """Whether the work cannot be run a second time: it is a coroutine object."""
    return inspect.iscoroutine(work)


def take_once(work: Any, *, retries: int) -> None:
    """Takes a coroutine object, which can run only once in its life, in whatever queue.

    Raises:
        InvalidCommand: it was taken before, or may have to run again.
    """
    if work in _taken:
        raise InvalidCommand(f"the coroutine object {type_name(work)} was submitted already; give the function itself")
    _taken.add(work)
    if retries:
        discard(work)
        raise InvalidCommand("a coroutine object can run only once and this command may be retried; give the function")


def refuse(work: object) -> None:
    """Closes a coroutine object that no queue has taken; one that was taken before belongs to whoever took it."""
    if inspect.iscoroutine(work) and work not in _taken:
        discard(work)


def discard(work: object) -> None:
    """Closes a coroutine object that was taken and will never run, so that Python does not warn of it."""
    if inspect.iscoroutine(work) and inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
        work.close()


def _check_fresh(work: Coroutine[Any, Any, Any], args: tuple[Any, ...]) -> None:
    if args:
        raise InvalidCommand("a coroutine object takes no arguments; give the function and its arguments")
    if inspect.getcoroutinestate(work) != inspect.CORO_CREATED:
        raise InvalidCommand(f"the coroutine object {type_name(work)} was awaited already; give the function itself")


def _is_async(work: Callable[..., Any]) -> bool:
    while isinstance(work, functools.partial):
        work = work.func
    if isinstance(work, MethodType):
        work = work.__func__
    if inspect.iscoroutinefunction(work):
        return True
    return not inspect.isroutine(work) and inspect.iscoroutinefunction(getattr(work, _CALL, None))


async def _execute(work: Command[Any]) -> Any:
    result: Any = work.execute()
    if not inspect.isawaitable(result):
        raise InvalidCommand(f"{type(work).__name__}.execute returned {type(result).__name__}; make it `async def`")
    return await result


def _itself(work: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    return work
