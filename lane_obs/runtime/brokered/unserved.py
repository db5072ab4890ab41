"""Commands that this process cannot run, and another one perhaps can: passed on, for a time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lane_obs import events
from lane_obs.core.fact import traced
from lane_obs.errors import ConfigError, InvalidCommand, LaneObsError, UnknownCommand, UnknownLane, error_text
from lane_obs.events import TraceIds

if TYPE_CHECKING:
    from lane_obs.bus import Bus
    from lane_obs.distributed.record import Claimed
    from lane_obs.runtime.brokered.body import Body

_logger: Final = logging.getLogger("lane_obs.broker")

PATIENCE: Final = 300.0
"""Seconds for which this process passes a command on: a rolling upgrade, in which each worker drains for up to half a
minute, gets to one that knows the command by then."""
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 10.0
"""Seconds for which a command is passed on, twice as many each time: what nobody knows costs nearly nothing, and does
not stay ahead of what this process can run."""
_MOST: Final = 50_000
"""Commands that are remembered. With more, those that were met longest ago are met as if for the first time."""
_MOST_KINDS: Final = 1_000
_JITTER: Final = 1.0
"""Seconds by which ages as brokers tell them may be off."""


def reason_to_pass_on(fault: LaneObsError) -> str:
    """Why a command cannot run here and perhaps elsewhere; empty where it could not run anywhere.

    Whoever submitted it has made sure that its arguments fit the function as it is there, so those that do not fit
    here are another version's; not so where they are damaged, and no JSON.
    """
    if isinstance(fault, InvalidCommand):
        return "" if type(fault.__cause__) is msgspec.DecodeError else "arguments"
    return next((reason for kind, reason in _REASONS.items() if isinstance(fault, kind)), "")


_REASONS: Final[dict[type[LaneObsError], str]] = {
    UnknownLane: "lane", UnknownCommand: "command_type", ConfigError: "options",
}  # fmt: skip


class Unserved:
    """What this process knows of commands that it could not run.

    Args:
        bus: takes the events.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._met: dict[str, tuple[float, float, int]] = {}
        """Of each when it was first and last met, and how often: in the order of the last."""
        self._told: set[tuple[str, str]] = set()

    def wait(self, claim: Claimed, now: float) -> float | None:
        """For how many seconds a command is passed on; `None` where that was tried for long enough."""
        while self._met and self._met[oldest := next(iter(self._met))][1] < now - PATIENCE:
            del self._met[oldest]  # another one has taken it, or will be met by it as if for the first time
        first, _, times = self._met.pop(claim.id, (now, now, 0))
        if first < now - claim.age - _JITTER:  # an earlier command had this id
            first, times = now, 0
        if now - first >= PATIENCE:
            return None
        if len(self._met) >= _MOST:
            del self._met[next(iter(self._met))]
        self._met[claim.id] = first, now, times + 1
        return min(_FIRST_WAIT * 2.0 ** min(times, 10), _LONGEST_WAIT)

    def expects(self, now: float) -> bool:
        """Whether a command may come back soon that this process has passed on."""
        return bool(self._met) and self._met[next(reversed(self._met))][1] >= now - 2 * _LONGEST_WAIT

    def tell(self, claim: Claimed, body: Body, reason: str, fault: LaneObsError, wait: float, now: float) -> None:
        """Tells that a command was passed on."""
        kind = reason, claim.lane if reason == "lane" else body.command_type
        text = error_text(fault)
        if kind not in self._told and len(self._told) < _MOST_KINDS:
            self._told.add(kind)
            _logger.warning(
                "command %s of type %r in lane %r is passed on to other workers, as are all that this process cannot "
                "run for the same reason (lane_commands_passed_on_total counts them): %s",
                claim.id, body.command_type, claim.lane, text,
            )  # fmt: skip
        if self._bus.active:
            trace = TraceIds.read(body.trace)
            named: tuple[Any, ...] = claim.id, claim.lane, body.command_type, claim.attempt - 1
            self._bus.append((traced, now, None, events.CommandPassedOn, trace, *named, reason, text, wait))
