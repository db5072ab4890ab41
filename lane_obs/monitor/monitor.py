"""The health monitor: looks at a queue at an interval, follows its alerts, and has people told."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from lane_obs import events
from lane_obs.clock import sleep, sleep_until
from lane_obs.config import check_keys, check_methods, to_seconds
from lane_obs.core.fact import traced
from lane_obs.errors import ConfigError, ShutdownInProgress
from lane_obs.monitor.alert import Alert, AlertState
from lane_obs.monitor.config import MonitorConfig
from lane_obs.monitor.history import History
from lane_obs.monitor.outbox import Outbox
from lane_obs.monitor.silence import Silence
from lane_obs.monitor.source import Source
from lane_obs.monitor.tip import trace_of
from lane_obs.monitor.tracker import EVENTS, Live, Tracker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lane_obs.alerts.expression import Per
    from lane_obs.config import Duration
    from lane_obs.monitor.delivery import Delivery
    from lane_obs.monitor.monitored import Counts, Monitored

_logger = logging.getLogger("lane_obs.monitor")

_SLICE_SECONDS: Final = 0.005
"""After this long a look lets the event loop go on with other work."""


class QueueMonitor:
    """Watches a queue in the background until the queue closes. Each change of an alert is one event.

    Args:
        queue: the queue.
        config: what to watch; default `MonitorConfig()`.

    Raises:
        ConfigError: something else than a queue or its configuration was given, or a rule is about a lane that the
            queue has not.
    """

    def __init__(self, queue: Monitored, config: MonitorConfig | None = None) -> None:
        check_methods("queue", queue, ("stats", "bus.emit", "clock.now"), "give a CommandQueue or QueueManager")
        if config is not None and not isinstance(config, MonitorConfig):
            raise ConfigError("config", config, "give a MonitorConfig")
        self._queue = queue
        self._config = MonitorConfig() if config is None else config
        specs, lanes = self._config.specs, tuple(queue.lanes)
        for spec in specs:
            check_keys("lanes.", dict.fromkeys(spec.lanes), lanes, "lane")
        self._trackers = [Tracker(spec, lanes) for spec in specs]
        wanted = [(signal.expression, spec.per) for spec in specs for signal in spec.signals]
        self._source = Source(queue, [leaf for expression, _ in wanted for leaf, _ in expression.parts()])
        self._history = History(wanted, self._source.read, self._source.read_removed)
        self._silences = list(self._config.silences)
        self._deliveries = _deliveries(self._config, queue)
        self._outbox = Outbox(self._deliveries, self._shown)
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    @classmethod
    def with_config(cls, queue: Monitored, config: MonitorConfig) -> QueueMonitor:
        """A monitor of this configuration."""
        return cls(queue, config)

    # --- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Starts to look; calling it again does nothing.

        Raises:
            ShutdownInProgress: the queue is closed, or about to be; or the monitor was stopped and has notifiers,
                which are closed since.
        """
        bus = self._queue.bus
        if bus.closed:
            raise ShutdownInProgress("the queue is closed; nothing is left to watch")
        if self._stopped and self._deliveries:
            raise ShutdownInProgress("the monitor was stopped and its notifiers are closed; make a new one")
        if self._task is None or self._task.done():
            bus.closers.add(self._end)
            notifiers = tuple(delivery.name for delivery in self._deliveries)
            bus.emit(events.MonitorStarted, self._names("lane"), self._names("queue"), notifiers)
            for delivery in self._deliveries:
                delivery.start()
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._watch(), context=contextvars.Context())
            looked = asyncio.Event()
            loop.call_soon(looked.set)
            await looked.wait()  # rates count from the first look: what is submitted from now on comes after it

    def _names(self, per: Per) -> tuple[str, ...]:
        """The names of the alerts that each lane, or the queue, has."""
        return tuple(dict.fromkeys(tracker.spec.alert for tracker in self._trackers if tracker.spec.per == per))

    async def stop(self) -> None:
        """Stops looking, and has sent what there is to tell. Alerts stay as they are."""
        self._queue.bus.closers.discard(self._end)
        await self._end()

    async def _end(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            self._stopped = True
            task.cancel()
            await asyncio.wait([task])
            await asyncio.gather(*(delivery.close() for delivery in self._deliveries))

    async def stats(self) -> Counts:
        """The queue's statistics now."""
        return self._queue.stats()

    # --- silence and show ---------------------------------------------------------------------------------------

    def silence(
        self,
        seconds: Duration | None = None,
        *,
        until: datetime | None = None,
        rule: str | None = None,
        lane: str | None = None,
    ) -> Silence:
        """Holds back notifications.

        Args:
            seconds: for how long, or:
            until: until when, an aware datetime.
            rule: name of a rule or alert; default all.
            lane: name of a lane; default all, the queue's own alerts included.

        Returns:
            The silence; `unsilence` ends it early.

        Raises:
            ConfigError: not exactly one of `seconds` and `until`, or a value that is not allowed.
        """
        if (seconds is None) is (until is None):
            raise ConfigError("seconds", seconds, "give either seconds or until")
        if seconds is not None:
            wall = self._queue.clock.wall() + to_seconds("seconds", seconds)
            until = datetime.fromtimestamp(wall, UTC)
        if lane is not None:
            check_keys("lane.", {lane: lane}, tuple(self._queue.lanes), "lane")
        if rule is not None:
            specs = [tracker.spec for tracker in self._trackers]
            names = dict.fromkeys([*(spec.rule for spec in specs), *(spec.alert for spec in specs)])
            check_keys("rule.", {rule: rule}, tuple(names), "rule")
        made = Silence(until=until, rule=rule, lane=lane)  # type: ignore[arg-type]
        self._silences.append(made)
        return made

    def unsilence(self, silence: Silence) -> None:
        """Ends a silence; one that has ended already is no error."""
        self._silences = [other for other in self._silences if other is not silence]

    @property
    def silences(self) -> list[Silence]:
        """The silences that have not expired."""
        wall = self._queue.clock.wall()
        self._silences = [silence for silence in self._silences if silence.until.timestamp() > wall]
        return list(self._silences)

    @property
    def alerts(self) -> list[Alert]:
        """The alerts that are pending or firing, those that fire first, critical ones first."""
        live = sorted(
            self._live(),
            key=lambda one: (one.state is not AlertState.FIRING, one.spec.severity != "critical", one.since),
        )
        return [self._shown(alert) for alert in live]

    def _live(self) -> list[Live]:
        return [alert for tracker in self._trackers for alert in tracker.live.values()]

    def _shown(self, alert: Live) -> Alert:
        now, wall = self._queue.clock.now(), self._queue.clock.wall()
        return alert.shown(self._config.queue, now, wall - now, silenced=self._is_silenced(alert))

    def _is_silenced(self, alert: Live) -> bool:
        wall = self._queue.clock.wall()
        return any(silence.covers(alert, wall) for silence in self._silences)

    # --- look ---------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        clock, interval = self._queue.clock, float(self._config.interval)  # type: ignore[arg-type]
        due = clock.now()
        while True:
            try:
                for _ in self._look(due):
                    await sleep(clock, 0.0)
            except Exception:  # one look that fails must not end the watch
                _logger.exception("the monitor failed to look at its queue; it goes on")
            due = max(due + interval, clock.now())
            await sleep_until(clock, due)

    def sample(self) -> None:
        """Looks once, in one go."""
        for _ in self._look(self._queue.clock.now()):
            pass

    def _look(self, now: float) -> Iterator[None]:
        """Looks once; yields wherever it has gone on for long enough.

        Args:
            now: when the look was due. States go by this: were each look's lateness counted, an alert that is to last
                for two intervals would often take three.
        """
        clock = self._queue.clock
        since = clock.now()
        spent = 0.0
        self._queue.bus.flush()  # what has happened counts
        changed = self._follow_lanes()
        for alert in changed:
            self._tell(alert, now)
        self._history.take(since, self._source.layout)
        worked_out: dict[str, Sequence[float]] = {}
        for tracker in self._trackers:
            if (passed := clock.now() - since) > _SLICE_SECONDS:
                spent += passed
                yield
                since = clock.now()
            for signal in tracker.spec.signals:
                if signal.record not in worked_out:
                    worked_out[signal.record] = signal.expression.values(self._history, tracker.spec.per)
            columns = [worked_out[signal.record] for signal in tracker.spec.signals]
            for alert in tracker.look(columns, now):
                self._tell(alert, now)
                changed.append(alert)
        self._outbox.take(changed, [alert for alert in self._live() if alert.state is AlertState.FIRING], now)
        self._source.sink.tick_seconds.observe(spent + clock.now() - since)

    def _follow_lanes(self) -> list[Live]:
        """Looks which lanes there are; returns the alerts of those that were removed."""
        before = self._source.layout
        if not self._source.refresh():
            return []
        places = {lane: place for place, lane in enumerate(self._source.layout)}
        moved = {place: places[lane] for place, lane in enumerate(before) if lane in places}
        names = self._source.names
        return [alert for tracker in self._trackers for alert in tracker.relay(names, moved)]

    def _tell(self, alert: Live, now: float) -> None:
        """Emits the event of a change."""
        spec, trace = alert.spec, None
        if alert.state in {AlertState.PENDING, AlertState.FIRING} and alert.lane is not None:
            trace = trace_of(spec.rule, alert.lane, self._source.columns, self._source.tally)
            alert.trace_id = None if trace is None else trace.trace_hex
        self._queue.bus.emit(
            traced, None, EVENTS[alert.state], trace, spec.rule, alert.value, alert.threshold, spec.alert,
            str(spec.severity), alert.lane, now - alert.since, self._is_silenced(alert), alert.reason,
        )  # fmt: skip


def _deliveries(config: MonitorConfig, queue: Monitored) -> list[Delivery]:
    if not config.notifiers:
        return []
    from lane_obs.monitor.delivery import Delivery

    return [Delivery(notifier, queue.clock, queue.bus) for notifier in config.notifiers]
