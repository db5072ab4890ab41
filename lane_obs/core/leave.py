"""The way out of a command that goes on elsewhere: no end of it is counted here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lane_obs.core.state import State

if TYPE_CHECKING:
    from lane_obs.core.engine import Engine
    from lane_obs.core.record import Record


def leave(engine: Engine, record: Record) -> None:
    """Lets a command that backs off leave the engine as if it had never come: another process may go on with it."""
    assert record.state is State.BACKOFF
    record.home.counts[State.BACKOFF] -= 1
    engine.live -= 1
    engine.submitted -= 1
