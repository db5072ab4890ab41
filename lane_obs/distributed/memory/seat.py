"""A member's place at the queue in memory: its lease, what it holds, and what it is still to be told."""

from __future__ import annotations

import contextvars
import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from lane_obs.core.timer import Entry
    from lane_obs.distributed.memory.kept import Kept
    from lane_obs.distributed.port import Listener
    from lane_obs.distributed.record import Fact, Progress, Result
    from lane_obs.distributed.view import BrokerHealth


class Seat:
    """One open member.

    What it is told in one turn of the loop comes in the next one, and each kind of it in one call.

    Args:
        id: the member's id.
        works: whether it claims.
        looks: whether it only looks, and so never leads.
        concurrency: how many commands it runs at once.
        listener: is told what happens.
        health: how the member is.
        loop: the event loop.
        now: when it joins.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the name of the field
        listener: Listener,
        health: Callable[[], BrokerHealth],
        loop: asyncio.AbstractEventLoop,
        now: float,
        *,
        works: bool,
        looks: bool,
        concurrency: int,
    ) -> None:
        self.id = id
        self.works = works
        self.looks = looks
        self.concurrency = concurrency
        self.held: dict[str, Kept] = {}
        """What it runs, in the order of claims."""
        self.is_idle = False
        """Whether it got less than it asked for, and is to be told of work."""
        self.stale = self.lost = 0
        self.since = now
        """When its lease began."""
        self.last_beat: float | None = None
        """When its lease was last renewed; `None` while it is renewed all the time."""
        self.end: Entry | None = None
        """When its lease ends, if it is not renewed."""
        self._listener: Listener | None = listener
        self._health = health
        self._loop = loop
        self._context = contextvars.Context()
        self._is_due = False
        self._mail: dict[str, list[Any]] = {}

    def lease_left(self, now: float, lease: float) -> float:
        """Seconds until its lease is lost unless it is renewed, which is each third of it."""
        return self._beat_before(now, lease) + lease - now

    def _beat_before(self, now: float, lease: float) -> float:
        if self.last_beat is not None:
            return self.last_beat
        third = lease / 3
        return self.since + math.floor((now - self.since) / third) * third

    def stop_beat(self, now: float, lease: float) -> float:
        """Renews the lease no more; gives the time at which it ends."""
        self.last_beat = self._beat_before(now, lease)
        return self.last_beat + lease

    # --- what it is told ----------------------------------------------------------------------------------------

    def tell_work(self) -> None:
        """Something may be there to claim."""
        self.is_idle = False
        self._tell("work", None)

    def tell_facts(self, facts: Iterable[Fact]) -> None:
        """The queue has done something on its own account."""
        self._tell("facts", *facts)

    def tell_progress(self, progress: Progress) -> None:
        """A command that it watches has told how far it is."""
        self._tell("progress", progress)

    def tell_result(self, result: Result) -> None:
        """A command that it watches has ended."""
        self._tell("results", result)

    def tell_cancelled(self, command_id: str) -> None:
        """A command that it runs is to be cancelled."""
        self._tell("cancelled", command_id)

    def tell_lost(self, ids: Iterable[str]) -> None:
        """Its leases are lost."""
        self._tell("lost", *ids)

    def tell_state(self) -> None:
        """It begins or ends to lead."""
        self._tell("state")

    def tell_room(self, lane: str) -> None:
        """A lane has room again."""
        self._tell("room", lane)

    def _tell(self, kind: str, *told: object) -> None:
        if not self._mail:
            # In a context of its own: the variables of whoever was the cause must not reach the listener.
            self._loop.call_soon(self._deliver, context=self._context)
        self._mail.setdefault(kind, []).extend(told)

    def _deliver(self) -> None:
        mail, self._mail = self._mail, {}
        listener = self._listener
        if listener is None:
            return
        if "state" in mail:
            listener.on_state(self._health())
        for kind, tell in _TELL.items():
            if kind in mail:
                tell(listener, mail[kind])

    def leave(self) -> list[Fact]:
        """Tells nothing from now on; gives what another member is to tell in its place."""
        self._listener = None
        self.is_idle = False
        return self._mail.pop("facts", [])


def _tell_each(tell: Callable[[Any], None], told: list[Any]) -> None:
    for one in told:
        tell(one)


_TELL: Final[dict[str, Callable[[Listener, list[Any]], None]]] = {
    "facts": lambda listener, told: listener.on_facts(told),
    "progress": lambda listener, told: _tell_each(listener.on_progress, told),
    "results": lambda listener, told: listener.on_results(told),
    "cancelled": lambda listener, told: listener.on_cancel(told),
    "lost": lambda listener, told: listener.on_lost(told),
    "room": lambda listener, told: _tell_each(listener.on_room, told),
    "work": lambda listener, _: listener.on_work(),
}
"""How a listener is told, by kind, in the order in which that is done."""
