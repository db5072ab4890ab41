"""Turns what was claimed from a broker into commands that run here."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any, Final

from lane_obs.core.state import State
from lane_obs.errors import LaneObsError, UnknownLane, error_text
from lane_obs.events import WaitByCause
from lane_obs.runtime.brokered.body import UNREADABLE, decode_body
from lane_obs.runtime.brokered.handle import ClaimedHandle
from lane_obs.runtime.brokered.unserved import PATIENCE, Unserved, reason_to_pass_on
from lane_obs.runtime.codec import decode
from lane_obs.runtime.options import NO_OPTIONS, Options, stored_options
from lane_obs.runtime.work import resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.core.lane import Lane
    from lane_obs.distributed.record import Claimed
    from lane_obs.runtime.brokered.body import Body
    from lane_obs.runtime.brokered.journal import BrokerJournal
    from lane_obs.runtime.dispatcher import Dispatcher
    from lane_obs.runtime.intake import Intake

_EMPTY: Final = contextvars.Context()
_NOTHING: Final[tuple[Any, Any, Any]] = (None, None, ())


class Claims:
    """Starts commands for one member.

    Args:
        intake, dispatcher: of the queue, whose lanes have no limits: the broker has applied them.
        journal: knows what runs.

    Attributes:
        unserved: knows what was passed on.
    """

    def __init__(self, intake: Intake, dispatcher: Dispatcher, journal: BrokerJournal) -> None:
        self.unserved = Unserved(dispatcher.bus)
        self._intake = intake
        self._dispatcher = dispatcher
        self._journal = journal
        self._lanes = dispatcher.engine.lanes

    def start(self, claimed: Sequence[Claimed]) -> None:
        """Starts commands in the order of their claims.

        Those that cannot run here are passed on, for a time; those that could run nowhere are dead letters.
        """
        now = self._dispatcher.clock.now()
        for claim in claimed:
            self._start(claim, now)
        self._dispatcher.run_now()

    def _start(self, claim: Claimed, now: float) -> None:
        body, error, work, options = UNREADABLE, None, _NOTHING, NO_OPTIONS
        try:
            body = decode_body(claim.body)
            if claim.lane not in self._lanes:
                raise UnknownLane(claim.lane, self._lanes)
            work = resolve(*decode(body.command_type, body.payload), self._intake.threads)
            options = _options(body, claim)
        except LaneObsError as fault:
            if self._pass_on(claim, body, fault, now):
                return
            error, work, options = fault, _NOTHING, NO_OPTIONS
        home = self._lanes.get(claim.lane) or next(iter(self._lanes.values()))
        handle = self._handle(claim, body, home, now, work, options)
        self._journal.begin(handle)
        self._dispatcher.admit(handle, now, recovered=True)
        bus = self._dispatcher.bus
        if bus.at_claim:
            bus.call(bus.at_claim, (handle, body.trace))
        if error is not None:
            self._dispatcher.fail(handle, State.FAILED, error, now)

    def _pass_on(self, claim: Claimed, body: Body, fault: LaneObsError, now: float) -> bool:
        """Leaves a command to others; False where that is of no use."""
        reason = "" if body is UNREADABLE else reason_to_pass_on(fault)
        wait = self.unserved.wait(claim, now) if reason else None
        if wait is not None:
            self._journal.pass_on(claim, wait)
            self.unserved.tell(claim, body, reason, fault, wait, now)
        elif reason:
            fault.args = (f"passed on for {PATIENCE:g} s, and no worker has run it: {error_text(fault)}",)
        return wait is not None

    def _handle(
        self, claim: Claimed, body: Body, home: Lane, now: float, work: tuple[Any, Any, Any], options: Options
    ) -> ClaimedHandle[Any]:
        named, call, args = work
        delayed, backed_off = claim.delayed, claim.backed_off
        rest = max(claim.age - delayed - backed_off - claim.ran, 0.0)
        waited = WaitByCause(broker=rest, delay=delayed, backoff=backed_off)
        return ClaimedHandle(
            self._intake.next_seq(),
            home,
            now - claim.age,
            attempt=claim.attempt - 1,
            waited=waited,
            ran=claim.ran,
            cost=options.cost,
            _owner=self._dispatcher,
            _call=call,
            _args=args,
            _work=named,
            _options=options,
            _context=_EMPTY,
            _id=claim.id,
            _type=body.command_type,
            _durable=True,
            _traceparent=body.trace,
            token=claim.token,
        )


def _options(body: Body, claim: Claimed) -> Options:
    """The options of a claimed command; its delay is over, and its deadline is what is left of it.

    Raises:
        ConfigError: they were written by another version and are not allowed in this one.
    """
    if body.options is None and claim.deadline is None:
        return NO_OPTIONS
    given = stored_options(body.options or {})
    given["deadline"] = None if claim.deadline is None else max(claim.age + claim.deadline, 0.0)
    return Options(**given)
