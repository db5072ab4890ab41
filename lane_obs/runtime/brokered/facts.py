"""Tells the sinks of what a broker did on its own account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from lane_obs import events
from lane_obs.core.fact import told, traced
from lane_obs.distributed.record import Fact, FactKind
from lane_obs.events import TraceIds, WaitByCause
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


class _Named(msgspec.Struct, frozen=True, gc=False):
    """A lane, which this process may not have."""

    name: str


class _Elsewhere(msgspec.Struct, gc=False):
    """A command that is not here, as sinks look at one."""

    id: str
    home: _Named
    command_type: str
    attempt: int
    submitted_at: float
    trace: TraceIds | None = None
    span: Any = None


def why_ended(cause: str) -> tuple[str, str]:
    """Class name and message that stand for why a broker ended a command itself; empty where that is not known."""
    for kind, (_, _, error_type, text) in _UNSUCCESSFUL.items():
        if kind == cause:
            return error_type, text
    return "", ""


def tell(bus: Bus, facts: Sequence[Fact], now: float) -> None:
    """Makes events of facts.

    Args:
        bus: takes them.
        facts: what the broker told.
        now: the clock's seconds.
    """
    if bus.active:
        for fact in facts:
            if fact.kind in {FactKind.PAUSED, FactKind.RESUMED}:
                bus.emit(events.LanePaused if fact.kind is FactKind.PAUSED else events.LaneResumed, fact.lane, 0)
            else:
                _tell(bus, fact, now)


def _tell(bus: Bus, fact: Fact, now: float) -> None:
    """Tells of a command. Who waits for it in this process is told elsewhere."""
    body = read_body(fact.body)
    named = fact.id, fact.lane, body.command_type
    if fact.kind is FactKind.EVICTED:
        bus.emit(events.DeadLetterEvicted, *named)
        return
    trace = TraceIds.read(body.trace)
    if fact.kind is FactKind.RETURNED:
        bus.append((traced, now, None, events.CommandReturned, trace, *named, fact.attempt, fact.member))
        return
    command = _Elsewhere(fact.id, _Named(fact.lane), body.command_type, fact.attempt, now - fact.age, trace)
    if bus.at_claim:
        bus.call(bus.at_claim, (command, body.trace))
    kind, state, error_type, text = _UNSUCCESSFUL[fact.kind]
    about, error = (command, fact.attempt, trace), (error_type, text)
    _append(bus, now, kind, about, fact.age, 0.0, fact.age, WaitByCause(broker=fact.age), None, *error, None)
    if fact.kind is not FactKind.CANCELLED:
        _append(bus, now, events.CommandDeadLettered, about, state, *error, fact.age, 0.0)


def _append(bus: Bus, now: float, kind: Any, about: tuple[_Elsewhere, int, TraceIds | None], *fields: Any) -> None:
    command, attempt, trace = about
    bus.append((told, now, command, kind, attempt, trace, *fields))
