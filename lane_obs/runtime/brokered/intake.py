"""The way in for commands that a broker keeps: those of one turn of the loop, and of a call under way, go together."""

from __future__ import annotations

import asyncio
import contextvars
import math
from typing import TYPE_CHECKING, Any, Final

from lane_obs.clock import sleep
from lane_obs.config import Overflow
from lane_obs.core.fact import submitted
from lane_obs.distributed.partitioned.share import most_cost
from lane_obs.distributed.record import Answer, NewCommand
from lane_obs.errors import (
    BrokerRefused,
    BrokerUnavailable,
    DuplicateId,
    InvalidCommand,
    LaneFullError,
    LaneObsError,
    LaneRemoved,
    ShutdownInProgress,
    UnknownLane,
)
from lane_obs.runtime.brokered.body import Body, encode_body
from lane_obs.runtime.brokered.entry import Call, Entry
from lane_obs.runtime.brokered.handle import SharedHandle
from lane_obs.runtime.codec import encode
from lane_obs.runtime.journal import plain_options
from lane_obs.runtime.options import NO_OPTIONS, check_cost
from lane_obs.runtime.work import discard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from lane_obs.config import LaneConfig, RateLimit
    from lane_obs.distributed import Broker
    from lane_obs.distributed.record import Receipt
    from lane_obs.runtime.brokered.watches import Watches
    from lane_obs.runtime.dispatcher import Dispatcher
    from lane_obs.runtime.draft import Draft
    from lane_obs.runtime.handle import CommandHandle
    from lane_obs.runtime.intake import Intake

_MOST: Final = 500
"""So many commands go to the broker in one call."""


