"""What goes to a broker and what comes back: plain data, shared by every broker.

All times are spans in seconds: a broker has a clock of its own, and no moment of a member's clock ever reaches it.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class NewCommand(msgspec.Struct, frozen=True, gc=False):
    """A command to be taken in.

    Attributes:
        id: its id, 1 to 200 printable characters, unique among live commands.
        lane: its lane's name.
        body: what it is, in bytes that no broker looks into.
        delay: seconds before it may start.
        deadline: seconds from now until its whole life is over; `None` for never.
        cost: what it takes of rate limits.
        key: idempotency key; `None` for none.
        part: its partition; `None` for none.
    """

    id: str
    lane: str
    body: bytes
    delay: float = 0.0
    deadline: float | None = None
    cost: float = 1.0
    key: str | None = None
    part: str | None = None


class Answer(StrEnum):
    """What a broker says to a new command."""

    ACCEPTED = "accepted"
    """It is kept; also when the same member gives the same id again, since the first answer may have been lost."""
    KNOWN = "known"
    """A live command has its idempotency key; the receipt has that one's id."""
    DUPLICATE = "duplicate"
    """A live command of another submit has its id."""
    FULL = "full"
    """Its lane is full. Where the lane lets submitters wait, this member is told of room later (`on_room`)."""
    UNAVAILABLE = "unavailable"
    """What would keep it cannot be reached, while others of the same submit were taken. Whether it is kept is not
    known, and submitting it again with the same id is safe."""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to one new command.

    Attributes:
        answer: what became of it.
        id: the id of the command that is kept.
    """

    answer: Answer
    id: str


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """A command that this member runs from now on.

    Attributes:
        id, lane, body: as they were submitted.
        token: fencing token: a larger number for each later claim in the queue, whoever makes it.
        attempt: number of this attempt, from 1.
        deaths: how often a lease was lost while it ran.
        age: seconds since its submit.
        delayed, backed_off: seconds of its age for which it was delayed or backed off.
        deadline: seconds until its deadline; `None` for none.
        ran: seconds of its age for which earlier attempts ran.
    """

    id: str
    lane: str
    body: bytes
    token: int
    attempt: int
    deaths: int
    age: float
    delayed: float
    backed_off: float
    deadline: float | None
    ran: float = 0.0


class End(msgspec.Struct, frozen=True, gc=False):
    """The end of an attempt.

    Attributes:
        id, token: of the claim.
        state: a final state; or `backoff` for a retry after `delay`; or `ready` to give the command back as it was,
            its attempt not counted, at once or after `delay`: meanwhile its state is `backoff` and it keeps its
            partition, but that wait is neither delay nor back-off of the command.
        result: what whoever waits for the command gets, in bytes that no broker looks into; empty unless final.
        letter: what the dead letter says, likewise; `None` for an end that leaves no dead letter.
        delay: seconds before it may start again.
        cost: its true cost, where that became known; `None` for what it was submitted with.
    """

    id: str
    token: int
    state: str
    result: bytes = b""
    letter: bytes | None = None
    delay: float = 0.0
    cost: float | None = None


class Progress(msgspec.Struct, frozen=True, gc=False):
    """What a running command tells of how far it is.

    Attributes:
        id, token: of the claim.
        data: what it tells, in bytes that no broker looks into.
    """

    id: str
    token: int
    data: bytes


class Result(msgspec.Struct, frozen=True, gc=False):
    """How a command ended.

    Attributes:
        id: the command's id.
        state: its final state.
        data: `End.result`; empty where the broker itself ended it (expired, dropped, poisoned, cancelled).
    """

    id: str
    state: str
    data: bytes = b""


class FactKind(StrEnum):
    """What a broker may have done on its own account."""

    EXPIRED = "expired"
    """The deadline of a waiting command has passed: it is a dead letter."""
    RETURNED = "returned"
    """The lease on a running command was lost: it is ready again, that attempt counted."""
    POISONED = "poisoned"
    """The lease on a running command was lost once too often: it is a dead letter."""
    DROPPED = "dropped"
    """A full lane made room: its oldest ready command is a dead letter."""
    CANCELLED = "cancelled"
    """A waiting command was cancelled."""
    EVICTED = "evicted"
    """A dead letter gave way to newer ones."""
    PAUSED = "paused"
    """A lane was paused; about no command."""
    RESUMED = "resumed"
    """A lane was resumed; about no command."""


class Fact(msgspec.Struct, frozen=True):
    """Something a broker did on its own account. Just one member is told of each, and tells its sinks.

    Attributes:
        kind: what.
        lane: where.
        id, body: of the command; empty when it is about none.
        attempt: attempts it had.
        age: seconds since its submit.
        member: whose lease was lost; empty for none.
    """

    kind: FactKind
    lane: str
    id: str = ""
    body: bytes = b""
    attempt: int = 0
    age: float = 0.0
    member: str = ""


class Turn(msgspec.Struct, frozen=True):
    """The answer to one exchange with a broker.

    Attributes:
        stale: ids of ends that were refused, since another member has, or had, the command by then.
        claimed: commands to start, in the order of their claims.
        facts: what this member is to tell its sinks.
        next_due: seconds until something that waits for a time may start; `None` for nothing.
    """

    stale: list[str]
    claimed: list[Claimed]
    facts: list[Fact]
    next_due: float | None
