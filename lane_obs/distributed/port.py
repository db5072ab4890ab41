"""What a broker is: one queue that many processes, its members, submit to and claim work from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lane_obs.config import LaneConfig, RateLimit
    from lane_obs.distributed.record import Claimed, End, Fact, NewCommand, Progress, Receipt, Result, Turn
    from lane_obs.distributed.view import BrokerHealth, BrokerStats, Found, Letter

METHODS: Final = (
    "check", "open", "close", "declare", "forget_lane", "submit", "turn", "watch", "unwatch", "cancel", "find",
    "set_paused", "stats", "letters", "requeue", "remove_letters", "health", "leading_stats",
)  # fmt: skip
"""What an object must have to be used as a broker."""


class Listener(Protocol):
    """What a broker tells one of its members; every call comes on the event loop, and none may block or raise."""

    def on_claimed(self, claimed: Sequence[Claimed]) -> None:
        """Commands for this member to run, which it has not asked for: it was idle, and is not so any more.

        A broker may do so in place of `on_work`, where that saves a round trip; `LocalBroker`, whose turn is a call,
        does not. They are what a turn would have claimed, and no more than the last one asked for and did not get.
        """

    def on_work(self) -> None:
        """Something may be there to claim, which was not when this member last asked."""

    def on_results(self, results: Sequence[Result]) -> None:
        """Commands that this member watches have ended; it watches them no more."""

    def on_progress(self, progress: Progress) -> None:
        """A command that this member watches has told how far it is; the token is 0."""

    def on_cancel(self, ids: Sequence[str]) -> None:
        """Commands that this member runs are to be cancelled."""

    def on_room(self, lane: str) -> None:
        """A lane that answered `full` has room again."""

    def on_lost(self, ids: Sequence[str]) -> None:
        """This member's leases on these commands are lost: their ends will be refused."""

    def on_facts(self, facts: Sequence[Fact]) -> None:
        """What this member is to tell its sinks."""

    def on_state(self, health: BrokerHealth) -> None:
        """The link to the broker has broken or works again."""


