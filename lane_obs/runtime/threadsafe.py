"""The way in from other threads."""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
from typing import TYPE_CHECKING, Any, Unpack

from lane_obs.errors import NotStarted, ShutdownInProgress
from lane_obs.runtime.submitter import Submitter
from lane_obs.runtime.work import refuse

if TYPE_CHECKING:
    import asyncio

    from lane_obs.runtime.options import SubmitOptions


class ThreadsafeSubmitter(Submitter):
    """Takes commands from other threads. Base of `QueueManager`, which documents the whole."""

    _bridges: set[asyncio.Task[None]]

    def submit_threadsafe(
        self, lane: str, work: Any, /, *args: Any, **options: Unpack[SubmitOptions]
    ) -> concurrent.futures.Future[Any]:
        """Submits from another thread.

        Returns:
            A future of the command's result. Cancelling it stops the waiting, not the command. Errors of the
            submit itself are its exception.

        Raises:
            NotStarted: the queue was not started.
            ShutdownInProgress: it takes no new work.
        """
        loop = self._dispatcher.loop
        if self._intake.refusing or loop is None or not self._dispatcher.is_open:
            refuse(work)
            if self._intake.refusing:
                raise ShutdownInProgress("the queue is shutting down and takes no new work")
            raise NotStarted("submit_threadsafe needs a started queue")

        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        async def submit_and_wait() -> None:
            try:
                handle = await self.submit(lane, work, *args, **options)
                _give(future, await handle, None)
            except BaseException as error:  # SystemExit too: raised in a task, it would end the event loop
                _give(future, None, error)

        def place() -> None:
            bridge = loop.create_task(submit_and_wait())
            self._bridges.add(bridge)
            bridge.add_done_callback(self._bridges.discard)
            future.add_done_callback(lambda _: _stop(bridge, loop) if future.cancelled() else None)

        loop.call_soon_threadsafe(place, context=contextvars.copy_context())
        return future


def _stop(bridge: asyncio.Task[None], loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, and the bridge with it
        loop.call_soon_threadsafe(bridge.cancel)


def _give(future: concurrent.futures.Future[Any], value: Any, error: BaseException | None) -> None:
    with contextlib.suppress(concurrent.futures.InvalidStateError):  # whoever had it cancelled it
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
