"""Keeps commands and dead letters in memory: for tests, and as the plainest example of a full storage."""

from __future__ import annotations

import asyncio
import itertools
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from lane_obs.config import to_count
from lane_obs.core.histogram import QUICK_BOUNDS, Histogram
from lane_obs.errors import StorageClosed
from lane_obs.storage.change import (
    AddLetter,
    ClearCommands,
    ClearLetters,
    Remove,
    RemoveLetter,
    Save,
    Update,
    updated,
)
from lane_obs.storage.methods import LARGE_PAGE, ByChanges
from lane_obs.storage.port import StorageHealth
from lane_obs.storage.record import LetterFilter, LetterPage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from lane_obs.storage.change import Change
    from lane_obs.storage.record import StoredCommand, StoredDeadLetter


class MemoryStorage(ByChanges):
    """A storage that forgets everything when it is collected, not when it is closed. Needs no thread and no time.

    Attributes:
        cannot: what it cannot do: outlive the process.
        on_state: never called: it does not fail.
        on_evicted: called with the ids of dead letters that gave way.
    """

    cannot: Sequence[str] = ("keep anything when the process ends",)

    def __init__(self) -> None:
        self.on_state: Callable[[StorageHealth], object] | None = None
        self.on_evicted: Callable[[list[str]], object] | None = None
        self._commands: dict[str, StoredCommand] = {}
        self._letters: dict[str, tuple[int, StoredDeadLetter]] = {}
        self._places = itertools.count(1)
        self._open = False
        self._last_seq = self._evicted = self._commits = self._changes = 0
        self._commit_seconds = Histogram(QUICK_BOUNDS)
        self._do: dict[type[Any], Callable[[Any], None]] = {
            Save: self._save,
            Update: self._update,
            Remove: self._remove,
            AddLetter: self._add_letter,
            RemoveLetter: self._remove_letter,
            ClearLetters: lambda _: self._letters.clear(),
            ClearCommands: lambda _: self._commands.clear(),
        }

    async def open(self) -> None:
        """Makes it ready; what it had when it was closed is still there."""
        self._open = True

    async def close(self) -> None:
        """Takes no more changes."""
        self._open = False

    # --- in -----------------------------------------------------------------------------------------------------

    def apply(self, changes: Sequence[Change]) -> asyncio.Future[None]:
        """Makes changes, in order and at once."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._open:
            future.set_exception(StorageClosed("", "the storage is not open"))
            future.exception()
            return future
        for change in changes:
            self._do[type(change)](change)
        self._commits += 1
        self._changes += len(changes)
        future.set_result(None)
        return future

    def _save(self, change: Save) -> None:
        self._commands[change.command.id] = change.command
        self._last_seq = max(self._last_seq, change.command.seq)

    def _update(self, change: Update) -> None:
        command = self._commands.get(change.id)
        if command is not None:
            self._commands[change.id] = updated(command, change)

    def _remove(self, change: Remove) -> None:
        self._commands.pop(change.id, None)

    def _remove_letter(self, change: RemoveLetter) -> None:
        self._letters.pop(change.id, None)

    def _add_letter(self, change: AddLetter) -> None:
        self._letters.pop(change.letter.id, None)
        self._letters[change.letter.id] = (next(self._places), change.letter)
        gone = [key for key, (_, letter) in self._letters.items() if letter.failed_at < (change.before or 0)]
        if change.limit is not None:
            kept = [key for key in self._letters if key not in set(gone)]
            gone += kept[: max(0, len(kept) - change.limit)]
        for key in gone:
            del self._letters[key]
        self._evicted += len(gone)
        if gone and self.on_evicted is not None:
            asyncio.get_running_loop().call_soon(self.on_evicted, gone)

    # --- out ----------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if not self._open:
            raise StorageClosed("", "the storage is not open")

    async def stream_commands(self, batch: int = LARGE_PAGE) -> AsyncIterator[list[StoredCommand]]:
        """All commands that are stored now, in order of `seq`, so many at a time."""
        self._check_open()
        size = to_count("batch", batch, minimum=1)
        known = [command.id for command in sorted(self._commands.values(), key=attrgetter("seq"))]
        for start in range(0, len(known), size):
            found = [self._commands.get(key) for key in known[start : start + size]]
            if left := [command for command in found if command is not None]:
                yield left

    async def letters(
        self,
        *,
        lane: str | None = None,
        command_type: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
        after: int | None = None,
    ) -> LetterPage:
        """A page of dead letters, oldest first; see `DurableStorage.letters`."""
        self._check_open()
        size = to_count("limit", limit, minimum=1)
        meant = LetterFilter(lane=lane, command_type=command_type, since=since, until=until)
        found = [entry for entry in self._letters.values() if entry[0] > (after or 0) and meant.takes(entry[1])]
        page = found[:size]
        return LetterPage(tuple(letter for _, letter in page), page[-1][0] if len(found) > size else None)

    async def find_letter(self, id: str, /) -> StoredDeadLetter | None:  # noqa: A002 - the name of the field
        """The dead letter of this id."""
        self._check_open()
        found = self._letters.get(id)
        return None if found is None else found[1]

    def health(self) -> StorageHealth:
        """How it is."""
        return StorageHealth(
            ready=self._open,
            error=None if self._open else StorageClosed("", "the storage is not open"),
            path="",
            commands=len(self._commands),
            letters=len(self._letters),
            last_seq=self._last_seq,
            evicted=self._evicted,
            commits=self._commits,
            changes=self._changes,
            commit_seconds=self._commit_seconds,
        )
