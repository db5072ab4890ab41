"""One queue in several partitions, each of which another broker holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from lane_obs.clock import SystemClock
from lane_obs.config.check import check_clock, check_methods, to_count
from lane_obs.distributed.partitioned.branch import Branch
from lane_obs.distributed.partitioned.ear import Ear
from lane_obs.distributed.partitioned.exchange import Exchange
from lane_obs.distributed.partitioned.overview import Overview
from lane_obs.distributed.partitioned.questions import Questions
from lane_obs.distributed.partitioned.share import Divider, divide_count
from lane_obs.distributed.partitioned.submits import Submits
from lane_obs.distributed.partitioned.together import together
from lane_obs.distributed.partitioned.watching import Watching
from lane_obs.distributed.port import METHODS
from lane_obs.distributed.view import BrokerHealth
from lane_obs.errors import BrokerUnavailable, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs.clock import Clock
    from lane_obs.config import LaneConfig, RateLimit
    from lane_obs.distributed.partitioned.share import Share
    from lane_obs.distributed.port import Broker, Listener
    from lane_obs.distributed.record import End, NewCommand, Progress, Receipt, Result, Turn
    from lane_obs.distributed.redis.parts import PartitionNote
    from lane_obs.distributed.view import BrokerStats

_CLOSED: Final = "the broker is not open"


class PartitionedBroker(Questions):
    """One queue that is divided among other brokers, so that it is as fast as all of them.

    A command is in the partition that its partition key says, else its idempotency key, else its id. Each partition
    has a share of each limit; see docs/partitioned.md for what that means.

    Args:
        parts: the partitions' brokers, not open: in every process as many, in the same order, each of a queue of its
            own. How many commands this member runs at once is the least that one of them says.
        clock: all its time; `None` for real time.

    Raises:
        ConfigError: there is none, one of them is no broker, or one is given twice.
    """

    def __init__(self, parts: Sequence[Broker], *, clock: Clock | None = None) -> None:
        self._parts = _checked(parts)
        for part in self._parts:
            part.pushes = False  # it does not know what the others give
        if clock is not None:
            check_clock(clock)
        self.max_body = min(part.max_body for part in self._parts)
        self.max_result = min(part.max_result for part in self._parts)
        self.member = ""
        self.pushes = False
        self.partitions = len(self._parts)
        self._clock = clock or SystemClock()
        self._listener: Listener | None = None
        self._told = BrokerHealth(ready=False)
        self._divider = Divider(self.partitions)
        self._shares: list[Share] = []
        self._note: PartitionNote | None = None

    @classmethod
    def of_redis(cls, url: str, *, partitions: int, queue: str = "default", **options: Any) -> PartitionedBroker:
        """A queue in partitions at one Redis server or, spread over its nodes, in one cluster.

        Args:
            url: where it is, as for `RedisBroker`.
            partitions: how many; the same in every process, or it is refused (`BrokerMismatch`).
            queue: the queue's name.
            options: the others of `RedisBroker`, such as `lease` and `concurrency`.

        Raises:
            ConfigError: a value outside its range, with its name.
        """
        from lane_obs.distributed.redis.parts import PartitionNote, make_parts  # here: it loads the client

        made = cls(make_parts(url, to_count("partitions", partitions, minimum=1), queue, options))
        made._note = PartitionNote(url, queue, options.get("timeout", 5.0))
        return made

    @property
    def concurrency(self) -> int:
        """How many commands this member runs at once."""
        return min(part.concurrency for part in self._parts)

    @concurrency.setter
    def concurrency(self, value: int) -> None:
        for part in self._parts:
            part.concurrency = value

    # --- life ---------------------------------------------------------------------------------------------------

    def check(
        self, lanes: Mapping[str, LaneConfig], max_concurrency: int | None, rate_limits: Sequence[RateLimit]
    ) -> None:
        """Checks policies; see `Broker.check`.

        Raises:
            ConfigError: a limit is too small to be divided, or a partition's broker cannot do what a lane asks for.
        """
        for part, share in zip(self._parts, self._divider.divide(lanes, max_concurrency, rate_limits), strict=True):
            part.check(*share)

    async def open(
        self,
        lanes: Mapping[str, LaneConfig],
        max_concurrency: int | None,
        rate_limits: Sequence[RateLimit],
        *,
        letters: int,
        work: bool,
        listener: Listener,
    ) -> None:
        """Joins all partitions; see `Broker.open`.

        Raises:
            ConfigError: a limit is too small to be divided.
            BrokerMismatch: other processes have another number of partitions.
        """
        if self._listener is not None:
            await self.close()
        shares = self._divider.divide(lanes, max_concurrency, rate_limits)
        kept = divide_count("dead_letters", letters, self.partitions) if lanes else [letters] * self.partitions
        if self._note is not None:
            await self._note.check(self.partitions, looks=not lanes and not work)
        self._limits = max_concurrency, tuple(rate_limits)
        self._lanes, self._shares = dict(lanes), shares
        ears = self._get_ready(listener)
        opens = (
            branch.broker.open(
                share.lanes, share.max_concurrency, share.rate_limits, letters=most, work=work, listener=ear
            )
            for branch, share, most, ear in zip(self._branches, shares, kept, ears, strict=True)
        )
        try:
            await together(opens)
        except BaseException:
            await self.close()
            raise
        self.member = self._parts[0].member
        self._overview.look()
        if self.health().leads:
            asyncio.get_running_loop().call_soon(self._tell_state)

    def _get_ready(self, listener: Listener) -> list[Ear]:
        clock = self._clock
        self._listener, self._told = listener, BrokerHealth(ready=True)
        branches = [
            Branch(number, self.partitions, part, clock, lambda: self._exchange.on_change())
            for number, part in enumerate(self._parts)
        ]
        self._branches = branches
        self._exchange = Exchange(branches, clock, lambda: self.concurrency, listener)
        self._submits = Submits(branches, self._lanes)
        self._watching = Watching(self._submits.homes, listener, clock)
        self._overview = Overview(branches, clock)
        return [Ear(branch, self._exchange, self._watching, listener, self._state_changed) for branch in branches]

    def _state_changed(self, branch: Branch, *, came_back: bool) -> None:
        """A partition's link has broken or works again, or it begins or ends to lead."""
        listener = self._listener
        if listener is None or not self.member:
            return
        if branch.broker.health().ready:  # also one that denies its work
            self._watching.renew(branch)
        if came_back:  # what it told of work meanwhile is lost
            self._exchange.on_work(branch)
        self._overview.look()
        self._tell_state()
        if came_back:  # and of room
            for lane in self._lanes:
                listener.on_room(lane)

    def _tell_state(self) -> None:
        """Tells how the whole is, unless it is as broken as it was said to be."""
        health, told = self.health(), self._told
        self._told = health
        if self._listener is not None and (health.ready or health.error != told.error or health.leads != told.leads):
            self._listener.on_state(health)

    async def close(self) -> None:
        """Leaves all partitions; see `Broker.close`."""
        if self._listener is None:
            return
        self._listener, self.member = None, ""
        await self._exchange.close()
        await self._watching.close()
        await self._overview.close()
        try:
            await together(branch.broker.close() for branch in self._branches)
        finally:
            tasks = [task for branch in self._branches for task in branch.leave()]
            if tasks:
                await asyncio.wait(tasks)

    def _open(self) -> Sequence[Branch]:
        if self._listener is None:
            raise BrokerUnavailable(_CLOSED)
        return self._branches

    # --- commands -----------------------------------------------------------------------------------------------

    async def submit(self, commands: Sequence[NewCommand]) -> list[Receipt]:
        """Takes commands in, each in its partition; see `Broker.submit`.

        Where some partitions cannot be reached, the receipts of theirs say so.

        Raises:
            UnknownLane: a lane that no member has named.
            BrokerUnavailable: none of their partitions can be reached.
        """
        self._open()
        return await self._submits.submit(commands)

    async def turn(self, ends: Sequence[End], want: int, progress: Sequence[Progress] = ()) -> Turn:
        """Hands in ends and progress, then claims up to `want` commands of all partitions; see `Broker.turn`.

        Ends for a partition that cannot be reached are kept, and told once it is back.
        """
        self._open()
        return await self._exchange.turn(ends, want, progress)

    async def watch(self, ids: Sequence[str]) -> list[Result]:
        """Asks to be told of the ends of commands; see `Broker.watch`."""
        self._open()
        return await self._watching.watch(ids)

    async def unwatch(self, ids: Sequence[str]) -> None:
        """Ends watches; see `Broker.unwatch`."""
        self._open()
        await self._watching.unwatch(ids)

    # --- how it is ----------------------------------------------------------------------------------------------

    def health(self) -> BrokerHealth:
        """How the links to all partitions are; from any thread."""
        healths = [part.health() for part in self._parts]
        errors = [_CLOSED]
        if self._listener is not None:
            errors = [f"partition {branch.number}: {branch.error}" for branch in self._branches if branch.error]
        return BrokerHealth(
            ready=not errors,
            error="; ".join(errors),
            failures=sum(health.failures for health in healths),
            stale=sum(health.stale for health in healths),
            lost=sum(health.lost for health in healths),
            leads=self._listener is not None and healths[0].leads,
        )

    def leading_stats(self) -> BrokerStats | None:
        """The whole queue, for the member that leads partition 0; `None` for others. From any thread."""
        return None if self._listener is None else self._overview.stats()


def _checked(parts: object) -> tuple[Broker, ...]:
    if isinstance(parts, str | bytes) or not isinstance(parts, Iterable):
        raise ConfigError("parts", parts, "give a list of Brokers")
    brokers: tuple[Any, ...] = tuple(parts)
    if not brokers:
        raise ConfigError("parts", parts, "give one Broker or more")
    for number, broker in enumerate(brokers):
        check_methods(f"parts[{number}]", broker, METHODS, "give a Broker, such as RedisBroker(url, queue=...)")
        if any(broker is other for other in brokers[:number]):
            raise ConfigError(f"parts[{number}]", broker, "give each partition a broker of its own")
    return brokers
