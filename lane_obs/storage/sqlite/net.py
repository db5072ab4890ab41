"""The net effect of many changes, by id: what one transaction has to write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from lane_obs.storage.change import (
    AddLetter,
    ClearCommands,
    ClearLetters,
    Remove,
    RemoveLetter,
    Save,
    Update,
)
from lane_obs.storage.sqlite.row import COLUMNS, command_row, letter_row, state_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lane_obs.storage.change import Change
    from lane_obs.storage.sqlite.row import Row

Step: TypeAlias = tuple[type[Any], str, Any]
"""A change made ready to be written: its kind, the id, and what goes to columns."""

_UNTOUCHED: Final = object()
_WHOLE: Final = len(COLUMNS)
_LEAST_COST: Final = 300
"""Bytes that a change takes in memory, roughly, beside its text."""

_READY: Final[dict[type[Any], Callable[[Any], Step]]] = {
    Update: lambda change: (Update, change.id, state_row(change)),
    Remove: lambda change: (Remove, change.id, None),
    AddLetter: lambda change: (AddLetter, change.letter.id, (letter_row(change.letter), change.limit, change.before)),
    RemoveLetter: lambda change: (RemoveLetter, change.id, None),
    ClearLetters: lambda _: (ClearLetters, "", None),
    ClearCommands: lambda _: (ClearCommands, "", None),
}


def steps_of(changes: Sequence[Change]) -> list[Step]:
    """Makes changes ready to be written.

    Raises:
        ValueError, TypeError, OverflowError: one has a value that cannot be stored.
    """
    steps: list[Step] = []
    for change in changes:
        if isinstance(change, Save):  # most are
            command = change.command
            steps.append((Save, command.id, command_row(command)))
        else:
            steps.append(_READY[type(change)](change))
    return steps


def cost_of(steps: Iterable[Step]) -> int:
    """Bytes that these take in memory, roughly."""
    return sum(_LEAST_COST + (len(repr(step[2])) if step[2] is not None else 0) for step in steps)


class Net:
    """What many changes come to.

    Attributes:
        commands: by id, its whole row, or only the columns of its state where only they change. `None`: it is removed.
        letters: by id, a letter's row; `None`: it is removed. In the order in which they were added.
        clears_commands, clears_letters: whether all that is stored goes first.
        limit, before: which letters give way in the end.
        changes: how many changes it is made of.
    """

    __slots__ = ("before", "changes", "clears_commands", "clears_letters", "commands", "letters", "limit")

    def __init__(self) -> None:
        self.commands: dict[str, Row | None] = {}
        self.letters: dict[str, Row | None] = {}
        self.clears_commands = self.clears_letters = False
        self.limit: int | None = None
        self.before: float | None = None
        self.changes = 0

    def __bool__(self) -> bool:
        return self.changes > 0

    def add(self, steps: Sequence[Step]) -> None:
        """Has changes follow those it has."""
        self.changes += len(steps)
        commands = self.commands
        for kind, key, value in steps:
            if kind is Save:
                commands[key] = value
            elif kind is Update:
                self._update(key, value)
            elif kind is Remove:
                commands[key] = None
            else:
                self._add_rare(kind, key, value)

    def _update(self, key: str, state: Row) -> None:
        before: Any = self.commands.get(key, _UNTOUCHED)
        if before is _UNTOUCHED:
            if not self.clears_commands:
                self.commands[key] = state
        elif before is not None:
            self.commands[key] = before[: -len(state)] + state

    def _add_rare(self, kind: type[Any], key: str, value: Any) -> None:
        if kind is AddLetter:
            row, limit, before = value
            self.letters.pop(key, None)  # the newest comes last
            self.letters[key] = row
            self.limit = self.limit if limit is None else limit
            self.before = self.before if before is None else before
        elif kind is RemoveLetter:
            self.letters[key] = None
        elif kind is ClearLetters:
            self.letters.clear()
            self.clears_letters = True
        else:
            self.commands.clear()
            self.clears_commands = True

    def parts(self) -> tuple[list[Row], list[Row], list[Row]]:
        """What to do with rows of commands: those to write, those to update (with the id last), those to remove."""
        saves, updates, removes = [], [], []
        for key, row in self.commands.items():
            if row is None:
                removes.append((key,))
            elif len(row) == _WHOLE:
                saves.append(row)
            else:
                updates.append((*row, key))
        return saves, updates, removes

    def cost(self) -> int:
        """Bytes that it takes in memory, roughly."""
        values: list[Any] = [*self.commands.values(), *self.letters.values()]
        return sum(_LEAST_COST + (len(repr(value)) if value is not None else 0) for value in values)

    def split(self) -> Iterator[Net]:
        """The same in parts, one for each id, for when all of it cannot be written."""
        for name in ("commands", "letters"):
            for key, value in getattr(self, name).items():
                part = Net()
                getattr(part, name)[key] = value
                part.changes = 1
                yield part
