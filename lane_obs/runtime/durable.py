"""The way in for durable commands: they are saved first, and take their place in the lane once that is committed."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from typing import TYPE_CHECKING, Any

import msgspec

from lane_obs.errors import DuplicateId
from lane_obs.runtime.work import discard

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        self._ids: set[str] = set()
        self._admitting: set[asyncio.Future[CommandHandle[Any]]] = set()
        self._keys: dict[str, asyncio.Future[CommandHandle[Any]]] = {}
        self.held: list[tuple[Draft, asyncio.Future[CommandHandle[Any]]]] | None = None
        """What was saved while the storage is being read: it comes after all that was there before."""
        self.new_ids: set[str] = set()
        """Ids of all that is saved while the storage is being read, and must not be brought back."""
        self._read = asyncio.Event()

    async def place(self, draft: Draft) -> CommandHandle[Any]:
        """Waits for room and for the commit, then enqueues.

        Raises:
            StorageError: it could not be saved; nothing is enqueued.
            LaneObsError: as `submit` says.
        """
        intake = self._intake
        self._journal.check(draft)
        if self.held is not None and (draft.options.id is not None or draft.options.key is not None):
            await self._read.wait()  # one that is not back yet may have the same
            intake.check_open(draft.home.name, draft.work)
            draft.home = intake.find_lane(draft.home.name, draft.work)  # it may have gone meanwhile
            if (known := intake.find_same(draft)) is not None:
                return known
        if intake.room.is_taken(draft.home) and not intake.make_room(draft):
            await intake.wait_for_room(draft)
        return await asyncio.shield(self._save(draft))  # who waits may be cancelled; the command is on its way

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

    def _save(self, draft: Draft) -> asyncio.Future[CommandHandle[Any]]:
        """Has a draft saved; done with its handle once it is in its lane.

        Raises:
            DuplicateId: another command has its id.
        """
        intake, options = self._intake, draft.options
        loop = asyncio.get_running_loop()
        admitted: asyncio.Future[CommandHandle[Any]] = loop.create_future()
        if (known := intake.find_same(draft)) is not None:
            admitted.set_result(known)
            return admitted
        if options.key is not None and options.key in self._keys:
            discard(draft.work)
            return self._keys[options.key]
        if options.id in self._ids:
            discard(draft.work)
            raise DuplicateId(f"a command with the id {options.id!r} is being saved")
        draft.seq = intake.next_seq()
        command_id = options.id or f"{self._dispatcher.directory.id_prefix}-{draft.seq}"
        draft.options = msgspec.structs.replace(options, id=command_id)
        draft.trace = self._dispatcher.bus.traceparent()
        stored = self._journal.stored(draft, draft.seq, command_id)
        self._ids.add(command_id)
        if self.held is not None:
            self.new_ids.add(command_id)
        if options.key is not None:
            self._keys[options.key] = admitted
        self._admitting.add(admitted)
        admitted.add_done_callback(self._admitting.discard)
        intake.room.reserve(draft.home)
        self._dispatcher.idle.unsettled += 1
        admit = functools.partial(self._admit, draft, admitted)
        self._journal.save([stored]).add_done_callback(admit, context=contextvars.copy_context())
        return admitted

    def _admit(self, draft: Draft, admitted: asyncio.Future[CommandHandle[Any]], saved: asyncio.Future[None]) -> None:
        intake, options = self._intake, draft.options
        assert options.id is not None
        self._ids.discard(options.id)
        if options.key is not None:
            del self._keys[options.key]
        intake.room.unreserve(draft.home)
        error = saved.exception()
        try:
            if error is not None:
                intake.reject(draft.home.name, draft.work, "storage")
                discard(draft.work)
                admitted.set_exception(error)
                admitted.exception()  # who asked may be gone
            elif self.held is not None:
                self.held.append((draft, admitted))
            else:
                admitted.set_result(self._enqueue(draft))
        finally:
            self._dispatcher.idle.settled(draft.home)

    def _enqueue(self, draft: Draft, *, requeued: bool = False) -> CommandHandle[Any]:
        handle = self._intake.enqueue(draft, requeued=requeued)
        handle._traceparent = draft.trace
        return handle

    async def settled(self) -> None:
        """Returns once nothing is being saved."""
        while self._admitting:
            await asyncio.wait(list(self._admitting))

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
        command_id = draft.options.id
        assert command_id is not None
        self._journal.requeued(self._journal.stored(draft, draft.seq, command_id))
        return self._enqueue(draft, requeued=True)

    def hold(self) -> None:
        """From now on the storage is being read."""
        self.held = []
        self.new_ids = set(self._ids)
        self._read.clear()

    def release(self) -> None:
        """Enqueues what was held back while the storage was read."""
        held, self.held = self.held or [], None
        self.new_ids.clear()
        self._read.set()
        for draft, admitted in held:
            admitted.set_result(self._enqueue(draft))
