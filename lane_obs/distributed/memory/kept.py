"""A command as the queue in memory keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lane_obs.core.record import Record
from lane_obs.core.state import State
from lane_obs.distributed.record import Claimed
from lane_obs.distributed.view import Found

if TYPE_CHECKING:
    from lane_obs.distributed.record import NewCommand


class Kept(Record, kw_only=True, eq=False):
    """One live command."""

    id: str
    body: bytes
    giver: str = ""
    """The member that submitted it."""
    key: str | None = None
    expires_after: float | None = None
    """Seconds from submit to its deadline."""
    expires: bool = False
    """Whether it ends then, as its lane's policies said when it came in."""
    token: int = 0
    """Of its latest claim."""
    holder: Any = None
    """The `Seat` of the member that runs it; `None` while none does."""
    deaths: int = 0
    is_cancelled: bool = False
    """Whether whoever runs it is told to stop."""
    is_aside: bool = False
    """Whether it was given back for a while, and waits for that."""
    aside: float = 0.0
    """Seconds for which it did so: the engine takes them for back-off."""

    @classmethod
    def made(cls, new: NewCommand, seq: int, home: Any, now: float, giver: str) -> Kept:
        """A new command with number `seq`, in the lane `home`."""
        return cls(
            seq,
            home,
            now,
            id=new.id,
            body=new.body,
            giver=giver,
            key=new.key,
            expires_after=new.deadline,
            cost=new.cost,
            part=new.part,
        )

    @property
    def deadline(self) -> float | None:
        """Seconds from submit to its deadline; `None` without one."""
        return self.expires_after

    def left(self, now: float) -> float | None:
        """Seconds until its deadline; `None` without one."""
        return None if self.expires_after is None else self.submitted_at + self.expires_after - now

    def claimed(self, now: float) -> Claimed:
        """What the member that runs it from now on is given."""
        wait = self.wait
        return Claimed(
            id=self.id,
            lane=self.home.name,
            body=self.body,
            token=self.token,
            attempt=self.attempt,
            deaths=self.deaths,
            age=now - self.submitted_at,
            delayed=wait.delay,
            backed_off=max(wait.backoff - self.aside, 0.0),
            deadline=self.left(now),
            ran=self.ran,
        )

    def found(self, now: float) -> Found:
        """What is told of it."""
        waits = self.timer is not None and self.state in {State.DELAYED, State.BACKOFF}
        return Found(
            id=self.id,
            lane=self.home.name,
            body=self.body,
            state=str(self.state),
            attempt=self.attempt,
            age=now - self.submitted_at,
            due=max(self.timer[0] - now, 0.0) if waits and self.timer is not None else None,
            member="" if self.holder is None else self.holder.id,
            ahead=self.home.ready.ahead_of(self.seq) if self.state is State.READY else 0,
        )
