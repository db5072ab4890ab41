"""What is answered to a new command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lane_obs.config import Overflow
from lane_obs.distributed.memory.kept import Kept
from lane_obs.distributed.record import Answer, Receipt

if TYPE_CHECKING:
    from lane_obs.core.lane import Lane
    from lane_obs.distributed.memory.life import Life
    from lane_obs.distributed.memory.rooms import Rooms
    from lane_obs.distributed.memory.seat import Seat
    from lane_obs.distributed.record import NewCommand


class Intake:
    """Takes commands in, or says why not.

    Args:
        life: has the others.
        rooms: has those who wait for room.
    """

    def __init__(self, life: Life, rooms: Rooms) -> None:
        self._life = life
        self._rooms = rooms

    def place(self, seat: Seat, new: NewCommand, home: Lane, now: float) -> Receipt:
        """Takes in a command of a member, or says why not; the idempotency key decides before the id."""
        life = self._life
        known = life.live.get(new.id)
        if known is not None and known.giver == seat.id:
            return Receipt(Answer.ACCEPTED, new.id)
        same = life.same_key(new.key)
        if same is not None:
            return Receipt(Answer.KNOWN, same.id)
        if known is not None or life.ledger.is_unclaimed(new.id):
            return Receipt(Answer.DUPLICATE, new.id)
        if not self._make_room(home, now):
            if home.config.overflow is Overflow.WAIT:
                self._rooms.wait(home, seat)
            return Receipt(Answer.FULL, new.id)
        life.take_in(new, home, seat.id, now)
        return Receipt(Answer.ACCEPTED, new.id)

    def _make_room(self, home: Lane, now: float) -> bool:
        """Tells whether a lane has room for one more, and makes it where the lane drops its oldest."""
        bound = home.config.max_pending
        while bound is not None and home.pending >= bound:
            oldest = home.oldest() if home.config.overflow is Overflow.DROP_OLDEST else None
            if oldest is None:
                return False
            assert isinstance(oldest, Kept)
            self._life.drop(oldest, now)
        return True
