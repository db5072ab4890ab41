"""Dead letters of a stopped queue: which are meant, back among its commands, and away."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import msgspec

from lane_obs.storage import RemoveLetter, Save, StoredCommand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from lane_obs.storage import Change, LetterFilter, LocalStorage, StoredDeadLetter

_PAGE: Final = 1_000


class Pick(msgspec.Struct, frozen=True):
    """The dead letters that are meant.

    Attributes:
        letters: their ids, oldest first, or in the order in which they were asked for.
        missing: ids that no letter has.
    """

    letters: list[str]
    missing: list[str]


async def pick(storage: LocalStorage, meant: Sequence[str] | LetterFilter) -> Pick:
    """Finds letters by id, or all that a filter leaves.

    Raises:
        StorageError: they cannot be read.
    """
    found, missing = [], []
    if isinstance(meant, msgspec.Struct):
        async for page in pages(storage, meant):
            found += [letter.id for letter in page]
    else:
        for id_ in meant:
            (missing if await storage.find_letter(id_) is None else found).append(id_)
    return Pick(found, missing)


async def pages(storage: LocalStorage, meant: LetterFilter) -> AsyncIterator[Sequence[StoredDeadLetter]]:
    """All letters that a filter leaves, oldest first, so many at a time.

    Raises:
        StorageError: they cannot be read.
    """
    after: int | None = 0
    while after is not None:
        page = await storage.letters(**msgspec.structs.asdict(meant), limit=_PAGE, after=after)
        yield page.letters
        after = page.after


async def purge(storage: LocalStorage, found: Pick) -> None:
    """Forgets letters: all of a thousand at once, or none.

    Raises:
        StorageError: it could not be done.
    """
    for ids in _batches(found.letters):
        await storage.apply([RemoveLetter(id_) for id_ in ids])


class Requeue:
    """Puts dead letters back among the commands, as the queue itself would: see `DeadLetterQueue.requeue`.

    Args:
        storage: has the letters.
        now: Unix seconds.

    Attributes:
        done: how many were put back.
        refused: the others, by id, each with the reason.
    """

    def __init__(self, storage: LocalStorage, now: float) -> None:
        self._storage = storage
        self._now = now
        self._ids: set[str] = set()
        self._keys: set[str] = set()
        self._seqs: set[int] = set()
        self._seq = storage.health().last_seq
        self.done = 0
        self.refused: list[tuple[str, str]] = []

    async def run(self, found: Pick) -> None:
        """Puts them back, a thousand at once, or none of the thousand.

        Raises:
            StorageError: it could not be done. Those of earlier thousands are back.
        """
        await self._look_at_commands(found)
        for ids in _batches(found.letters):
            changes: list[Change] = []
            for id_ in ids:
                letter = await self._storage.find_letter(id_)
                assert letter is not None  # the folder is ours
                changes += self._changes(letter)
            if changes:
                await self._storage.apply(changes)
            self.done += len(changes) // 2

    async def _look_at_commands(self, found: Pick) -> None:
        """Notes ids, keys and places of stored commands that a letter may have, too."""
        wanted = set(found.letters)
        async for batch in self._storage.stream_commands(_PAGE):
            for command in batch:
                self._seqs.add(command.seq)
                if command.id in wanted:
                    self._ids.add(command.id)
                if command.key is not None:
                    self._keys.add(command.key)

    def _changes(self, letter: StoredDeadLetter) -> list[Change]:
        if letter.id in self._ids:
            self.refused.append((letter.id, "a stored command has its id"))
            return []
        if letter.key in self._keys:
            self.refused.append((letter.id, f"a stored command has its key {letter.key!r}"))
            return []
        command = self._command(letter)
        self._seqs.add(command.seq)
        if letter.key is not None:
            self._keys.add(letter.key)
        return [RemoveLetter(letter.id), Save(command)]

    def _command(self, letter: StoredDeadLetter) -> StoredCommand:
        limit = letter.options.get("deadline")
        return StoredCommand(
            id=letter.id,
            seq=letter.seq if letter.seq not in self._seqs else self._next_seq(),
            lane=letter.lane,
            command_type=letter.command_type,
            payload=letter.payload,
            options=letter.options,
            deadline=self._now + limit if isinstance(limit, int | float) else None,
            key=letter.key,
            trace=letter.trace,
            submitted_at=self._now,
            updated_at=self._now,
        )

    def _next_seq(self) -> int:
        self._seq = max(self._seq, *self._seqs) + 1
        return self._seq


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(ids)
    while batch := list(itertools.islice(rest, _PAGE)):
        yield batch
