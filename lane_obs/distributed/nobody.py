"""The listener of a member that only looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.distributed.port import Listener
    from lane_obs.distributed.record import Claimed, Fact, Progress, Result
    from lane_obs.distributed.view import BrokerHealth


class _Nobody:
    """A member that is told nothing it wants to know."""

    def on_claimed(self, claimed: Sequence[Claimed]) -> None: ...
    def on_work(self) -> None: ...
    def on_results(self, results: Sequence[Result]) -> None: ...
    def on_progress(self, progress: Progress) -> None: ...
    def on_cancel(self, ids: Sequence[str]) -> None: ...
    def on_room(self, lane: str) -> None: ...
    def on_lost(self, ids: Sequence[str]) -> None: ...
    def on_facts(self, facts: Sequence[Fact]) -> None: ...
    def on_state(self, health: BrokerHealth) -> None: ...


NOBODY: Final[Listener] = _Nobody()
"""Does nothing with what it is told."""
