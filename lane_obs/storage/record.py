"""What a storage keeps: commands that have not ended, and dead letters. Plain data, everything needed to run again."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec


class StoredCommand(msgspec.Struct, frozen=True, gc=False):
    """A command as it is stored.

    Attributes:
        id: its id, unique among stored commands.
        seq: its place in the order of submits, unique among stored commands.
        lane: its lane's name.
        command_type: its registered name.
        payload: its arguments, as JSON; a storage does not look into it.
        options: what its submit set, as plain JSON values: timeout, retry and so on.
        attempt: how many attempts were started so far.
        state: `ready`, `delayed`, `backoff` or `running`.
        not_before: when it may start, Unix seconds; `None` for at once.
        deadline: when its whole life is over, Unix seconds; `None` for never.
        key: its idempotency key.
        trace: the W3C traceparent of its submit.
        submitted_at, updated_at: when it was submitted and last changed, Unix seconds.
        deaths: how many times the process died while it ran.
        last_error_type, last_error: class name and message of what its last attempt raised.
    """

    id: str
    seq: int
    lane: str
    command_type: str
    payload: bytes
    options: dict[str, Any] = {}
    attempt: int = 0
    state: str = "ready"
    not_before: float | None = None
    deadline: float | None = None
    key: str | None = None
    trace: str | None = None
    submitted_at: float = 0.0
    updated_at: float = 0.0
    deaths: int = 0
    last_error_type: str | None = None
    last_error: str | None = None


class StoredDeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as it is stored.

    Attributes:
        id: the command's id, unique among stored letters.
        seq: its place in the order of submits.
        lane, command_type, payload, options, key, trace: as for `StoredCommand`.
        reason: the state it ended in, for example `failed`.
        error_type, error: class name and message of its last error.
        traceback: where that was raised, as text; `None` when it is not known.
        attempts: how many attempts it had.
        failed_at, submitted_at: when it ended and was submitted, Unix seconds.
    """

    id: str
    seq: int
    lane: str
    command_type: str
    payload: bytes
    options: dict[str, Any] = {}
    reason: str
    error_type: str
    error: str
    traceback: str | None = None
    attempts: int = 0
    failed_at: float = 0.0
    submitted_at: float = 0.0
    key: str | None = None
    trace: str | None = None


class LetterPage(msgspec.Struct, frozen=True):
    """Some dead letters, oldest first.

    Attributes:
        letters: the letters of this page.
        after: what to ask for to get the next page; `None` when this is the last.
    """

    letters: tuple[StoredDeadLetter, ...]
    after: int | None = None


class FiledLetter(Protocol):
    """What a filter looks at."""

    @property
    def lane(self) -> str:
        """Its lane."""

    @property
    def command_type(self) -> str:
        """The type of its command."""

    @property
    def failed_at(self) -> float:
        """When it ended, Unix seconds."""


class LetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters are meant; `None` means any.

    Attributes:
        lane: those of this lane.
        command_type: those of this command type.
        since: those that failed at this time or later, Unix seconds.
        until: those that failed before this time, Unix seconds.
    """

    lane: str | None = None
    command_type: str | None = None
    since: float | None = None
    until: float | None = None

    def takes(self, letter: FiledLetter) -> bool:
        """Whether a letter is meant."""
        return (
            self.lane in {None, letter.lane}
            and self.command_type in {None, letter.command_type}
            and (self.since is None or letter.failed_at >= self.since)
            and (self.until is None or letter.failed_at < self.until)
        )


class WaitingCommands(msgspec.Struct, frozen=True):
    """Stored commands of one lane, type and state.

    Attributes:
        lane, command_type, state: what they have in common.
        count: how many there are.
        oldest: when the oldest was submitted, Unix seconds.
        next_start: when the first may start, Unix seconds; `None` for at once.
    """

    lane: str
    command_type: str
    state: str
    count: int
    oldest: float
    next_start: float | None
