"""Steers lanes: pause and resume, change, add and remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lane_obs import events
from lane_obs.config import LaneConfig

if TYPE_CHECKING:
    from lane_obs.clock import Clock
    from lane_obs.config import Duration
    from lane_obs.core.engine import Engine
    from lane_obs.runtime.brokered.membership import Membership
    from lane_obs.runtime.dispatcher import Dispatcher
    from lane_obs.runtime.durability import Durability
    from lane_obs.runtime.intake import Intake
    from lane_obs.runtime.lanes import Lanes

_DEFAULT = LaneConfig()


class Steering:
    """Steers the lanes of a queue. Base of `CommandQueue`, which documents the whole."""

    _clock: Clock
    _engine: Engine
    _intake: Intake
    _dispatcher: Dispatcher
    _lanes: Lanes
    _keeper: Durability | Membership
    _membership: Membership | None

    @property
    def lanes(self) -> dict[str, LaneConfig]:
        """The lanes' configurations, by name."""
        return {name: self._keeper.policy(lane) for name, lane in self._engine.lanes.copy().items()}

    def pause(self, lane: str) -> None:
        """Starts no more commands of a lane until `resume`; running ones go on.

        Raises:
            UnknownLane: no such lane.
        """
        self._set_paused(lane, paused=True)

    def resume(self, lane: str) -> None:
        """Ends a pause.

        Raises:
            UnknownLane: no such lane.
        """
        self._set_paused(lane, paused=False)

    def _set_paused(self, name: str, *, paused: bool) -> None:
        lane = self._engine.lane(name)
        self._intake.bind()
        if self._membership is not None:
            self._membership.pause(name, paused=paused)
        elif self._engine.set_paused(lane, self._clock.now(), paused=paused):
            self._dispatcher.bus.emit(events.LanePaused if paused else events.LaneResumed, name, lane.pending)
            self._dispatcher.wake()

    def set_lane(self, lane: str, config: LaneConfig | None = None, /, **changes: Any) -> LaneConfig:
        """Changes a lane's policies at run time; commands that run stay as they are.

        Args:
            lane: name of the lane.
            config: a whole new configuration; default the present one.
            **changes: single fields of `LaneConfig`.

        Returns:
            The configuration now in force.

        Raises:
            UnknownLane: no such lane.
            ConfigError: a value that is not allowed; nothing is changed.
        """
        return self._lanes.change(lane, config, changes)

    def add_lane(self, name: str, config: LaneConfig = _DEFAULT) -> None:
        """Adds a lane, before the start or while the queue works. Where lanes are kept, its stored commands come back.

        Args:
            name: a name that no lane has.
            config: its policies; with a storage it is durable unless they say `durable=False`.

        Raises:
            ConfigError: a value that is not allowed, alone or beside the other lanes; nothing is changed.
            ShutdownInProgress: the queue shuts down.
            WrongLoop: called from another loop or thread.
        """
        self._lanes.add(name, config)

    async def remove_lane(self, name: str, *, timeout: Duration | None = None, cancel: bool = False) -> None:
        """Removes a lane once it is empty; from the call on, submits to it raise `LaneRemoved`.

        It waits for all commands in it, also for those that are delayed or back off, and for submitters that wait for
        room already. Its dead letters stay. The last lane may go, too.

        Args:
            name: name of the lane.
            timeout: limit on the wait in seconds, zero or more; `None` (default) for none.
            cancel: cancels what is in the lane instead of letting it run.

        Raises:
            UnknownLane: no such lane.
            LaneNotEmpty: the time was over and commands are left. The lane stays and is open again, as it is when
                whoever waits here is cancelled.
            NotStarted: the queue was not started, so that what is in the lane would never end.
            ConfigError: a bad timeout.
            WrongLoop: called from another loop or thread.
        """
        await self._lanes.remove(name, timeout, cancel=cancel)
