"""Commands from an iterator: each is drawn when its lane has a place for it, and not before."""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable
from typing import TYPE_CHECKING, Any, Final

from lane_obs.config import Overflow
from lane_obs.errors import InvalidCommand
from lane_obs.runtime.work import discard, refuse

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from lane_obs.core.lane import Lane
    from lane_obs.runtime.dispatcher import Dispatcher
    from lane_obs.runtime.draft import Draft
    from lane_obs.runtime.handle import CommandHandle
    from lane_obs.runtime.intake import Intake
    from lane_obs.runtime.options import Options

AHEAD: Final = 64
"""So many durable commands of one stream are saved at a time: they share commits."""

# The loop goes on with other work after so many commands, or so many seconds where the iterator itself takes long.
_MOST_IN_A_TURN: Final = 128
_SLICE_SECONDS: Final = 0.002
_END: Final = object()


class Stream:
    """Submits what one iterator gives to one lane.

    Args:
        intake, dispatcher: of the queue.
        lane: name of the lane.
        items: each a piece of work, or a tuple of work and its arguments.
        options: of each command, checked.
        ahead: how many durable commands may be drawn before the first of them is committed.
    """

    def __init__(
        self,
        intake: Intake,
        dispatcher: Dispatcher,
        lane: str,
        items: Iterable[Any] | AsyncIterable[Any],
        options: Options,
        *,
        ahead: int,
    ) -> None:
        self._intake = intake
        self._dispatcher = dispatcher
        self._now = dispatcher.clock.now
        self._lane = lane
        self._options = options
        self._ahead = ahead
        self._later = aiter(items) if isinstance(items, AsyncIterable) else None
        # One that was given is whoever's it is; one that was made of what was given ends with the stream.
        made = self._later is not items and isinstance(self._later, AsyncGenerator)
        self._mine: AsyncGenerator[Any, None] | None = self._later if made else None  # type: ignore[assignment]
        self._source = iter(()) if isinstance(items, AsyncIterable) else iter(items)
        self._drawn = 0
        self._in_turn = 0
        self._turn_began = self._now()
        self._out: deque[CommandHandle[Any] | asyncio.Future[CommandHandle[Any]]] = deque()

    async def handles(self) -> AsyncGenerator[CommandHandle[Any], None]:
        """The handles, in order, as the commands are enqueued.

        Raises:
            LaneObsError: as `submit`; those before are enqueued, and their handles were given.
            Exception: what the iterator raised; likewise.
        """
        failure: Exception | None = None
        going = True
        try:
            while going:
                try:
                    going = await self._take_one()
                except Exception as error:  # told once all handles are out
                    going, failure = False, error
                while self._out and (not going or self._is_due()):
                    first = self._out.popleft()
                    yield await asyncio.shield(first) if isinstance(first, asyncio.Future) else first
        finally:
            if self._mine is not None:
                await self._mine.aclose()
        if failure is not None:
            raise failure

    def _is_due(self) -> bool:
        """Whether the next handle is given before another item is drawn."""
        first = self._out[0]
        if not isinstance(first, asyncio.Future) or first.done() or len(self._out) >= self._ahead:
            return True
        home = self._dispatcher.engine.lanes.get(self._lane)
        return home is None or self._intake.room.is_taken(home)

    async def _take_one(self) -> bool:
        """Draws one item and submits it; False when there is none left."""
        await self._breathe()
        home = self._home()
        waited = await self._wait_for_room(home)
        try:
            if waited:
                home = self._home()  # it may have begun to go meanwhile
            if waited and self._later is not None:  # the item may be long in coming: others go first
                waited = False
                self._intake.pass_on(home)
            item = next(self._source, _END) if self._later is None else await anext(self._later, _END)
            if item is _END:
                return False
            await self._submit(item, has_place=waited)
            return True
        finally:
            if waited:
                self._intake.pass_on(home)

    async def _breathe(self) -> None:
        """Lets the loop go on with other work from time to time."""
        self._in_turn += 1
        if self._in_turn > _MOST_IN_A_TURN or self._now() - self._turn_began > _SLICE_SECONDS:
            await _next_turn()
            self._in_turn, self._turn_began = 0, self._now()

    def _home(self) -> Lane:
        self._intake.bind()
        self._intake.check_open(self._lane, "")
        return self._intake.find_lane(self._lane, "")

    async def _wait_for_room(self, home: Lane) -> bool:
        """Waits until a lane that lets wait has room; tells whether it did, and so has a place, to be used at once."""
        room = self._intake.room
        if home.config.overflow is not Overflow.WAIT or not room.is_taken(home):
            return False
        if not room.waiting(home):
            self._dispatcher.run_now()  # what was submitted in this very turn may have free slots
            if not room.is_taken(home):
                return False
        await room.wait(home)
        room.release(home)
        return True

    async def _submit(self, item: Any, *, has_place: bool) -> None:
        draft = self._draft(item)
        intake, home = self._intake, draft.home
        waits = not has_place and intake.room.is_taken(home) and not intake.make_room(draft)
        try:
            if waits:
                await intake.wait_for_room(draft)  # it filled up while the item was on its way
            self._out.append(intake.durable.start(draft) if home.is_durable else intake.enqueue(draft))
        except BaseException:
            discard(draft.work)
            raise
        finally:
            if waits:
                intake.pass_on(home)

    def _draft(self, item: Any) -> Draft:
        work, *args = (item or (None,)) if isinstance(item, tuple) else (item,)
        number, self._drawn = self._drawn, self._drawn + 1
        if isinstance(item, tuple) and not item:
            raise InvalidCommand(f"item {number} is an empty tuple; give the work and its arguments")
        try:
            return self._intake.prepare(self._lane, work, tuple(args), self._options)
        except BaseException:
            refuse(work)
            raise


@types.coroutine
def _next_turn() -> Generator[None, None, None]:
    """Returns in the next turn of the loop."""
    yield