@runtime_checkable
class Broker(Protocol):
    """One queue for many members. All that it decides, it decides at one place and in one step.

    Which command a claim gets follows the rules of a queue in one process: priority with reservations and boosts,
    concurrency and rate limits of each lane over all members, pause, submit order in a lane, partitions. A method that
    cannot reach the broker waits for as long as the broker's own settings say, then raises `BrokerUnavailable`;
    `turn` waits until the broker is closed.

    Attributes:
        member: this member's id, once it is open; else empty.
        partitions: among how many the limits of the queue are divided; 1 where they are not.
        concurrency: how many commands this member runs at once.
        max_body, max_result: the largest body and result, in bytes.
        pushes: whether it may give this member commands unasked (`Listener.on_claimed`); to be set before it is open.
    """

    member: str
    partitions: int
    concurrency: int
    max_body: int
    max_result: int
    pushes: bool

    def check(
        self, lanes: Mapping[str, LaneConfig], max_concurrency: int | None, rate_limits: Sequence[RateLimit]
    ) -> None:
        """Checks what `open` or `declare` is to be given, as far as that can be known without asking anybody.

        Args:
            lanes: the policies of all lanes that this member names.
            max_concurrency: as for `open`.
            rate_limits: as for `open`.

        Raises:
            ConfigError: the lanes ask for something that it cannot do.
        """

    async def open(
        self,
        lanes: Mapping[str, LaneConfig],
        max_concurrency: int | None,
        rate_limits: Sequence[RateLimit],
        *,
        letters: int,
        work: bool,
        listener: Listener,
    ) -> None:
        """Joins the queue; the policies given replace those in force.

        Args:
            lanes: policies by lane name; lanes that only other members name stay.
            max_concurrency: bound on running commands of all lanes and members; `None` for none.
            rate_limits: those of the whole queue.
            letters: how many dead letters are kept, 1 or more.
            work: whether this member claims.
            listener: is told what happens.

        Raises:
            BrokerUnavailable: it cannot be reached.
            BrokerMismatch: the queue was made by a version of this library that this one cannot share it with.
            ConfigError: the lanes ask for something that it cannot do.
        """

    async def declare(self, lanes: Mapping[str, LaneConfig]) -> None:
        """Names lanes, or gives lanes that there are other policies, which are in force from now on.

        Raises:
            BrokerUnavailable: it cannot be reached.
            ConfigError: the lanes ask for something that it cannot do.
        """

    async def forget_lane(self, name: str, /) -> bool:
        """Forgets a lane that has no live command; its dead letters stay. False when it has one, or is unknown.

        Raises:
            BrokerUnavailable: it cannot be reached.
        """
        ...

    async def close(self) -> None:
        """Leaves the queue. What this member still holds is ready again at once, its attempt counted.

        Calling it again does nothing.
        """

    async def submit(self, commands: Sequence[NewCommand]) -> list[Receipt]:
        """Takes commands in, in order; the receipts are in the same order. On return they are kept.

        Raises:
            BrokerUnavailable: it cannot be reached; whether they were kept is not known, and submitting them again
                with the same ids is safe.
            BrokerRefused: it can take nothing now, such as a server that is out of memory; nothing was kept.
            UnknownLane: a lane that no member has named; nothing was kept.
        """
        ...

    async def turn(self, ends: Sequence[End], want: int, progress: Sequence[Progress] = ()) -> Turn:
        """Hands in ends and progress, then claims up to `want` commands, in one step. One call at a time.

        When fewer than `want` are claimed the member is told once there may be more (`on_work`), or given some of it
        (`on_claimed`), until it asks again. What it was given and has not been told of yet may come with this answer
        instead, whatever it wants; it is less then by as many that is claimed. A member that has nothing to hand in and
        wants nothing steps back: other idle members are told of what may start before it is told again.
        """
        ...

    async def watch(self, ids: Sequence[str]) -> list[Result]:
        """Asks to be told of the ends of commands.

        Returns:
            The results of those that have ended already; the others come to `on_results`. The state of a command that
            is neither live nor has a kept result is `unknown`.

        Raises:
            BrokerUnavailable: it cannot be reached.
        """
        ...

    async def unwatch(self, ids: Sequence[str]) -> None:
        """Ends watches; those that there are not are ignored."""

    async def cancel(self, id: str, /) -> str:  # noqa: A002 - the name of the field
        """Cancels a command, whoever runs it.

        Returns:
            `cancelled` where it waited, `running` where whoever runs it is told, `unknown` where it does not live.
        """
        ...

    async def find(self, id: str, /) -> Found | None:  # noqa: A002 - likewise
        """The live command of this id; `None` for none."""
        ...

    async def set_paused(self, lane: str, *, paused: bool) -> bool:
        """Pauses or resumes a lane for all members; tells whether that changed anything.

        Raises:
            UnknownLane: no such lane.
        """
        ...

    async def stats(self) -> BrokerStats:
        """How the queue is."""
        ...

    async def letters(self, *, lane: str | None = None, limit: int = 100, after: str | None = None) -> list[Letter]:
        """Dead letters, oldest first.

        Args:
            lane: only those of this lane.
            limit: how many at most, 1 or more.
            after: the id of the last letter of the page before; `None` for the first page.
        """
        ...

    async def requeue(self, ids: Sequence[str]) -> list[str]:
        """Makes dead letters commands again, with no attempt and no deadline.

        Returns:
            The ids of those that are commands again. A letter whose lane is forgotten stays one until the lane is named
            again, and so does one whose id a live command has.
        """
        ...

    async def remove_letters(self, ids: Sequence[str] | None = None) -> int:
        """Forgets dead letters, `None` for all; returns how many there were."""
        ...

    def health(self) -> BrokerHealth:
        """How the link to it is; from any thread."""
        ...

    def leading_stats(self) -> BrokerStats | None:
        """What this member exports of the whole queue: how it was a short time ago; `None` unless this member leads.

        One member leads at a time, so that what is about the whole queue is exported once. From any thread.
        """
        ...
