"""What one partition tells its member, passed on as of the whole queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lane_obs.distributed.record import FactKind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from lane_obs.distributed.partitioned.branch import Branch
    from lane_obs.distributed.partitioned.exchange import Exchange
    from lane_obs.distributed.partitioned.watching import Watching
    from lane_obs.distributed.port import Listener
    from lane_obs.distributed.record import Claimed, Fact, Progress, Result
    from lane_obs.distributed.view import BrokerHealth

    class _OnState(Protocol):
        def __call__(self, branch: Branch, *, came_back: bool) -> None:
            """Is called with the partition, and whether its link was broken and works again."""


_OF_ALL: Final = {FactKind.PAUSED, FactKind.RESUMED}
"""What happens to all partitions at once, and is told of by the first."""


class Ear:
    """Listens to one partition.

    Args:
        branch: the partition.
        exchange: is told of work.
        watching: is told of ends.
        listener: is told everything else.
        on_state: is called when the partition's link has broken or works again.
    """

    def __init__(
        self,
        branch: Branch,
        exchange: Exchange,
        watching: Watching,
        listener: Listener,
        on_state: _OnState,
    ) -> None:
        self._branch = branch
        self._exchange = exchange
        self._watching = watching
        self._listener = listener
        self._on_state = on_state

    def on_work(self) -> None:
        """There may be work in this partition."""
        self._exchange.on_work(self._branch)

    def on_claimed(self, claimed: Sequence[Claimed]) -> None:
        """Given unasked, which is more than this member may have room for: it goes back."""
        self._exchange.give_back(self._branch, self._branch.outer(claimed))
        self._exchange.on_work(self._branch)

    def on_results(self, results: Sequence[Result]) -> None:
        """Commands that are watched have ended."""
        self._watching.take(results)

    def on_progress(self, progress: Progress) -> None:
        """A command that is watched tells how far it is."""
        self._listener.on_progress(progress)

    def on_cancel(self, ids: Sequence[str]) -> None:
        """Commands that run here are to be cancelled."""
        self._exchange.on_cancel(ids)

    def on_room(self, lane: str) -> None:
        """A lane has room in this partition."""
        self._listener.on_room(lane)

    def on_lost(self, ids: Sequence[str]) -> None:
        """Leases are lost."""
        self._listener.on_lost(ids)

    def on_facts(self, facts: Sequence[Fact]) -> None:
        """Facts, each of which is told once."""
        own = facts if self._branch.number == 0 else [fact for fact in facts if fact.kind not in _OF_ALL]
        if own:
            self._listener.on_facts(own)

    def on_state(self, _health: BrokerHealth) -> None:
        """The link has broken or works again, or this member begins or ends to lead."""
        self._on_state(self._branch, came_back=self._branch.note_state())
