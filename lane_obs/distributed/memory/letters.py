"""Dead letters of the queue in memory: the newest of them, with all that is needed to run them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lane_obs.distributed.view import Letter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lane_obs.distributed.memory.kept import Kept


class Buried(msgspec.Struct, frozen=True):
    """A dead letter, and what else there was of its command.

    Attributes:
        letter: the letter.
        seq, cost, key, part, submitted_at: of the command, as in `Kept`.
    """

    letter: Letter
    seq: int
    cost: float
    key: str | None
    part: str | None
    submitted_at: float

    @classmethod
    def of(cls, record: Kept, letter: bytes, cause: str, failed_at: float) -> Buried:
        """The letter of a command that has ended."""
        made = Letter(
            id=record.id,
            lane=record.home.name,
            body=record.body,
            state=str(record.state),
            letter=letter,
            cause=cause,
            attempt=record.attempt,
            failed_at=failed_at,
        )
        return cls(made, record.seq, record.cost, record.key, record.part, record.submitted_at)


class Letters:
    """Keeps dead letters in the order in which they came."""

    def __init__(self) -> None:
        self._kept: dict[str, Buried] = {}
        self.limit = 1
        """How many are kept."""
        self.evicted = 0
        """How many gave way so far."""

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, buried: Buried) -> None:
        """Adds one, as the newest; one of the same id gives way to it."""
        self._kept.pop(buried.letter.id, None)
        self._kept[buried.letter.id] = buried

    def evict(self) -> Iterator[Buried]:
        """Takes out the oldest ones above the limit."""
        while len(self._kept) > self.limit:
            self.evicted += 1
            yield self._kept.pop(next(iter(self._kept)))

    def page(self, lane: str | None, limit: int, after: str | None) -> list[Letter]:
        """Some of them, oldest first; see `Broker.letters`. After one that is gone comes nothing."""
        found: list[Letter] = []
        is_there = after is None
        for buried in self._kept.values():
            letter = buried.letter
            if is_there and lane in {None, letter.lane}:
                found.append(letter)
                if len(found) == limit:
                    break
            is_there = is_there or letter.id == after
        return found

    def get(self, letter_id: str) -> Buried | None:
        """The dead letter of this id; `None` for none."""
        return self._kept.get(letter_id)

    def remove(self, ids: Iterable[str] | None) -> list[str]:
        """Forgets these, `None` for all; gives the ids of those there were."""
        gone = [letter_id for letter_id in dict.fromkeys(self._kept if ids is None else ids) if letter_id in self._kept]
        for letter_id in gone:
            del self._kept[letter_id]
        return gone

    def count_by_lane(self) -> dict[str, int]:
        """How many each lane has."""
        counts: dict[str, int] = {}
        for buried in list(self._kept.values()):
            counts[buried.letter.lane] = counts.get(buried.letter.lane, 0) + 1
        return counts
