"""Plays the story on a real queue, each command at its time, under the monitor."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lane_obs.clock import sleep_until
from lane_obs.config import check_clock, to_seconds
from lane_obs.demo.chapter import chapter_at
from lane_obs.demo.chronicle import Chronicle
from lane_obs.demo.plan import HUNG, rounds
from lane_obs.demo.work import DemoCommand, parse_on_the_loop
from lane_obs.errors import LaneFullError
from lane_obs.monitor import QueueMonitor
from lane_obs.runtime.manager import QueueManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lane_obs.bus import AnySink, SinkStats
    from lane_obs.clock import Clock
    from lane_obs.config import QueueConfig
    from lane_obs.demo.chapter import Chapter
    from lane_obs.demo.plan import Step
    from lane_obs.monitor import MonitorConfig
    from lane_obs.runtime.handle import CommandHandle


class Demo:
    """The story, played once.

    Args:
        config: the lanes; they must have those of the story.
        monitor: how they are watched.
        clock: its time; drive a `VirtualClock` yourself: `await clock.run(demo.play())`.
        seconds: how long it takes.
        seed: what it is drawn from.
        sinks: further sinks for the queue's events.
        block: blocks the event loop for so many real seconds.
        speed: of the clock, by which those are divided.

    Raises:
        ConfigError: `clock`, `seconds`, `seed` or a sink is none.
    """

    def __init__(
        self,
        config: QueueConfig,
        monitor: MonitorConfig,
        clock: Clock,
        *,
        seconds: float = 60.0,
        seed: int = 1,
        sinks: Iterable[AnySink] = (),
        block: Callable[[float], None] = parse_on_the_loop,
        speed: float = 1.0,
    ) -> None:
        check_clock(clock)
        self.seconds = to_seconds("seconds", seconds)
        self.config = config
        self._clock = clock
        self.seed = seed
        self._block = block
        self._speed = speed
        self.chronicle = Chronicle(config.lanes)
        """What happened; may be read at any time."""
        self.manager = QueueManager(
            config.lanes,
            max_concurrency=config.max_concurrency,
            rate_limit=config.rate_limit,
            sinks=[self.chronicle, *sinks],
            clock=clock,
            seed=seed,
        )
        self.monitor = QueueMonitor(self.manager, monitor)
        self.specs = monitor.specs
        """The definitions of its alerts."""
        self._groups: dict[str, list[CommandHandle[None]]] = {}
        self._start = clock.now()
        self._feeder: asyncio.Future[None] | None = None
        self._closing: asyncio.Future[None] | None = None
        self._drained = False
        self.stopped = False
        """Whether it was told to end early."""

    @property
    def elapsed_seconds(self) -> float:
        """Seconds of the story's time since its start."""
        return self._clock.now() - self._start

    @property
    def chapter(self) -> Chapter | None:
        """What is told now; `None` before the start."""
        told = self.chronicle.round
        if told is None:
            return None
        return chapter_at(told.chapters, max(0.0, self.chronicle.in_round(self._clock.now())))

    async def play(self) -> None:
        """Tells the whole story, and returns once all commands have ended; queue and sinks are still there."""
        await self.manager.start()
        self._start = self._clock.now()
        await self.monitor.start()
        await self._tell()
        await self.manager.drain()
        self._drained = True
        self.manager.bus.flush()

    async def close(self) -> None:
        """Closes the queue and its sinks. Sinks that work in a thread keep it waiting for a moment."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self.monitor.stop()
        if self._drained:
            await self.manager.stop()
        else:
            await self.manager.close()

    def stop(self) -> None:
        """Submits nothing more and cancels what hangs; what was submitted still runs."""
        self.stopped = True
        self._cancel_group(HUNG)
        if self._feeder is not None:
            self._feeder.cancel()

    def cancel(self) -> None:
        """Cancels all that was submitted, after `stop`."""
        if self.manager.is_started() and self._closing is None:
            self._closing = asyncio.ensure_future(self._close())

    def sink_stats(self) -> tuple[SinkStats, ...]:
        """What became of the events, by sink: the chronicle, then those given."""
        return self.manager.bus.stats()

    async def _tell(self) -> None:
        if self.stopped:
            return
        # A task of its own, so that it can be stopped while it waits and the rest goes on.
        self._feeder = asyncio.ensure_future(self._feed())
        try:
            await asyncio.wait([self._feeder])
        finally:
            self._feeder.cancel()
        if not self._feeder.cancelled():
            self._feeder.result()

    async def _feed(self) -> None:
        began = self._start
        for told in rounds(self.seconds, self.seed):
            self.manager.bus.flush()
            self.chronicle.begin(told, self._start, began)
            for step in told.steps:
                await sleep_until(self._clock, began + step.at)
                self._submit(step)
            began += told.seconds
            await sleep_until(self._clock, began)

    def _submit(self, step: Step) -> None:
        command = DemoCommand(step, self._clock, block=self._hold_up, cancel=self._cancel_group)
        self.chronicle.expect(step)
        try:
            handle = self.manager.submit_nowait(
                step.lane, command, id=step.id, deadline=step.deadline, cost=step.cost, partition_key=step.agent
            )
        except LaneFullError:
            self.chronicle.forget(step)
            return
        if step.group:
            self._groups.setdefault(step.group, []).append(handle)

    def _hold_up(self, seconds: float) -> None:
        self._block(seconds / self._speed)

    def _cancel_group(self, group: str) -> None:
        for handle in self._groups.pop(group, ()):
            handle.cancel()
