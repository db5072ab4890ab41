"""Turns over all partitions: hands each its ends, and deals what is wanted among those that may have work."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from lane_obs.clock import sleep
from lane_obs.distributed.record import End, Turn
from lane_obs.errors import BrokerUnavailable, error_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lane_obs.clock import Clock
    from lane_obs.distributed.partitioned.branch import Branch
    from lane_obs.distributed.port import Listener
    from lane_obs.distributed.record import Claimed, Fact, Progress

    _News = dict[Branch, tuple[list[End], list[Progress]]]

_logger: Final = logging.getLogger("lane_obs.broker")
_PATIENCE: Final = 5.0
"""Seconds that the last ends may take to reach their partitions."""


class _Sum:
    """What several turns came to."""

    def __init__(self) -> None:
        self.stale: list[str] = []
        self.claimed: list[Claimed] = []
        self.facts: list[Fact] = []
        self.dues: list[float] = []

    def add(self, turn: Turn) -> None:
        self.stale += turn.stale
        self.claimed += turn.claimed
        self.facts += turn.facts
        if turn.next_due is not None:
            self.dues.append(turn.next_due)

    def turn(self) -> Turn:
        return Turn(self.stale, self.claimed, self.facts, min(self.dues, default=None))


class Exchange:
    """One member's turns.

    A partition that cannot be reached holds nobody up: it is asked for nothing, its ends are told once it is back, and
    what it gave with an answer that came too late is given back to it.

    Args:
        branches: the partitions.
        clock: all time.
        concurrency: how many commands the member runs at once.
        listener: is told of work, and of facts that came too late for a turn.
    """

    def __init__(
        self, branches: Sequence[Branch], clock: Clock, concurrency: Callable[[], int], listener: Listener
    ) -> None:
        self._branches = branches
        self._clock = clock
        self._concurrency = concurrency
        self._listener = listener
        self._running = 0
        self._first = 0
        """The partition that is dealt to first, in turns."""
        self._is_busy = self._is_closed = False
        self._cancels: list[str] = []
        self._changed: asyncio.Future[None] | None = None

    def on_change(self) -> None:
        """A partition can be reached no more, or again."""
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def on_work(self, branch: Branch) -> None:
        """A partition may have work."""
        branch.is_hungry = branch.is_called = True
        if not self._is_busy:
            self._step_back()
        self._listener.on_work()

    def on_cancel(self, ids: Sequence[str]) -> None:
        """Commands are to be cancelled; once more after a turn that is under way, with which they may come."""
        self._listener.on_cancel(ids)
        if self._is_busy:
            self._cancels += ids

    def _step_back(self) -> None:
        """Has partitions call others that have called this member, which is full of other partitions' work."""
        if self._running < self._concurrency():
            return
        for branch in self._branches:
            if branch.is_called and not branch.has_rested and not branch.error:
                branch.has_rested, branch.is_called = True, False
                self._expect_late(branch, branch.begin((), 0, ()))

    # --- a turn -------------------------------------------------------------------------------------------------

    async def turn(self, ends: Sequence[End], want: int, progress: Sequence[Progress]) -> Turn:
        """See `Broker.turn`.

        Raises:
            BrokerUnavailable: the broker is closed.
        """
        if self._is_closed:
            raise BrokerUnavailable("the broker is not open")
        self._is_busy = True
        try:
            whole = await self._turn(ends, want, progress)
        finally:
            self._is_busy = False
            cancels, self._cancels = self._cancels, []
        if cancels:  # once whoever asked for the turn knows what it has claimed
            asyncio.get_running_loop().call_soon(self._listener.on_cancel, cancels)
        self._running += len(whole.claimed)
        self._step_back()
        return whole

    async def _turn(self, ends: Sequence[End], want: int, progress: Sequence[Progress]) -> Turn:
        news = self._sorted(ends, progress)
        self._running -= len(ends)
        whole = _Sum()
        known = self._in_turn()
        if want or news:
            likely = [branch for branch in known if branch.is_hungry or branch in news]
            wants = _deal(want, likely or known)  # who asks though none has called: word may be on its way, or lost
        else:  # nobody comes, to none of them
            wants = dict.fromkeys(known, 0)
        await self._round(news, wants, whole)
        while (left := want - len(whole.claimed)) > 0:
            likely = [branch for branch in self._in_turn() if branch.is_hungry]
            if not likely:
                break
            await self._round({}, _deal(left, likely), whole)
        return whole.turn()

    def _sorted(self, ends: Sequence[End], progress: Sequence[Progress]) -> _News:
        """What there is to tell, by partition: the token says which."""
        news: _News = {}
        branches, count = self._branches, len(self._branches)
        for end in ends:
            news.setdefault(branches[end.token % count], ([], []))[0].append(end)
        for told in progress:
            news.setdefault(branches[told.token % count], ([], []))[1].append(told)
        return news

    def _in_turn(self) -> list[Branch]:
        """The partitions that can be reached, each time from another one on."""
        self._first = (self._first + 1) % len(self._branches)
        turned = [*self._branches[self._first :], *self._branches[: self._first]]
        return [branch for branch in turned if not branch.error]

    async def _round(self, news: _News, wants: dict[Branch, int], whole: _Sum) -> None:
        """Asks some partitions at the same time, and waits for those that can be reached."""
        begun = self._begin(news, wants)
        late = set(begun)
        try:
            await self._answers(begun)
            for branch, task in begun.items():
                if task.done():
                    late.discard(branch)
                    turn = task.result()
                    branch.is_hungry |= 0 < wants.get(branch, 0) == len(turn.claimed)
                    whole.add(turn)
        finally:
            for branch in late:
                self._expect_late(branch, begun[branch])

    def _begin(self, news: _News, wants: dict[Branch, int]) -> dict[Branch, asyncio.Task[Turn]]:
        begun: dict[Branch, asyncio.Task[Turn]] = {}
        for branch in {**news, **wants}:
            ends, progress = news.get(branch, ((), ()))
            if not branch.error:
                begun[branch] = branch.begin(ends, wants.get(branch, 0), progress)
            elif (task := branch.keep(ends, progress)) is not None:
                self._expect_late(branch, task)
        return begun

    async def _answers(self, begun: dict[Branch, asyncio.Task[Turn]]) -> None:
        while waited := [task for branch, task in begun.items() if not task.done() and not branch.error]:
            changed = self._changed = asyncio.get_running_loop().create_future()
            await asyncio.wait((*waited, asyncio.ensure_future(changed)), return_when=asyncio.FIRST_COMPLETED)

    # --- what comes after its turn ------------------------------------------------------------------------------

    def _expect_late(self, branch: Branch, task: asyncio.Task[Turn]) -> None:
        task.add_done_callback(lambda task: self._take_late(branch, task))

    def _take_late(self, branch: Branch, task: asyncio.Task[Turn]) -> None:
        """Takes an answer that no turn waits for; its slots may be others' by now, and whoever is free may have it."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            if not self._is_closed:
                _logger.error("partition %d: %s", branch.number, error_text(error), exc_info=error)
            return
        turn = task.result()
        self.give_back(branch, turn.claimed)
        if turn.facts:
            self._listener.on_facts(turn.facts)
        if turn.claimed:
            self.on_work(branch)

    def give_back(self, branch: Branch, claimed: Iterable[Claimed]) -> None:
        """Gives commands back that were not asked for, or came too late."""
        ends = [End(one.id, one.token, "ready") for one in claimed]
        if ends and (task := branch.keep(ends)) is not None:
            self._expect_late(branch, task)

    async def close(self) -> None:
        """Tells what is left, unless that takes too long."""
        tasks = {task for branch in self._branches for task in branch.tasks}
        if tasks and not self._is_closed:
            patience = asyncio.ensure_future(sleep(self._clock, _PATIENCE))
            told = asyncio.ensure_future(asyncio.wait(tasks))
            await asyncio.wait([told, patience], return_when=asyncio.FIRST_COMPLETED)
            patience.cancel()
            told.cancel()
        self._is_closed = True
        for branch in self._branches:
            branch.close()


def _deal(want: int, likely: Sequence[Branch]) -> dict[Branch, int]:
    """Shares of what is wanted, which differ by one at most; those for whom there is none are left out."""
    if not likely:
        return {}
    each, more = divmod(want, len(likely))
    return {branch: each + (number < more) for number, branch in enumerate(likely) if each or number < more}
