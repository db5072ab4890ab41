"""Makes a storage that has only the seven methods do for a durable queue, as far as that goes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from lane_obs.config import check_methods
from lane_obs.errors import StorageClosed, StorageError, error_text
from lane_obs.storage.again import Again
from lane_obs.storage.change import AddLetter, ClearCommands, ClearLetters, Remove, RemoveLetter, Save, Update
from lane_obs.storage.memory import MemoryStorage
from lane_obs.storage.port import DurableStorage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.clock import Clock
    from lane_obs.storage.change import Change
    from lane_obs.storage.port import AnyStorage, Storage, StorageHealth
    from lane_obs.storage.record import StoredCommand, StoredDeadLetter

SEVEN: Final = (
    "save_command", "load_commands", "remove_command", "save_dead_letter", "load_dead_letters", "clear_dead_letters",
    "clear_all",
)  # fmt: skip
"""The methods that any storage has."""
_OF_LETTERS: Final = AddLetter | RemoveLetter | ClearLetters
_FEW: Final = 16


class _Before(NamedTuple):
    """What a batch is about to change."""

    commands: dict[str, StoredCommand | None]
    letters: dict[str, tuple[int, StoredDeadLetter]] | None


def adapt(storage: AnyStorage, *, clock: Clock | None = None) -> DurableStorage:
    """Returns the storage itself when it can do all that a durable queue needs, and else makes it do.

    Args:
        storage: the storage.
        clock: says when one that failed is tried again; default real time.

    Raises:
        ConfigError: it lacks one of the seven methods.
    """
    if isinstance(storage, DurableStorage):
        return storage
    check_methods("storage", storage, SEVEN, f"give a storage: an object with {', '.join(SEVEN)}")
    return SevenMethods(storage, clock=clock)


class SevenMethods(MemoryStorage):
    """A durable storage made of one that has only the seven methods. What it cannot do stands in `cannot`.

    It keeps a copy of all that is stored, answers from that, and brings the storage up to date after each batch of
    changes, one batch at a time. When that fails, the batch fails as `DurableStorage.apply` says, and what was kept
    is tried again with the next batch, and by itself after 0.1 to 5 seconds, each time later than before. The storage
    may also have `open()` and `close()`; they are awaited then.

    Args:
        storage: the storage.
        clock: says when it is tried again; default real time.

    Attributes:
        cannot: what it cannot do, for people to read.
    """

    cannot: Sequence[str] = (
        "make several changes at once: a crash between them may leave a command both in its lane and among the dead "
        "letters, or run it again",
        "update a stored command: it is saved again as a whole, for each attempt",
        "read commands bit by bit: all are loaded at start, and a copy of each stays in memory",
        "remove one dead letter: all are cleared and the others saved again; a crash meanwhile loses letters",
        "keep a second process from using it at the same time",
    )

    def __init__(self, storage: Storage, *, clock: Clock | None = None) -> None:
        super().__init__()
        self._storage: Any = storage
        self._again = Again(clock, self._retry)
        self._retry_is_due = False
        self._waiting: deque[tuple[Sequence[Change], asyncio.Future[None]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._error: StorageError | None = None
        self._failures = 0
        self._stale: set[str] = set()
        """Ids of commands that the storage has not as they are here."""
        self._stale_letters: set[str] = set()
        """Ids of letters that it lacks."""
        self._surplus = 0
        """How many letters it has that are not here any more."""
        self._must_clear = False
        """Whether one of them must not come back."""

    async def open(self) -> None:
        """Loads all that is stored.

        Raises:
            StorageError: that failed.
        """
        try:
            await self._call_if_there("open")
            for command in await self._storage.load_commands():
                self._save(Save(command))
            for letter in await self._storage.load_dead_letters():
                self._add_letter(AddLetter(letter))
        except Exception as error:
            raise self._fault(error) from error
        await super().open()

    async def close(self) -> None:
        """Waits until all is stored.

        Raises:
            StorageError: something could not be stored.
        """
        if not self._open:
            return
        await super().close()
        self._again.stop()
        while self._task is not None:
            await asyncio.shield(self._task)
        try:
            await self._catch_up()
        except Exception as error:
            raise self._fault(error) from error
        finally:
            await self._call_if_there("close")

    async def _call_if_there(self, name: str) -> None:
        method = getattr(self._storage, name, None)
        if method is not None:
            await method()

    def _fault(self, error: Exception, *, kept: bool = False) -> StorageError:
        cause = error.cause if isinstance(error, StorageError) else f"{type(error).__name__}: {error_text(error)}"
        return StorageError(type(self._storage).__name__, cause, kept=kept)

    # --- in -----------------------------------------------------------------------------------------------------

    def apply(self, changes: Sequence[Change]) -> asyncio.Future[None]:
        """Makes changes, in order, after those of earlier calls."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if not self._open:
            future.set_exception(StorageClosed("", "the storage is not open"))
            future.exception()
            return future
        self._waiting.append((tuple(changes), future))
        self._begin()
        return future

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while self._waiting or self._retry_is_due:
            if self._retry_is_due:
                self._retry_is_due = False
                await self._try_again()
                continue
            changes, future = self._waiting[0]
            error = await self._store(changes)
            self._waiting.popleft()
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
                    future.exception()
        self._task = None

    def _retry(self) -> None:
        self._retry_is_due = True
        self._begin()

    async def _try_again(self) -> None:
        if self._error is None:
            return
        try:
            await self._catch_up()
        except Exception as error:
            self._failures += 1
            self._set_error(self._fault(error))
        else:
            self._set_error(None)

    async def _store(self, changes: Sequence[Change]) -> StorageError | None:
        refusable = any(isinstance(change, Save) for change in changes)
        before = self._before(changes)
        for change in changes:
            self._note(change)
            self._do[type(change)](change)
        self._commits += 1
        self._changes += len(changes)
        if before.letters is not None:
            self._surplus += len(before.letters.keys() - self._letters.keys())
        try:
            await self._catch_up()
        except Exception as error:
            if refusable:  # so it must not run
                self._restore(before)
            self._failures += 1
            self._set_error(self._fault(error, kept=not refusable))
            return self._error
        self._set_error(None)
        return None

    def _before(self, changes: Sequence[Change]) -> _Before:
        touched: set[str] = set()
        for change in changes:
            if isinstance(change, ClearCommands):
                touched |= self._commands.keys()
            elif isinstance(change, Save):
                touched.add(change.command.id)
            elif isinstance(change, Update | Remove):
                touched.add(change.id)
        letters = dict(self._letters) if any(isinstance(change, _OF_LETTERS) for change in changes) else None
        return _Before({key: self._commands.get(key) for key in touched}, letters)

    def _restore(self, before: _Before) -> None:
        for key, command in before.commands.items():
            self._commands.pop(key, None)
            if command is not None:
                self._commands[key] = command
        if before.letters is not None:
            self._stale_letters |= before.letters.keys() - self._letters.keys()
            self._must_clear |= bool(self._letters.keys() - before.letters.keys())
            self._letters = before.letters

    def _note(self, change: Change) -> None:
        """Notes what the storage has to be told of a change."""
        if isinstance(change, AddLetter):
            self._stale_letters.add(change.letter.id)
        elif isinstance(change, RemoveLetter):
            self._must_clear |= change.id in self._letters
        elif isinstance(change, ClearLetters):
            self._must_clear = True
        elif isinstance(change, ClearCommands):
            self._stale |= set(self._commands)
        else:
            self._stale.add(change.command.id if isinstance(change, Save) else change.id)

    async def _catch_up(self) -> None:
        """Brings the storage up to date: first what is to be kept, then what goes, so that a crash loses nothing."""
        if self._must_clear and not self._letters and not self._commands:
            await self._storage.clear_all()
            self._stale, self._stale_letters, self._surplus, self._must_clear = set(), set(), 0, False
        for key in [key for key in self._stale if key in self._commands]:
            await self._storage.save_command(self._commands[key])
            self._stale.discard(key)
        for key in [key for key in self._letters if key in self._stale_letters]:
            await self._storage.save_dead_letter(self._letters[key][1])
            self._stale_letters.discard(key)
        for key in tuple(self._stale):
            await self._storage.remove_command(key)
            self._stale.discard(key)
        if self._must_clear or self._surplus > max(len(self._letters), _FEW):
            await self._rewrite_letters()

    async def _rewrite_letters(self) -> None:
        self._must_clear, self._stale_letters = True, set(self._letters)
        await self._storage.clear_dead_letters()
        for key, (_, letter) in self._letters.items():
            await self._storage.save_dead_letter(letter)
            self._stale_letters.discard(key)
        self._surplus, self._must_clear = 0, False

    # --- how it is ----------------------------------------------------------------------------------------------

    def _set_error(self, error: StorageError | None) -> None:
        changed = (error is None) != (self._error is None)
        self._error = error
        if error is None:
            self._again.stop()
        elif self._open:
            self._again.later()
        if changed and self.on_state is not None:
            self.on_state(self.health())

    def health(self) -> StorageHealth:
        """How it is."""
        health = super().health()
        kept = len(self._stale) + len(self._stale_letters)
        return msgspec.structs.replace(
            health,
            ready=health.ready and self._error is None,
            error=self._error or health.error,
            path=type(self._storage).__name__,
            pending=len(self._waiting),
            kept=kept,
            failures=self._failures,
        )
