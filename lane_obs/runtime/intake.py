"""The way in: checks what is submitted, finds it a place, and hands it to the dispatcher."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import TYPE_CHECKING, Any

from lane_obs import events
from lane_obs.command import type_name
from lane_obs.config import Overflow
from lane_obs.core.state import State
from lane_obs.errors import DuplicateId, LaneFullError, LaneRemoved, ShutdownInProgress, UnknownLane, WrongLoop
from lane_obs.runtime.draft import Draft, part_of
from lane_obs.runtime.handle import CommandHandle, current_handle
from lane_obs.runtime.options import NO_OPTIONS, Options, fitted
from lane_obs.runtime.outcome import drop_error
from lane_obs.runtime.pressure import Pressure
from lane_obs.runtime.room import Room
from lane_obs.runtime.thread_calls import ThreadCalls
from lane_obs.runtime.work import discard, is_plain_async, resolve, runs_once, take_once

if TYPE_CHECKING:
    from lane_obs.bus import Bus
    from lane_obs.clock import Clock
    from lane_obs.core.engine import Engine
    from lane_obs.core.lane import Lane
    from lane_obs.runtime.dispatcher import Dispatcher

_running_loop = asyncio._get_running_loop
_copy_context = contextvars.copy_context
# Shared by all that are submitted where no variable is set: attempts run in copies. It spares one object a command.
_EMPTY = contextvars.Context()
_NO_DRAFT = Draft(None, None, type(None), ())


class Intake:
    """Takes commands into lanes for one dispatcher."""

    def __init__(self, engine: Engine, dispatcher: Dispatcher, clock: Clock, bus: Bus) -> None:
        self._engine = engine
        self._dispatcher = dispatcher
        self._now = clock.now
        self._bus = bus
        self.seq = 0
        """The number of the latest command."""
        self.durable: Any = None
        """The `DurableIntake`; `None` for none."""
        self.pressure = Pressure(engine.lanes, bus)
        self.threads = ThreadCalls()
        self.room = Room()
        self.refusing = False
        dispatcher.on_wake = self._after_wake
        dispatcher.on_back_off = self.pressure.rise

    def bind(self) -> None:
        """Ties the queue to the running event loop, or checks that it is tied to it.

        Raises:
            WrongLoop: no loop runs here, or another one.
        """
        dispatcher = self._dispatcher
        if dispatcher.loop is not None:
            dispatcher.check_loop()
            return
        try:
            dispatcher.bind(asyncio.get_running_loop())
        except RuntimeError:
            raise WrongLoop("no event loop runs here; submit inside one, or use submit_threadsafe") from None

    def submit(self, lane: str, work: Any, args: tuple[Any, ...], options: Options) -> CommandHandle[Any] | Draft:
        """Enqueues a command; gives back its draft when the lane is full and lets submitters wait."""
        loop = _running_loop()
        if loop is None or loop is not self._dispatcher.loop:
            self.bind()
        if is_plain_async(work) and options.id is None and options.key is None and not self.refusing:
            # The short way, for by far the most frequent kind; `prepare` and `place` come to the same.
            try:
                home = self._engine.lanes[lane]
            except (KeyError, TypeError):
                home = self.find_lane(lane, work)
            if home.is_quick:
                if options is NO_OPTIONS and home.is_usual:
                    return self._enqueue(home, work, work, args, options)
                options = fitted(options, home)
                return self._enqueue(home, work, work, args, options, part=part_of(home, work, options))
            if options is NO_OPTIONS and home.is_durable and home.is_plain and home.is_open:
                return Draft(home, work, work, args)
        draft = self.prepare(lane, work, args, options)
        return self.place(draft) or draft

    def prepare(self, lane: str, work: Any, args: tuple[Any, ...], options: Options) -> Draft:
        """Checks what is submitted, and enqueues nothing yet.

        Raises:
            ShutdownInProgress: the queue takes no new work.
            InvalidCommand: it cannot be run, or not as often as its retry policy may ask.
            LaneObsError: as `CommandQueue.submit` says.
        """
        self.check_open(lane, work)
        home = self.find_lane(lane, work)
        if options is NO_OPTIONS and home.is_plain and is_plain_async(work):
            return Draft(home, work, work, args)
        options = fitted(options, home)
        named, call, args = resolve(work, args, self.threads)
        part = part_of(home, named, options)
        if runs_once(named):
            take_once(named, retries=(options.retry or home.config.retry).max_retries)
        return Draft(home, named, call, args, options, part=part)

    def place(self, draft: Draft) -> CommandHandle[Any] | None:
        """Enqueues a draft; `None` when its submitter has to wait: its lane is full and lets wait, or is durable.

        Raises:
            DuplicateId: a live command has its id.
            LaneFullError: the lane is full and rejects.
        """
        known = self.find_same(draft)
        if known is not None:
            return known
        if draft.home.is_durable:
            return None
        if self.room.is_taken(draft.home) and not self.make_room(draft):
            return None
        return self.enqueue(draft)

    async def place_waiting(self, draft: Draft) -> CommandHandle[Any]:
        """Waits for room, then enqueues a draft.

        Raises:
            ShutdownInProgress: the queue began to shut down meanwhile.
            CancelledError: whoever waits was cancelled; nothing is enqueued.
            DuplicateId: another live command has got its id meanwhile.
        """
        try:
            if draft.home.is_durable:
                handle: CommandHandle[Any] = await self.durable.place(draft)
                return handle
            await self.wait_for_room(draft)
            return self.find_same(draft) or self.enqueue(draft)
        finally:
            self.pass_on(draft.home)

    def pass_on(self, home: Lane) -> None:
        """Gives a place that was not used after all to the next in line."""
        self.room.grant(home)
        self._dispatcher.idle.tell(home)

    async def wait_for_room(self, draft: Draft) -> None:
        """Returns when there is a place for a draft, which the caller must use at once.

        Raises:
            ShutdownInProgress: the queue began to shut down meanwhile.
        """
        try:
            with contextlib.suppress(ShutdownInProgress):  # told below
                await self.room.wait(draft.home)
                self.room.release(draft.home)
            self.check_open(draft.home.name, draft.work)
        except BaseException as error:
            if isinstance(error, LaneRemoved):
                self.reject(draft.home.name, draft.work, error.reason)
            discard(draft.work)
            raise

    def enqueue(self, draft: Draft, *, requeued: bool = False) -> CommandHandle[Any]:
        """Puts a draft into its lane; `requeued`: it takes the place of its number again."""
        parts = draft.home, draft.work, draft.call, draft.args, draft.options
        return self._enqueue(*parts, draft, part=draft.part, requeued=requeued)

    def next_seq(self) -> int:
        """The number of the next command."""
        self.seq += 1
        return self.seq

    def _enqueue(
        self,
        home: Lane,
        work: Any,
        call: Any,
        args: tuple[Any, ...],
        options: Options,
        draft: Draft = _NO_DRAFT,
        *,
        part: Any = None,
        requeued: bool = False,
    ) -> CommandHandle[Any]:
        seq = draft.seq or self.next_seq()
        now = self._now()
        context = _copy_context() if draft.context is None else draft.context
        if not context:
            context = _EMPTY
        elif context.get(current_handle) is not None:
            # Submitted inside a command: it must not keep that one, and its result, alive while it waits.
            if len(context) == 1:
                context = _EMPTY
            else:
                context.run(current_handle.set, None)
        handle: CommandHandle[Any] = CommandHandle(
            seq,
            home,
            now,
            _owner=self._dispatcher,
            _call=call,
            _args=args,
            _work=work,
            _options=options,
            _context=context,
            _id=draft.id,
            _durable=home.is_durable,
            _traceparent=draft.trace,
            cost=options.cost,
            part=part,
        )
        self._dispatcher.admit(handle, now, requeued=requeued)
        if home.config.pressure_threshold is not None:
            self.pressure.rise(home)
        return handle

    def check_open(self, lane: str, work: Any) -> None:
        """Refuses work while the queue shuts down.

        Raises:
            ShutdownInProgress: it does.
        """
        if self.refusing:
            self.reject(lane, work, "shutting_down")
            raise ShutdownInProgress("the queue is shutting down and takes no new work")

    def find_lane(self, lane: str, work: Any) -> Lane:
        """The lane of this name; a submit to an unknown one, or to one that goes, counts as rejected.

        Raises:
            UnknownLane: there is none.
            LaneRemoved: it is being removed.
        """
        try:
            home = self._engine.lane(lane)
            if home.is_open:
                return home
            raise LaneRemoved(lane)
        except UnknownLane as error:
            self.reject(str(lane)[:200], work, error.reason)
            raise

    def reject(self, lane: str, work: Any, reason: str) -> None:
        """Counts a submit as refused."""
        kind = type_name(work)
        self._bus.call(self._bus.at_reject, (lane, kind, reason))
        self._bus.emit(events.CommandRejected, lane, kind, reason)

    def find_same(self, draft: Draft) -> CommandHandle[Any] | None:
        """The live command with the same idempotency key; refuses an id that is in use.

        Raises:
            DuplicateId: the id is in use.
        """
        try:
            known = self._dispatcher.directory.same(draft.options)
        except DuplicateId:
            discard(draft.work)
            raise
        if known is not None:
            discard(draft.work)
        return known

    def make_room(self, draft: Draft) -> bool:
        """Makes room in a full lane if its policy is to; False when the submitter has to wait."""
        home = draft.home
        if not self.room.waiting(home):
            self._dispatcher.run_now()  # what was submitted in this very turn may have free slots
            if not self.room.is_taken(home):
                return True
        if home.config.overflow is Overflow.WAIT:
            return False
        drops = home.config.overflow is Overflow.DROP_OLDEST
        while self.room.is_full(home):  # more than once where retries came back above the bound
            oldest = home.oldest() if drops else None
            if oldest is None:
                raise self.full(draft)
            assert isinstance(oldest, CommandHandle)
            self._dispatcher.fail(oldest, State.FAILED, drop_error(oldest), self._now())
        return True

    def full(self, draft: Draft) -> LaneFullError:
        """Counts a submit as rejected and makes the error that says so."""
        self.reject(draft.home.name, draft.work, "full")
        discard(draft.work)
        return LaneFullError(draft.home.name, draft.home.config.max_pending or 0)

    def refuse(self) -> None:
        """Takes no new work from now on, and tells those who wait for room."""
        self.refusing = True
        self.room.refuse_all()

    def _after_wake(self) -> None:
        for name in self.room.lanes():
            self.room.grant(self._engine.lanes[name])
        self.pressure.fall()
