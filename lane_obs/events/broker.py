"""Events about the broker, and about commands whose lease was lost."""

from __future__ import annotations

from typing import ClassVar

from lane_obs.events.command import CommandEvent
from lane_obs.events.event import LaneEvent


class BrokerDown(LaneEvent, frozen=True):
    """The link to the broker is lost; `error` says why. Nothing is claimed until it works again."""

    key: ClassVar[str] = "queue.broker.down"
    error: str


class BrokerUp(LaneEvent, frozen=True):
    """The link to the broker works again, after `seconds`."""

    key: ClassVar[str] = "queue.broker.up"
    seconds: float


class BrokerLead(LaneEvent, frozen=True):
    """This member exports what is about the whole queue from now on, or does so no more."""

    key: ClassVar[str] = "queue.broker.lead"
    leads: bool


class CommandReturned(CommandEvent, frozen=True):
    """The lease on a running command was lost: it is ready again. `member` ran it; any other may tell of it."""

    key: ClassVar[str] = "queue.command.returned"
    member: str = ""


class CommandPassedOn(CommandEvent, frozen=True):
    """This process cannot run a command and leaves it to others: it may be claimed again in `seconds`.

    `reason`: it does not know the `lane` or the `command_type`, or cannot read the `arguments` or `options`; `error`
    says it in words.
    """

    key: ClassVar[str] = "queue.command.passed_on"
    reason: str = ""
    error: str = ""
    seconds: float = 0.0


class CommandLeaseLost(CommandEvent, frozen=True):
    """This member lost its lease on a command that it runs: another member may run it, too."""

    key: ClassVar[str] = "queue.command.lease_lost"


class CommandStale(CommandEvent, frozen=True):
    """The broker refused the end of an attempt, as the lease was lost before. `state` is the one that was refused."""

    key: ClassVar[str] = "queue.command.stale"
    state: str = ""
