"""Dead letters of the queue in memory: the newest of them, with all that is needed to run them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lane_obs.distributed.view import Letter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lane_obs.distributed.memory.kept import Kept


class Letters:
    """Keeps dead letters in the order in which they came."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Letter, Kept]] = {}
        self.limit = 1
        """How many are kept."""
        self.evicted = 0
        """How many gave way so far."""

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, record: Kept, letter: bytes, cause: str, failed_at: float) -> None:
        """Adds one, as the newest; one of the same id gives way to it."""
        self._kept.pop(record.id, None)
        self._kept[record.id] = (
            Letter(
                id=record.id,
                lane=record.home.name,
                body=record.body,
                state=str(record.state),
                letter=letter,
                cause=cause,
                attempt=record.attempt,
                failed_at=failed_at,
            ),
            record,
        )

    def evict(self) -> Iterator[Kept]:
        """Takes out the oldest ones above the limit."""
        while len(self._kept) > self.limit:
            _, record = self._kept.pop(next(iter(self._kept)))
            self.evicted += 1
            yield record

    def page(self, lane: str | None, limit: int, after: str | None) -> list[Letter]:
        """Some of them, oldest first; see `Broker.letters`. After one that is gone comes nothing."""
        found: list[Letter] = []
        is_there = after is None
        for letter, _ in self._kept.values():
            if is_there and lane in {None, letter.lane}:
                found.append(letter)
                if len(found) == limit:
                    break
            is_there = is_there or letter.id == after
        return found

    def get(self, letter_id: str) -> Kept | None:
        """The command of a dead letter; `None` for none."""
        found = self._kept.get(letter_id)
        return None if found is None else found[1]

    def remove(self, ids: Iterable[str] | None) -> int:
        """Forgets these, `None` for all; tells how many there were."""
        before = len(self._kept)
        if ids is None:
            self._kept.clear()
        else:
            for letter_id in ids:
                self._kept.pop(letter_id, None)
        return before - len(self._kept)

    def count_by_lane(self) -> dict[str, int]:
        """How many each lane has."""
        counts: dict[str, int] = {}
        for letter, _ in list(self._kept.values()):
            counts[letter.lane] = counts.get(letter.lane, 0) + 1
        return counts
