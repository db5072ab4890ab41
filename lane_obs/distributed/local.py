"""The broker in memory: one queue for several members of one process and event loop."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from lane_obs.clock import SystemClock
from lane_obs.config import check_name, to_count, to_seconds
from lane_obs.distributed.memory.ledger import Ledger
from lane_obs.distributed.memory.policies import check_policies
from lane_obs.distributed.memory.queue import SharedQueue
from lane_obs.distributed.memory.seat import Seat
from lane_obs.distributed.memory.stats import stats_of
from lane_obs.distributed.record import Answer, Result
from lane_obs.distributed.view import BrokerHealth
from lane_obs.errors import BrokerRefused, BrokerUnavailable, StorageError
from lane_obs.storage import adapt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs.clock import Clock
    from lane_obs.config import Duration, LaneConfig, RateLimit
    from lane_obs.distributed.port import Listener
    from lane_obs.distributed.record import End, NewCommand, Progress, Receipt, Turn
    from lane_obs.distributed.view import BrokerStats, Found, Letter
    from lane_obs.storage import AnyStorage

_UNKNOWN = "unknown"


class LocalBroker:
    """One member of a queue in this process's memory; each of its members is an object of its own.

    Args:
        queue: the queue's name, for people to read.
        lease: for how many seconds a member that does not renew its lease keeps what it runs, above zero. An open
            member renews it for as long as the process lives, unless a test stops it (`stop_beat`).
        concurrency: how many commands this member runs at once, 1 or more.
        result_ttl: for how many seconds the results of commands are kept, above zero.
        max_body: the largest body of a command, in bytes.
        max_result: the largest result, in bytes.
        clock: all its time; `None` for real time. Give the members the clock of their queue managers.
        storage: keeps commands and dead letters, so that a queue made anew over it has them again; `None` for memory
            alone. The first member that opens opens it, the last one that closes closes it.

    Raises:
        ConfigError: a value that is not allowed.
    """

    def __init__(
        self,
        queue: str = "default",
        *,
        lease: Duration = 30.0,
        concurrency: int = 32,
        result_ttl: Duration = 300.0,
        max_body: int = 1 << 20,
        max_result: int = 1 << 20,
        clock: Clock | None = None,
        storage: AnyStorage | None = None,
    ) -> None:
        check_name("queue", queue)
        self.queue = queue
        self.member = ""
        self.partitions = 1
        self.concurrency = to_count("concurrency", concurrency, minimum=1)
        self.max_body = to_count("max_body", max_body, minimum=1)
        self.max_result = to_count("max_result", max_result, minimum=1)
        self.pushes = False  # a turn is a call here, as fast as any message
        ttl = to_seconds("result_ttl", result_ttl)
        clock = clock or SystemClock()
        ledger = Ledger(None if storage is None else adapt(storage, clock=clock), clock)
        self._shared = SharedQueue(clock, to_seconds("lease", lease), ttl, ledger)
        self._seat: Seat | None = None
        self._stale = self._lost = 0

    def join(self, *, concurrency: int | None = None) -> LocalBroker:
        """Another member of the same queue, not open yet.

        Args:
            concurrency: how many commands it runs at once; `None` for as many as this one.

        Raises:
            ConfigError: a value that is not allowed.
        """
        other = LocalBroker(
            self.queue,
            concurrency=self.concurrency if concurrency is None else concurrency,
            max_body=self.max_body,
            max_result=self.max_result,
            clock=self._shared.clock,
        )
        other._shared = self._shared
        return other

    def check(
        self, lanes: Mapping[str, LaneConfig], max_concurrency: int | None, rate_limits: Sequence[RateLimit]
    ) -> None:
        """Checks policies; see `Broker.check`.

        Raises:
            ConfigError: the lanes do not fit together with those that other members have named.
        """
        if lanes:  # without any, everything stays as it is
            check_policies(self._shared.life.engine, lanes, max_concurrency, rate_limits)

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
        """Joins the queue; see `Broker.open`.

        Raises:
            ConfigError: the lanes do not fit together with those that other members have named.
            WrongLoop: the other members are on another event loop.
            StorageError: the storage cannot be opened or read.
        """
        shared, loop = self._shared, asyncio.get_running_loop()
        self.check(lanes, max_concurrency, rate_limits)
        shared.bind(loop)
        if self._seat is not None:
            await self.close()
        await self._read()
        shared.joined += 1
        self.member = f"{socket.gethostname()}:{os.getpid()}:{shared.joined}"
        now, looks = shared.clock.now(), not (lanes or work)
        self._seat = Seat(
            self.member, listener, self.health, loop, now, works=work, looks=looks, concurrency=self.concurrency
        )
        shared.join(self._seat, lanes, max_concurrency, rate_limits, letters)

    async def _read(self) -> None:
        """Makes the storage ready, where there is one, and reads what is in it."""
        life, ledger = self._shared.life, self._shared.life.ledger
        if ledger.storage is None:
            return
        async with ledger.opening:
            if self._shared.seats:
                return
            await ledger.storage.open()
            for buried in await ledger.read():
                life.letters.add(buried)

    async def declare(self, lanes: Mapping[str, LaneConfig]) -> None:
        """Names lanes, or gives them other policies; see `Broker.declare`.

        Raises:
            ConfigError: the lanes do not fit together with those that other members have named.
        """
        self._shared.declare(self._open(), lanes)

    async def forget_lane(self, name: str, /) -> bool:
        """Forgets a lane that has no live command; see `Broker.forget_lane`."""
        return self._shared.forget_lane(self._open(), name)

    async def close(self) -> None:
        """Leaves the queue; see `Broker.close`."""
        seat, self._seat = self._seat, None
        if seat is not None:
            self._shared.leave(seat)
            self.member = ""
            self._stale, self._lost = self._stale + seat.stale, self._lost + seat.lost
            storage = self._shared.life.ledger.storage
            if storage is not None and not self._shared.seats:
                await storage.close()

    def stop_beat(self) -> None:
        """Renews this member's lease no more, as if its process were stopped; for tests.

        Once the lease is lost, what the member holds is ready for others. `turn` gives it a new lease.
        """
        self._shared.stop_beat(self._open())

    def start_beat(self) -> None:
        """Renews this member's lease again."""
        self._shared.start_beat(self._open())

    def _open(self) -> Seat:
        if self._seat is None:
            raise BrokerUnavailable("the broker is not open")
        return self._seat

    # --- commands -----------------------------------------------------------------------------------------------

    async def submit(self, commands: Sequence[NewCommand]) -> list[Receipt]:
        """Takes commands in; see `Broker.submit`.

        Raises:
            BrokerRefused: they could not be stored.
        """
        receipts = self._shared.submit(self._open(), commands)
        saved = self._shared.life.ledger.saved
        if saved is not None:
            try:
                await asyncio.shield(saved)
            except StorageError as error:
                self._shared.refuse(receipt.id for receipt in receipts if receipt.answer == Answer.ACCEPTED)
                raise BrokerRefused(str(error)) from error
        return receipts

    async def turn(self, ends: Sequence[End], want: int, progress: Sequence[Progress] = ()) -> Turn:
        """Hands in ends and progress, then claims up to `want` commands; see `Broker.turn`."""
        return self._shared.turn(self._open(), ends, want, progress)

    async def watch(self, ids: Sequence[str]) -> list[Result]:
        """Asks to be told of the ends of commands; see `Broker.watch`."""
        seat, life = self._open(), self._shared.life
        self._shared.begin()
        ended: list[Result] = []
        for command_id in ids:
            if command_id in life.live:
                life.results.watch(command_id, seat)
            else:
                ended.append(life.results.get(command_id) or Result(command_id, _UNKNOWN))
        self._shared.finish(seat)
        return ended

    async def unwatch(self, ids: Sequence[str]) -> None:
        """Ends watches; see `Broker.unwatch`."""
        seat = self._open()
        for command_id in ids:
            self._shared.life.results.unwatch(command_id, seat)

    async def cancel(self, id: str, /) -> str:  # noqa: A002 - the name of the field
        """Cancels a command; see `Broker.cancel`."""
        seat, life = self._open(), self._shared.life
        now = self._shared.begin()
        record = life.live.get(id)
        answer = _UNKNOWN
        if record is not None:
            answer = "cancelled" if life.cancel(record, now) else "running"
        self._shared.finish(seat)
        return answer

    async def find(self, id: str, /) -> Found | None:  # noqa: A002 - likewise
        """The live command of this id; see `Broker.find`."""
        seat = self._open()
        now = self._shared.begin()
        record = self._shared.life.live.get(id)
        found = None if record is None else record.found(now)
        self._shared.finish(seat)
        return found

    # --- lanes and dead letters ---------------------------------------------------------------------------------

    async def set_paused(self, lane: str, *, paused: bool) -> bool:
        """Pauses or resumes a lane for all members; see `Broker.set_paused`."""
        return self._shared.set_paused(self._open(), lane, paused=paused)

    async def stats(self) -> BrokerStats:
        """How the queue is; see `Broker.stats`."""
        seat = self._open()
        self._shared.begin()
        self._shared.finish(seat)
        return stats_of(self._shared)

    async def letters(self, *, lane: str | None = None, limit: int = 100, after: str | None = None) -> list[Letter]:
        """Dead letters, oldest first; see `Broker.letters`."""
        self._open()
        return self._shared.life.letters.page(lane, limit, after)

    async def requeue(self, ids: Sequence[str]) -> list[str]:
        """Makes dead letters commands again; see `Broker.requeue`."""
        seat = self._open()
        now = self._shared.begin()
        requeued = [letter_id for letter_id in ids if self._shared.life.requeue(letter_id, self.member, now)]
        self._shared.finish(seat)
        return requeued

    async def remove_letters(self, ids: Sequence[str] | None = None) -> int:
        """Forgets dead letters; see `Broker.remove_letters`."""
        self._open()
        removed = self._shared.life.remove_letters(ids)
        self._shared.life.ledger.flush()
        return removed

    # --- how it is ----------------------------------------------------------------------------------------------

    def health(self) -> BrokerHealth:
        """How the link is: open or not."""
        if (seat := self._seat) is None:
            return BrokerHealth(ready=False, error="the broker is not open", stale=self._stale, lost=self._lost)
        stale, lost, leads = self._stale + seat.stale, self._lost + seat.lost, self._shared.leader() is seat
        storage = self._shared.life.ledger.storage
        error = None if storage is None else storage.health().error
        return BrokerHealth(ready=not error, error=str(error or ""), stale=stale, lost=lost, leads=leads)

    def leading_stats(self) -> BrokerStats | None:
        """How the queue is, for the member that exports what is about all of it; see `Broker.leading_stats`."""
        return stats_of(self._shared) if self.health().leads else None
