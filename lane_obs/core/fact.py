"""What the runtime tells the bus about a command: a tuple on the hot path, an event only where one is wanted.

A fact is a tuple `(build, at, *details)`. `build(seq, at, wall, *details)` makes the typed event of it. Facts about
commands have one of the builders below, and the command's record as their first detail; other facts have the
event's own class as their builder. Sinks that fold numbers read the tuples as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from lane_obs import events
from lane_obs.core.wait import between

if TYPE_CHECKING:
    from collections.abc import Callable

    from lane_obs.core.wait import Mark
    from lane_obs.events import LaneEvent, TraceIds, WaitByCause

Fact: TypeAlias = "tuple[Any, ...]"


def submitted(
    seq: int, at: float, wall: float, command: Any, delay: float, deadline: float | None, requeued: bool, trace: Any
) -> LaneEvent:
    """Details: the command, its delay and deadline, whether it came back, the ids of its submit span."""
    name = command.home.name
    return events.CommandSubmitted(
        seq, at, wall, command.id, name, command.command_type, 0, delay, deadline, requeued, trace=trace
    )


def started(
    seq: int,
    at: float,
    wall: float,
    command: Any,
    attempt: int,
    trace: TraceIds | None,
    ready: Mark,
    since: float,
    start: Mark,
    waited: WaitByCause | None,
) -> LaneEvent:
    """Details: the command, the attempt's number and ids, and what its wait is worked out from (`Record.wait`)."""
    wait = between(ready, since, start, at)
    if waited is not None:
        wait = waited + wait
    name = command.home.name
    return events.CommandStarted(
        seq, at, wall, command.id, name, command.command_type, attempt, wait.total, wait, trace=trace
    )


def completed(seq: int, at: float, wall: float, command: Any) -> LaneEvent:
    """Details: the command; it has ended, so that nothing about it changes any more."""
    wait, name = command.fold_wait(), command.home.name  # worked out once for all sinks
    return events.CommandCompleted(
        seq, at, wall, command.id, name, command.command_type, command.attempt, wait.total, command.ran,
        at - command.submitted_at, wait, at - command.started_at, trace=command.trace,
    )  # fmt: skip


def told(
    seq: int,
    at: float,
    wall: float,
    command: Any,
    kind: Callable[..., LaneEvent],
    attempt: int,
    trace: TraceIds | None,
    *fields: object,
) -> LaneEvent:
    """Details: the command, the event's class, number and ids of the attempt, then the event's own fields."""
    return kind(seq, at, wall, command.id, command.home.name, command.command_type, attempt, *fields, trace=trace)


def traced(
    seq: int, at: float, wall: float, _: None, kind: Callable[..., LaneEvent], trace: TraceIds | None, *fields: Any
) -> LaneEvent:
    """Details: nothing, the event's class, the ids of a span, then the event's own fields. It is about no command."""
    return kind(seq, at, wall, *fields, trace=trace)


KINDS: Final = {
    submitted: events.CommandSubmitted,
    started: events.CommandStarted,
    completed: events.CommandCompleted,
}
"""The event that each builder makes, where it always makes the same; those of `told` and `traced` stand in the fact."""


def kind_of(fact: Fact) -> Any:
    """The class of the event that a fact stands for."""
    build = fact[0]
    return fact[3] if build is told or build is traced else KINDS.get(build, build)
