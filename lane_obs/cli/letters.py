"""Dead letters: what one can do with them, and how that is done in the folder of a stopped queue."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from lane_obs.cli.folder import now, to_time
from lane_obs.errors import ConfigError
from lane_obs.storage import LetterFilter, RemoveLetter, Save, StoredCommand

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
    from pathlib import Path

    from lane_obs.storage import Change, LocalStorage, StoredDeadLetter

_PAGE: Final = 1_000


class Name(NamedTuple):
    """What tells a letter from others: all that is kept in memory of one that is meant."""

    id: str
    key: str | None
    seq: int


class Pick(NamedTuple):
    """The dead letters that are meant.

    Attributes:
        letters: oldest first, or in the order in which they were asked for.
        missing: ids that no letter has.
    """

    letters: list[Name]
    missing: list[str]


class Page(NamedTuple):
    """Some dead letters.

    Attributes:
        letters: oldest first; they have the fields that both kinds of letters share, and may have more.
        after: what to ask for to get the next page; `None` when this is the last.
    """

    letters: Sequence[Any]
    after: int | str | None


class Letters(Protocol):
    """The dead letters of a queue. Every method may raise what its storage or broker raises."""

    place: str

    async def page(self, meant: LetterFilter, limit: int, after: str | None) -> Page:
        """Some of those that a filter leaves."""

    async def find(self, id_: str) -> Any:
        """The letter of this id; `None` for none."""

    async def pick(self, meant: Sequence[str] | LetterFilter) -> Pick:
        """Finds letters by id, or all that a filter leaves."""

    def requeue(self) -> Requeuing:
        """What puts letters back."""

    async def purge(self, found: Pick) -> int:
        """Forgets letters; returns how many there were."""


class Requeuing(Protocol):
    """Puts letters back among the commands."""

    done: int
    refused: list[tuple[str, str]]

    async def run(self, found: Pick) -> None:
        """Does it; `done` and `refused` say how far it came, also where it raised."""


def to_filter(lane: str | None, command_type: str | None, since: str | None, until: str | None) -> LetterFilter:
    """Options as a filter.

    Raises:
        ConfigError: a time is none.
    """
    moment = now()
    return LetterFilter(
        lane=lane,
        command_type=command_type,
        since=to_time("--since", since, moment),
        until=to_time("--until", until, moment),
    )


def which(ids: list[str] | None, every: bool, meant: LetterFilter) -> list[str] | LetterFilter:  # noqa: FBT001
    """Either ids or a filter.

    Raises:
        ConfigError: both or neither were given.
    """
    if every == bool(ids):
        raise ConfigError("ID", ids or None, "give ids of dead letters, or --all, with filters or without")
    if ids and meant != LetterFilter():
        raise ConfigError("ID", ids, "filters go with --all, not with ids")
    return list(dict.fromkeys(ids)) if ids else meant


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


class FolderLetters:
    """The dead letters in a folder.

    Args:
        storage: has them; open.
        folder: where.

    Attributes:
        place: the folder, in words.
    """

    def __init__(self, storage: LocalStorage, folder: Path) -> None:
        self._storage = storage
        self.place = str(folder)

    async def page(self, meant: LetterFilter, limit: int, after: str | None) -> Page:
        """Some of those that a filter leaves, oldest first; `after` is the number that the page before tells.

        Raises:
            ConfigError: it is no such number.
            StorageError: they cannot be read.
        """
        if after is not None and not (after.isascii() and after.isdigit() and int(after) < 2**63):
            raise ConfigError("--after", after, "give the number that the page before tells")
        number = None if after is None else int(after)
        page = await self._storage.letters(**msgspec.structs.asdict(meant), limit=limit, after=number)
        return Page(page.letters, page.after)

    async def find(self, id_: str) -> StoredDeadLetter | None:
        """The letter of this id; `None` for none.

        Raises:
            StorageError: it cannot be read.
        """
        return await self._storage.find_letter(id_)

    async def pick(self, meant: Sequence[str] | LetterFilter) -> Pick:
        """Finds letters by id, or all that a filter leaves.

        Raises:
            StorageError: they cannot be read.
        """
        found = Pick([], [])
        if isinstance(meant, LetterFilter):
            async for page in pages(self._storage, meant):
                found.letters.extend(Name(letter.id, letter.key, letter.seq) for letter in page)
            return found
        for id_ in meant:
            letter = await self._storage.find_letter(id_)
            if letter is None:
                found.missing.append(id_)
            else:
                found.letters.append(Name(id_, letter.key, letter.seq))
        return found

    def requeue(self) -> Requeue:
        """What puts letters back."""
        return Requeue(self._storage, now())

    async def purge(self, found: Pick) -> int:
        """Forgets letters, all of a thousand at once, or none; returns how many there were.

        Raises:
            StorageError: it could not be done.
        """
        for names in _batches(found.letters):
            await self._storage.apply([RemoveLetter(name.id) for name in names])
        return len(found.letters)


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
        self._last_seq = storage.health().last_seq
        self.done = 0
        self.refused: list[tuple[str, str]] = []

    async def run(self, found: Pick) -> None:
        """Puts them back, a thousand at once, or none of the thousand.

        Raises:
            StorageError: it could not be done. Those of earlier thousands are back.
        """
        await self._look_at_commands(found)
        for names in _batches(found.letters):
            changes: list[Change] = []
            for name in names:
                letter = await self._storage.find_letter(name.id)
                assert letter is not None  # the folder is ours
                changes += self._changes(letter)
            if changes:
                await self._storage.apply(changes)
            self.done += len(changes) // 2

    async def _look_at_commands(self, found: Pick) -> None:
        """Notes which ids, keys and places of the letters a stored command has, too."""
        ids, keys, seqs = map(set, zip(*found.letters, strict=True))
        self._last_seq = max(self._last_seq, max(seqs))
        async for batch in self._storage.stream_commands(_PAGE):
            self._ids |= ids.intersection([command.id for command in batch])
            self._keys |= keys.intersection([command.key for command in batch if command.key is not None])
            self._seqs |= seqs.intersection([command.seq for command in batch])

    def _changes(self, letter: StoredDeadLetter) -> list[Change]:
        if letter.id in self._ids:
            self.refused.append((letter.id, "a stored command has its id"))
            return []
        if letter.key in self._keys:
            self.refused.append((letter.id, f"a stored command has its key {letter.key!r}"))
            return []
        if letter.key is not None:
            self._keys.add(letter.key)
        return [RemoveLetter(letter.id), Save(self._command(letter))]

    def _command(self, letter: StoredDeadLetter) -> StoredCommand:
        limit = letter.options.get("deadline")
        return StoredCommand(
            id=letter.id,
            seq=self._free_seq(letter.seq),
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

    def _free_seq(self, seq: int) -> int:
        """Its own place, or one behind all others should that be taken."""
        if seq in self._seqs:
            self._last_seq = seq = self._last_seq + 1
        self._seqs.add(seq)
        return seq


def _batches(names: Iterable[Name]) -> Iterator[list[Name]]:
    rest = iter(names)
    while batch := list(itertools.islice(rest, _PAGE)):
        yield batch
