"""One execution of synchronous work in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
from typing import TYPE_CHECKING, Any

from lane_obs.runtime.threads import Threads
from lane_obs.runtime.work import discard

if TYPE_CHECKING:
    from collections.abc import Callable


class ThreadCalls:
    """Runs synchronous functions in threads, in the context of the task that calls them."""

    def __init__(self) -> None:
        self._threads: Threads | None = None
        self._abandoned = False

    async def call(self, work: Callable[..., Any], *args: Any) -> Any:
        """Returns what `work(*args)` returns or raises; an awaitable result is awaited here in the loop.

        A thread cannot be interrupted, so a cancelled call still waits for its end: the slot it holds is in use
        until then. Its result counts, if it has one.

        Raises:
            CancelledError: the call was cancelled and has no result yet, or was abandoned.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        context = contextvars.copy_context()

        def run() -> Callable[[], None]:
            outcome: tuple[Any, BaseException | None]
            try:
                outcome = context.run(work, *args), None
            except BaseException as error:  # it is passed on to whoever awaits the command
                outcome = None, error
            return lambda: _tell(loop, ended, outcome)

        if self._threads is None:
            self._threads = Threads()
        self._threads.run(run)
        cancelled = await self._until_done(ended)
        value, error = ended.result()
        if error is not None:
            try:
                raise error
            finally:
                del error  # the traceback holds this frame; without this it would be a cycle
        if not inspect.isawaitable(value):
            return value
        if cancelled:
            discard(value)
            raise asyncio.CancelledError
        return await value

    async def _until_done(self, ended: asyncio.Future[Any]) -> bool:
        """Waits for the thread's end, whatever comes; tells whether a cancellation came meanwhile.

        Raises:
            CancelledError: it came when the call is not waited for any more.
        """
        cancelled = False
        while not ended.done():
            try:
                await asyncio.shield(ended)
            except asyncio.CancelledError:
                cancelled = True
                if self._abandoned:
                    raise
        return cancelled

    def abandon(self) -> None:
        """From now on a cancelled call ends at once and leaves its thread behind."""
        self._abandoned = True

    def close(self) -> None:
        """Ends the idle threads."""
        if self._threads is not None:
            self._threads.close()


def _tell(loop: asyncio.AbstractEventLoop, ended: asyncio.Future[Any], outcome: tuple[Any, Any]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(_deliver, ended, outcome)


def _deliver(ended: asyncio.Future[Any], outcome: tuple[Any, BaseException | None]) -> None:
    if not ended.done():
        ended.set_result(outcome)
