"""Exceptions of brokers, and of commands that other processes run."""

from __future__ import annotations

from lane_obs.errors.queue import CommandError, LaneObsError


class BrokerError(LaneObsError):
    """The broker could not do what it was asked to; its subclasses say why. Trying again may help."""


class BrokerUnavailable(BrokerError):
    """The broker could not be reached in time. Trying again helps once it can; a submit may have got there."""


class BrokerRefused(BrokerError):
    """The broker takes nothing now, for example since its server is out of memory. Nothing was kept; try later."""


class BrokerMismatch(BrokerError):
    """The queue at the broker belongs to a version of this library that this one cannot share it with."""


class RemoteError(CommandError):
    """A command failed in another process; what it raised there is told as text, since objects do not travel.

    Attributes:
        error_type: name of the exception's class.
        error: its message.
        traceback: where it was raised, as text; empty when it is not known.
    """

    def __init__(self, message: str, command_id: str, lane: str, *, kind: str, error: str, traceback: str = "") -> None:
        super().__init__(message, command_id, lane)
        self.error_type = kind
        self.error = error
        self.traceback = traceback


class ResultLost(CommandError):
    """A command has ended, but what it came to is not known: its result was not kept, or no longer is."""
