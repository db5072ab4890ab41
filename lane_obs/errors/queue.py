"""Exceptions of the queue itself, and the base of all."""

from __future__ import annotations

from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from lane_obs.runtime.stats import DrainReport


MAX_SECONDS: Final = 100 * 365.25 * 86_400
"""The longest duration that is taken anywhere: 100 years. Beyond it only a mistake is likely."""


_MAX_TEXT = 1_000
_MAX_NAMES = 20


def error_text(error: BaseException) -> str:
    """The message of an exception, at most 1,000 characters; a `__str__` that raises is told, not passed on."""
    try:
        return str(error)[:_MAX_TEXT]
    except Exception as fault:  # it is the user's code
        return f"<message unavailable: {type(fault).__name__}>"


class LaneObsError(Exception):
    """Base of every error that this library raises."""


class InternalError(LaneObsError):
    """An invariant of the library broke: a bug of ours, please report it. Trying again does not help."""


class ConfigError(LaneObsError, ValueError):
    """A configuration value is not allowed. Nothing was built or changed.

    Attributes:
        field: the name of the offending field, for example `lanes.api.max_concurrency`.
        value: the value as given.
        allowed: what would have been allowed, in words.
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field}: {value!r} is not allowed; {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed


class UnknownLane(LaneObsError, LookupError):
    """No lane has this name. The message lists the known ones, the first of them where they are many."""

    reason: ClassVar[str] = "unknown_lane"  # why a submit was refused, as events and metrics have it

    def __init__(self, lane: object, known: Collection[str]) -> None:
        names = ", ".join(map(repr, islice(known, _MAX_NAMES))) or "none"
        more = f" and {len(known) - _MAX_NAMES} more" if len(known) > _MAX_NAMES else ""
        super().__init__(f"unknown lane {lane!r}; known lanes: {names}{more}")
        self.lane = lane


class LaneRemoved(UnknownLane):
    """The lane is being removed and takes no new work. Another lane may; trying again does not help."""

    reason = "removed"

    def __init__(self, lane: str) -> None:
        super(UnknownLane, self).__init__(f"lane {lane!r} is being removed and takes no new work")
        self.lane = lane


class LaneNotEmpty(LaneObsError, TimeoutError):
    """A lane had commands `left`, by state, when the time for its removal was over. It is open again."""

    def __init__(self, lane: str, left: Mapping[str, int]) -> None:
        parts = ", ".join(f"{count} {state}" for state, count in left.items()) or "commands on their way in"
        super().__init__(f"lane {lane!r} was not removed, it is not empty: {parts}")
        self.lane = lane
        self.left = left


class UnknownCommand(LaneObsError, LookupError):
    """No live command or dead letter has this id, or no command is registered under this name."""


class InvalidCommand(LaneObsError, TypeError):
    """What was submitted cannot be run as a command. Nothing was enqueued."""


class DuplicateId(LaneObsError, ValueError):
    """A live command already has this id. Submit again once it has ended, or use another id."""


class DuplicateCommandType(LaneObsError, ValueError):
    """Another function or class is already registered under this name."""


class LaneFullError(LaneObsError):
    """The lane holds `max_pending` waiting commands. Trying again later helps.

    Attributes:
        lane: the lane's name.
        max_pending: its bound, a count of commands.
    """

    def __init__(self, lane: str, max_pending: int) -> None:
        super().__init__(f"lane {lane!r} is full: {max_pending} commands are pending (max_pending)")
        self.lane = lane
        self.max_pending = max_pending


class ShutdownInProgress(LaneObsError):
    """The queue is shutting down or closed and takes no new work. Trying again does not help."""


class NotStarted(LaneObsError, RuntimeError):
    """The call needs a started queue: call `start()` first or use `async with`."""


class NotEnded(LaneObsError, RuntimeError):
    """The command has not ended, so it has neither result nor error yet. Await its handle instead."""


class WrongLoop(LaneObsError, RuntimeError):
    """The queue or handle belongs to another event loop or thread. Use `submit_threadsafe` from threads."""


class DrainTimeout(LaneObsError, TimeoutError):
    """Work was left when the drain's time was over. The queue still runs; drain again or close.

    Attributes:
        report: what is left, by lane and state.
    """

    def __init__(self, message: str, report: DrainReport) -> None:
        super().__init__(message)
        self.report = report


class CommandError(LaneObsError):
    """Base of the ways in which a command can end without a value of its own.

    Attributes:
        command_id: the id of the command.
        lane: its lane's name.
    """

    def __init__(self, message: str, command_id: str, lane: str) -> None:
        super().__init__(message)
        self.command_id = command_id
        self.lane = lane


class CommandTimeout(CommandError, TimeoutError):
    """The last attempt ran longer than the command's timeout."""


class CommandExpired(CommandError, TimeoutError):
    """The command's deadline passed before it ended, waiting time included."""


class CommandCancelled(CommandError):
    """The command was cancelled, or cancelled itself, before it ended."""


class CommandDropped(CommandError):
    """The command was dropped from a full lane to make room (`overflow="drop_oldest"`)."""


class RetryAfter(LaneObsError):
    """Raised by a command to ask for a retry after so long, in place of the policy's delay.

    The time is given in seconds or as a `timedelta`. It counts as an attempt: once the policy's retries are
    used up, it is the command's final error.

    Attributes:
        seconds: delay before the next attempt, in seconds, zero to 100 years.
    """

    seconds: float = 0.0

    def __init__(self, seconds: float | timedelta, message: str = "") -> None:
        given = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= MAX_SECONDS:
            raise ConfigError("seconds", seconds, "give seconds of zero or more, at most 100 years, or a timedelta")
        super().__init__(message or f"retry after {given} s")
        self.seconds = float(given)


class ProcessDied(CommandError):
    """The process died while the command ran, and it is not to run again."""


class NotificationError(LaneObsError):
    """People could not be told of alerts. Trying again may help."""


class NotificationRefused(NotificationError):
    """The receiver does not take the notification. Trying again does not help."""


class StreamClosed(LaneObsError):
    """The event stream is closed and has no more events."""


class TraceError(LaneObsError, ValueError):
    """A recorded trace has a row or column that cannot be used.

    Attributes:
        path: the file. line: 1-based line number. column: the column's name. value: the text as read.
    """

    def __init__(self, path: str, line: int, column: str, value: object, allowed: str) -> None:
        super().__init__(f"{path}, line {line}, column {column!r}: {value!r} is not allowed; {allowed}")
        self.path = path
        self.line = line
        self.column = column
        self.value = value
        self.allowed = allowed


class ClockDeadlock(LaneObsError):
    """Virtual time cannot move on: everything waits, and no timer is due to wake it."""
