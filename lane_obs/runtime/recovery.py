"""Brings stored commands back into their lanes, in order, while the queue already runs."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from lane_obs import events
from lane_obs.clock import sleep
from lane_obs.command import registry
from lane_obs.config import OnCrash, OnExpiry
from lane_obs.core.state import State
from lane_obs.errors import ConfigError, InvalidCommand, LaneObsError, ProcessDied, UnknownCommand, error_text
from lane_obs.runtime.codec import decode
from lane_obs.runtime.handle import CommandHandle
from lane_obs.runtime.options import NO_OPTIONS, Options, stored_options
from lane_obs.runtime.outcome import expiry_error
from lane_obs.runtime.work import resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lane_obs.clock import Clock
    from lane_obs.core.lane import Lane
    from lane_obs.runtime.dispatcher import Dispatcher
    from lane_obs.runtime.durable import DurableIntake
    from lane_obs.runtime.intake import Intake
    from lane_obs.runtime.journal import Journal
    from lane_obs.storage.record import StoredCommand

_PAGE: Final = 1_000
_TURN_SECONDS: Final = 0.004
"""How long one turn of the loop is kept from others, roughly."""
_SLICE: Final = 100
"""Brought back between two looks at the clock."""
_EMPTY: Final = contextvars.Context()
"""Shared by all: attempts run in copies."""
_logger = logging.getLogger("lane_obs.storage")


class Recovery:
    """Reads the storage once, after the start of the queue.

    A stored command whose lane or type is not there is kept in the storage, told of and counted; one whose lane is
    added, or whose type is registered, later runs then.

    Args:
        intake, durable, dispatcher, journal, clock: of the queue.

    Attributes:
        done: whether all that was stored has been brought back.
        kept: what could not run so far, by reason: `unknown_lane`, `unregistered`.
    """

    def __init__(
        self, intake: Intake, durable: DurableIntake, dispatcher: Dispatcher, journal: Journal, clock: Clock
    ) -> None:
        self._intake = intake
        self._durable = durable
        self._dispatcher = dispatcher
        self._journal = journal
        self._clock = clock
        self._bus = dispatcher.bus
        self._lanes = dispatcher.engine.lanes
        self._task: asyncio.Task[None] | None = None
        self._unregistered: dict[str, list[StoredCommand]] = {}
        self._homeless: dict[str, list[StoredCommand]] = {}
        self.kept = {"unknown_lane": 0, "unregistered": 0}
        self.done = False
        self._in_order = True
        self._top = 0
        self._latest = (0.0, 0.0)
        """When the latest command was submitted, as it is stored and on this clock: many have that in common."""

    def start(self) -> None:
        """Begins to read."""
        registry.listeners.add(self._registered)
        self._bus.closers.add(self._end)
        self._journal.on_back = self._read_again
        self._read()

    def _read_again(self) -> None:
        """The storage works again: reads what could not be read before."""
        if not self.done and self._task is not None and self._task.done() and not self._journal.closing:
            self._unregistered.clear()
            self._homeless.clear()
            self.kept = dict.fromkeys(self.kept, 0)
            self._read()

    def _read(self) -> None:
        self._durable.hold()
        loop = asyncio.get_running_loop()
        self._dispatcher.idle.unsettled += 1
        self._task = loop.create_task(self._run(), context=contextvars.Context())

    @property
    def is_reading(self) -> bool:
        """Whether there may be more to bring back."""
        return self._task is not None and not self.done and not self._journal.closing

    async def _end(self) -> None:
        registry.listeners.discard(self._registered)
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        began = self._clock.now()
        outcomes: Counter[bool | None] = Counter()
        try:
            async for page in self._journal.storage.stream_commands(_PAGE):
                await self._bring_back_page(page, outcomes)
            self.done = True
            seconds = self._clock.now() - began
            kept = sum(self.kept.values())
            self._bus.emit(events.RecoveryComplete, outcomes[True], outcomes[False], kept, seconds)
        except Exception as error:
            if isinstance(error, LaneObsError):
                _logger.error("stored commands could not be read: %s", error)  # noqa: TRY400 - the message says all
            else:
                _logger.exception("stored commands could not be brought back")
            self._bus.emit(events.RecoveryFailed, type(error).__name__, error_text(error))
        finally:
            self._in_order = False  # what was held has higher numbers than what may still come back
            self._durable.release()
            self._dispatcher.idle.settled()

    async def _bring_back_page(self, page: Sequence[StoredCommand], outcomes: Counter[bool | None]) -> None:
        """Brings back what was read, and lets others have their turn in between when that takes long."""
        now, ends = self._clock.now, self._clock.now() + _TURN_SECONDS
        self._latest = (0.0, 0.0)
        for start in range(0, len(page), _SLICE):
            outcomes.update(map(self.bring_back, page[start : start + _SLICE]))
            if now() >= ends:
                self._dispatcher.wake()
                await sleep(self._clock, 0)
                ends = now() + _TURN_SECONDS
        self._dispatcher.wake()

    def bring_back(self, command: StoredCommand) -> bool | None:
        """Puts one stored command into its lane.

        Returns:
            Whether it lives; False when it became a dead letter, `None` when it stays where it is.
        """
        if self._is_here(command):
            return None
        home = self._lanes.get(command.lane)
        if home is None or not home.is_durable:
            self._homeless.setdefault(command.lane, []).append(command)
            self._keep(command, "unknown_lane")
            return None
        try:
            work, args = decode(command.command_type, command.payload)
            named, call, args = resolve(work, args, self._intake.threads)
            plain = _is_plain(command)
            options = NO_OPTIONS if plain else self._options(command)
            part = home.assign(command.command_type, options.partition_key)
        except UnknownCommand:
            self._unregistered.setdefault(command.command_type, []).append(command)
            self._keep(command, "unregistered")
            return None
        except (InvalidCommand, ConfigError) as error:
            self._journal.originals[command.id] = command
            self._bury(self._handle(command, home, None, None, (), Options(id=command.id, key=command.key)), error)
            return False
        handle = self._handle(command, home, named, call, args, options)
        handle.cost, handle.part = options.cost, part
        if not plain and not self._may_run(command, handle):
            return False
        self._enter(command, handle, plain=plain)
        return True

    def _is_here(self, command: StoredCommand) -> bool:
        """Whether a command is of this process: submitted or requeued here, or brought back before."""
        key, seq, directory = command.id, command.seq, self._dispatcher.directory
        is_live = seq in directory.by_seq or key in directory.by_id
        return is_live or seq > directory.old_seq or key in self._durable.requeued

    def _enter(self, command: StoredCommand, handle: CommandHandle[Any], *, plain: bool) -> None:
        seq, now = command.seq, self._clock.now()
        # Nothing with a higher number is in its lane while the storage is read for the first time.
        follows = self._in_order and seq > self._top
        if follows:
            self._top = seq
        if plain and not (follows and self._dispatcher.directory.tells(command.id, seq)):
            handle._id = command.id
        self._dispatcher.admit(handle, now, requeued=not follows, recovered=True)
        if self._bus.at_recover:
            self._bus.call(self._bus.at_recover, (handle, command.trace))
        self._dispatcher.emit(events.CommandRecovered, handle, now, command.state)

    def _handle(
        self, command: StoredCommand, home: Lane, work: Any, call: Any, args: tuple[Any, ...], options: Options
    ) -> CommandHandle[Any]:
        stored, submitted_at = self._latest
        if command.submitted_at != stored:
            now = self._clock.now()
            submitted_at = now - max(self._clock.wall() - command.submitted_at, 0.0)
            self._latest = command.submitted_at, submitted_at
        return CommandHandle(
            command.seq,
            home,
            submitted_at,
            attempt=command.attempt,
            _owner=self._dispatcher,
            _call=call,
            _args=args,
            _work=work,
            _type=sys.intern(command.command_type),  # one text for all
            _options=options,
            _context=_EMPTY,
            _durable=True,
            _traceparent=command.trace,
        )

    def _options(self, command: StoredCommand) -> Options:
        given = stored_options(command.options)
        deadline = given.pop("deadline", None)  # as it was given; when it is over, the command itself says
        wall = self._clock.wall()
        return Options(
            **given,
            deadline=None if command.deadline is None else deadline or command.deadline - command.submitted_at,
            delay=0.0 if command.not_before is None else max(command.not_before - wall, 0.0),
            id=command.id,
            key=command.key,
        )

    def _may_run(self, command: StoredCommand, handle: CommandHandle[Any]) -> bool:
        """Whether a command may run again; else it becomes a dead letter."""
        config = handle.home.config
        if command.deaths:
            self._journal.remember(command)
        if command.state == "running":
            deaths = command.deaths + 1
            # Its end is written in one step: stored as ready in between, it would run again after one more crash.
            if config.on_crash is OnCrash.DEAD_LETTER or deaths >= config.max_crashes:
                text = f"the process died while command {command.id} ran, {deaths} times so far"
                self._bury(handle, ProcessDied(text, command.id, command.lane))
                return False
            self._journal.died(command, deaths)
        expires = config.on_expiry is OnExpiry.EXPIRE
        if expires and command.deadline is not None and command.deadline <= self._clock.wall():
            self._bury(handle, expiry_error(handle, None), State.EXPIRED)
            return False
        return True

    def _bury(self, handle: CommandHandle[Any], error: BaseException, state: State = State.FAILED) -> None:
        """Makes a dead letter of a command that does not come back: it enters its lane and ends in one step."""
        now = self._clock.now()
        self._dispatcher.engine.submit(handle, now, returning=True)
        self._dispatcher.directory.add(handle)
        self._dispatcher.fail(handle, state, error, now)

    def _keep(self, command: StoredCommand, reason: str) -> None:
        self.kept[reason] += 1
        self._bus.emit(events.CommandKept, command.id, command.lane, command.command_type, reason)

    def _registered(self, name: str) -> None:
        """Runs what was kept for want of this type; called from whatever thread registers it."""
        loop = self._dispatcher.loop
        if loop is not None and name in self._unregistered and not loop.is_closed():
            loop.call_soon_threadsafe(self._bring_back_type, name, context=contextvars.Context())

    def _bring_back_type(self, name: str) -> None:
        self._bring_back_kept(self._unregistered.pop(name, []), "unregistered")

    def lane_added(self, name: str) -> None:
        """Runs what was kept for want of this lane."""
        self._bring_back_kept(self._homeless.pop(name, []), "unknown_lane")

    def _bring_back_kept(self, commands: list[StoredCommand], reason: str) -> None:
        self.kept[reason] -= len(commands)
        for command in commands:
            self.bring_back(command)
        self._dispatcher.wake()


def _is_plain(command: StoredCommand) -> bool:
    """Whether it waits and its submit set nothing: its id is of the form of a queue's own making."""
    return (
        command.state == "ready"
        and not command.options
        and not command.deaths
        and command.key is None
        and command.not_before is None
        and command.deadline is None
        and command.id.endswith(f"-{command.seq}")
    )
