"""What a storage is: the seven methods that any may have, and what a true one adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import msgspec

from lane_obs.core.histogram import Histogram  # noqa: TC001 - msgspec reads the annotations
from lane_obs.errors import StorageError  # noqa: TC001 - likewise
from lane_obs.storage.record import StoredCommand, StoredDeadLetter  # noqa: TC001 - read by users of the protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Sequence

    from lane_obs.storage.change import Change
    from lane_obs.storage.record import LetterPage


class StorageHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A storage at one moment.

    Attributes:
        ready: whether it takes changes.
        error: why not; `None` when it does.
        path: its folder; empty when it has none.
        schema_version: of its file; 0 when it has none, or is not open.
        commands, letters: how many are stored.
        last_seq: the highest `seq` that was ever stored, 0 for none.
        evicted: dead letters that gave way so far.
        pending: batches of changes that wait to be written.
        kept: changes that wait in memory for a failed storage to work again.
        dropped: changes that were lost because too many were kept.
        commits: transactions so far; each holds all changes that came during the one before.
        changes: changes written so far.
        failures: transactions that failed so far.
        file_bytes: size of its files.
        commit_seconds: how long transactions took.
    """

    ready: bool
    error: StorageError | None
    path: str
    commands: int
    letters: int
    last_seq: int
    commit_seconds: Histogram
    evicted: int = 0
    pending: int = 0
    kept: int = 0
    dropped: int = 0
    commits: int = 0
    changes: int = 0
    failures: int = 0
    file_bytes: int = 0
    schema_version: int = 0


@runtime_checkable
class Storage(Protocol):
    """Whatever keeps commands and dead letters: seven methods. They raise when they could not do it.

    Those who have only these are used through `adapt`.
    """

    async def save_command(self, command: StoredCommand) -> None:
        """Stores a command; one of the same id is replaced. On return it is kept, whatever happens to the process."""

    async def load_commands(self) -> list[StoredCommand]:
        """All stored commands, in order of `seq`."""
        ...

    async def remove_command(self, id: str, /) -> None:  # noqa: A002 - the name of the field
        """Forgets a command; one that is not stored is ignored."""

    async def save_dead_letter(self, letter: StoredDeadLetter) -> None:
        """Stores a dead letter as the newest; one of the same id is replaced."""

    async def load_dead_letters(self) -> list[StoredDeadLetter]:
        """All stored dead letters, oldest first."""
        ...

    async def clear_dead_letters(self) -> None:
        """Forgets all dead letters."""

    async def clear_all(self) -> None:
        """Forgets all commands and dead letters."""


@runtime_checkable
class DurableStorage(Storage, Protocol):
    """A storage that can do all that a durable queue needs.

    Attributes:
        cannot: what it cannot do after all, in words, for people to read at start.
        on_state: called on the event loop with its health when it fails and when it works again.
        on_evicted: called on the event loop with the ids of dead letters that gave way, once that is stored.
    """

    cannot: Sequence[str]
    on_state: Callable[[StorageHealth], object] | None
    on_evicted: Callable[[list[str]], object] | None

    async def open(self) -> None:
        """Makes it ready, on the running event loop. Raises a `StorageError` when it cannot be."""

    async def close(self) -> None:
        """Writes what waits and lets go of everything. Raises a `StorageError` when something could not be written."""

    def apply(self, changes: Sequence[Change]) -> asyncio.Future[None]:
        """Makes changes, in order and all at once; they are stored when the future is done.

        Later calls are stored later. When the storage fails, the future fails with a `StorageError`. Its `kept`
        says what becomes of the changes: without a `Save` among them they are kept in memory and written once the
        storage works again. With one, all of them are dropped, so that nothing runs that was refused.
        """
        ...

    def stream_commands(self, batch: int = 1000) -> AsyncIterator[list[StoredCommand]]:
        """All commands that are stored now, in order of `seq`, so many at a time.

        Those that change meanwhile come as they are then. One that is stored meanwhile with a `seq` among them may
        come too.
        """
        ...

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
        """A page of dead letters, oldest first.

        Args:
            lane: only those of this lane.
            command_type: only those of this command type.
            since: only those that failed at this time or later, Unix seconds.
            until: only those that failed before this time, Unix seconds.
            limit: how many at most, 1 or more.
            after: `after` of the page before.
        """
        ...

    async def find_letter(self, id: str, /) -> StoredDeadLetter | None:  # noqa: A002 - the name of the field
        """The dead letter of this id."""
        ...

    def health(self) -> StorageHealth:
        """How it is."""
        ...


AnyStorage: TypeAlias = "Storage | DurableStorage"
