"""One queue's membership in a broker: it joins, hears what it is told, and leaves in order."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from lane_obs import events
from lane_obs.config import LaneConfig, Overflow, check_lanes, check_methods
from lane_obs.distributed.port import METHODS
from lane_obs.errors import ConfigError
from lane_obs.runtime.brokered.claims import Claims
from lane_obs.runtime.brokered.cluster import Cluster
from lane_obs.runtime.brokered.facts import tell
from lane_obs.runtime.brokered.intake import BrokerIntake
from lane_obs.runtime.brokered.journal import BrokerJournal
from lane_obs.runtime.brokered.pump import Pump
from lane_obs.runtime.brokered.watches import Watches
from lane_obs.runtime.stop import CANCELLED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs.clock import Clock
    from lane_obs.config import RateLimit
    from lane_obs.core.lane import Lane
    from lane_obs.distributed import Broker
    from lane_obs.distributed.record import Claimed, Fact, Progress, Result
    from lane_obs.distributed.view import BrokerHealth
    from lane_obs.runtime.brokered.handle import ClaimedHandle
    from lane_obs.runtime.dead_letters import DeadLetter, DeadLetterQueue
    from lane_obs.runtime.dispatcher import Dispatcher
    from lane_obs.runtime.intake import Intake

_NO_LIMIT: Final = 1_000_000


def check_broker(broker: object, storage: object, *, work: object) -> None:
    """Checks what a queue is given as its broker.

    Raises:
        ConfigError: it is none, or there is a storage too, or `work` is no bool or makes no sense without a broker.
    """
    if not isinstance(work, bool):
        raise ConfigError("work", work, "give True or False")
    if broker is None:
        if not work:
            raise ConfigError("work", work, "give the queue a broker, too: without one nobody else runs its commands")
        return
    check_methods("broker", broker, METHODS, "give a Broker, such as RedisBroker(url)")
    if storage is not None:
        raise ConfigError("storage", storage, "leave it out: the broker keeps the commands")


def unlimited(lanes: Mapping[str, LaneConfig]) -> dict[str, LaneConfig]:
    """The same lanes for the process itself, which runs whatever the broker gives it, at once."""
    return {name: _unlimited(config) for name, config in lanes.items()}


def _unlimited(config: LaneConfig) -> LaneConfig:
    return dataclasses.replace(
        config, min_concurrency=0, max_concurrency=_NO_LIMIT, max_pending=None, overflow=Overflow.WAIT, durable=None,
        pressure_threshold=None, rate_limit=None, boost=None, partitions=None,
    )  # fmt: skip


class Membership:
    """A queue's seat at a broker. It stands where a queue without one has its storage.

    Args:
        broker: the broker.
        lanes: the lanes' configurations, as the broker is to apply them.
        limits: the queue-wide bound on running commands, and the queue-wide rate limits.
        work: whether this process runs commands.
        intake, dispatcher, clock: of the queue.

    Attributes:
        policies: the lanes' configurations, as the broker applies them.
        cluster: asks and steers the whole queue.
        works: whether this process runs commands.
    """

    def __init__(
        self,
        broker: Broker,
        lanes: Mapping[str, LaneConfig],
        limits: tuple[int | None, Sequence[RateLimit]],
        intake: Intake,
        dispatcher: Dispatcher,
        clock: Clock,
        *,
        work: bool,
    ) -> None:
        self.broker = broker
        self.policies = dict(lanes)
        self._limits = limits
        self.works = work
        self._dispatcher = dispatcher
        self._bus = dispatcher.bus
        self._clock = clock
        self._down_since: float | None = None
        self._leads = False
        self._joined = False
        for name, config in lanes.items():
            self.check_lane(name, config)
        broker.check(lanes, *limits)
        self.journal = BrokerJournal(broker, dispatcher)
        self._watches = Watches(broker, clock)
        self._intake = BrokerIntake(intake, dispatcher, broker, self._watches, self.policies, limits[1])
        self._claims = Claims(intake, dispatcher, self.journal)
        self._pump = Pump(
            broker, self.journal, dispatcher, clock,
            start=self._claims.start, tell=self.on_facts, expects=self._claims.unserved.expects,
        )  # fmt: skip
        self.cluster = Cluster(broker, self._watches, dispatcher)
        dispatcher.journal = self.journal
        intake.durable = self._intake
        for lane in dispatcher.engine.lanes.values():
            self.adopt(lane)

    # --- where a queue has its storage --------------------------------------------------------------------------

    def check_lane(self, name: str, config: LaneConfig) -> None:
        """Checks that a lane can be had here.

        Raises:
            ConfigError: it says `durable=False`.
        """
        if config.durable is False:
            raise ConfigError(f"lanes.{name}.durable", False, "leave it out: the broker keeps all lanes")  # noqa: FBT003

    @staticmethod
    def adopt(lane: Lane) -> None:
        """Has a lane's commands go to the broker."""
        lane.is_durable = True
        lane.set_quick()

    def here(self, name: str, config: LaneConfig) -> LaneConfig:
        """Tells the broker a lane's policies, and gives those that it has in this process.

        Raises:
            ConfigError: they are not allowed beside those of the other lanes, or not with this broker.
        """
        whole = {**self.policies, name: config}
        check_lanes(whole, *self._limits)
        self.broker.check(whole, *self._limits)
        self.policies[name] = config
        if self._joined:
            what = f"name the policies of lane {name!r}"
            self._intake.declared = self.cluster.later(what, self.broker.declare({name: config}))
        return _unlimited(config)

    def policy(self, lane: Lane) -> LaneConfig:
        """The policies of a lane, as the broker applies them."""
        return self.policies.get(lane.name, lane.config)  # it may be gone: other threads ask, too

    def forget_lane(self, name: str) -> None:
        """A lane is gone from this process: the broker forgets it, too, unless others have commands in it."""
        del self.policies[name]
        if self._joined:
            self.cluster.later(f"forget lane {name!r}", self.broker.forget_lane(name))

    def pause(self, lane: str, *, paused: bool) -> None:
        """Has the broker pause or resume a lane."""
        what = f"{'pause' if paused else 'resume'} lane {lane!r}"
        self.cluster.later(what, self.broker.set_paused(lane, paused=paused))

    def runs(self, command_id: str) -> ClaimedHandle[Any] | None:
        """The command of this id that runs here; `None` for none."""
        return self.journal.running.get(command_id)

    def cancel(self, command_id: str) -> None:
        """Cancels a command that runs here, or has the broker cancel it."""
        handle = self.journal.running.get(command_id)
        if handle is None:
            self._watches.cancel(command_id)
        else:
            handle.cancel()

    def bring_back(self, lane: Lane) -> None:
        """Nothing: the broker gives them."""

    def may_fill(self, lane: Lane) -> bool:
        """Whether submits to a lane are on their way to the broker."""
        return self._intake.is_used(lane.name)

    def refuse_lane(self, lane: Lane) -> None:
        """Nobody waits for room in a lane any more: it goes."""
        self._intake.refuse_lane(lane.name)

    is_recovered: Final = True

    async def open(self, dead_letters: DeadLetterQueue) -> None:
        """Joins the queue.

        Raises:
            BrokerError: it cannot be reached, or is none of this version's.
            ConfigError: the lanes ask for something that it cannot do, or the broker is another queue's.
        """
        if self.broker.member:
            raise ConfigError("broker", self.broker, "give each queue a broker of its own")
        await self.broker.open(
            self.policies, *self._limits, letters=dead_letters.max_size, work=self.works, listener=self
        )
        self._joined = True
        self._bus.worker = self.broker.member
        self._intake.open()

    def recover(self) -> None:
        """Begins to claim."""
        self._pump.open(claims=self.works)

    def forget_letter(self, letter: DeadLetter) -> None:
        """Nothing: the broker keeps letters of its own."""

    @staticmethod
    def stats() -> None:
        """How the storage is: there is none."""

    def shut(self) -> None:
        """The queue takes no new work: what runs here goes on, and nothing more is claimed."""
        self._pump.rest()
        self._intake.refuse_all()

    async def begin_close(self) -> None:
        """From now on what is cancelled goes back to the broker."""
        await self._intake.settled()
        self.journal.close(handle for handle in self.journal.running.values() if handle._stop == CANCELLED)

    async def close(self) -> None:
        """Tells the broker what is left, and leaves it."""
        try:
            await self._pump.close()
            await self._watches.close()
            await self.cluster.close()
        finally:
            if self._joined:
                await self.broker.close()
            await self._pump.ended()

    # --- what the broker tells ----------------------------------------------------------------------------------

    def on_claimed(self, claimed: Sequence[Claimed]) -> None:
        """The broker has claimed commands for this member, which was idle."""
        self._pump.on_claimed(claimed)

    def on_work(self) -> None:
        """There may be work."""
        self._pump.on_work()

    def on_results(self, results: Sequence[Result]) -> None:
        """Commands that are awaited here have ended."""
        self._watches.take(results)

    def on_progress(self, progress: Progress) -> None:
        """A command that is awaited here tells how far it is."""
        self._watches.take_progress(progress)

    def on_cancel(self, ids: Sequence[str]) -> None:
        """Commands that run here are to be cancelled."""
        for key in ids:
            handle = self.journal.running.get(key)
            if handle is not None and handle._stop is None:
                handle.cancel()

    def on_room(self, lane: str) -> None:
        """A full lane has room."""
        self._intake.on_room(lane)

    def on_lost(self, ids: Sequence[str]) -> None:
        """Leases are lost: those commands run on here, and their ends will be refused."""
        for key in ids:
            handle = self.journal.lose(key)
            if handle is not None:
                self._dispatcher.emit(events.CommandLeaseLost, handle, self._clock.now())

    def on_facts(self, facts: Sequence[Fact]) -> None:
        """The broker did something on its own account."""
        tell(self._bus, facts, self._clock.now())

    def on_state(self, health: BrokerHealth) -> None:
        """The link is broken or works again, or this member begins or ends to lead."""
        now = self._clock.now()
        if health.leads is not self._leads:
            self._leads = health.leads
            self._bus.emit(events.BrokerLead, health.leads)
        if not health.ready:
            if self._down_since is None:
                self._down_since = now
                self._bus.emit(events.BrokerDown, health.error)
            return
        if self._down_since is not None:
            since, self._down_since = self._down_since, None
            self._bus.emit(events.BrokerUp, now - since)
        self._watches.renew()  # what it told while the link was broken is lost
        self._intake.renew()
        self._pump.on_work()
