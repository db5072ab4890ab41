"""Brings stored commands back into their lanes, in order, while the queue already runs."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Any, Final

from lane_obs import events
from lane_obs.command import registry
from lane_obs.config import OnCrash
from lane_obs.config.file import retry_from_table
from lane_obs.core.state import State
from lane_obs.errors import ConfigError, InvalidCommand, LaneObsError, ProcessDied, UnknownCommand, error_text
from lane_obs.runtime.codec import decode
from lane_obs.runtime.handle import CommandHandle
from lane_obs.runtime.options import Options
from lane_obs.runtime.outcome import expiry_error
from lane_obs.runtime.work import resolve

if TYPE_CHECKING:
    from lane_obs.clock import Clock
    from lane_obs.core.lane import Lane
    from lane_obs.runtime.dispatcher import Dispatcher
    from lane_obs.runtime.durable import DurableIntake
    from lane_obs.runtime.intake import Intake
    from lane_obs.runtime.journal import Journal
    from lane_obs.storage.record import StoredCommand

_BATCH: Final = 200  # brought back within one turn of the loop
_EMPTY: Final = contextvars.Context()
"""Shared by all: attempts run in copies."""
_logger = logging.getLogger("lane_obs.storage")


class Recovery:
    """Reads the storage once, after the start of the queue.

    A stored command whose lane or type is not there is kept in the storage, told of and counted; one whose type is
    registered later runs then.

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
        self._task: asyncio.Task[None] | None = None
        self._unregistered: dict[str, list[StoredCommand]] = {}
        self.kept = {"unknown_lane": 0, "unregistered": 0}
        self.done = False

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
            self.kept = dict.fromkeys(self.kept, 0)
            self._read()

    def _read(self) -> None:
        self._durable.hold()
        loop = asyncio.get_running_loop()
        self._dispatcher.idle.unsettled += 1
        self._task = loop.create_task(self._run(), context=contextvars.Context())

    async def _end(self) -> None:
        registry.listeners.discard(self._registered)
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        began, recovered, dead = self._clock.now(), 0, 0
        try:
            async for batch in self._journal.storage.stream_commands(_BATCH):
                for command in batch:
                    came_back = self.bring_back(command)
                    recovered += came_back is True
                    dead += came_back is False
                self._dispatcher.wake()
            self.done = True
            seconds = self._clock.now() - began
            kept = sum(self.kept.values())
            self._bus.emit(events.RecoveryComplete, recovered, dead, kept, seconds)
        except Exception as error:
            if isinstance(error, LaneObsError):
                _logger.error("stored commands could not be read: %s", error)  # noqa: TRY400 - the message says all
            else:
                _logger.exception("stored commands could not be brought back")
            self._bus.emit(events.RecoveryFailed, type(error).__name__, error_text(error))
        finally:
            self._durable.release()
            self._dispatcher.idle.settled()

    def bring_back(self, command: StoredCommand) -> bool | None:
        """Puts one stored command into its lane.

        Returns:
            Whether it lives; False when it became a dead letter, `None` when it stays where it is.
        """
        if command.id in self._durable.new_ids or self._dispatcher.directory.find(command.id) is not None:
            return None  # saved while the storage was read
        home = self._intake.lane_or_none(command.lane)
        if home is None or not home.is_durable:
            self._keep(command, "unknown_lane")
            return None
        try:
            work, args = decode(command.command_type, command.payload)
            named, call, args = resolve(work, args, self._intake.threads)
            options = self._options(command)
        except UnknownCommand:
            self._unregistered.setdefault(command.command_type, []).append(command)
            self._keep(command, "unregistered")
            return None
        except (InvalidCommand, ConfigError) as error:
            self._journal.originals[command.id] = command
            self._bury(self._handle(command, home, None, None, (), Options(id=command.id, key=command.key)), error)
            return False
        return self._admit(command, home, self._handle(command, home, named, call, args, options))

    def _handle(
        self, command: StoredCommand, home: Lane, work: Any, call: Any, args: tuple[Any, ...], options: Options
    ) -> CommandHandle[Any]:
        waited = max(self._clock.wall() - command.submitted_at, 0.0)
        return CommandHandle(
            command.seq,
            home,
            self._clock.now() - waited,
            attempt=command.attempt,
            _owner=self._dispatcher,
            _call=call,
            _args=args,
            _work=work,
            _type=command.command_type,
            _options=options,
            _context=_EMPTY,
            _durable=True,
            _traceparent=command.trace,
        )

    def _options(self, command: StoredCommand) -> Options:
        given = dict(command.options)
        retry = given.pop("retry", None)
        deadline = given.pop("deadline", None)  # as it was given; when it is over, the command itself says
        wall = self._clock.wall()
        return Options(
            **given,
            deadline=None if command.deadline is None else deadline or command.deadline - command.submitted_at,
            delay=0.0 if command.not_before is None else max(command.not_before - wall, 0.0),
            retry=None if retry is None else retry_from_table(retry),
            id=command.id,
            key=command.key,
        )

    def _admit(self, command: StoredCommand, home: Lane, handle: CommandHandle[Any]) -> bool:
        config = home.config
        self._journal.remember(command)
        if command.state == "running":
            deaths = command.deaths + 1
            # Its end is written in one step: stored as ready in between, it would run again after one more crash.
            if config.on_crash is OnCrash.DEAD_LETTER or deaths >= config.max_crashes:
                text = f"the process died while command {command.id} ran, {deaths} times so far"
                self._bury(handle, ProcessDied(text, command.id, command.lane))
                return False
            self._journal.died(command, deaths)
        now = self._clock.now()
        if command.deadline is not None and command.deadline <= self._clock.wall():
            self._bury(handle, expiry_error(handle, None), State.EXPIRED)
            return False
        self._dispatcher.admit(handle, now, requeued=True, recovered=True)
        self._bus.call(self._bus.at_recover, (handle, command.trace))
        self._dispatcher.emit(events.CommandRecovered, handle, now, command.state)
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
        commands = self._unregistered.pop(name, [])
        self.kept["unregistered"] -= len(commands)
        for command in commands:
            self.bring_back(command)
        self._dispatcher.wake()
