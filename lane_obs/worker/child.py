"""One process of a worker: starts the app's queue, serves its pages, and drains when it is told to."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from lane_obs.errors import (
    BrokerRefused,
    BrokerUnavailable,
    ConfigError,
    DrainTimeout,
    LaneObsError,
    StorageError,
    error_text,
)
from lane_obs.runtime.run import loop_factory, told_to_stop
from lane_obs.worker.app import find_app, make_manager
from lane_obs.worker.channel import LastWords, Left, Ready, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs.runtime.manager import QueueManager
    from lane_obs.worker.channel import Channel

DRAIN_SECONDS: Final = 30.0
"""How long a drain may take where neither the app nor the command line says."""

_TRY_AGAIN: Final = (BrokerUnavailable, BrokerRefused, StorageError)
_REFUSED: Final = 2
_logger = logging.getLogger("lane_obs.worker")


class Served(Protocol):
    """The pages of a child."""

    url: str

    def metrics(self) -> str:
        """All metrics, as OpenMetrics text."""

    def close(self) -> None:
        """Ends them."""


class Child:
    """A process that works on one queue until it is told to stop.

    SIGTERM and SIGINT drain, however often they come; so does the end of the supervisor. Only the supervisor, over the
    channel, can make it close at once, which gives back what runs.

    Args:
        app: where the queue is, as `module:name`.
        channel: leads to the supervisor.
        serve: starts the pages of a queue.
        concurrency: how many commands it runs at once; `None` for what the app says.
        drain_timeout: how long a drain may take, in seconds; `None` for what the app says.
    """

    def __init__(
        self,
        app: str,
        channel: Channel,
        serve: Callable[[QueueManager], Served],
        *,
        concurrency: int | None = None,
        drain_timeout: float | None = None,
    ) -> None:
        self._app = app
        self._channel = channel
        self._serve = serve
        self._concurrency = concurrency
        self._drain_timeout = drain_timeout
        self._closing: asyncio.Task[None] | None = None
        self._left = 0

    def run(self) -> int:
        """Works; returns the exit code: 0 all is done, 1 commands were left or it failed, 2 it cannot start."""
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                return runner.run(self._run(find_app(self._app)))
        except LaneObsError as error:
            return self._refuse(error, final=not isinstance(error, _TRY_AGAIN))
        except Exception as error:
            _logger.exception("the worker failed", exc_info=error)
            return self._refuse(error, final=False)

    def _refuse(self, error: Exception, *, final: bool) -> int:
        kind = "" if isinstance(error, LaneObsError) else f"{type(error).__name__}: "
        self._channel.send(Refused(f"{kind}{error_text(error)}", final))
        return _REFUSED if final else 1

    async def _run(self, app: Any) -> int:
        told = asyncio.Event()
        with told_to_stop(lambda _: told.set()):
            manager = await make_manager(self._app, app)
            self._configure(manager)
            served = self._serve(manager)
            try:
                self._channel.listen(lambda: self._close(manager), told.set)
                if not await _start(manager, told):
                    return 0
                manager.bus.closers.add(lambda: self._say_last_words(manager, served))
                self._channel.send(Ready(served.url, manager.drain_timeout or 0.0))
                await told.wait()
                return await self._stop(manager)
            finally:
                await manager.close()  # again, or since it could not start
                self._channel.unlisten()
                served.close()

    def _configure(self, manager: QueueManager) -> None:
        """Applies the options.

        Raises:
            ConfigError: nobody could give it work.
        """
        if manager.broker is None:
            raise ConfigError("app", self._app, "give its queue a broker: that is where its commands come from")
        if not manager.works:
            raise ConfigError("app", self._app, "its queue only submits: give a worker's queue work=True")
        if self._concurrency is not None:
            manager.broker.concurrency = self._concurrency
        if self._drain_timeout is not None:
            manager.drain_timeout = self._drain_timeout
        elif manager.drain_timeout is None:
            manager.drain_timeout = DRAIN_SECONDS

    def _close(self, manager: QueueManager) -> None:
        stats = manager.stats()
        self._left = stats.total_active + stats.total_pending
        self._closing = asyncio.get_running_loop().create_task(manager.close())

    async def _say_last_words(self, manager: QueueManager, served: Served) -> None:
        manager.bus.flush()  # the last events are counted, too
        text = await asyncio.to_thread(served.metrics)
        await asyncio.to_thread(self._channel.send, LastWords(text))

    async def _stop(self, manager: QueueManager) -> int:
        try:
            await manager.stop()
        except DrainTimeout as error:
            self._left = error.report.total_left
            _logger.warning("%s: %s", error, dict(error.report.left))
        self._channel.send(Left(self._left))
        return 1 if self._left else 0


async def _start(manager: QueueManager, told: asyncio.Event) -> bool:
    """Starts a queue, unless the process is told to stop meanwhile: its broker may not be there yet."""
    starting, stop = (asyncio.ensure_future(call) for call in (manager.start(), told.wait()))
    try:
        await asyncio.wait([starting, stop], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            return True
        starting.cancel()
        await asyncio.wait([starting])
        return False
    finally:
        stop.cancel()
