"""Tells the sinks of what a broker did on its own account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lane_obs import events
from lane_obs.distributed.record import Fact, FactKind
from lane_obs.events import WaitByCause
from lane_obs.runtime.brokered.body import read_body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.bus import Bus

_UNSUCCESSFUL: Final = {
    FactKind.EXPIRED: (events.CommandExpired, "expired", "CommandExpired", "its deadline passed while it waited"),
    FactKind.DROPPED: (
        events.CommandFailed,
        "failed",
        "CommandDropped",
        "it made room in its full lane",
    ),
    FactKind.POISONED: (events.CommandFailed, "failed", "ProcessDied", "the leases on it were lost too often"),
    FactKind.CANCELLED: (events.CommandCancelled, "cancelled", "CommandCancelled", "it was cancelled while it waited"),
}


def tell(bus: Bus, facts: Sequence[Fact]) -> None:
    """Makes events of facts."""
    if bus.active:
        for fact in facts:
            _tell(bus, fact)


def _tell(bus: Bus, fact: Fact) -> None:
    if fact.kind in {FactKind.PAUSED, FactKind.RESUMED}:
        bus.emit(events.LanePaused if fact.kind is FactKind.PAUSED else events.LaneResumed, fact.lane, 0)
        return
    named = fact.id, fact.lane, read_body(fact.body).command_type
    if fact.kind is FactKind.EVICTED:
        bus.emit(events.DeadLetterEvicted, *named)
    elif fact.kind is FactKind.RETURNED:
        bus.emit(events.CommandReturned, *named, fact.attempt, fact.member)
    else:
        kind, state, error_type, text = _UNSUCCESSFUL[fact.kind]
        wait = WaitByCause(broker=fact.age)
        bus.emit(kind, *named, fact.attempt, fact.age, 0.0, fact.age, wait, None, error_type, text, None)
        if fact.kind is not FactKind.CANCELLED:
            bus.emit(events.CommandDeadLettered, *named, fact.attempt, state, error_type, text, fact.age, 0.0)
