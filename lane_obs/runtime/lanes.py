"""The set of a queue's lanes, which may change while it works: lanes are added, changed and removed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from lane_obs import events
from lane_obs.config import LaneConfig, check_keys, check_lanes, check_name, check_shared, to_seconds
from lane_obs.core.state import FINAL
from lane_obs.errors import ConfigError, LaneNotEmpty, NotStarted, ShutdownInProgress
from lane_obs.runtime.stop import CANCELLED

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from lane_obs.clock import Clock
    from lane_obs.config import Duration, RateLimit
    from lane_obs.core.lane import Lane
    from lane_obs.runtime.brokered.membership import Membership
    from lane_obs.runtime.dispatcher import Dispatcher
    from lane_obs.runtime.durability import Durability
    from lane_obs.runtime.intake import Intake

_FIELDS = tuple(field.name for field in dataclasses.fields(LaneConfig))
_DEFAULT = LaneConfig()


class Lanes:
    """Changes the set of one queue's lanes. To add or remove one costs the same, however many there are.

    Args:
        dispatcher, intake, keeper, clock: of the queue, whose first lanes are there and checked.
    """

    def __init__(self, dispatcher: Dispatcher, intake: Intake, keeper: Durability | Membership, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._engine = dispatcher.engine
        self._bus = dispatcher.bus
        self._intake = intake
        self._keeper = keeper
        self._clock = clock
        # What `check_lanes` adds up, kept up to date, so that one lane more needs no look at all the others.
        self._reserved = 0
        self._without = 0
        for lane in self._engine.lanes.values():
            self._count(lane.config, 1)
        self._removers: Counter[Lane] = Counter()

    def _count(self, config: LaneConfig, by: int) -> None:
        self._reserved += by * config.min_concurrency
        self._without += by * (config.min_concurrency == 0)

    def _check(self, name: str, config: LaneConfig) -> None:
        """Checks the whole set with this lane in it; those that do not fit together are named.

        Raises:
            ConfigError: they are not allowed.
        """
        limit = self._engine.max_concurrency
        if limit is not None and (self._reserved > limit or (self._without and self._reserved == limit)):
            check_lanes({other: lane.config for other, lane in self._engine.lanes.items()} | {name: config}, limit)

    def _replace(self, name: str, before: LaneConfig | None, config: LaneConfig) -> None:
        """Counts a new configuration in the place of another, if the whole set is allowed with it.

        Raises:
            ConfigError: it is not; nothing is changed.
        """
        changes = [(config, 1)] if before is None else [(before, -1), (config, 1)]
        for counted, by in changes:
            self._count(counted, by)
        try:
            self._check(name, config)
        except ConfigError:
            for counted, by in changes:
                self._count(counted, -by)
            raise

    def add(self, name: str, config: LaneConfig) -> None:
        """Adds a lane; see `CommandQueue.add_lane`.

        Raises:
            ConfigError: a value that is not allowed.
            ShutdownInProgress: the queue shuts down.
        """
        if self._dispatcher.loop is not None:
            self._dispatcher.check_loop()
        if self._intake.refusing:
            raise ShutdownInProgress("the queue is shutting down and takes no new lane")
        check_name("lane name", name)
        if name in self._engine.lanes:
            raise ConfigError("lane name", name, "give one that no lane has; set_lane changes a lane that is there")
        if not isinstance(config, LaneConfig):
            raise ConfigError(f"lanes.{name}", config, "give a LaneConfig")
        self._keeper.check_lane(name, config)
        self._check_shared(config, ())
        self._replace(name, None, config)
        lane = self._engine.add_lane(name, self._keeper.here(name, config), self._clock.now())
        self._keeper.adopt(lane)
        self._bus.emit(events.LaneAdded, name, 0, _differing(config, _DEFAULT))
        self._keeper.bring_back(lane)
        self._dispatcher.wake()

    def change(self, name: str, config: LaneConfig | None, changes: dict[str, Any]) -> LaneConfig:
        """Changes a lane's policies; see `CommandQueue.set_lane`.

        Raises:
            ConfigError: a value that is not allowed.
        """
        home = self._engine.lane(name)
        self._intake.bind()
        check_keys("", changes, _FIELDS, "field")
        if config is not None and not isinstance(config, LaneConfig):
            raise ConfigError("config", config, "give a LaneConfig")
        before = self._keeper.policy(home)
        wanted = dataclasses.replace(config or before, **changes)
        _check_fixed(before, wanted)
        self._check_shared(wanted, before.rate_limits)
        self._replace(name, before, wanted)
        self._engine.configure(home, self._keeper.here(name, wanted), self._clock.now())
        self._bus.emit(events.LaneChanged, name, home.pending, _differing(wanted, before))
        self._dispatcher.wake()
        return wanted

    def _check_shared(self, config: LaneConfig, before: Sequence[RateLimit]) -> None:
        new = [limit for limit in config.rate_limits if limit not in before]
        if new:
            check_shared([*self._engine.gates.shared, *new])

    # --- remove -------------------------------------------------------------------------------------------------

    async def remove(self, name: str, timeout: Duration | None, *, cancel: bool) -> None:
        """Removes a lane; see `CommandQueue.remove_lane`.

        Raises:
            NotStarted: what is in it would never end.
            LaneNotEmpty: the time is over.
        """
        home = self._engine.lane(name)
        self._intake.bind()
        ends = None if timeout is None else self._clock.now() + to_seconds("timeout", timeout, zero=True)
        if not (cancel or timeout is not None or self._dispatcher.is_open or self._is_empty(home)):
            raise NotStarted("remove_lane() waits for work that never runs: start() the queue first, or cancel=True")
        self._removers[home] += 1
        home.is_open = False
        home.set_quick()
        try:
            await self._until_empty(home, ends, cancel=cancel)
            if self._engine.lanes.get(name) is home:  # else another call was quicker
                self._let_go(home)
        finally:
            self._removers[home] -= 1
            if not self._removers[home]:
                del self._removers[home]
                home.is_open = self._engine.lanes.get(name) is home
                home.set_quick()

    async def _until_empty(self, home: Lane, ends: float | None, *, cancel: bool) -> None:
        if cancel:
            self._intake.room.refuse(home)
            self._keeper.refuse_lane(home)
        while True:
            if cancel:
                self._cancel(home)
            if self._is_empty(home) or self._engine.lanes.get(home.name) is not home:
                return
            if ends is not None and self._clock.now() >= ends:
                left = {str(state): count for state, count in home.counts.items() if count and state not in FINAL}
                raise LaneNotEmpty(home.name, left)
            await self._change(home, ends)

    def _is_empty(self, home: Lane) -> bool:
        return not (home.live or self._intake.room.is_used(home) or self._keeper.may_fill(home))

    def _cancel(self, home: Lane) -> None:
        """Cancels what is in a lane; what was told so before and still runs is left alone."""
        while (oldest := home.oldest()) is not None:
            self._dispatcher.stops.cancel(oldest)  # type: ignore[arg-type]  # every record it has is a handle
        running: list[Any] = list(home.running)
        waiting = [handle for handle in self._dispatcher.directory if handle.home is home] if home.pending else []
        for handle in [*waiting, *running]:
            if handle._stop != CANCELLED:
                self._dispatcher.stops.cancel(handle)

    async def _change(self, home: Lane, ends: float | None) -> None:
        """Returns when something has changed in a lane, or when the time is over."""
        idle = self._dispatcher.idle
        future = idle.watch(home)
        timer = None if ends is None else self._clock.call_at(ends, _wake, future)
        try:
            await future
        finally:
            idle.unwatch(home, future)
            if timer is not None:
                timer.cancel()

    def _let_go(self, home: Lane) -> None:
        self._count(home.config, -1)
        self._intake.pressure.forget(home)
        self._engine.remove_lane(home, self._clock.now())
        self._keeper.forget_lane(home.name)
        self._intake.room.forget(home)
        self._bus.emit(events.LaneRemoved, home.name, 0, home.ended())
        self._bus.flush()  # nobody who begins to count from now on is told of a lane that is gone
        self._dispatcher.idle.tell(home)
        self._dispatcher.wake()  # others may use what it had reserved


def _differing(config: LaneConfig, other: LaneConfig) -> dict[str, str]:
    return {name: str(getattr(config, name)) for name in _FIELDS if getattr(config, name) != getattr(other, name)}


def _check_fixed(before: LaneConfig, wanted: LaneConfig) -> None:
    """Refuses changes of what a lane's waiting commands are ordered by.

    Raises:
        ConfigError: there is one.
    """
    for field in ("boost", "partitions"):
        if getattr(before, field) != getattr(wanted, field):
            raise ConfigError(field, getattr(wanted, field), "it is fixed for the lane's life; add another lane")


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
