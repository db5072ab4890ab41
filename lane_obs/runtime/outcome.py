"""The errors a command can end with that are not its own, and their texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lane_obs.errors import CommandCancelled, CommandDropped, CommandExpired, CommandTimeout

if TYPE_CHECKING:
    from lane_obs.runtime.handle import CommandHandle


def timeout_error(handle: CommandHandle[Any], cause: BaseException | None) -> CommandTimeout:
    """The attempt ran too long; `cause` is what the command raised when it was told to stop."""
    error = CommandTimeout(f"{_named(handle)} ran longer than its timeout", handle.id, handle.lane)
    error.__cause__ = cause
    return error


def expiry_error(handle: CommandHandle[Any], cause: BaseException | None) -> CommandExpired:
    """The deadline passed first."""
    error = CommandExpired(f"the deadline of {_named(handle)} passed before it ended", handle.id, handle.lane)
    error.__cause__ = cause
    return error


def cancel_error(handle: CommandHandle[Any], cause: BaseException | None) -> CommandCancelled:
    """The command was cancelled or cancelled itself."""
    error = CommandCancelled(f"{_named(handle)} was cancelled", handle.id, handle.lane)
    error.__cause__ = cause
    return error


def drop_error(handle: CommandHandle[Any]) -> CommandDropped:
    """The command gave way in a full lane."""
    return CommandDropped(f"{_named(handle)} was dropped to make room in its full lane", handle.id, handle.lane)


def _named(handle: CommandHandle[Any]) -> str:
    return f"command {handle.id} in lane {handle.lane!r} (attempt {handle.attempt})"
