"""The queue's lifecycle: start, shut down, drain, close."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from typing import TYPE_CHECKING, Final

from lane_obs import events
from lane_obs.clock import sleep
from lane_obs.config import to_seconds
from lane_obs.core.state import FINAL, State
from lane_obs.errors import DrainTimeout, NotStarted
from lane_obs.runtime.queue import CommandQueue
from lane_obs.runtime.stats import DrainReport
from lane_obs.runtime.threadsafe import ThreadsafeSubmitter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from lane_obs.bus import AnySink, Observer
    from lane_obs.clock import Clock
    from lane_obs.config import Duration, LaneConfig, RateLimit
    from lane_obs.distributed import Broker
    from lane_obs.runtime.dead_letters import DeadLetterQueue
    from lane_obs.storage.port import Storage

_CLOSE_ROUNDS: Final = 3

_open_managers: weakref.WeakSet[QueueManager] = weakref.WeakSet()


class QueueManager(CommandQueue, ThreadsafeSubmitter):
    """A command queue with a lifecycle.

    `async with QueueManager(...) as manager` starts it, and at the end takes no new work, drains and closes, also
    when the block raised.

    Args:
        lanes, max_concurrency, sinks, dead_letters, clock, seed, stuck_after, storage, rate_limit, broker, work: of
            `CommandQueue`.
        observe: logs, metrics and traces in one: an `Observability`.
        drain_timeout: limit on the drain at the end of `async with` and on SIGTERM or SIGINT under `lane_obs.run`, in
            seconds; `None` (default) waits for all work.
        close_timeout: how long `close` waits for cancelled commands to end, in seconds.

    Raises:
        ConfigError: a value that is not allowed, named.
    """

    def __init__(  # noqa: PLR0913 - all but the first by name
        self,
        lanes: Mapping[str, LaneConfig] | None = None,
        *,
        max_concurrency: int | None = None,
        sinks: Iterable[AnySink] = (),
        observe: Observer | None = None,
        dead_letters: DeadLetterQueue | int = 1000,
        clock: Clock | None = None,
        seed: int | None = None,
        stuck_after: Duration = 5.0,
        storage: Storage | None = None,
        rate_limit: RateLimit | Sequence[RateLimit] | None = None,
        broker: Broker | None = None,
        work: bool = True,
        drain_timeout: Duration | None = None,
        close_timeout: Duration = 5.0,
    ) -> None:
        self.drain_timeout = None if drain_timeout is None else to_seconds("drain_timeout", drain_timeout, zero=True)
        self._close_timeout = to_seconds("close_timeout", close_timeout, zero=True)
        super().__init__(
            lanes, max_concurrency=max_concurrency, sinks=sinks if observe is None else [*sinks, *observe.sinks],
            dead_letters=dead_letters, clock=clock, seed=seed, stuck_after=stuck_after, storage=storage,
            rate_limit=rate_limit, broker=broker, work=work,
        )  # fmt: skip
        self._closed = self._complete = False
        self._closing: asyncio.Task[None] | None = None
        self._bridges = set()

    def queue(self) -> CommandQueue:
        """The underlying queue: the manager itself, which is one."""
        return self

    async def start(self) -> None:
        """Starts to run commands; calling it again does nothing.

        Raises:
            ShutdownInProgress: the queue was shut down.
            WrongLoop: it belongs to another event loop.
        """
        await super().start()
        _open_managers.add(self)

    async def shutdown(self) -> None:
        """Takes no new work from now on; what was taken still runs. Calling it again does nothing.

        Raises:
            WrongLoop: it belongs to another event loop.
        """
        self._intake.bind()
        if not self._intake.refusing:
            self._intake.refuse()
            self._keeper.shut()
            engine = self._engine
            pending = engine.live - engine.total(State.RUNNING)
            self._bus.emit(events.ShutdownStarted, pending, engine.total(State.RUNNING))

    def is_shutting_down(self) -> bool:
        """Whether new work is refused."""
        return self._intake.refusing

    async def drain(self, timeout: Duration | None = None) -> DrainReport:
        """Waits until no command is ready, running, delayed or backing off.

        Args:
            timeout: limit in seconds, zero or more; `None` (default) for none.

        Returns:
            What ended meanwhile.

        Raises:
            NotStarted: the queue was not started, so nothing would ever end.
            DrainTimeout: work was left; its `report` says what, by lane and state. The queue runs on.
            ConfigError: a bad timeout.
        """
        limit = None if timeout is None else to_seconds("timeout", timeout, zero=True)
        if not self._dispatcher.is_open and self._closing is None:
            raise NotStarted("drain() waits for running work: start() the queue first")
        self._intake.bind()
        began, before = self._clock.now(), self._ended_counts()
        until = None if limit is None else began + limit
        drained = await self._wait_idle(limit)
        while not drained and (until is None or self._clock.now() < until):  # more came in the very turn of its end
            drained = await self._wait_idle(None if until is None else until - self._clock.now())
        after = self._ended_counts()
        ended = {state: after[state] - before[state] for state in after}
        report = DrainReport(self._clock.now() - began, ended, self._left())
        if not drained:
            told = f", and {ends} ends are not stored yet" if (ends := self._dispatcher.idle.unsettled) else ""
            raise DrainTimeout(f"{report.total_left} commands are left{told} after {limit} s of draining", report)
        if self._intake.refusing and not self._complete:
            self._complete = True
            self._bus.emit(events.ShutdownComplete)
        return report

    async def _wait_idle(self, limit: float | None) -> bool:
        """Tells whether no command lives, after at most `limit` seconds."""
        waiting = asyncio.ensure_future(self._dispatcher.idle.wait())
        over = asyncio.get_running_loop().create_future()
        timer = None if limit is None else self._clock.call_at(self._clock.now() + limit, over.cancel)
        try:
            await asyncio.wait([waiting, over], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            over.cancel()
            if timer is not None:
                timer.cancel()
        return self._dispatcher.idle.is_now

    def _ended_counts(self) -> dict[str, int]:
        return {str(state): self._engine.total(state) for state in State if state in FINAL}

    def _left(self) -> dict[str, dict[str, int]]:
        left = {
            name: {str(state): count for state, count in lane.counts.items() if count and state not in FINAL}
            for name, lane in self._engine.lanes.items()
        }
        return {name: states for name, states in left.items() if states}

    async def close(self) -> None:
        """Ends everything at once: cancels what waits and what runs, hands out the last events, closes the sinks.

        A command that ignores its cancellation for `close_timeout` seconds is given up: it counts as cancelled, and
        its task or thread is left behind. Calling it again waits for the first call.

        Raises:
            WrongLoop: it belongs to another event loop.
        """
        self._intake.bind()
        if self._closing is None:
            # A task of its own: cancelling whoever closes must not leave the queue half closed.
            self._closing = asyncio.get_running_loop().create_task(self._close(), context=contextvars.Context())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self.shutdown()
        await self._keeper.begin_close()
        for handle in (live := list(self._dispatcher.directory)):
            handle.cancel()
        abandoned = await self._end_running()
        self._dispatcher.close()
        _open_managers.discard(self)
        try:
            self._intake.threads.close()
        finally:  # the last events go out whatever the threads and the storage do
            try:
                await self._keeper.close()
            finally:
                self._bus.emit(events.QueueClosed, len(live) - abandoned, abandoned)
                await self._bus.close()
                self._closed = True

    async def _end_running(self) -> int:
        """Cancels what runs, again a few times, and gives up what is left; returns how many that was."""
        for _ in range(_CLOSE_ROUNDS):
            if not self._engine.live or await self._wait_idle(self._close_timeout / _CLOSE_ROUNDS):
                return 0
            for handle in list(self._dispatcher.directory):
                handle.cancel()
        self._intake.threads.abandon()
        left = list(self._dispatcher.directory)
        for handle in left:
            self._dispatcher.stops.abandon(handle)
        await sleep(self._clock, 0)
        return len(left)

    async def __aenter__(self) -> QueueManager:
        await self.start()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            await self.stop()
        except DrainTimeout:
            if error is None:
                raise

    async def stop(self) -> DrainReport | None:
        """Shuts down, drains for at most `drain_timeout` seconds, and closes.

        Returns:
            The drain's report; `None` when the queue was closed, or was being closed, before.

        Raises:
            DrainTimeout: work was left and is now cancelled.
            NotStarted: it was never started; it is closed all the same.
            WrongLoop: it belongs to another event loop.
        """
        if self._closing is not None:
            await self.close()
            return None
        await self.shutdown()
        try:
            return await self.drain(self.drain_timeout)
        finally:
            await self.close()


def open_managers(loop: asyncio.AbstractEventLoop) -> Iterator[QueueManager]:
    """The started, unclosed managers of a loop."""
    return (manager for manager in list(_open_managers) if manager._dispatcher.loop is loop)
