"""What the queue in memory writes into its storage, and what it reads back."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any, Final

from lane_obs.core.state import State
from lane_obs.distributed.memory.letters import Buried
from lane_obs.distributed.view import Letter
from lane_obs.storage import AddLetter, Remove, RemoveLetter, Save, StoredCommand, StoredDeadLetter, Update

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lane_obs.clock import Clock
    from lane_obs.distributed.memory.kept import Kept
    from lane_obs.storage import Change, DurableStorage

_TYPE: Final = "lane_obs.broker"
"""The command type of all that is stored: what the bodies are, no broker knows."""
_PAGE: Final = 1000


class Ledger:
    """Brings a storage up to date with a queue; without a storage it does nothing.

    Args:
        storage: where all is kept; `None` for nowhere.
        clock: all time of the queue.

    Attributes:
        saved: is done when the new commands of the latest step are kept; `None` when it had none.
    """

    def __init__(self, storage: DurableStorage | None, clock: Clock) -> None:
        self.storage = storage
        self._clock = clock
        self._saves: list[Change] = []
        self._others: list[Change] = []
        self.saved: asyncio.Future[None] | None = None
        self.opening = asyncio.Lock()
        self._is_read = False
        self._unclaimed: dict[str, dict[str, StoredCommand]] = {}

    def _wall(self, at: float) -> float:
        return self._clock.wall() + at - self._clock.now()

    def _due(self, record: Kept) -> float | None:
        waits = record.state in {State.DELAYED, State.BACKOFF} and record.timer is not None
        return self._wall(record.timer[0]) if waits and record.timer is not None else None

    # --- what changes -------------------------------------------------------------------------------------------

    def save(self, record: Kept) -> None:
        """A command is taken in."""
        if self.storage is None:
            return
        submitted = self._wall(record.submitted_at)
        stored = StoredCommand(
            id=record.id,
            seq=record.seq,
            lane=record.home.name,
            command_type=_TYPE,
            payload=record.body,
            options={"cost": record.cost, "part": record.part},
            attempt=record.attempt,
            state=str(record.state),
            not_before=self._due(record),
            deadline=None if record.expires_after is None else submitted + record.expires_after,
            key=record.key,
            submitted_at=submitted,
            updated_at=submitted,
            deaths=record.deaths,
        )
        self._saves.append(Save(stored))

    def update(self, record: Kept) -> None:
        """A command runs, or waits again."""
        if self.storage is not None:
            change = Update(
                id=record.id,
                state=str(record.state),
                attempt=record.attempt,
                updated_at=self._clock.wall(),
                not_before=self._due(record),
                deaths=record.deaths,
            )
            self._others.append(change)

    def forget(self, command_id: str) -> None:
        """A command has ended."""
        if self.storage is not None:
            self._others.append(Remove(command_id))

    def bury(self, buried: Buried) -> None:
        """There is one more dead letter."""
        if self.storage is None:
            return
        letter = buried.letter
        stored = StoredDeadLetter(
            id=letter.id,
            seq=buried.seq,
            lane=letter.lane,
            command_type=_TYPE,
            payload=letter.body,
            options={"cost": buried.cost, "part": buried.part, "letter": b64encode(letter.letter).decode()},
            reason=letter.state,
            error_type=letter.cause,
            error="",
            attempts=letter.attempt,
            failed_at=letter.failed_at,
            submitted_at=self._wall(buried.submitted_at),
            key=buried.key,
        )
        self._others.append(AddLetter(stored))

    def dig_up(self, ids: Iterable[str]) -> None:
        """Dead letters are gone, or commands again."""
        if self.storage is not None:
            self._others += map(RemoveLetter, ids)

    def flush(self) -> None:
        """Writes what has changed in one step. What cannot be written is not kept from happening."""
        self.saved = None
        if self.storage is None:
            return
        # Apart: where new commands cannot be kept they are refused, and everything that came with them.
        if self._others:
            others, self._others = self._others, []
            self.storage.apply(others).add_done_callback(_look)
        if self._saves:
            saves, self._saves = self._saves, []
            self.saved = self.storage.apply(saves)
            self.saved.add_done_callback(_look)

    # --- what was there -----------------------------------------------------------------------------------------

    async def read(self) -> list[Buried]:
        """Reads all commands, for `take`, and gives all dead letters, oldest first; the second time there are none."""
        found: list[Buried] = []
        after: int | None = None
        storage, is_read, self._is_read = self.storage, self._is_read, True
        if storage is None or is_read:
            return found
        async for batch in storage.stream_commands(_PAGE):
            for stored in batch:
                self._unclaimed.setdefault(stored.lane, {})[stored.id] = stored
        while True:
            page = await storage.letters(limit=_PAGE, after=after)
            found += map(self._buried, page.letters)
            after = page.after
            if after is None:
                return found

    def take(self, lanes: Iterable[str]) -> list[StoredCommand]:
        """The commands that were read and are of these lanes, in submit order; each is given once."""
        if not self._unclaimed:
            return []
        taken = [stored for lane in lanes for stored in self._unclaimed.pop(lane, {}).values()]
        return sorted(taken, key=_seq)

    def is_unclaimed(self, command_id: str) -> bool:
        """Whether a command was read whose lane no member has named so far."""
        return any(command_id in stored for stored in self._unclaimed.values())

    def _buried(self, stored: StoredDeadLetter) -> Buried:
        options: dict[str, Any] = stored.options
        letter = Letter(
            id=stored.id,
            lane=stored.lane,
            body=stored.payload,
            state=stored.reason,
            letter=b64decode(options.get("letter", "")),
            cause=stored.error_type,
            attempt=stored.attempts,
            failed_at=stored.failed_at,
        )
        submitted = self.since(stored.submitted_at)
        return Buried(letter, stored.seq, options.get("cost", 1.0), stored.key, options.get("part"), submitted)

    def since(self, wall: float) -> float:
        """A time of the storage as one of the queue's clock."""
        return self._clock.now() + wall - self._clock.wall()


def _seq(stored: StoredCommand) -> int:
    return stored.seq


def _look(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()  # the storage's health tells of it
