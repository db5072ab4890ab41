"""The health monitor: samples a queue's counts and raises an alert when one crosses its threshold."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import logging
from typing import TYPE_CHECKING, Protocol

from lane_obs import events
from lane_obs.clock import sleep
from lane_obs.config import Duration, check_methods, to_count, to_seconds
from lane_obs.errors import ConfigError, ShutdownInProgress

if TYPE_CHECKING:
    from lane_obs.bus import Bus
    from lane_obs.clock import Clock


_logger = logging.getLogger("lane_obs.monitor")


class Counts(Protocol):
    """What the monitor reads of a queue's statistics."""

    @property
    def total_pending(self) -> int:
        """Commands that wait."""
        ...

    @property
    def total_active(self) -> int:
        """Commands that run."""
        ...


class Monitored(Protocol):
    """What can be monitored: a `CommandQueue`."""

    @property
    def bus(self) -> Bus:
        """Where alerts go."""
        ...

    @property
    def clock(self) -> Clock:
        """What time it is."""
        ...

    def stats(self) -> Counts:
        """The counts now."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MonitorConfig:
    """How often to look, and what is too much.

    Args:
        interval: seconds between samples, above zero; default 10.
        pending_warning_threshold: waiting commands above which an alert fires; default 100.
        active_warning_threshold: running commands above which an alert fires; default 50.

    Raises:
        ConfigError: a value that is not allowed.
    """

    interval: Duration = 10.0
    pending_warning_threshold: int = 100
    active_warning_threshold: int = 50

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", to_seconds("interval", self.interval))
        to_count("pending_warning_threshold", self.pending_warning_threshold)
        to_count("active_warning_threshold", self.active_warning_threshold)


class QueueMonitor:
    """Samples a queue in the background until the queue closes. Each crossing of a threshold is one event, up and down.

    Args:
        queue: the queue.
        config: thresholds; default `MonitorConfig()`.

    Raises:
        ConfigError: something else than a queue or its configuration was given.
    """

    def __init__(self, queue: Monitored, config: MonitorConfig | None = None) -> None:
        check_methods("queue", queue, ("stats", "bus.emit", "clock.now"), "give a CommandQueue or QueueManager")
        if config is not None and not isinstance(config, MonitorConfig):
            raise ConfigError("config", config, "give a MonitorConfig")
        self._queue = queue
        self._config = MonitorConfig() if config is None else config
        self._firing: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def with_config(cls, queue: Monitored, config: MonitorConfig) -> QueueMonitor:
        """A monitor with these thresholds."""
        return cls(queue, config)

    async def start(self) -> None:
        """Starts to sample; calling it again does nothing.

        Raises:
            ShutdownInProgress: the queue is closed, or about to be.
        """
        if self._queue.bus.closed:
            raise ShutdownInProgress("the queue is closed; nothing is left to watch")
        if self._task is None or self._task.done():
            self._queue.bus.closers.add(self._end)
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._watch(), context=contextvars.Context())

    async def stop(self) -> None:
        """Stops sampling."""
        self._queue.bus.closers.discard(self._end)
        task = self._task
        if task is not None:
            self._end()
            await asyncio.wait([task])

    def _end(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def stats(self) -> Counts:
        """The queue's statistics now."""
        return self._queue.stats()

    async def _watch(self) -> None:
        interval = to_seconds("interval", self._config.interval)
        while True:
            try:
                self.sample()
            except Exception:  # one look that fails must not end the watch
                _logger.exception("the monitor failed to look at its queue; it goes on")
            await sleep(self._queue.clock, interval)

    def sample(self) -> None:
        """Looks once."""
        stats, config = self._queue.stats(), self._config
        self._compare("pending", stats.total_pending, config.pending_warning_threshold)
        self._compare("active", stats.total_active, config.active_warning_threshold)

    def _compare(self, rule: str, value: int, threshold: int) -> None:
        crossed = value > threshold
        if crossed is (rule in self._firing):
            return
        if crossed:
            self._firing.add(rule)
        else:
            self._firing.discard(rule)
        self._queue.bus.emit(events.AlertFiring if crossed else events.AlertResolved, rule, value, threshold)
