"""A queue that lives at a Redis or Valkey server."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from lane_obs.config.check import to_count, to_seconds
from lane_obs.distributed.record import Answer, Receipt, Result, Turn
from lane_obs.distributed.redis.frame import decode, encode, join_turns, pack_turn, to_facts, to_results, to_turn
from lane_obs.distributed.redis.inbox import Inbox
from lane_obs.distributed.redis.keys import Keys
from lane_obs.distributed.redis.link import Link
from lane_obs.distributed.redis.policy import check_lane, pack_lanes
from lane_obs.distributed.redis.program import load
from lane_obs.distributed.redis.questions import Questions
from lane_obs.distributed.redis.session import VERSION, Session
from lane_obs.errors import BrokerError, BrokerUnavailable, ConfigError, UnknownLane

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs.config import LaneConfig, RateLimit
    from lane_obs.config.check import Duration
    from lane_obs.distributed.port import Listener
    from lane_obs.distributed.record import End, NewCommand, Progress
    from lane_obs.distributed.view import BrokerHealth, BrokerStats

_ACCEPTED: Final = Answer.ACCEPTED
_BATCH: Final = 500
"""A script holds the server up while it runs: so many commands at a time."""
_SHORTEST: Final = 0.1
_UNSURE: Final = 10_000
"""Ids of submits without an answer that are remembered."""


class RedisBroker(Questions):
    """One queue for many processes, at a Redis (7 or later) or Valkey server.

    Args:
        url: where the server is: `redis://`, `rediss://`, `unix://`, Sentinel or Cluster; see docs/redis.md.
        queue: the queue's name; processes that give the same one share it.
        lease: seconds for which a member that is not heard of keeps its commands; it renews all in a third of that.
        concurrency: how many commands this member runs at once.
        result_ttl: seconds for which results are kept; 0 for not at all: whoever watches is told, nobody later.
        submit_timeout: seconds for which a submit waits for a server that cannot be reached.
        timeout: seconds that the server may take to answer.
        max_body: the largest command, in bytes.
        max_result: the largest result, in bytes.

    Raises:
        ConfigError: a value outside its range, with its name.
    """

    def __init__(
        self,
        url: str,
        *,
        queue: str = "default",
        lease: Duration = 30.0,
        concurrency: int = 32,
        result_ttl: Duration = 300.0,
        submit_timeout: Duration = 5.0,
        timeout: Duration = 5.0,
        max_body: int = 1_000_000,
        max_result: int = 1_000_000,
    ) -> None:
        self.concurrency = to_count("concurrency", concurrency, minimum=1)
        self.max_body = to_count("max_body", max_body, minimum=1)
        self.max_result = to_count("max_result", max_result, minimum=1)
        self._url = url
        self._keys = Keys(queue)
        self._timeout = to_seconds("timeout", timeout)
        self._wait = to_seconds("submit_timeout", submit_timeout)
        self._lease = to_seconds("lease", lease)
        self._ttl = round(to_seconds("result_ttl", result_ttl, zero=True) * 1000)
        self._times = {"ttl": self._ttl, "lease": round(self._lease * 1000)}
        if self._lease < _SHORTEST:
            raise ConfigError("lease", lease, f"give {_SHORTEST} seconds or more: it is renewed in a third of that")
        self._get_ready()
        self._submitting = asyncio.Lock()
        self._calls = self._turns = 0
        self._unsure: dict[str, None] = {}
        self.member = ""
        self.partitions = 1
        self.pushes = True

    def _get_ready(self) -> None:
        self._link = Link(self._url, timeout=self._timeout)
        self._session = Session(self._keys, self._forgotten)
        self._inbox = Inbox(self._session, self._url, timeout=self._timeout, lease=self._lease, ttl=self._ttl)
        self._unanswered: tuple[list[bytes], Sequence[tuple[str, int]], bool] | None = None

    # --- life ---------------------------------------------------------------------------------------------------

    def check(
        self, lanes: Mapping[str, LaneConfig], max_concurrency: int | None, rate_limits: Sequence[RateLimit]
    ) -> None:
        """Checks policies; see `Broker.check`.

        Raises:
            ConfigError: a lane asks for what this broker cannot do.
        """
        for name, lane in lanes.items():
            check_lane(name, lane)

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
        """Joins the queue, as `Broker.open` says. Without lanes and work it looks on, and makes no queue."""
        if self._session.link is not None:  # it was open, or could not be opened, before
            self._get_ready()
        session = self._session
        session.wish = {
            "version": str(VERSION),
            "looks": not lanes and not work,
            "lanes": pack_lanes(lanes, rate_limits),
            "limit": -1 if max_concurrency is None else max_concurrency,
            "letters": letters,
            "info": [session.member, work, self.concurrency],
            **self._times,
        }
        self._rate_limits = rate_limits
        session.link = self._link
        await self._link.connect()
        try:
            await session.join(wait=self._timeout)
            await self._inbox.open(self._link, listener)
        except BaseException:
            await self.close()
            raise
        self.member = session.member

    async def close(self) -> None:
        """Leaves the queue; calling it again does nothing."""
        listener = await self._inbox.close()
        self.member = ""
        more = bool(self._session.epoch) and self._inbox.is_registered
        with suppress(BrokerError):  # then the lease ends by itself
            while more:
                request, wait = {"ttl": self._ttl, "pushed": self._inbox.holding.pushed}, min(self._timeout, 2.0)
                answer = await self._session.ask_once("close", request, wait=wait)
                more, rows = decode(answer[0]) if answer is not None else (False, ())
                if rows and listener is not None:
                    await self._session.know([row[1] for row in rows], wait=wait)
                    listener.on_facts(to_facts(rows, answer[1:], self._session.lanes))
        self._session.epoch = ""
        await self._link.close()

    def _forgotten(self, answers: list[Any]) -> None:
        for answer in answers:
            self._inbox.tell_facts(decode(answer[0])[1], answer[1:])
        self._inbox.lose_held()

    # --- submits ------------------------------------------------------------------------------------------------

    async def submit(self, commands: Sequence[NewCommand]) -> list[Receipt]:
        """Takes commands in, as `Broker.submit` says.

        Raises:
            UnknownLane: a lane that no member has named.
            BrokerUnavailable: the server cannot be reached.
        """
        if not commands:
            return []
        async with self._submitting:
            receipts: list[Receipt] = []
            for start in range(0, len(commands), _BATCH):
                receipts += await self._submit(commands[start : start + _BATCH])
            return receipts

    async def _submit(self, commands: Sequence[NewCommand]) -> list[Receipt]:
        unsure = self._unsure
        try:
            answer = await self._session.send(
                load("submit"), self._pack(commands), wait=self._wait, again=lambda: self._pack_again(commands)
            )
        except (BrokerUnavailable, asyncio.CancelledError):
            unsure.update(dict.fromkeys(command.id for command in commands))
            while len(unsure) > _UNSURE:
                del unsure[next(iter(unsure))]
            raise
        special, rows = decode(answer[0])
        if isinstance(special, str):
            await self._session.learn_names(wait=self._wait)
            raise UnknownLane(special, self._session.codes)
        if rows:
            self._inbox.tell_facts(rows, answer[1:])
        receipts = [Receipt(_ACCEPTED, command.id) for command in commands]
        for n, what, id_ in zip(special[::3], special[1::3], special[2::3], strict=True):
            receipts[n - 1] = Receipt(Answer(what), id_)
        if unsure:
            for command in commands:
                unsure.pop(command.id, None)
        return receipts

    def _pack_again(self, commands: Sequence[NewCommand]) -> list[bytes]:
        """The same for a server that no longer knows this member's last submit: it may be done with it."""
        self._unsure.update(dict.fromkeys(command.id for command in commands))
        return self._pack(commands)

    def _pack(self, commands: Sequence[NewCommand]) -> list[bytes]:
        unsure = self._unsure
        lanes = {lane: n for n, lane in enumerate(dict.fromkeys([command.lane for command in commands]), 1)}
        self._calls += 1
        request = {
            "call": self._calls,
            "ttl": self._ttl,
            "ids": [command.id for command in commands],
            "lanes": list(lanes),
            "which": [lanes[command.lane] for command in commands],
            "delays": {n: round(c.delay * 1e6) for n, c in enumerate(commands, 1) if c.delay > 0},
            "deadlines": {n: round(c.deadline * 1e6) for n, c in enumerate(commands, 1) if c.deadline is not None},
            "costs": {n: c.cost for n, c in enumerate(commands, 1) if c.cost != 1.0},
            "keys": {n: c.key for n, c in enumerate(commands, 1) if c.key is not None},
            "parts": {n: c.part for n, c in enumerate(commands, 1) if c.part is not None},
            "again": {n: True for n, c in enumerate(commands, 1) if c.id in unsure} if unsure else {},
        }
        return [encode(request), *[command.body for command in commands]]

    # --- turns --------------------------------------------------------------------------------------------------

    async def turn(self, ends: Sequence[End], want: int, progress: Sequence[Progress] = ()) -> Turn:
        """Hands in ends and progress and claims commands, as `Broker.turn` says."""
        whole: Turn | None = None
        if self._unanswered is not None:  # what it claimed is held by this member, who does not know of it
            whole = await self._turn(*self._unanswered)
            want = max(want - len(whole.claimed), 0)
        if self._inbox.is_unsure:
            await self._compare()
        while True:
            last = len(ends) <= _BATCH and want <= _BATCH and len(progress) <= _BATCH
            self._turns += 1
            pushed = self._inbox.holding.pushed if self.pushes else -1
            some = pack_turn(self._turns, self._times, pushed, ends[:_BATCH], min(want, _BATCH), progress[:_BATCH])
            part = await self._turn(some, [(end.id, end.token) for end in ends[:_BATCH]], want > 0)
            whole = part if whole is None else join_turns(whole, part)
            if last or (len(ends) <= _BATCH and len(progress) <= _BATCH and len(part.claimed) < min(want, _BATCH)):
                return whole
            ends, progress, want = ends[_BATCH:], progress[_BATCH:], want - len(part.claimed)

    async def _compare(self) -> None:
        """Tells the server what this member runs, which a replica that has taken over may not know."""
        self._inbox.is_unsure = False
        holding = self._inbox.holding
        request = {"ids": holding.ids(), "pushed": holding.pushed, "ttl": self._ttl}
        more = True
        while more:
            answer = await self._session.ask("resync", request, wait=None)
            more, rows = decode(answer[0])
            self._inbox.tell_facts(rows, answer[1:])

    async def _turn(self, parts: list[bytes], ended: Sequence[tuple[str, int]], wanted: bool) -> Turn:  # noqa: FBT001 - as it is kept
        self._unanswered = parts, ended, wanted
        answer = await self._session.send(load("turn"), parts, wait=None)
        while True:
            try:
                turn, pushed = to_turn(answer, self._session.lanes)
                break
            except KeyError as unknown:  # the lane of this code
                await self._session.know(unknown.args, wait=None)
        self._unanswered = None
        return self._inbox.note(turn, pushed, ended, wanted=wanted)

    # --- watches ------------------------------------------------------------------------------------------------

    async def watch(self, ids: Sequence[str]) -> list[Result]:
        """Asks to be told of ends, as `Broker.watch` says."""
        results: list[Result] = []
        for start in range(0, len(ids), _BATCH):
            some = ids[start : start + _BATCH]
            answer = await self._session.ask("watch", {"ids": list(some)}, wait=self._wait)
            found = decode(answer[0])
            results += to_results([some[n - 1] for n in found[::2]], found[1::2], answer[1:])
        return results

    async def unwatch(self, ids: Sequence[str]) -> None:
        """Ends watches."""
        for start in range(0, len(ids), _BATCH):
            await self._session.ask("unwatch", {"ids": list(ids[start : start + _BATCH])}, wait=self._wait)

    # --- state --------------------------------------------------------------------------------------------------

    def health(self) -> BrokerHealth:
        """How the link to the server is; from any thread."""
        return self._inbox.health()

    def leading_stats(self) -> BrokerStats | None:
        """How the queue was at the last heartbeat; `None` unless this member leads. From any thread."""
        return self._inbox.leading_stats()
