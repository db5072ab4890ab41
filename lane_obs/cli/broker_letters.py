"""Dead letters at a broker: which are meant, back among its commands, and away."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from lane_obs.cli.letters import Name, Page, Pick
from lane_obs.runtime.brokered.cluster import shown_letter
from lane_obs.storage import LetterFilter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from lane_obs.distributed import Broker
    from lane_obs.runtime.brokered.cluster import SharedLetter

_PAGE: Final = 500


class BrokerLetters:
    """The dead letters of a queue that many processes share.

    Args:
        broker: has them; open.
        queue: the queue's name.

    Attributes:
        place: the queue, in words.
    """

    def __init__(self, broker: Broker, queue: str) -> None:
        self._broker = broker
        self.place = f"queue {queue!r}"

    async def page(self, meant: LetterFilter, limit: int, after: str | None) -> Page:
        """Some of those that a filter leaves, oldest first; `after` is the id of the last one of the page before.

        Raises:
            BrokerError: they cannot be read.
        """
        found: list[SharedLetter] = []
        async for letter in self._all(meant.lane, after):
            if len(found) == limit:
                return Page(found, found[-1].id)
            if meant.takes(letter):
                found.append(letter)
        return Page(found, None)

    async def find(self, id_: str) -> SharedLetter | None:
        """The letter of this id; `None` for none.

        Raises:
            BrokerError: it cannot be read.
        """
        async for letter in self._all():
            if letter.id == id_:
                return letter
        return None

    async def pick(self, meant: Sequence[str] | LetterFilter) -> Pick:
        """Finds letters by id, or all that a filter leaves.

        Raises:
            BrokerError: they cannot be read.
        """
        if isinstance(meant, LetterFilter):
            chosen = [Name(letter.id, None, 0) async for letter in self._all(meant.lane) if meant.takes(letter)]
            return Pick(chosen, [])
        there = {letter.id async for letter in self._all()}
        return Pick([Name(id_, None, 0) for id_ in meant if id_ in there], [id_ for id_ in meant if id_ not in there])

    def requeue(self) -> BrokerRequeue:
        """What puts letters back."""
        return BrokerRequeue(self._broker)

    async def purge(self, found: Pick) -> int:
        """Forgets letters; returns how many there were.

        Raises:
            BrokerError: it could not be done; those before are gone.
        """
        return sum([await self._broker.remove_letters(ids) for ids in _batches(found)])

    async def _all(self, lane: str | None = None, after: str | None = None) -> AsyncIterator[SharedLetter]:
        more = True
        while more:
            letters = await self._broker.letters(lane=lane, limit=_PAGE, after=after)
            for letter in letters:
                yield shown_letter(letter)
            more = len(letters) == _PAGE
            after = letters[-1].id if letters else after


class BrokerRequeue:
    """Makes dead letters commands again.

    Args:
        broker: has them.

    Attributes:
        done: how many were put back.
        refused: the others, by id, each with the reason.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.done = 0
        self.refused: list[tuple[str, str]] = []

    async def run(self, found: Pick) -> None:
        """Puts them back, so many at once.

        Raises:
            BrokerError: it could not be done; those before are back.
        """
        for ids in _batches(found):
            back = set(await self._broker.requeue(ids))
            self.done += len(back)
            self.refused += [(id_, "a live command has its id, or it is gone") for id_ in ids if id_ not in back]


def _batches(found: Pick) -> Iterator[list[Any]]:
    rest = (name.id for name in found.letters)
    while batch := list(itertools.islice(rest, _PAGE)):
        yield batch
