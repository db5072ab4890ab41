"""The exchange with a broker: one call hands in what has ended and claims as much as there are free slots."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from lane_obs import events
from lane_obs.clock import sleep
from lane_obs.core.histogram import QUICK_BOUNDS, Histogram
from lane_obs.distributed.denial import delay_after_denial
from lane_obs.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lane_obs.clock import Clock, Timer
    from lane_obs.distributed import Broker
    from lane_obs.distributed.record import Claimed, End, Fact, Progress, Turn
    from lane_obs.runtime.brokered.journal import BrokerJournal
    from lane_obs.runtime.dispatcher import Dispatcher
    from lane_obs.runtime.handle import CommandHandle

_logger: Final = logging.getLogger("lane_obs.broker")
_COURTESY: Final = 0.05
"""Seconds for which other members may ask first, where this one has met commands that it cannot run: one round trip to
the broker for each of them."""
_PATIENCE: Final = 5.0
"""Seconds that the last ends may take to reach the broker."""


class Pump:
    """Keeps the slots of one member busy.

    Args:
        broker: gives work and takes ends.
        journal: has the ends.
        dispatcher: is told of them once the broker knows.
        clock: wakes it when something is due at the broker.
        start: starts what was claimed.
        tell: passes on what the broker did on its own account.
        expects: whether what may be there now may be what others are to run.

    Attributes:
        claims: whether it claims.
    """

    def __init__(
        self,
        broker: Broker,
        journal: BrokerJournal,
        dispatcher: Dispatcher,
        clock: Clock,
        *,
        start: Callable[[Sequence[Claimed]], None],
        tell: Callable[[Sequence[Fact]], None],
        expects: Callable[[float], bool],
    ) -> None:
        self._broker = broker
        self._journal = journal
        self._dispatcher = dispatcher
        self._clock = clock
        self._start = start
        self._tell = tell
        self._expects = expects
        self.claims = self._rests = False
        self._hungry = True
        """Whether there may be work at the broker that was not there when it was last asked."""
        self._steps_back = False
        """Whether it is about to let others ask first."""
        self._due: Timer | None = None
        self._courtesy: Timer | None = None
        self._waker: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._tries = 0
        """How often in a row the broker has denied an exchange."""
        journal.on_news = self.kick
        self._seconds = dispatcher.bus.histograms["broker_turn_seconds"] = Histogram(QUICK_BOUNDS)

    def open(self, *, claims: bool) -> None:
        """Begins."""
        self.claims = claims
        loop = self._dispatcher.loop
        assert loop is not None
        self._task = loop.create_task(self._run(), context=contextvars.Context())

    def rest(self) -> None:
        """Claims nothing more; others are to be told of work, and to keep the time, before this member."""
        if self.claims:
            self.claims, self._rests = False, True
            self.on_work()

    def on_work(self) -> None:
        """There may be work at the broker; where this member has just left some to others, they may ask first."""
        now = self._clock.now()
        if self._rests:  # it may have been meant for somebody who works
            self._steps_back = True
            self.kick()
        elif not self._expects(now):
            self._ask()
        elif self._courtesy is None:
            self._steps_back = True
            self._courtesy = contextvars.Context().run(self._clock.call_at, now + _COURTESY, self._ask)
            self.kick()

    def _ask(self) -> None:
        if self._courtesy is not None:
            self._courtesy.cancel()
            self._courtesy = None
        self._hungry = True
        self.kick()

    def on_claimed(self, claimed: Sequence[Claimed]) -> None:
        """The broker has claimed commands unasked; it does no more of that before it is asked again."""
        if self.claims:
            self._start(claimed)
        else:
            self._journal.give_back(claimed)
        self.on_work()

    def kick(self) -> None:
        """Has it look what it has for the broker and what it wants, after all that this turn of the loop still does."""
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            has_news = self._journal.has_news
            # Where there is something to tell it asks for work, too: it costs little, and no hint can be missed.
            want = self._wanted() if has_news or self._hungry else 0
            if want or has_news or self._steps_back:
                self._steps_back = self._rests and has_news  # what it tells does not say that it rests
                ends, told, progress = self._journal.take()
                await self._turn(ends, told, progress, want)
            elif self._closed:
                return
            else:
                self._waker = loop.create_future()
                await self._waker

    def _wanted(self) -> int:
        return max(self._broker.concurrency - self._journal.active, 0) if self.claims else 0

    async def _turn(self, ends: list[End], told: list[CommandHandle[Any]], progress: list[Progress], want: int) -> None:
        if want:
            self._hungry = False  # whatever is told from now on counts
        began = self._clock.now()
        try:
            turn = await self._broker.turn(ends, want, progress)
        except BrokerError as error:
            await self._failed(error, ends, told)
            return
        self._tries = 0
        self._seconds.observe(self._clock.now() - began)
        if want and len(turn.claimed) == want:
            self._hungry = True
        if turn.stale:
            self._tell_stale(turn.stale, ends, told)
        self._take(turn)
        if told:
            self._dispatcher.settle_ends(told)
        self._arm(turn)

    def _take(self, turn: Turn) -> None:
        if turn.facts:
            self._tell(turn.facts)
        if not self.claims:
            self._journal.give_back(turn.claimed)
        elif turn.claimed:
            self._start(turn.claimed)

    async def _failed(self, error: BrokerError, ends: list[End], told: list[CommandHandle[Any]]) -> None:
        """The broker was closed, or denies the exchange: then it is asked again later, with the same ends."""
        if self._closed:
            if ends:
                _logger.warning("%d ends did not reach the broker, which has them run again: %s", len(ends), error)
            self._dispatcher.settle_ends(told)
            return
        if not self._tries:
            _logger.error("the broker denies its work; it is asked again: %s", error)
        self._journal.put_back(ends, told)
        self._hungry = True
        self._tries += 1
        delay = delay_after_denial(self._tries, error)
        self._waker = asyncio.get_running_loop().create_future()
        timer = self._clock.call_at(self._clock.now() + delay, self.kick)
        try:
            await self._waker
        finally:
            timer.cancel()

    def _tell_stale(self, stale: Sequence[str], ends: Sequence[End], told: Sequence[CommandHandle[Any]]) -> None:
        refused = Counter(stale)  # of two attempts of one command in one exchange the earlier one is refused
        now = self._clock.now()
        about = zip(ends, told, strict=False)  # ends without a command come last
        for end, handle in sorted(about, key=lambda pair: pair[0].token):
            if refused[end.id]:
                refused[end.id] -= 1
                self._dispatcher.emit(events.CommandStale, handle, now, end.state)

    def _arm(self, turn: Turn) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if turn.next_due is not None and self.claims:
            when = self._clock.now() + turn.next_due
            self._due = contextvars.Context().run(self._clock.call_at, when, self.on_work)

    async def close(self) -> None:
        """Tells what is left, and ends; gives up after a while, when the broker has to be closed first."""
        self.claims = False
        self._closed = True
        for timer in (self._due, self._courtesy):
            if timer is not None:
                timer.cancel()
        self.kick()
        if self._task is not None:
            patience = asyncio.ensure_future(sleep(self._clock, _PATIENCE))
            await asyncio.wait([self._task, patience], return_when=asyncio.FIRST_COMPLETED)
            patience.cancel()

    async def ended(self) -> None:
        """Returns once it has ended; the broker is closed by then."""
        if self._task is not None:
            await asyncio.wait([self._task])
            self._task.result()
