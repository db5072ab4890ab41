"""A storage that outlives its queue, and queues that are killed and started again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lane_obs import MemorySink, QueueManager
from lane_obs.storage import MemoryStorage

if TYPE_CHECKING:
    from lane_obs import VirtualClock
    from lane_obs.storage.record import StoredCommand


class Kept(MemoryStorage):
    """A storage in memory that outlives its queue, as a file does."""

    def rows(self) -> list[tuple[str, str, int]]:
        return [(row.command_type, row.state, row.attempt) for row in self.stored()]

    def stored(self) -> list[StoredCommand]:
        return sorted(self._commands.values(), key=lambda row: row.seq)


async def killed(manager: QueueManager) -> None:
    """Ends a queue as `kill -9` would: what it was about to write is not written."""
    journal = manager._keeper.journal
    assert journal is not None
    kept, journal.storage = journal.storage, _Deaf()
    await journal.storage.open()
    await kept.close()
    await manager.close()


class _Deaf(MemoryStorage):
    """Takes all and keeps nothing of it where anyone looks."""


async def restarted(storage: Kept, clock: VirtualClock, lanes: Any, **options: Any) -> tuple[QueueManager, MemorySink]:
    sink = MemorySink()
    manager = QueueManager(lanes, storage=storage, clock=clock, sinks=[sink], **options)
    await manager.start()
    await sink.wait_for("queue.recovery.complete")
    return manager, sink
