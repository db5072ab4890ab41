"""The way in for durable commands: they are saved first, and take their place in the lane once that is committed.

All that are submitted within one turn of the loop are saved in one go, and so are all that come during a save: it
could not be done before that one anyway.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from typing import TYPE_CHECKING, Any

from lane_obs.errors import DuplicateId, StorageRefused
from lane_obs.runtime.options import NO_OPTIONS
from lane_obs.runtime.work import discard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from lane_obs.runtime.dispatcher import Dispatcher
    from lane_obs.runtime.draft import Draft
    from lane_obs.runtime.handle import CommandHandle
    from lane_obs.runtime.intake import Intake
    from lane_obs.runtime.journal import Journal


class DurableIntake:
    """Saves commands and admits them in the order in which they were saved.

    Args:
        intake: the way in for all commands.
        dispatcher: gives ids.
        journal: writes them down.
    """

    def __init__(self, intake: Intake, dispatcher: Dispatcher, journal: Journal) -> None:
        self._intake = intake
        self._dispatcher = dispatcher
        self._journal = journal
        self._context = contextvars.Context()
        self._new: list[Draft] = []
        self._latest = 1
        """How many commands the latest save was of."""
        self._saving = 0
        self._under_way = 0
        """How many saves the storage works on."""
        self._flush_is_due = False
        self._ids: set[str] = set()
        self._keys: dict[str, asyncio.Future[CommandHandle[Any]]] = {}
        self.held: list[Draft] | None = None
        """What was saved while the storage is being read: it comes after all that was there before."""
        self.requeued: set[str] = set()
        """Ids of what was requeued while the storage is being read, and must not be brought back a second time."""
        self._read = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()

    def place(self, draft: Draft) -> Awaitable[CommandHandle[Any]]:
        """Waits for room and for the commit, then enqueues.

        Raises:
            StorageError: it could not be saved; nothing is enqueued.
            LaneObsError: as `submit` says.
        """
        self._journal.check(draft)
        options = draft.options
        if options.id is None and options.key is None and not self._intake.room.is_taken(draft.home):
            return self._save(draft)
        return self._place_waiting(draft)

    async def _place_waiting(self, draft: Draft) -> CommandHandle[Any]:
        intake, options = self._intake, draft.options
        if self.held is not None and (options.id is not None or options.key is not None):
            await self._read.wait()  # one that is not back yet may have the same
            intake.check_open(draft.home.name, draft.work)
            draft.home = intake.find_lane(draft.home.name, draft.work)  # it may have gone meanwhile
            if (known := intake.find_same(draft)) is not None:
                return known
        if intake.room.is_taken(draft.home) and not intake.make_room(draft):
            await intake.wait_for_room(draft)
        saved = self._known(draft) or self._save(draft)
        return await (saved if options.key is None else asyncio.shield(saved))  # others may wait for it, too

    async def place_many(self, drafts: Sequence[Draft]) -> list[CommandHandle[Any]]:
        """The same for several; they share commits. All are checked before any is saved.

        Raises:
            LaneObsError: as `place`; others may have been saved all the same, and run.
        """
        for draft in drafts:
            self._journal.check(draft)
        return await asyncio.gather(*map(self._intake.place_waiting, drafts))

    def start(self, draft: Draft) -> asyncio.Future[CommandHandle[Any]]:
        """Has a draft saved that there is room for; done with its handle once it is in its lane.

        Raises:
            InvalidCommand: it cannot be rebuilt from what is written of it.
        """
        self._journal.check(draft)
        return self._save(draft)

    def _known(self, draft: Draft) -> asyncio.Future[CommandHandle[Any]] | None:
        """The command of the same idempotency key, where there is one.

        Raises:
            DuplicateId: another command has its id.
        """
        key, command_id = draft.options.key, draft.options.id
        if (known := self._intake.find_same(draft)) is not None:
            found: asyncio.Future[CommandHandle[Any]] = asyncio.get_running_loop().create_future()
            found.set_result(known)
            return found
        if key is not None and key in self._keys:
            discard(draft.work)
            return self._keys[key]
        if command_id in self._ids:
            discard(draft.work)
            raise DuplicateId(f"a command with the id {command_id!r} is being saved")
        return None

    def _save(self, draft: Draft) -> asyncio.Future[CommandHandle[Any]]:
        """Has a draft saved; done with its handle once it is in its lane. Who waits may be cancelled, it stays so."""
        dispatcher, options = self._dispatcher, draft.options
        loop = dispatcher.loop
        assert loop is not None
        draft.admitted = admitted = loop.create_future()
        draft.context = contextvars.copy_context()
        draft.trace = dispatcher.bus.traceparent()
        if options is not NO_OPTIONS:
            if options.id is not None:
                self._ids.add(options.id)
            if options.key is not None:
                self._keys[options.key] = admitted
        self._intake.room.reserve(draft.home)
        dispatcher.idle.unsettled += 1
        self._number(draft)
        if not self._saving:
            self._settled.clear()
        self._saving += 1
        self._new.append(draft)
        if self._saving == 1 == self._latest:
            self._flush()  # a lone submitter has nobody to wait for
        elif not self._under_way:
            self._flush_soon(loop)
        return admitted

    def _flush_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            loop.call_soon(self._flush, context=self._context)

    def _number(self, draft: Draft) -> None:
        draft.seq = seq = self._intake.next_seq()
        draft.id = draft.options.id or self._dispatcher.directory.id_of(seq)

    def _flush(self) -> None:
        """Saves what was submitted since it was last called."""
        self._flush_is_due = False
        drafts, self._new = self._new, []
        self._latest = len(drafts)
        self._store(drafts)

    def _store(self, drafts: Sequence[Draft]) -> None:
        self._under_way += 1
        stored = self._journal.stored
        saved = self._journal.save([stored(draft) for draft in drafts])
        saved.add_done_callback(functools.partial(self._saved, drafts), context=self._context)

    def _saved(self, drafts: Sequence[Draft], saved: asyncio.Future[None]) -> None:
        self._under_way -= 1
        try:
            self._take(drafts, saved)
        finally:
            if self._new and not self._under_way:  # with what those submit next who are told now
                self._flush_soon(saved.get_loop())

    def _take(self, drafts: Sequence[Draft], saved: asyncio.Future[None]) -> None:
        error = saved.exception()
        if error is None:
            if self.held is None:
                self._admit(drafts)
            else:
                self.held += drafts
        elif isinstance(error, StorageRefused) and len(drafts) > 1:
            for draft in drafts:  # so that only what cannot be stored is refused
                self._number(draft)  # others may have been saved meanwhile
                self._store([draft])
        else:
            for draft in drafts:
                assert draft.context is not None
                draft.context.run(self._refuse, draft, error)
            self._settle(drafts)

    def _admit(self, drafts: Sequence[Draft]) -> None:
        dispatcher, enqueue = self._dispatcher, self._intake.enqueue
        in_context = dispatcher.bus.at_submit
        woken, dispatcher.woken = dispatcher.woken, True  # submitters go on first, as those of lanes in memory do
        try:
            for draft in drafts:
                context, admitted = draft.context, draft.admitted
                assert context is not None
                assert admitted is not None
                handle = context.copy().run(enqueue, draft) if in_context else enqueue(draft)
                if not admitted.done():
                    admitted.set_result(handle)
        finally:
            self._settle(drafts)
            dispatcher.woken = woken
            if not woken:
                dispatcher.wake()

    def _refuse(self, draft: Draft, error: BaseException) -> None:
        self._intake.reject(draft.home.name, draft.work, "storage")
        discard(draft.work)
        admitted = draft.admitted
        assert admitted is not None
        if not admitted.done():
            admitted.set_exception(error)
            admitted.exception()  # who asked may be gone

    def _settle(self, drafts: Sequence[Draft]) -> None:
        room = self._intake.room
        for draft in drafts:
            options = draft.options
            if options is not NO_OPTIONS:
                if options.id is not None:
                    self._ids.discard(options.id)
                if options.key is not None:
                    del self._keys[options.key]
            room.unreserve(draft.home)
        self._saving -= len(drafts)
        if not self._saving:
            self._settled.set()
        self._dispatcher.idle.settled(len(drafts))

    async def settled(self) -> None:
        """Returns once nothing is being saved."""
        await self._settled.wait()

    def check_ready(self, draft: Draft) -> None:
        """Refuses a requeue while nothing can be stored.

        Raises:
            StorageError: that is so.
        """
        error = self._journal.storage.health().error
        if error is not None:
            self._intake.reject(draft.home.name, draft.work, "storage")
            raise error

    def requeue(self, draft: Draft) -> CommandHandle[Any]:
        """Puts a dead letter's command back: its letter goes and it is stored again, in one change."""
        self._journal.requeued(self._journal.stored(draft))
        if self.held is not None:
            assert draft.id is not None
            self.requeued.add(draft.id)
        return self._intake.enqueue(draft, requeued=True)

    def hold(self) -> None:
        """From now on the storage is being read."""
        self.held = []
        self._read.clear()

    def release(self) -> None:
        """Enqueues what was held back while the storage was read."""
        held, self.held = self.held or [], None
        self.requeued.clear()
        self._read.set()
        self._admit(held)
