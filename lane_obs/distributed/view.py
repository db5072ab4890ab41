"""How a broker is, and what it holds, at one moment: plain data."""

from __future__ import annotations

import msgspec


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A live command.

    Attributes:
        id, lane, body: as they were submitted.
        state: `ready`, `delayed`, `backoff` or `running`.
        attempt: attempts started so far.
        age: seconds since its submit.
        due: seconds until its delay or back-off is over; `None` when there is none.
        member: who runs it; empty for nobody.
        ahead: how many commands of its lane go first, where it is ready; else 0.
    """

    id: str
    lane: str
    body: bytes
    state: str
    attempt: int
    age: float
    due: float | None = None
    member: str = ""
    ahead: int = 0


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as a broker keeps it.

    Attributes:
        id, lane, body: of the command.
        state: the state it ended in.
        letter: `End.letter`; empty where the broker itself ended it.
        cause: the `FactKind` where the broker itself ended it; else empty.
        attempt: attempts it had.
        failed_at: when it ended, Unix seconds of the broker's clock.
    """

    id: str
    lane: str
    body: bytes
    state: str
    letter: bytes
    cause: str
    attempt: int
    failed_at: float


class LaneDepth(msgspec.Struct, frozen=True, kw_only=True):
    """A lane of a broker, at one moment.

    Attributes:
        ready, delayed, backoff, running: commands in each state.
        dead: dead letters.
        oldest_ready_age: seconds since the oldest ready command became ready; `None` when none is.
        paused: whether it is paused.
        priority, min_concurrency, max_concurrency, max_pending: its policies in force.
    """

    ready: int
    delayed: int
    backoff: int
    running: int
    dead: int
    oldest_ready_age: float | None
    paused: bool
    priority: int
    min_concurrency: int
    max_concurrency: int
    max_pending: int | None


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A process that uses a broker.

    Attributes:
        id: unique among members: `host:pid:number`.
        works: whether it runs commands.
        concurrency: how many it runs at once at most.
        running: how many it runs.
        lease_left: seconds until its lease is lost unless it is renewed.
    """

    id: str
    works: bool
    concurrency: int
    running: int = 0
    lease_left: float = 0.0


class BrokerStats(msgspec.Struct, frozen=True, kw_only=True):
    """A whole queue of a broker, at one moment.

    Attributes:
        lanes: by name.
        members: the processes that use it.
        max_concurrency: bound on running commands of all lanes and members; `None` for none.
        submitted: commands taken in so far.
        ended: commands that ended so far, by final state.
        returned: leases lost so far that brought their command back.
        letters: dead letters.
        evicted: dead letters that gave way so far.
        version: schema version of what is stored; 0 where nothing is.
    """

    lanes: dict[str, LaneDepth]
    members: list[Member]
    max_concurrency: int | None
    submitted: int
    ended: dict[str, int]
    returned: int
    letters: int
    evicted: int
    version: int = 0


class BrokerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The link of one member to its broker.

    Attributes:
        ready: whether it works.
        error: why not, in words; empty when it does.
        failures: how often it was lost so far.
        stale: ends that were refused so far.
        lost: commands whose lease this member lost so far.
        leads: whether this member exports what is about the whole queue.
    """

    ready: bool
    error: str = ""
    failures: int = 0
    stale: int = 0
    lost: int = 0
    leads: bool = False
