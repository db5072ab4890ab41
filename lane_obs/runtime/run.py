"""Runs a program on the fastest event loop at hand, and drains its queues when it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lane_obs.errors import DrainTimeout
from lane_obs.runtime.manager import open_managers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

T = TypeVar("T")

_logger = logging.getLogger("lane_obs.run")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes event loops: uvloop's where it is installed, else `None` for asyncio's own."""
    try:
        import uvloop  # here, so that importing the library loads no vendor
    except ImportError:  # not every platform has it
        return None
    return uvloop.new_event_loop


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` to its end, like `asyncio.run`, on uvloop where it exists.

    The first SIGINT or SIGTERM shuts down and drains every started `QueueManager` (for its `drain_timeout`), then
    cancels `main`; a second one closes them, which cancels what runs, and cancels `main` at once.

    Returns:
        What `main` returns.

    Raises:
        KeyboardInterrupt: SIGINT ended it.
        SystemExit: SIGTERM ended it, with code 143.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_guarded(main))


@contextmanager
def told_to_stop(call: Callable[[signal.Signals], object]) -> Iterator[None]:
    """Calls `call(number)` in the running loop on SIGINT and SIGTERM while the block runs.

    Where the platform or the thread has no such handlers it does nothing.
    """
    with _told(_SIGNALS, call):
        yield


@contextmanager
def told_to_reload(call: Callable[[], object]) -> Iterator[None]:
    """Calls `call()` in the running loop on SIGHUP while the block runs, likewise."""
    with _told((signal.SIGHUP,), lambda _: call()):
        yield


@contextmanager
def _told(numbers: Iterable[signal.Signals], call: Callable[[signal.Signals], object]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    heard = [number for number in numbers if _listen(loop, number, call)]
    try:
        yield
    finally:
        for number in heard:
            loop.remove_signal_handler(number)


def _listen(loop: asyncio.AbstractEventLoop, number: signal.Signals, call: Callable[[signal.Signals], object]) -> bool:
    try:
        loop.add_signal_handler(number, call, number)
    except (NotImplementedError, RuntimeError, ValueError):
        return False
    return True


async def _guarded(main: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = loop.create_task(main)
    stopper = _Stopper(loop, task)
    try:
        with told_to_stop(stopper.take):
            await _end_of(task)
    finally:
        await stopper.ended()
    if task.cancelled() and stopper.received is not None:
        raise KeyboardInterrupt if stopper.received == signal.SIGINT else SystemExit(128 + stopper.received)
    return task.result()


async def _end_of(task: asyncio.Task[Any]) -> None:
    """Waits for a task.

    Raises:
        CancelledError: this was cancelled, and the task with it.
    """
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        raise


class _Stopper:
    """Drains on the first signal, closes and cancels on the second."""

    def __init__(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        self._loop = loop
        self._task = task
        self._draining: asyncio.Task[None] | None = None
        self._closing: list[asyncio.Task[None]] = []
        self.received: signal.Signals | None = None

    def take(self, number: signal.Signals) -> None:
        """Takes a signal."""
        if self.received is None:
            self.received = number
            self._draining = self._loop.create_task(self._drain())
        else:
            # Closing begins before `main` sees its cancellation, so the end of `async with` drains no more.
            self._closing += [self._loop.create_task(manager.close()) for manager in open_managers(self._loop)]
            self._task.cancel()

    async def _drain(self) -> None:
        try:
            managers = list(open_managers(self._loop))
            for manager in managers:  # all stop taking work at one moment, then all drain together
                await manager.shutdown()
            await asyncio.gather(*(_drain_or_close(manager) for manager in managers))
        finally:  # a drain that fails must not keep the program from ending
            self._task.cancel()

    async def ended(self) -> None:
        """Returns once no drain and no close of its own is under way."""
        await asyncio.gather(*self._closing, return_exceptions=True)
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.wait([self._draining])
            if not self._draining.cancelled() and (error := self._draining.exception()) is not None:
                _logger.error("the drain on a signal failed", exc_info=error)


async def _drain_or_close(manager: Any) -> None:
    try:
        await manager.drain(manager.drain_timeout)
    except DrainTimeout as error:
        _logger.warning("%s: %s", error, dict(error.report.left))
        await manager.close()  # now: the end of `async with` would drain for as long again
