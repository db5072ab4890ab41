"""The results of commands that have ended, and who waits for those that have not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lane_obs.distributed.memory.seat import Seat
    from lane_obs.distributed.record import Progress, Result


class Results:
    """Keeps results for a time.

    Args:
        ttl: for how many seconds.
    """

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._kept: dict[str, tuple[Result, float]] = {}
        """Results and when they are forgotten, in that order."""
        self._watchers: dict[str, dict[Seat, None]] = {}

    def put(self, result: Result, now: float) -> None:
        """Keeps a result and tells those who wait for it; they wait no more."""
        self.forget(result.id)  # of an earlier command of this id: the new one goes to the end
        self._kept[result.id] = result, now + self._ttl
        for seat in self._watchers.pop(result.id, ()):
            seat.tell_result(result)

    def get(self, command_id: str) -> Result | None:
        """The result that is kept; `None` for none."""
        found = self._kept.get(command_id)
        return None if found is None else found[0]

    def forget(self, command_id: str) -> None:
        """Forgets a result, if there is one."""
        self._kept.pop(command_id, None)

    def expire(self, now: float) -> None:
        """Forgets what was kept long enough."""
        kept = self._kept
        while kept:
            first = next(iter(kept))
            if kept[first][1] > now:
                return
            del kept[first]

    def watch(self, command_id: str, seat: Seat) -> None:
        """Tells a member of the end of a live command, once it comes."""
        self._watchers.setdefault(command_id, {})[seat] = None

    def unwatch(self, command_id: str, seat: Seat) -> None:
        """Ends a watch, if there is one."""
        watchers = self._watchers.get(command_id)
        if watchers is not None:
            watchers.pop(seat, None)
            if not watchers:
                del self._watchers[command_id]

    def leave(self, seat: Seat) -> None:
        """Ends all watches of a member."""
        for command_id in [watched for watched, seats in self._watchers.items() if seat in seats]:
            self.unwatch(command_id, seat)

    def tell(self, progress: Progress) -> None:
        """Tells those who watch a command how far it is."""
        for seat in self._watchers.get(progress.id, ()):
            seat.tell_progress(progress)
