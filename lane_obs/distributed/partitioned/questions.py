"""What anybody may ask of a queue in partitions, whether they submit, work or only look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lane_obs.distributed.partitioned.merge import LetterMerge, merge_stats
from lane_obs.distributed.partitioned.together import together
from lane_obs.errors import UnknownLane

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from lane_obs.config import LaneConfig, RateLimit
    from lane_obs.distributed.partitioned.branch import Branch
    from lane_obs.distributed.partitioned.share import Divider, Share
    from lane_obs.distributed.partitioned.submits import Submits
    from lane_obs.distributed.port import Broker
    from lane_obs.distributed.view import BrokerStats, Found, Letter

_UNKNOWN: Final = "unknown"
_PAGE: Final = 100


class Questions:
    """The part of `PartitionedBroker` that answers for the whole queue."""

    partitions: int
    _branches: Sequence[Branch]
    _lanes: dict[str, LaneConfig]
    _limits: tuple[int | None, Sequence[RateLimit]]
    _divider: Divider
    _shares: list[Share]
    _submits: Submits

    def _open(self) -> Sequence[Branch]:
        raise NotImplementedError

    async def _ask_all(
        self, call: Callable[[Broker], Coroutine[Any, Any, Any]], but: type[Exception] | tuple[()] = ()
    ) -> list[Any]:
        return await together((branch.reach(call) for branch in self._open()), but)

    # --- lanes --------------------------------------------------------------------------------------------------

    async def declare(self, lanes: Mapping[str, LaneConfig]) -> None:
        """Names lanes, or gives them other policies; see `Broker.declare`.

        Raises:
            ConfigError: a limit is too small to be divided.
        """
        branches, whole = self._open(), {**self._lanes, **lanes}
        shares = self._divider.divide(whole, *self._limits)
        changed = [
            {
                name: lane
                for name, lane in share.lanes.items()
                if name in lanes or _differs(lane, before.lanes.get(name))
            }
            for share, before in zip(shares, self._shares, strict=True)
        ]
        self._lanes.update(lanes)
        self._shares = shares
        await together(
            branch.reach(lambda broker, some=some: broker.declare(some))  # type: ignore[misc]
            for branch, some in zip(branches, changed, strict=True)
        )
        self._submits.known.update(lanes)

    async def forget_lane(self, name: str, /) -> bool:
        """Forgets a lane that has no live command in any partition; see `Broker.forget_lane`."""
        depth = (await self.stats()).lanes.get(name)
        done: list[bool] = []
        if depth is not None:
            if depth.ready + depth.delayed + depth.backoff + depth.running:
                return False
            done = await self._ask_all(lambda broker: broker.forget_lane(name))
        if all(done) or name not in (await self.stats()).lanes:  # another member may have forgotten it meanwhile
            self._submits.known.discard(name)
            self._lanes.pop(name, None)
            for share in self._shares:
                share.lanes.pop(name, None)
            return any(done)
        if name in self._lanes:  # a command came between: the lane stays
            await self.declare({name: self._lanes[name]})
        return False

    async def set_paused(self, lane: str, *, paused: bool) -> bool:
        """Pauses or resumes a lane in all partitions; see `Broker.set_paused`.

        Raises:
            UnknownLane: no such lane.
        """
        answers = await self._ask_all(lambda broker: broker.set_paused(lane, paused=paused), but=UnknownLane)
        changed = [answer for answer in answers if not isinstance(answer, UnknownLane)]
        if not changed:
            raise answers[0]
        return any(changed)

    # --- commands -----------------------------------------------------------------------------------------------

    async def cancel(self, id: str, /) -> str:  # noqa: A002 - the name of the field
        """Cancels a command; see `Broker.cancel`."""
        self._open()
        answers = await together(branch.reach(lambda broker: broker.cancel(id)) for branch in self._submits.homes(id))
        return next((str(answer) for answer in answers if answer != _UNKNOWN), _UNKNOWN)

    async def find(self, id: str, /) -> Found | None:  # noqa: A002 - likewise
        """The live command of this id; see `Broker.find`."""
        self._open()
        answers = await together(branch.reach(lambda broker: broker.find(id)) for branch in self._submits.homes(id))
        return next((found for found in answers if found is not None), None)

    # --- the whole queue ----------------------------------------------------------------------------------------

    async def stats(self) -> BrokerStats:
        """How the queue is: all partitions together; see `Broker.stats`."""
        return merge_stats(await self._ask_all(lambda broker: broker.stats()))

    async def letters(self, *, lane: str | None = None, limit: int = 100, after: str | None = None) -> list[Letter]:
        """Dead letters of all partitions, oldest first; see `Broker.letters`."""
        page = min(limit, _PAGE) if after is None else _PAGE
        return await LetterMerge(self._open(), lane, page).take(limit, after)

    async def requeue(self, ids: Sequence[str]) -> list[str]:
        """Makes dead letters commands again; see `Broker.requeue`."""
        answers = await self._ask_all(lambda broker: broker.requeue(ids))
        done = {key for answer in answers for key in answer}
        return [key for key in dict.fromkeys(ids) if key in done]

    async def remove_letters(self, ids: Sequence[str] | None = None) -> int:
        """Forgets dead letters; see `Broker.remove_letters`."""
        return sum(await self._ask_all(lambda broker: broker.remove_letters(ids)))


def _differs(lane: LaneConfig, before: LaneConfig | None) -> bool:
    return lane is not before and lane != before  # most are the same: a look into each is slow for thousands
