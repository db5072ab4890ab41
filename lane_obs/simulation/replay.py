"""Sends a recorded trace through a real queue, each command at its time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from lane_obs.clock import NS, sleep_until
from lane_obs.config import check_clock
from lane_obs.errors import InternalError, LaneFullError
from lane_obs.runtime.manager import QueueManager
from lane_obs.simulation.fit import fit
from lane_obs.simulation.record import CommandRecord, Recorder, Tally
from lane_obs.simulation.work import ReplayCommand, now_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lane_obs.bus import AnySink, SinkStats
    from lane_obs.clock import Clock
    from lane_obs.config import QueueConfig
    from lane_obs.simulation.trace import Trace, TraceCommand


class ReplayResult(msgspec.Struct, frozen=True):
    """What became of a trace.

    Attributes:
        records: one for each command that was submitted or rejected, in the trace's order.
        lanes: counts by lane.
        total: counts of all lanes together.
        not_submitted: commands that were left when the replay was stopped.
    """

    records: tuple[CommandRecord, ...]
    lanes: Mapping[str, Tally]
    total: Tally
    not_submitted: int


class Replay:
    """One run of a trace. All commands come from one sender: where a full lane makes it wait, the rest comes later.

    Args:
        trace: what to send.
        config: the lanes to send it through.
        clock: its time; drive a `VirtualClock` yourself: `await clock.run(replay.run())`.
        seed: seed of the retries' jitter.
        sinks: further sinks for the queue's events.

    Raises:
        TraceError: a command does not fit the lanes; see `fit`.
        ConfigError: `clock`, `seed` or a sink is none.
    """

    def __init__(
        self, trace: Trace, config: QueueConfig, clock: Clock, *, seed: int = 0, sinks: Iterable[AnySink] = ()
    ) -> None:
        check_clock(clock)
        self.trace = fit(trace, config)
        self.config = config
        self._clock = clock
        self.recorder = Recorder(now_ns(clock), config.lanes)
        """Its counts may be read at any time."""
        self._manager = QueueManager(
            config.lanes,
            max_concurrency=config.max_concurrency,
            rate_limit=config.rate_limit,
            sinks=[self.recorder, *sinks],
            clock=clock,
            seed=seed,
        )
        self._feeder: asyncio.Future[None] | None = None
        self._closing: asyncio.Future[None] | None = None
        self._drained = False
        self.stopped = False
        """Whether it was told to end early."""

    @property
    def elapsed_seconds(self) -> float:
        """Seconds of the trace's time since its start."""
        return (now_ns(self._clock) - self.recorder.start_ns) / NS

    async def run(self) -> ReplayResult:
        """Sends every command at its time, and returns once all have ended.

        Raises:
            InternalError: what was recorded is not whole: a bug of ours.
        """
        try:
            await self.play()
        finally:
            await self.close()
        return self.result()

    async def play(self) -> None:
        """The first part of `run`: returns once all have ended; the queue and its sinks are still there."""
        self.recorder.start_ns = now_ns(self._clock)
        await self._manager.start()
        await self._send_all()
        await self._manager.drain()
        self._drained = True

    async def close(self) -> None:
        """The last part of `run`: closes the queue and its sinks.

        Sinks that work in a thread keep it waiting for a moment. That is no virtual time: await it directly, not
        within `VirtualClock.run`.
        """
        if self._closing is not None:
            await self._closing
        elif self._drained:
            await self._manager.stop()
        elif self._manager.is_started():
            await self._manager.close()

    def result(self) -> ReplayResult:
        """What became of the trace so far.

        Raises:
            InternalError: what was recorded is not whole: a bug of ours.
        """
        self._manager.bus.flush()
        if self.sink_stats()[0].errors:  # of the recorder; what other sinks fail at is counted and harms nothing
            raise InternalError("the recorder of the replay failed; the log says why")
        records = self.recorder.records(self.trace.commands)
        left = len(self.trace.commands) - len(records)
        return ReplayResult(records, self.recorder.lanes, self.recorder.total, left)

    def sink_stats(self) -> tuple[SinkStats, ...]:
        """What became of the events, by sink: the recorder, then those given."""
        return self._manager.bus.stats()

    async def _send_all(self) -> None:
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
        for command in self.trace.commands:
            due = (self.recorder.start_ns + command.at_ns) / NS
            # Commands of one instant are sent in one go: all are there before the first of them starts.
            if self._clock.now() < due:
                await sleep_until(self._clock, due)
            await self._send(command)

    async def _send(self, command: TraceCommand) -> None:
        work = ReplayCommand(command, self._clock)
        try:
            await self._manager.submit(
                command.lane,
                work,
                id=str(command.line),
                deadline=command.deadline_seconds,
                cost=command.cost,
                partition_key=command.partition_key,
            )
        except LaneFullError:
            self.recorder.reject(command, self._clock.now())

    def stop(self) -> None:
        """Sends nothing more; what was sent runs to its end. Calling it again does nothing."""
        self.stopped = True
        if self._feeder is not None:
            self._feeder.cancel()

    def cancel(self) -> None:
        """Ends everything at once: what waits or runs is cancelled."""
        self.stop()
        if self._closing is None and self._feeder is not None:
            self._closing = asyncio.ensure_future(self._manager.close())


async def replay(trace: Trace, config: QueueConfig, clock: Clock, *, seed: int = 0) -> ReplayResult:
    """Sends a trace through the lanes of `config` and returns what became of it; see `Replay`.

    Raises:
        TraceError: a command does not fit the lanes; nothing was run.
    """
    return await Replay(trace, config, clock, seed=seed).run()
