"""The queue: lanes that take commands, run them and answer questions about them."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lane_obs import events
from lane_obs.bus import Bus
from lane_obs.clock import SystemClock
from lane_obs.config import (
    DEFAULT_LANES,
    check_clock,
    check_lanes,
    to_rate_limits,
    to_seconds,
    to_seed,
)
from lane_obs.core.engine import Engine
from lane_obs.core.state import State
from lane_obs.errors import ShutdownInProgress, UnknownCommand, error_text
from lane_obs.runtime.brokered.membership import Membership, check_broker, unlimited
from lane_obs.runtime.brokered.sharing import Sharing
from lane_obs.runtime.columns import Columns
from lane_obs.runtime.dead_letters import DeadLetter, DeadLetterQueue, Rerun
from lane_obs.runtime.dispatcher import Dispatcher
from lane_obs.runtime.durability import Durability
from lane_obs.runtime.explain import explain
from lane_obs.runtime.intake import Intake
from lane_obs.runtime.lanes import Lanes
from lane_obs.runtime.letters import requeue
from lane_obs.runtime.stats import Explanation, LaneStats, QueueStats, RemovedLanes, StorageStats
from lane_obs.runtime.steering import Steering
from lane_obs.runtime.submitter import Submitter
from lane_obs.runtime.work import runs_once

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping, Sequence

    from lane_obs.bus import AnySink, Sink
    from lane_obs.clock import Clock
    from lane_obs.config import Duration, LaneConfig, RateLimit
    from lane_obs.core.lane import Lane
    from lane_obs.core.removed import Removed
    from lane_obs.distributed import Broker
    from lane_obs.runtime.handle import CommandHandle
    from lane_obs.storage.port import Storage


class CommandQueue(Submitter, Steering, Sharing):
    """Runs commands in lanes. `QueueManager` adds a lifecycle with drain and close.

    Args:
        lanes: policies by lane name; `None` for the six default lanes.
        max_concurrency: bound on running commands of all lanes together, 1 or more; `None` for none. With it,
            each lane's `min_concurrency` is reserved.
        sinks: where events go.
        dead_letters: keeps commands that ended without success; a number is a size; default 1,000 letters.
        clock: all time comes from it; default real time.
        seed: seed of the jitter and of the ids, for runs that repeat exactly; default random.
        stuck_after: seconds after which a command that ignores its cancellation is reported as stuck.
        storage: keeps the commands of durable lanes, which are all that do not say `durable=False`.
        rate_limit: bounds how often commands of all lanes together start; as in `LaneConfig`.
        broker: shares the queue with other processes: the broker keeps the commands and says who runs which. What is
            submitted must be registered, as for a storage, and all limits hold for all processes together.
        work: whether this process runs commands; False, which needs a broker, for one that only submits.

    Attributes:
        dead_letters: the `DeadLetterQueue`.

    Raises:
        ConfigError: a value that is not allowed, named.
    """

    def __init__(  # noqa: PLR0913 - all but the first by name
        self,
        lanes: Mapping[str, LaneConfig] | None = None,
        *,
        max_concurrency: int | None = None,
        sinks: Iterable[AnySink] = (),
        dead_letters: DeadLetterQueue | int = 1000,
        clock: Clock | None = None,
        seed: int | None = None,
        stuck_after: Duration = 5.0,
        storage: Storage | None = None,
        rate_limit: RateLimit | Sequence[RateLimit] | None = None,
        broker: Broker | None = None,
        work: bool = True,
    ) -> None:
        lanes = DEFAULT_LANES if lanes is None else lanes
        check_lanes(lanes, max_concurrency, rate_limit)
        check_broker(broker, storage, work=work)
        self._clock: Clock = SystemClock() if clock is None else clock
        check_clock(self._clock)
        self._bus = Bus(self._clock, sinks)
        limits = max_concurrency, to_rate_limits("rate_limit", rate_limit)
        self._limit = max_concurrency
        self._engine = _engine(lanes, limits, self._clock.now(), shared=broker is not None)
        self._dispatcher = Dispatcher(
            self._engine,
            self._clock,
            self._bus,
            random.Random(to_seed("seed", seed)),  # noqa: S311 - spreads retries and names commands; guards nothing
            stuck_after=to_seconds("stuck_after", stuck_after),
            on_unsuccessful=self._to_dead_letters,
        )
        self.dead_letters = dead_letters if isinstance(dead_letters, DeadLetterQueue) else DeadLetterQueue(dead_letters)
        self._intake = Intake(self._engine, self._dispatcher, self._clock, self._bus)
        parts = self._intake, self._dispatcher, self._clock
        self._membership = None if broker is None else Membership(broker, lanes, limits, *parts, work=work)
        self._keeper = self._membership or Durability(storage, lanes, *parts)
        self._lanes = Lanes(self._dispatcher, self._intake, self._keeper, self._clock)
        where = (
            "" if broker is None else "in this process; the broker keeps them: use cluster.letters and cluster.requeue"
        )
        self.dead_letters.bind(self._requeue, self._evicted, self._keeper.forget_letter, self._clock.wall, where)
        self._bus.attach(self)

    @classmethod
    def with_dlq(cls, emitter: Sink, dead_letters: DeadLetterQueue | int) -> CommandQueue:
        """A queue of the default lanes with this sink and dead letter queue."""
        return cls(sinks=[emitter], dead_letters=dead_letters)

    # --- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Starts to run commands; those submitted before wait until then. Calling it again does nothing.

        Raises:
            ShutdownInProgress: the queue was shut down.
        """
        self._intake.bind()
        if self._intake.refusing:
            raise ShutdownInProgress("the queue was shut down; make a new one")
        if not self._dispatcher.is_open:
            await self._keeper.open(self.dead_letters)
            self._bus.start()
            self._bus.emit(events.QueueStarted)
            self._dispatcher.open()
            self._keeper.recover()

    @property
    def storage(self) -> StorageStats | None:
        """How the storage is, from any thread; `None` without one."""
        return self._keeper.stats()

    @property
    def is_recovered(self) -> bool:
        """Whether all stored commands have been brought back; true without a storage."""
        return self._keeper.is_recovered

    def is_started(self) -> bool:
        """Whether it was started and is not closed."""
        return self._dispatcher.is_open

    # --- dead letters -------------------------------------------------------------------------------------------

    def _to_dead_letters(self, handle: CommandHandle[Any], error: BaseException, rerun: Any) -> None:
        call, args = rerun
        again = (
            None
            if call is None or runs_once(handle._work)
            else Rerun(handle.seq, handle._work, call, args, handle._options, handle._traceparent)
        )
        kind, text = type(error).__name__, error_text(error)
        failed_at = datetime.fromtimestamp(self._clock.wall(), UTC)
        name, reason = handle.command_type, handle.state
        facts = (str(reason), kind, text, handle.wait.total, handle.ran)
        self._dispatcher.emit(events.CommandDeadLettered, handle, handle.finished_at, *facts)
        if self._membership is not None:
            return  # the broker keeps it
        self.dead_letters.push(
            DeadLetter(handle.id, handle.lane, name, reason, kind, text, handle.attempt, failed_at, error, again)
        )

    def _requeue(self, letter: DeadLetter) -> CommandHandle[Any]:
        return requeue(letter, self._intake, self._dispatcher)

    def _evicted(self, letter: DeadLetter) -> None:
        self._keeper.forget_letter(letter)
        self._bus.emit(events.DeadLetterEvicted, letter.id, letter.lane, letter.command_type)

    # --- look and steer -----------------------------------------------------------------------------------------

    def get(self, command_id: str) -> CommandHandle[Any] | None:
        """The live command of this id; `None` when there is none (it ended, or never was).

        With a broker, only what runs in this process is known; `cluster.find` asks the whole queue.
        """
        found = self._dispatcher.directory.find(command_id)
        return self._membership.runs(command_id) if found is None and self._membership is not None else found

    def cancel(self, command_id: str) -> bool:
        """Cancels a live command (see `CommandHandle.cancel`); False when no live command has this id.

        With a broker, a command that does not run here is cancelled by request, and True says no more than that it
        went out; `cluster.cancel` waits for the answer.
        """
        handle = self._dispatcher.directory.find(command_id)
        if handle is None and self._membership is not None:
            self._membership.cancel(command_id)
            return True
        return handle is not None and handle.cancel()

    def explain(self, command_id: str) -> Explanation:
        """Tells why a live command has not ended.

        Raises:
            UnknownCommand: no live command has this id; with a broker, none that runs in this process.
        """
        handle = self.get(command_id)
        if handle is None and self._membership is not None:
            raise UnknownCommand(f"no command with the id {command_id!r} runs in this process; use cluster.find")
        if handle is None:
            raise UnknownCommand(f"no live command has the id {command_id!r}")
        return explain(handle, self._engine, self._clock.now())

    def stats(self) -> QueueStats:
        """Counts and ages of every lane, at this moment. May be called from any thread."""
        now, stuck = self._clock.now(), self._dispatcher.stops.stuck_by_lane()
        return QueueStats(
            lanes={name: self._lane_stats(lane, now, stuck[name]) for name, lane in self._engine.lanes.copy().items()},
            max_concurrency=self._limit,
            submitted=self._engine.submitted,
            removed=_removed(self._engine.removed),
            dead_letters=len(self.dead_letters),
            dead_letters_evicted=self.dead_letters.evicted,
            sinks=self._bus.stats(),
            storage=self._keeper.stats(),
        )

    def _lane_stats(self, lane: Lane, now: float, stuck: int) -> LaneStats:
        counts, config = lane.counts, self._keeper.policy(lane)
        since, started = lane.ready.oldest_since(), lane.oldest_started()
        return LaneStats(
            ready=counts[State.READY],
            delayed=counts[State.DELAYED],
            backoff=counts[State.BACKOFF],
            running=counts[State.RUNNING],
            stuck=stuck,
            dead=self.dead_letters.count(lane.name),
            oldest_ready_age=None if since is None else now - since,
            oldest_active_age=None if started is None else now - started,
            blocked=lane.blocked(now),
            ended=lane.ended(),
            priority=config.priority,
            min_concurrency=config.min_concurrency,
            max_concurrency=config.max_concurrency,
            max_pending=config.max_pending,
            paused=lane.paused,
            waiting_submitters=self._intake.room.waiting(lane),
            rate_limit_left=min((gate.limiter.left(now) for gate in lane.gates), default=None),
            partitions=lane.partitions,
            largest_partitions=lane.largest_partitions(),
            partition_ages=lane.partition_ages(now),
        )

    @property
    def columns(self) -> Columns:
        """Reads one number of all lanes at once."""
        return Columns(self._dispatcher, self._keeper.policy)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop it belongs to; `None` before it was used."""
        return self._dispatcher.loop

    @property
    def bus(self) -> Bus:
        """The event bus."""
        return self._bus

    @property
    def clock(self) -> Clock:
        """The clock."""
        return self._clock


def _engine(
    lanes: Mapping[str, LaneConfig], limits: tuple[int | None, Sequence[RateLimit]], now: float, *, shared: bool
) -> Engine:
    if shared:  # the broker has applied all limits to what it gives
        return Engine(unlimited(lanes), None, now)
    return Engine(lanes, limits[0], now, rate_limits=limits[1])


def _removed(removed: Removed) -> RemovedLanes:
    ended = {str(state): count for state, count in removed.ended.items()}
    return RemovedLanes(removed.lanes, ended, removed.blocked)
