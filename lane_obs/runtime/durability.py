"""What a storage adds to a queue: opening it, bringing back what it holds, and closing it in order."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from lane_obs.config import check_methods
from lane_obs.errors import ConfigError, error_text
from lane_obs.runtime.durable import DurableIntake
from lane_obs.runtime.journal import Journal
from lane_obs.runtime.letters import restored
from lane_obs.runtime.recovery import Recovery
from lane_obs.runtime.stats import StorageStats
from lane_obs.runtime.stop import CANCELLED
from lane_obs.storage import adapt
from lane_obs.storage.seven import SEVEN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lane_obs.clock import Clock
    from lane_obs.config import LaneConfig
    from lane_obs.core.lane import Lane
    from lane_obs.runtime.dead_letters import DeadLetter, DeadLetterQueue
    from lane_obs.runtime.dispatcher import Dispatcher
    from lane_obs.runtime.intake import Intake
    from lane_obs.storage.port import Storage

_logger: Final = logging.getLogger("lane_obs.storage")


class Durability:
    """The storage of one queue; without one it does nothing.

    Args:
        storage: where durable commands are kept; `None` for none.
        lanes: the lanes' configurations.
        intake, dispatcher, clock: of the queue.

    Raises:
        ConfigError: it is no storage, or a lane wants to be durable and there is none.
    """

    def __init__(
        self,
        storage: Storage | None,
        lanes: Mapping[str, LaneConfig],
        intake: Intake,
        dispatcher: Dispatcher,
        clock: Clock,
    ) -> None:
        self.journal: Journal | None = None
        if storage is None:
            for name, config in lanes.items():
                self.check_lane(name, config)
            return
        check_methods("storage", storage, SEVEN, "give a Storage, such as LocalStorage(path)")
        self.journal = Journal(adapt(storage, clock=clock), clock, dispatcher.bus)
        self.journal.listen(dispatcher.settle_ends)
        self._intake = intake
        self._directory = dispatcher.directory
        self._durable = DurableIntake(intake, dispatcher, self.journal)
        self._recovery = Recovery(intake, self._durable, dispatcher, self.journal, clock)
        dispatcher.journal = self.journal
        intake.durable = self._durable
        self._idle, self._lanes = dispatcher.idle, dispatcher.engine.lanes
        for lane in self._lanes.values():
            self.adopt(lane)

    def check_lane(self, name: str, config: LaneConfig) -> None:
        """Checks that a lane can be as durable as it wants to be.

        Raises:
            ConfigError: it wants to be and there is no storage.
        """
        if config.durable and self.journal is None:
            raise ConfigError(f"lanes.{name}.durable", True, "give the queue a storage, too")  # noqa: FBT003

    def adopt(self, lane: Lane) -> None:
        """Makes a new lane durable if there is a storage and it does not say otherwise."""
        lane.is_durable = self.journal is not None and lane.config.durable is not False
        lane.set_quick()

    @staticmethod
    def here(_name: str, config: LaneConfig) -> LaneConfig:
        """The policies that a lane has in this process: all of them."""
        return config

    @staticmethod
    def policy(lane: Lane) -> LaneConfig:
        """The policies of a lane."""
        return lane.config

    @staticmethod
    def forget_lane(_name: str) -> None:
        """A lane is gone: it was empty, so nothing of it is stored but dead letters, which stay."""

    @staticmethod
    def shut() -> None:
        """The queue takes no new work: nothing changes for what is stored."""

    def bring_back(self, lane: Lane) -> None:
        """Brings back what is stored for a lane that was not there before."""
        if lane.is_durable:
            self._recovery.lane_added(lane.name)

    def may_fill(self, lane: Lane) -> bool:
        """Whether stored commands of a lane may be on their way."""
        return lane.is_durable and self._recovery.is_reading

    @staticmethod
    def refuse_lane(_lane: Lane) -> None:
        """Nothing: who waits for room in a lane does so before the storage hears of it."""

    @property
    def is_recovered(self) -> bool:
        """Whether all that was stored has been brought back."""
        return self.journal is None or self._recovery.done

    async def open(self, dead_letters: DeadLetterQueue) -> None:
        """Opens the storage, and takes over the dead letters it holds.

        Raises:
            StorageError: it cannot be opened.
        """
        if self.journal is None:
            return
        self.journal.opening = True
        try:
            await self._open(self.journal, dead_letters)
        finally:
            self.journal.opening = False

    async def _open(self, journal: Journal, dead_letters: DeadLetterQueue) -> None:
        storage = journal.storage
        await storage.open()
        for what in storage.cannot:
            _logger.warning("the storage %s cannot %s", type(storage).__name__, what)
        journal.show()
        letters = await storage.load_dead_letters()
        old_seq = max(storage.health().last_seq, *(letter.seq for letter in letters), 0)
        self._directory.renumber(old_seq)  # what lanes in memory were given before the start
        self._intake.seq += old_seq
        for letter in letters:
            dead_letters.restore(restored(letter, self._intake.threads))

    def forget_letter(self, letter: DeadLetter) -> None:
        """A dead letter has left the queue's memory."""
        if self.journal is None:
            return
        home = self._lanes.get(letter.lane)
        if home is None or home.is_durable:
            self.journal.letter_gone(letter.id)

    def recover(self) -> None:
        """Begins to bring back the stored commands."""
        if self.journal is not None:
            self._recovery.start()

    def stats(self) -> StorageStats | None:
        """How the storage is; `None` without one. From any thread."""
        if self.journal is None:
            return None
        health = self.journal.storage.health()
        return StorageStats(
            ready=health.ready,
            error=None if health.error is None else error_text(health.error),
            recovered=self._recovery.done,
            commands=health.commands,
            letters=health.letters,
            pending=health.pending + health.kept,
            failures=health.failures,
            dropped=health.dropped,
            file_bytes=health.file_bytes,
            kept=dict(self._recovery.kept),
        )

    async def begin_close(self) -> None:
        """From now on what is cancelled stays stored."""
        if self.journal is not None:
            await self._durable.settled()  # what is being saved still takes its place, to be cancelled there
            self.journal.close(handle for handle in self._directory if handle._stop == CANCELLED)
            self._idle.tell_all()

    async def close(self) -> None:
        """Commits what is left and closes the storage."""
        if self.journal is not None:
            self.journal.flush()
            await self.journal.storage.close()
