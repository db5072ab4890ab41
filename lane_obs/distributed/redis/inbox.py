"""What a member is told: by messages, by its heartbeat and by its link; and how it stands with the queue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from lane_obs.clock import SystemClock
from lane_obs.distributed.record import Progress
from lane_obs.distributed.redis.frame import to_claimed, to_facts, to_results, unpack_message
from lane_obs.distributed.redis.heartbeat import Heartbeat
from lane_obs.distributed.redis.holding import Holding
from lane_obs.distributed.view import BrokerHealth
from lane_obs.errors import BrokerError, BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from lane_obs.clock import Timer
    from lane_obs.distributed.port import Listener
    from lane_obs.distributed.record import Fact, Turn
    from lane_obs.distributed.redis.link import Link
    from lane_obs.distributed.redis.session import Session
    from lane_obs.distributed.view import BrokerStats


class Inbox:
    """Passes on to the listener of a member what there is to tell.

    Args:
        session: the member's.
        url: of the server.
        timeout: seconds that the server may take.
        lease: seconds that the member's lease lasts.
        ttl: milliseconds for which results are kept.
    """

    def __init__(self, session: Session, url: str, *, timeout: float, lease: float, ttl: int) -> None:
        self._session = session
        self._timeout = timeout
        self._lease = lease
        self._new_heartbeat: Callable[[], Heartbeat] = lambda: Heartbeat(
            url, timeout=timeout, session=session, lease=lease, ttl=ttl,
            on_beat=self._beaten, on_forgotten=self._unknown,
        )  # fmt: skip
        self._heartbeat: Heartbeat | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: Listener | None = None
        self._clock = SystemClock()
        self._alarm: Timer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._joins = False
        self._error = "not open"
        self._failures = self._stale = self._lost = 0
        self._leads = False
        self.holding = Holding()
        self.is_unsure = False
        """Whether the link was lost since the server was last told what this member runs."""

    @property
    def is_registered(self) -> bool:
        """Whether this member has a lease."""
        return self._heartbeat is not None or not self._session.wish.get("looks", True)

    async def open(self, link: Link, listener: Listener) -> None:
        """Begins to listen; returns once it does."""
        self._loop = asyncio.get_running_loop()
        self._listener, self._error = listener, ""
        link.on_state = self._link_changed
        listening = self._loop.create_future()

        def subscribed() -> None:
            self.holding.listens_anew()
            if not listening.done():
                listening.set_result(None)
            else:
                self._tell_state()
                listener.on_work()

        link.subscribe([self._session.keys.channel(self._session.code)], self._take, subscribed)
        late = self._clock.call_at(self._clock.now() + self._timeout, _give_up, listening, link.shown)
        try:
            await listening
        finally:
            late.cancel()
        self._beat()

    def _beat(self) -> None:
        if self._heartbeat is None and self.is_registered:
            self._heartbeat = self._new_heartbeat()
            self._heartbeat.start()

    async def close(self) -> Listener | None:
        """Ends the heartbeat, and tells nothing any more; gives whom the last facts of this member are for."""
        listener, self._error = self._listener, "closed"
        self._set_alarm(None)
        heartbeat, self._heartbeat = self._heartbeat, None
        for task in self._tasks:
            task.cancel()
        if heartbeat is not None:
            loop = asyncio.get_running_loop()
            ended = loop.create_future()
            heartbeat.stop(lambda: loop.call_soon_threadsafe(ended.set_result, None))
            await ended  # what its last beat has told comes before
            heartbeat.join()
        self._heartbeat = self._listener = None
        self._leads = False
        return listener

    # --- what comes ---------------------------------------------------------------------------------------------

    def _take(self, payload: bytes) -> None:
        listener = self._listener
        if listener is None:
            return
        (kind, *rest), blobs = unpack_message(payload)
        if kind == "t":
            self._take_push(listener, rest, blobs)
        elif kind == "w":
            listener.on_work()
        elif kind == "r":
            listener.on_results(to_results(rest[0], rest[1], blobs))
        elif kind == "c":
            self._tell_cancel(rest[0])
        elif kind == "p":
            listener.on_progress(Progress(rest[0][0], 0, blobs[0]))
        elif kind == "o":
            self._tell_room(int(rest[0][0]))

    def _tell_room(self, code: int) -> None:
        """Others may have made the lane anew, with a code that is new to us."""
        if (lane := self._session.lanes.get(code)) is None:
            self._begin(self._learn_and_tell_room, code)
        elif self._listener is not None:
            self._listener.on_room(lane)

    async def _learn_and_tell_room(self, code: int) -> None:
        await self._session.learn_names(wait=None)
        if code in self._session.lanes:
            self._tell_room(code)

    def _take_push(self, listener: Listener, rest: Sequence[Any], bodies: Sequence[bytes]) -> None:
        rows, odd, token, _ = rest
        if token < self._session.last_token:
            return  # it was lost with an earlier lease
        if not self._has_lease():  # it may be another one's by now, as after a long sleep: the next turn tells
            listener.on_work()
            return
        try:
            claimed = to_claimed(rows, odd, token, bodies, self._session.lanes)
        except KeyError:  # a lane that is new to us: as if the message were lost
            listener.on_work()
            return
        if new := self.holding.take_push(claimed):
            listener.on_claimed(new)
            self._tell_early()

    def _has_lease(self) -> bool:
        """Whether the lease cannot be over: the server counts it from later than the beat's beginning."""
        heartbeat = self._heartbeat
        return heartbeat is not None and self._clock.now() < heartbeat.renewed_at + self._lease

    def tell_facts(self, rows: Sequence[Any], bodies: Sequence[bytes]) -> None:
        """Passes facts on, at once where their lanes are known."""
        if self._listener is None or not rows:
            return
        if all(row[1] in self._session.lanes for row in rows):
            self._listener.on_facts(to_facts(rows, bodies, self._session.lanes))
        else:
            self._begin(self._learn_and_tell, rows, bodies)

    async def _learn_and_tell(self, rows: Sequence[Any], bodies: Sequence[bytes]) -> None:
        await self._session.know([row[1] for row in rows], wait=None)
        self.tell(to_facts(rows, bodies, self._session.lanes))

    def _begin(self, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Does something that waits for the server, and is given up at the end, maybe before its first step."""
        task = asyncio.get_running_loop().create_task(self._see_through(work, *args))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _see_through(self, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        try:
            await work(*args)
        except BrokerError as error:
            self._link_changed(up=False, reason=str(error))

    def tell(self, facts: list[Fact]) -> None:
        """The same for facts that need no unpacking."""
        if self._listener is not None:
            self._listener.on_facts(facts)

    def _tell_cancel(self, ids: Sequence[str]) -> None:
        """Passes cancels on; those of commands whose claim is still on its way here wait for it."""
        mine = self.holding.take_cancels(ids)
        if self._listener is not None and mine:
            self._listener.on_cancel(mine)

    def _tell_early(self) -> None:
        self._tell_cancel(self.holding.take_early())

    def note(self, turn: Turn, pushed: int, ended: Sequence[tuple[str, int]], *, wanted: bool) -> Turn:
        """Takes note of what this member holds; gives the turn without what had come before by a message."""
        claimed = self.holding.take_turn(turn, pushed, ended)
        if self.holding.early:  # once whoever asked for the turn knows what it has claimed
            asyncio.get_running_loop().call_soon(self._tell_early)
        self._stale += len(turn.stale)
        if wanted:
            self._set_alarm(turn.next_due)
        return turn if claimed is turn.claimed else msgspec.structs.replace(turn, claimed=claimed)

    def _set_alarm(self, seconds: float | None) -> None:
        """Has this member look again when something is due: it keeps the time for all that are idle."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if seconds is None else self._clock.call_at(self._clock.now() + seconds, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._listener is not None:
            self._listener.on_work()

    def lose_held(self) -> None:
        """The queue has forgotten this member: it holds nothing, and watches nothing."""
        lost = self.holding.lose()
        self._lost += len(lost)
        self._beat()
        if self._listener is not None:
            if lost:
                self._listener.on_lost(lost)
            self._tell_state()
            self._listener.on_work()

    # --- from the heartbeat's thread ----------------------------------------------------------------------------

    def _beaten(self, leads: bool, cancels: list[str], rows: list[Any], bodies: list[bytes], pushed: bool) -> None:  # noqa: FBT001
        assert self._loop is not None
        if cancels or rows or pushed or leads is not self._leads:
            self._loop.call_soon_threadsafe(self._take_beat, leads, cancels, rows, bodies, pushed)

    def _take_beat(self, leads: bool, cancels: list[str], rows: list[Any], bodies: list[bytes], pushed: bool) -> None:  # noqa: FBT001
        listener = self._listener
        if listener is None:
            return
        changed, self._leads = leads is not self._leads, leads
        self.tell_facts(rows, bodies)
        self._tell_cancel(cancels)
        if pushed:  # its message may be lost
            listener.on_work()
        if changed:
            self._tell_state()

    def _unknown(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._join_again)

    def _join_again(self) -> None:
        if self._listener is not None and not self._joins:
            self._joins = True
            self._begin(self._ask_to_join)

    async def _ask_to_join(self) -> None:
        try:
            await self._session.ask("member", {}, wait=None)
        finally:
            self._joins = False

    # --- state --------------------------------------------------------------------------------------------------

    def _link_changed(self, up: bool, reason: str) -> None:  # noqa: FBT001 - as Link.on_state gives it
        self._error = "" if up else reason
        self._failures += not up
        self.is_unsure = True
        self._tell_state()

    def _tell_state(self) -> None:
        if self._listener is not None:
            self._listener.on_state(self.health())

    def health(self) -> BrokerHealth:
        """How the link is; from any thread."""
        heartbeat = self._heartbeat
        return BrokerHealth(
            ready=not self._error, error=self._error, failures=self._failures, stale=self._stale, lost=self._lost,
            leads=heartbeat is not None and heartbeat.leads,
        )  # fmt: skip

    def leading_stats(self) -> BrokerStats | None:
        """The queue, where this member leads; from any thread."""
        heartbeat = self._heartbeat
        return None if heartbeat is None else heartbeat.stats


def _give_up(listening: asyncio.Future[None], shown: str) -> None:
    if not listening.done():
        listening.set_exception(BrokerUnavailable(f"{shown}: it did not let us subscribe in time"))
