"""What may change in a storage. `apply` takes several of these at once, and they happen together or not at all."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from lane_obs.storage.record import StoredCommand, StoredDeadLetter  # noqa: TC001 - msgspec reads the annotations


class Save(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Stores a command; one of the same id is replaced.

    Attributes:
        command: the command.
    """

    command: StoredCommand


class Update(msgspec.Struct, frozen=True, tag=True, kw_only=True, gc=False):
    """Sets all that changes in the life of a command. One that is not stored is ignored.

    Attributes:
        id: the command's id.
        state, attempt, not_before, updated_at, deaths, last_error_type, last_error: its values from now on; what is
            not given is not kept but has its default.
    """

    id: str
    state: str
    attempt: int
    updated_at: float
    not_before: float | None = None
    deaths: int = 0
    last_error_type: str | None = None
    last_error: str | None = None


class Remove(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Forgets a command. One that is not stored is ignored.

    Attributes:
        id: the command's id.
    """

    id: str


class AddLetter(msgspec.Struct, frozen=True, tag=True):
    """Stores a dead letter as the newest; one of the same id is replaced. Then the oldest give way.

    Attributes:
        letter: the letter.
        limit: how many letters may stay; `None` for any number.
        before: letters that failed before this time, Unix seconds, do not stay; `None` for no such time.
    """

    letter: StoredDeadLetter
    limit: int | None = None
    before: float | None = None


class RemoveLetter(msgspec.Struct, frozen=True, tag=True):
    """Forgets a dead letter. One that is not stored is ignored.

    Attributes:
        id: the command's id.
    """

    id: str


class ClearLetters(msgspec.Struct, frozen=True, tag=True):
    """Forgets all dead letters."""


class ClearCommands(msgspec.Struct, frozen=True, tag=True):
    """Forgets all commands."""


Change: TypeAlias = Save | Update | Remove | AddLetter | RemoveLetter | ClearLetters | ClearCommands
"""Any of them."""


def updated(command: StoredCommand, change: Update) -> StoredCommand:
    """A command after an update."""
    return msgspec.structs.replace(
        command,
        state=change.state,
        attempt=change.attempt,
        not_before=change.not_before,
        updated_at=change.updated_at,
        deaths=change.deaths,
        last_error_type=change.last_error_type,
        last_error=change.last_error,
    )
