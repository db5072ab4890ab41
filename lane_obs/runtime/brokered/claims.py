"""Turns what was claimed from a broker into commands that run here."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any, Final

from lane_obs.core.state import State
from lane_obs.errors import LaneObsError, UnknownLane
from lane_obs.events import WaitByCause
from lane_obs.runtime.brokered.body import UNREADABLE, decode_body
from lane_obs.runtime.brokered.handle import ClaimedHandle
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


class Claims:
    """Starts commands for one member.

    Args:
        intake, dispatcher: of the queue, whose lanes have no limits: the broker has applied them.
        journal: knows what runs.
    """

    def __init__(self, intake: Intake, dispatcher: Dispatcher, journal: BrokerJournal) -> None:
        self._intake = intake
        self._dispatcher = dispatcher
        self._journal = journal
        self._lanes = dispatcher.engine.lanes

    def start(self, claimed: Sequence[Claimed]) -> None:
        """Starts commands in the order of their claims, or ends those that cannot run as dead letters."""
        now = self._dispatcher.clock.now()
        for claim in claimed:
            self._start(claim, now)
        self._dispatcher.run_now()

    def _start(self, claim: Claimed, now: float) -> None:
        body, error = UNREADABLE, None
        work: tuple[Any, Any, Any]
        try:
            body = decode_body(claim.body)
            work = resolve(*decode(body.command_type, body.payload), self._intake.threads)
            options = _options(body, claim)
        except LaneObsError as fault:  # of a version that is not this one's, or of a type that is not registered here
            error, work, options = fault, (None, None, ()), NO_OPTIONS
        home = self._lanes.get(claim.lane)
        if home is None:  # a lane that another member has named
            home, error = next(iter(self._lanes.values())), error or UnknownLane(claim.lane, self._lanes)
        handle = self._handle(claim, body, home, now, work, options)
        self._journal.begin(handle)
        self._dispatcher.admit(handle, now, recovered=True)
        bus = self._dispatcher.bus
        if bus.at_claim:
            bus.call(bus.at_claim, (handle, body.trace))
        if error is not None:
            self._dispatcher.fail(handle, State.FAILED, error, now)

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
