"""The seven methods, for a storage that has what a true implementation adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lane_obs.storage.change import AddLetter, ClearCommands, ClearLetters, Remove, Save

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Sequence

    from lane_obs.storage.change import Change
    from lane_obs.storage.record import LetterPage, StoredCommand, StoredDeadLetter

LARGE_PAGE: Final = 1_000
"""Commands or letters that are read at once."""


class ByChanges:
    """The seven methods, by way of `apply`, `stream_commands` and `letters`."""

    def apply(self, changes: Sequence[Change]) -> asyncio.Future[None]:
        """Makes changes; see `DurableStorage.apply`."""
        raise NotImplementedError

    def stream_commands(self, batch: int = LARGE_PAGE) -> AsyncIterator[list[StoredCommand]]:
        """All commands that are stored now, in order of `seq`, so many at a time."""
        raise NotImplementedError

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
        raise NotImplementedError

    async def save_command(self, command: StoredCommand) -> None:
        """Stores a command; one of the same id is replaced."""
        await self.apply([Save(command)])

    async def load_commands(self) -> list[StoredCommand]:
        """All stored commands, in order of `seq`."""
        return [command async for batch in self.stream_commands() for command in batch]

    async def remove_command(self, id: str, /) -> None:  # noqa: A002 - the name of the field
        """Forgets a command; one that is not stored is ignored."""
        await self.apply([Remove(id)])

    async def save_dead_letter(self, letter: StoredDeadLetter) -> None:
        """Stores a dead letter as the newest; one of the same id is replaced."""
        await self.apply([AddLetter(letter)])

    async def load_dead_letters(self) -> list[StoredDeadLetter]:
        """All stored dead letters, oldest first."""
        page = await self.letters(limit=LARGE_PAGE)
        found = list(page.letters)
        while page.after is not None:
            page = await self.letters(limit=LARGE_PAGE, after=page.after)
            found += page.letters
        return found

    async def clear_dead_letters(self) -> None:
        """Forgets all dead letters."""
        await self.apply([ClearLetters()])

    async def clear_all(self) -> None:
        """Forgets all commands and dead letters."""
        await self.apply([ClearCommands(), ClearLetters()])