class BrokerIntake:
    """Hands commands to a broker, in the order of their submits.

    Args:
        intake, dispatcher: of the queue.
        broker: takes them.
        watches: for whoever awaits one of them.
        policies: the lanes' configurations, as the broker knows them.
        limits: the queue-wide rate limits.
    """

    def __init__(
        self,
        intake: Intake,
        dispatcher: Dispatcher,
        broker: Broker,
        watches: Watches,
        policies: Mapping[str, LaneConfig],
        limits: Sequence[RateLimit],
    ) -> None:
        self._intake = intake
        self._dispatcher = dispatcher
        self._broker = broker
        self._watches = watches
        self._policies = policies
        self._count = broker.partitions
        self._most = min((most_cost(limit, self._count) for limit in limits), default=math.inf)
        self._new: list[Entry] = []
        self._sent: Sequence[Entry] = ()
        self._waiting: dict[str, list[Entry]] = {}
        self._roomy: set[str] = set()
        """Lanes that were said to have room while a call to the broker was under way: word may outrun its answer."""
        self._under_way = self._is_open = False
        self._turns: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self.declared: asyncio.Task[object] | None = None
        """Names lanes to the broker: what was submitted since then goes there afterwards."""

    def open(self) -> None:
        """The queue is joined: what was submitted before goes there now."""
        self._is_open = True
        self._flush_soon()

    # --- what the queue asks ------------------------------------------------------------------------------------

    def place(self, draft: Draft) -> Awaitable[CommandHandle[Any]]:
        """Hands a command over; done with its handle once the broker keeps it.

        Raises:
            InvalidCommand: it cannot be rebuilt from what is written of it, or is too large.
            ConfigError: it could never start.
        """
        call = self._call(1)
        self._push([self._entry(draft, call)])
        return call.answer

    start = place

    async def place_many(self, drafts: Sequence[Draft]) -> list[CommandHandle[Any]]:
        """The same for several. All are checked before any is handed over.

        Raises:
            LaneObsError: the first that was refused; others may have been taken all the same, and run.
        """
        call = self._call(len(drafts))
        entries = [self._entry(draft, call) for draft in drafts]
        self._push(entries)
        await call.answer
        return [entry.handle for entry in entries]

    def check_ready(self, draft: Draft) -> None:
        """Refuses a requeue: dead letters of a broker are its own.

        Raises:
            InvalidCommand: always.
        """
        raise InvalidCommand(f"dead letter {draft.id!r} is the broker's; use cluster.requeue")

    # --- on the way ---------------------------------------------------------------------------------------------

    def _call(self, count: int) -> Call:
        loop = self._dispatcher.loop
        assert loop is not None
        return Call(loop.create_future(), count)

    def _entry(self, draft: Draft, call: Call) -> Entry:
        dispatcher, options, home = self._dispatcher, draft.options, draft.home
        name, payload = encode(draft.work, draft.args)
        policy = self._policies[home.name]
        deadline = options.deadline
        if deadline is None and policy.boost is not None:
            deadline = policy.boost.deadline  # type: ignore[assignment]  # checked to be seconds
        if options.cost != NO_OPTIONS.cost:
            check_cost(
                options.cost,
                min((self._most, *(most_cost(limit, self._count) for limit in policy.rate_limits))),
                home.name,
            )
        seq = self._intake.next_seq()
        key = options.id or dispatcher.directory.id_of(seq)
        handle: SharedHandle[Any] = SharedHandle(
            seq, home, dispatcher.clock.now(), _owner=dispatcher, _work=draft.work, _options=options, _id=key,
            _type=name, _watches=self._watches,
        )  # fmt: skip
        bus = dispatcher.bus
        if bus.at_submit:
            bus.call(bus.at_submit, handle)
        parent = None if handle.trace is None else handle.trace.traceparent
        plain = None if options is NO_OPTIONS else plain_options(options) or None
        body = encode_body(Body(name, payload, plain, parent))
        if len(body) > self._broker.max_body:
            raise InvalidCommand(f"{name!r} has {len(body)} bytes; the broker takes at most {self._broker.max_body}")
        part = None if policy.partitions is None else self._part_of(policy, home.name, name, options.partition_key)
        command = NewCommand(key, home.name, body, options.delay, deadline, options.cost, options.key, part)
        return Entry(command, handle, call)

    def _part_of(self, policy: LaneConfig, lane: str, command_type: str, key: str | None) -> str | None:
        assert policy.partitions is not None
        turn = self._turns[lane] = self._turns.get(lane, -1) + 1
        part = policy.partitions.assign(command_type, key, turn)
        return None if part is None else str(part)

    def _push(self, entries: list[Entry]) -> None:
        self._new += entries
        self._dispatcher.idle.unsettled += len(entries)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._is_open and not self._under_way:
            self._under_way = True
            assert self._dispatcher.loop is not None
            self._task = self._dispatcher.loop.create_task(self._submit_all(), context=contextvars.Context())

    async def _submit_all(self) -> None:
        try:
            while self._new:
                while self.declared is not None:
                    declared, self.declared = self.declared, None
                    await asyncio.wait([declared])
                self._sent, self._new = self._new[:_MOST], self._new[_MOST:]
                await self._submit(self._sent)
                self._sent = ()
        finally:
            self._under_way = False

    async def _submit(self, entries: Sequence[Entry]) -> None:
        began = self._dispatcher.clock.now()
        self._roomy.clear()
        try:
            receipts = await self._broker.submit([entry.command for entry in entries])
        except Exception as error:
            self._fail(entries, error, began)
        else:
            for entry, receipt in zip(entries, receipts, strict=True):
                self._take(entry, receipt)
            for lane in self._roomy & self._waiting.keys():
                self.on_room(lane)

    def _fail(self, entries: Sequence[Entry], error: Exception, began: float) -> None:
        lost = list(entries)
        if isinstance(error, UnknownLane):  # nothing was kept; the others are not to blame
            lost = [entry for entry in entries if entry.command.lane == error.lane]
            self._new[:0] = [entry for entry in entries if entry.command.lane != error.lane]
        elif isinstance(error, BrokerUnavailable | BrokerRefused):  # those behind have waited for as long
            waited = [entry for entry in self._new if entry.handle.submitted_at <= began]
            self._new = [entry for entry in self._new if entry.handle.submitted_at > began]
            lost += waited
        for entry in lost:
            self._refuse(entry, error, "broker")

    def _take(self, entry: Entry, receipt: Receipt) -> None:
        handle, answer = entry.handle, receipt.answer
        if answer == Answer.ACCEPTED:
            bus, options = self._dispatcher.bus, handle._options
            if bus.active:
                now = handle.submitted_at
                bus.append((submitted, now, handle, options.delay, options.deadline, False, handle.trace))
            self._admit(entry)
        elif answer == Answer.KNOWN:
            handle._id = receipt.id
            self._admit(entry)
        elif answer == Answer.DUPLICATE:
            self._refuse(entry, DuplicateId(f"a live command has the id {handle.id!r}"), "duplicate")
        elif answer == Answer.UNAVAILABLE:
            text = f"what keeps command {handle.id!r} cannot be reached; whether it is kept is not known"
            self._refuse(entry, BrokerUnavailable(text), "broker")
        elif self._policies[handle.lane].overflow is Overflow.WAIT and not self._intake.refusing:
            self._waiting.setdefault(handle.lane, []).append(entry)
        else:
            self._refuse(entry, self._full(handle.lane), "full")

    def _full(self, lane: str) -> LaneObsError:
        if self._intake.refusing:
            return ShutdownInProgress("the queue is shutting down and takes no new work")
        return LaneFullError(lane, self._policies[lane].max_pending or 0)

    def _admit(self, entry: Entry) -> None:
        entry.call.keep(entry.handle)
        self._dispatcher.idle.settled()

    def _refuse(self, entry: Entry, error: Exception, reason: str) -> None:
        handle = entry.handle
        self._intake.reject(handle.lane, handle._work, reason)
        discard(handle._work)
        entry.call.refuse(error)
        self._dispatcher.idle.settled()

    # --- what the broker tells ----------------------------------------------------------------------------------

    def on_room(self, lane: str) -> None:
        """A full lane has room: those that wait for it are handed over again, in their order."""
        self._roomy.add(lane)
        waiting = self._waiting.pop(lane, [])
        kept = [entry for entry in waiting if not entry.call.answer.cancelled()]
        self._dispatcher.idle.settled(len(waiting) - len(kept))
        if kept:
            self._new[:0] = kept
            self._flush_soon()

    def renew(self) -> None:
        """The link works again: what the broker told of room meanwhile is lost."""
        for lane in list(self._waiting):
            self.on_room(lane)

    def refuse_all(self) -> None:
        """Nobody waits for room, or for a start, any more: the queue shuts down."""
        if not self._is_open:
            unsent, self._new = self._new, []
            for entry in unsent:
                self._refuse(entry, self._full(entry.command.lane), "shutting_down")
        for lane in list(self._waiting):
            for entry in self._waiting.pop(lane):
                self._refuse(entry, self._full(lane), "shutting_down")

    def is_used(self, lane: str) -> bool:
        """Whether a command for this lane is on its way, or waits for room there."""
        return lane in self._waiting or any(entry.command.lane == lane for entry in (*self._sent, *self._new))

    def refuse_lane(self, lane: str) -> None:
        """A lane goes, and nobody waits for room in it any more, or for a start."""
        unsent = [entry for entry in self._new if entry.command.lane == lane]
        self._new = [entry for entry in self._new if entry.command.lane != lane]
        for entry in (*self._waiting.pop(lane, ()), *unsent):
            self._refuse(entry, LaneRemoved(lane), LaneRemoved.reason)

    async def settled(self) -> None:
        """Returns once nothing is on its way."""
        while self._new or self._under_way:
            await sleep(self._dispatcher.clock, 0)
            if self._task is not None:
                await asyncio.wait([self._task])
