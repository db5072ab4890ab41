"""Keeps durable commands in a storage: their submit, each attempt, each retry and their end.

A submit waits for its commit; everything else is told to the storage in the order in which it happens, and commits
when the storage gets to it. Nothing here runs under the scheduler: a slow disk slows durable submits only.
"""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lane_obs import events
from lane_obs.config import OnCrash
from lane_obs.core.state import State
from lane_obs.errors import StorageClosed, error_text
from lane_obs.runtime.codec import encode
from lane_obs.runtime.options import NO_OPTIONS
from lane_obs.runtime.outbox import Outbox, look_at
from lane_obs.storage.change import AddLetter, Remove, RemoveLetter, Save, Update
from lane_obs.storage.record import StoredCommand, StoredDeadLetter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lane_obs.bus import Bus
    from lane_obs.clock import Clock
    from lane_obs.runtime.draft import Draft
    from lane_obs.runtime.handle import CommandHandle
    from lane_obs.runtime.options import Options
    from lane_obs.storage.change import Change
    from lane_obs.storage.port import DurableStorage, StorageHealth

_MAX_TRACEBACK: Final = 8_000
_CAREFUL: Final = 256
"""How many commands of an earlier process wait for their start to be committed."""


class Journal:
    """Writes down the life of durable commands.

    Args:
        storage: where.
        clock: gives Unix times.
        bus: is told when the storage fails.
    """

    def __init__(self, storage: DurableStorage, clock: Clock, bus: Bus) -> None:
        self.storage = storage
        self._clock = clock
        self._bus = bus
        self.opening = False
        """Whether the storage is being opened."""
        self._closing = False
        self._deaths: dict[str, int] = {}
        self._careful = _CAREFUL
        self.on_back: Callable[[], None] = lambda: None
        """Called when the storage works again."""
        self._failed_at: float | None = None
        storage.on_state = self._on_state
        self._outbox = Outbox(self._apply)
        self._cancelled: set[int] = set()
        self.originals: dict[str, StoredCommand] = {}
        """Stored commands that are about to become dead letters without having been rebuilt."""

    def show(self) -> None:
        """Lets exporters see how long commits take."""
        self._bus.histograms["commit_seconds"] = self.storage.health().commit_seconds

    def listen(self, on_ended: Callable[[Sequence[CommandHandle[Any]]], None]) -> None:
        """Has `on_ended` called with the commands whose ends are committed, or have failed to be."""
        self._outbox.on_ended = on_ended

    def close(self, cancelled: Iterable[CommandHandle[Any]]) -> None:
        """From now on what is cancelled stays in the storage, but for those that were cancelled before."""
        self._closing = True
        self._cancelled = {handle.seq for handle in cancelled}

    @property
    def closing(self) -> bool:
        """Whether the queue closes."""
        return self._closing

    # --- in -----------------------------------------------------------------------------------------------------

    def stored(self, draft: Draft) -> StoredCommand:
        """A command as it is kept; its number and id are fixed.

        Raises:
            InvalidCommand: it cannot be rebuilt from what can be written of it.
        """
        name, payload = draft.encoded or encode(draft.work, draft.args)
        options, wall = draft.options, self._clock.wall()
        assert draft.id is not None
        return StoredCommand(
            id=draft.id,
            seq=draft.seq,
            lane=draft.home.name,
            command_type=name,
            payload=payload,
            options={} if options is NO_OPTIONS else plain_options(options),
            attempt=0,
            state="delayed" if options.delay else "ready",
            not_before=wall + options.delay if options.delay else None,
            deadline=None if options.deadline is None else wall + options.deadline,
            key=options.key,
            trace=draft.trace,
            submitted_at=wall,
            updated_at=wall,
        )

    def save(self, commands: list[StoredCommand]) -> asyncio.Future[None]:
        """Has commands saved in one go; done when they are committed, or have failed to be."""
        if self.opening:  # its numbers are not known yet
            path = self.storage.health().path
            return _failed(StorageClosed(path or "storage", "it is being opened; submit once start() has returned"))
        self._outbox.flush()  # an id may be one that a command had which has just ended
        return self._apply([Save(command) for command in commands])

    def flush(self) -> None:
        """Hands the storage what it was not told yet."""
        self._outbox.flush()

    def _apply(self, changes: Sequence[Change]) -> asyncio.Future[None]:
        try:
            return self.storage.apply(changes)
        except Exception as error:  # a storage may be anyone's code
            return _failed(error)

    @staticmethod
    def check(draft: Draft) -> None:
        """Checks that a command can be rebuilt from what is written of it.

        Raises:
            InvalidCommand: it cannot.
        """
        if draft.encoded is None:
            draft.encoded = encode(draft.work, draft.args)

    def remember(self, command: StoredCommand) -> None:
        """Notes how often a process died so far while a command ran."""
        self._deaths[command.id] = command.deaths

    def died(self, command: StoredCommand, deaths: int) -> None:
        """Notes that a process died while a command ran."""
        self._deaths[command.id] = deaths
        wall = self._clock.wall()
        self._outbox.tell(Update(id=command.id, state="ready", attempt=command.attempt, updated_at=wall, deaths=deaths))

    # --- on the way ---------------------------------------------------------------------------------------------

    def started(self, handle: CommandHandle[Any]) -> asyncio.Future[None] | None:
        """An attempt starts: should the process die now, it counts.

        Returns:
            Done when that is committed, where the attempt has to wait for it: in a lane whose commands must not run
            again, and for the first that come back, one of which may be what killed the process before it counted.
        """
        self._outbox.tell(self._update(handle, "running"))
        if self._careful and handle.seq <= handle._owner.directory.old_seq:
            self._careful -= 1
            return self._outbox.committed()
        return self._outbox.committed() if handle.home.config.on_crash is OnCrash.DEAD_LETTER else None

    def backs_off(self, handle: CommandHandle[Any], delay: float, error: BaseException) -> bool:
        """An attempt has failed and is tried again.

        Returns:
            False: it is tried again here.
        """
        due = self._clock.wall() + delay
        self._outbox.tell(self._update(handle, "backoff", due, type(error).__name__, error_text(error)))
        return False

    def _update(
        self,
        handle: CommandHandle[Any],
        state: str,
        not_before: float | None = None,
        error_type: str | None = None,
        error: str | None = None,
    ) -> Update:
        return Update(
            id=handle.id,
            state=state,
            attempt=handle.attempt,
            updated_at=self._clock.wall(),
            not_before=not_before,
            deaths=self._deaths.get(handle.id, 0),
            last_error_type=error_type,
            last_error=error,
        )

    @staticmethod
    def written(_progress: Any) -> None:
        """How progress is sent to others: not at all."""

    def ended(self, handle: CommandHandle[Any], error: BaseException | None, rerun: Any, *, ran: bool) -> bool:
        """A command has ended; `ran`: while it ran.

        Returns:
            Whether that is written down: who waits for it is told once it is committed.
        """
        if handle.state is State.CANCELLED and self._closing and handle.seq not in self._cancelled:
            # It is to run again; and that the queue was closed is no crash.
            if ran:
                self._outbox.tell_end(handle, self._update(handle, "ready"))
            return ran
        if self._deaths:
            self._deaths.pop(handle.id, None)
        if error is None or handle.state is State.CANCELLED:
            self._outbox.tell_end(handle, Remove(handle.id))
        else:
            self._outbox.tell_end(handle, Remove(handle.id), AddLetter(self._letter(handle, error, rerun)))
        return True

    def _letter(self, handle: CommandHandle[Any], error: BaseException, rerun: Any) -> StoredDeadLetter:
        known = self.originals.pop(handle.id, None)
        if known is None:
            name, payload, options = *encode(handle._work, rerun[1]), plain_options(handle._options)
        else:
            name, payload, options = known.command_type, known.payload, known.options
        text = "".join(traceback.format_exception(error, limit=-30))[-_MAX_TRACEBACK:]
        wall = self._clock.wall()
        return StoredDeadLetter(
            id=handle.id,
            seq=handle.seq,
            lane=handle.lane,
            command_type=name,
            payload=payload,
            options=options,
            reason=str(handle.state),
            error_type=type(error).__name__,
            error=error_text(error),
            traceback=text,
            attempts=handle.attempt,
            failed_at=wall,
            submitted_at=wall - (self._clock.now() - handle.submitted_at),
            key=handle._options.key,
            trace=handle._traceparent,
        )

    def requeued(self, command: StoredCommand) -> None:
        """A dead letter's command is back in its lane."""
        self._outbox.flush()
        self._apply([RemoveLetter(command.id), Save(command)]).add_done_callback(look_at)

    def letter_gone(self, command_id: str) -> None:
        """A dead letter was evicted or taken out."""
        self._outbox.tell(RemoveLetter(command_id))

    def _on_state(self, health: StorageHealth) -> None:
        """The storage has failed, or works again."""
        if health.error is not None:
            if self._failed_at is None:
                self._failed_at = self._clock.now()
            error = health.error
            self._bus.emit(events.StorageFailed, type(error).__name__, error_text(error), health.kept)
        elif self._failed_at is not None:
            since, self._failed_at = self._failed_at, None
            self._bus.emit(events.StorageBack, self._clock.now() - since)
            self.on_back()


def _failed(error: Exception) -> asyncio.Future[None]:
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    failed.set_exception(error)
    return failed


def plain_options(options: Options) -> dict[str, Any]:
    """Options as plain data, durations in seconds; those that became fields of their own are left out."""
    kept: dict[str, Any] = {}
    if options.timeout is not msgspec.UNSET:
        kept["timeout"] = options.timeout
    if options.deadline is not None:
        kept["deadline"] = options.deadline
    if options.cost != NO_OPTIONS.cost:
        kept["cost"] = options.cost
    if options.partition_key is not None:
        kept["partition_key"] = options.partition_key
    if options.retry is not None:
        policy = options.retry
        kept["retry"] = {
            name: getattr(policy, name) if not isinstance(getattr(policy, name), tuple)
            else [f"{kind.__module__}:{kind.__qualname__}" for kind in getattr(policy, name)]
            for name in policy.__slots__
        }  # fmt: skip
    return kept
