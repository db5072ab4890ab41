"""The states of a command and the one table of what may follow what."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(StrEnum):
    """Where a command is in its life. It is in exactly one state."""

    DELAYED = "delayed"
    """Submitted with a delay that is not over."""
    READY = "ready"
    """May start as soon as its lane's turn comes."""
    RUNNING = "running"
    """One attempt is under way and holds a slot."""
    BACKOFF = "backoff"
    """An attempt failed; the next one waits for its time."""
    SUCCEEDED = "succeeded"
    """Ended with a value."""
    FAILED = "failed"
    """Ended with an error and no retries left, or was dropped from a full lane."""
    TIMED_OUT = "timed_out"
    """The last attempt ran longer than its timeout."""
    CANCELLED = "cancelled"
    """Cancelled while it waited or ran."""
    EXPIRED = "expired"
    """Its deadline passed first."""


_WAITING_ENDS = frozenset({State.CANCELLED, State.EXPIRED})

TRANSITIONS: Final[Mapping[State, frozenset[State]]] = MappingProxyType({
    State.DELAYED: frozenset({State.READY}) | _WAITING_ENDS,
    State.READY: frozenset({State.RUNNING, State.FAILED}) | _WAITING_ENDS,
    State.RUNNING: frozenset({
        State.BACKOFF, State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.CANCELLED, State.EXPIRED,
    }),
    State.BACKOFF: frozenset({State.READY}) | _WAITING_ENDS,
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.TIMED_OUT: frozenset(),
    State.CANCELLED: frozenset(),
    State.EXPIRED: frozenset(),
})  # fmt: skip
"""From each state, the states that may follow. A ready command fails only by being dropped from a full lane."""

FINAL: Final = frozenset(state for state, following in TRANSITIONS.items() if not following)
"""States that a command never leaves."""

PENDING: Final = (State.READY, State.DELAYED, State.BACKOFF)
"""States in which a command waits; they count against `max_pending`."""
