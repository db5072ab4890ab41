"""New commands, each to its partition; and where the commands of this member are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lane_obs.distributed.partitioned.route import partition_of
from lane_obs.distributed.partitioned.together import together
from lane_obs.distributed.record import Answer, Receipt
from lane_obs.errors import BrokerError, UnknownLane

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lane_obs.distributed.partitioned.branch import Branch
    from lane_obs.distributed.record import NewCommand

_MOST_HOMES: Final = 100_000
"""Commands of which it is remembered where they are; of others all partitions are asked."""


class Submits:
    """The submits of one member.

    Args:
        branches: the partitions.
        lanes: those that all partitions know.
    """

    def __init__(self, branches: Sequence[Branch], lanes: Iterable[str]) -> None:
        self._branches = branches
        self.known = set(lanes)
        self._homes: dict[str, Branch] = {}

    def homes(self, command_id: str) -> Sequence[Branch]:
        """The partitions that may have a command: the one that this member put it into, or else all."""
        home = self._homes.get(command_id)
        return self._branches if home is None else (home,)

    async def submit(self, commands: Sequence[NewCommand]) -> list[Receipt]:
        """See `PartitionedBroker.submit`."""
        if not commands:
            return []
        await self._check_lanes({command.lane for command in commands})
        places: dict[Branch, list[int]] = {}
        for number, command in enumerate(commands):
            branch = self._branches[partition_of(command, len(self._branches))]
            places.setdefault(branch, []).append(number)
            self._homes[command.id] = branch
        answers = await together(
            (self._submit(branch, [commands[number] for number in numbers]) for branch, numbers in places.items()),
            but=BrokerError,
        )
        errors = [answer for answer in answers if isinstance(answer, BrokerError)]
        if len(errors) == len(answers):
            raise errors[0]
        receipts = [Receipt(Answer.UNAVAILABLE, command.id) for command in commands]
        for (branch, numbers), answer in zip(places.items(), answers, strict=True):
            if not isinstance(answer, BrokerError):
                for number, receipt in zip(numbers, answer, strict=True):
                    receipts[number] = receipt
                    self._homes[receipt.id] = branch
        while len(self._homes) > _MOST_HOMES:
            del self._homes[next(iter(self._homes))]
        return receipts

    @staticmethod
    async def _submit(branch: Branch, commands: Sequence[NewCommand]) -> list[Receipt]:
        receipts: list[Receipt] = await branch.reach(lambda broker: broker.submit(commands))
        return receipts

    async def _check_lanes(self, lanes: set[str]) -> None:
        """Nothing may be kept where a lane is unknown: it is found out before the first is sent.

        Another member may forget a lane meanwhile; then some are kept, and giving them again is safe.

        Raises:
            UnknownLane: no member has named it.
        """
        if lanes <= self.known:
            return
        asked = next((branch for branch in self._branches if not branch.error), self._branches[0])
        found = (await asked.reach(lambda broker: broker.stats())).lanes
        self.known.update(found)
        for lane in lanes - self.known:
            raise UnknownLane(lane, self.known)
